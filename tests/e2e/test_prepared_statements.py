"""Prepared statements are PostgreSQL's: the same is said direct and through, and every message compared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgamb.demo.cluster import Cluster
from tests.support.cutting import AtRandom, Cut, CuttingRelay, byte_by_byte, whole
from tests.support.exchanges import NOTHING, Exchange, query
from tests.support.prepared_batches import BATCHES
from tests.support.prepared_cases import LOOK, PREPARED
from tests.support.twins import Twins, running_relays

CUTS: dict[str, Cut] = {"bytes": byte_by_byte, "random": AtRandom(11)}
SAID = {**PREPARED, **BATCHES}
AFTER = (query("ROLLBACK"), query("SELECT count(*) FROM lazy"), LOOK)


def said(name: str) -> list[Exchange]:
    return [*SAID[name], *AFTER]


def same(difference: str) -> None:
    if difference:
        pytest.fail(difference, pytrace=False)


@pytest.mark.parametrize("name", SAID)
def test_a_conversation(twins: Twins, name: str) -> None:
    same(twins.compare(said(name)))


@pytest.fixture(scope="module")
def relays(bare_cluster: Cluster) -> Iterator[list[CuttingRelay]]:
    with running_relays(bare_cluster) as relays:
        yield relays


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", SAID)
def test_cut_anywhere(twins: Twins, relays: list[CuttingRelay], name: str, cut: str) -> None:
    try:
        for relay in relays:
            relay.cut = CUTS[cut]
        same(twins.compare(said(name), port=relays[0].port))
    finally:
        for relay in relays:
            relay.cut = whole


@pytest.mark.parametrize("name", SAID)
def test_everything_in_one_packet(twins: Twins, name: str) -> None:
    whole_packet = NOTHING
    for exchange in said(name):
        whole_packet += exchange
    same(twins.compare([whole_packet]))
