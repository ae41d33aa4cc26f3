"""An application cannot tell a lazy transaction from PostgreSQL's: the same is said direct and through, and every
message compared, and what is in the database then.

`PGAMB_LONG=1` holds 20,000 random conversations.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pgamb.demo.cluster import Cluster
from tests.support.cutting import AtRandom, Cut, CuttingRelay, byte_by_byte, whole
from tests.support.exchanges import Exchange
from tests.support.renderings import AFTER, RENDERED, Case
from tests.support.transaction_cases import CELLS
from tests.support.transaction_messages import MESSAGES
from tests.support.transaction_stories import STORIES
from tests.support.transactions import CONVERSATIONS, Said, exchanges_of
from tests.support.twins import Twins, running_relays

LONG = bool(os.environ.get("PGAMB_LONG"))
EXAMPLES, CUT_EXAMPLES = (20_000, 1_000) if LONG else (300, 40)
RANDOM = settings(
    # The same ones in every ordinary run: what the long run finds becomes a story.
    derandomize=not LONG,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
CUTS: dict[str, Cut] = {"bytes": byte_by_byte, "random": AtRandom(7), "pieces": AtRandom(3, 60)}
SIMPLE = ("simple", "extended")
LEAVES_AFTER = (1, 2, 4)


@pytest.fixture(scope="module")
def relays(bare_cluster: Cluster) -> Iterator[list[CuttingRelay]]:
    with running_relays(bare_cluster) as relays:
        yield relays


def same(difference: str) -> None:
    if difference:
        pytest.fail(difference, pytrace=False)


def said(case: Case, way: str) -> list[Exchange]:
    return [*RENDERED[way](case), *AFTER]


@pytest.mark.parametrize("way", SIMPLE)
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_the_table(twins: Twins, name: str, way: str) -> None:
    same(twins.compare(said(CELLS[name], way)))


@pytest.mark.parametrize("way", RENDERED)
@pytest.mark.parametrize("name", STORIES)
def test_a_story(twins: Twins, name: str, way: str) -> None:
    same(twins.compare(said(STORIES[name], way)))


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_in_any_order(twins: Twins, name: str) -> None:
    same(twins.compare(said(MESSAGES[name], "simple")))


@pytest.mark.parametrize("name", [*STORIES, *MESSAGES])
def test_who_leaves_in_the_middle_leaves_nothing(twins: Twins, name: str) -> None:
    exchanges = said({**STORIES, **MESSAGES}[name], "simple")
    for count in LEAVES_AFTER:
        same(twins.compare(exchanges[:count], leaves=True))


@pytest.mark.parametrize(
    "parameters",
    [
        {"options": "-c default_transaction_isolation=serializable"},
        {"options": "-c default_transaction_isolation=repeatable\\ read -c default_transaction_read_only=on"},
        {"options": "-c default_transaction_read_only=on"},
        {"default_transaction_read_only": "on", "default_transaction_deferrable": "on"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["what was written is read", "read only and back after a read", "chains", "one now"])
def test_what_a_session_asks_for_when_it_starts(twins: Twins, parameters: dict[str, str], name: str) -> None:
    same(twins.compare(said(STORIES[name], "simple"), parameters=parameters))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", [*STORIES, *MESSAGES])
def test_cut_anywhere(twins: Twins, relays: list[CuttingRelay], name: str, cut: str) -> None:
    way = {"bytes": "extended", "random": "extended, one packet", "pieces": "simple"}[cut]
    same(cut_compare(twins, relays, CUTS[cut], said({**STORIES, **MESSAGES}[name], way)))


@settings(RANDOM, max_examples=EXAMPLES)
@given(conversation=CONVERSATIONS, leaves=st.sampled_from([False, False, False, True]))
def test_random_transactions(twins: Twins, conversation: list[Said], leaves: bool) -> None:
    exchanges = exchanges_of(conversation)
    difference = twins.compare(exchanges if leaves else [*exchanges, *AFTER], leaves=leaves)
    same(difference)


@settings(RANDOM, max_examples=CUT_EXAMPLES)
@given(conversation=CONVERSATIONS, cut=st.sampled_from(sorted(CUTS)))
def test_random_transactions_cut_anywhere(
    twins: Twins, relays: list[CuttingRelay], conversation: list[Said], cut: str
) -> None:
    difference = cut_compare(twins, relays, CUTS[cut], [*exchanges_of(conversation), *AFTER])
    same(difference)


def cut_compare(twins: Twins, relays: list[CuttingRelay], cut: Cut, exchanges: list[Exchange]) -> str:
    # The log-in is not what is cut here: the relays read this at every piece.
    try:
        for relay in relays:
            relay.cut = cut
        return twins.compare(exchanges, port=relays[0].port)
    finally:
        for relay in relays:
            relay.cut = whole
