"""One round of every scenario; `make chaos` runs more of them, and makes the figures of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.chaos.history import History, Outcome
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.world import Kind, World, running_world

# What PostgreSQL says of a transaction that is gone, of what may have been committed, and what follows from the first.
TRUTHS = {"40001", "08007", "25P02"}


@pytest.fixture(scope="module")
def world_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Kind], World]]:
    """Give the world of a kind, one at a time; scenarios leave it whole."""
    running: dict[Kind, World] = {}
    with ExitStack() as stack:

        def give(kind: Kind) -> World:
            if kind not in running:
                running.clear()
                stack.close()
                running[kind] = stack.enter_context(running_world(tmp_path_factory.mktemp("agents"), kind))
            return running[kind]

        yield give


def _in_order() -> list[Scenario]:
    """Return those of one world beside each other."""
    return [scenario for kind in Kind for scenario in SCENARIOS.values() if scenario.kind is kind]


@pytest.mark.parametrize("scenario", _in_order(), ids=[scenario.name for scenario in _in_order()])
def test_every_application_survives_and_is_told_the_truth(
    scenario: Scenario, world_of: Callable[[Kind], World]
) -> None:
    done = scenario.run(world_of(scenario.kind))
    assert done.wrong == []
    assert (done.dropped, done.refused, done.failed_reads) == (0, 0, [])
    assert {failure.sqlstate for failure in done.failures} <= TRUTHS
    if scenario.silent:
        assert done.failures == []
    assert done.writes > 100
    assert done.reads > 100


def test_the_checker_sees_what_is_wrong() -> None:
    history = History()
    history.told(1, (1, 2), Outcome.ACKNOWLEDGED, 1.0)
    history.told(1, (3,), Outcome.FAILED, 2.0)
    history.told(1, (4,), Outcome.UNKNOWN, 3.0)
    history.told(2, (1,), Outcome.ACKNOWLEDGED, 4.0)
    assert history.contradictions([(1, 1), (1, 2), (2, 1)]) == []
    assert history.contradictions([(1, 1), (2, 1), (1, 2), (1, 4)]) == []
    assert history.contradictions([(1, 1), (1, 2)]) == ["(2, 1) was acknowledged, and is lost"]
    assert history.contradictions([(1, 1), (1, 2), (1, 2), (2, 1)]) == ["(1, 2) is there 2 times"]
    assert history.contradictions([(1, 1), (1, 2), (2, 1), (1, 3)]) == ["(1, 3) is there, and was said to have failed"]
    assert history.contradictions([(1, 2), (1, 1), (2, 1)]) == ["worker 1: 1 was written behind 2"]
    history.stale.append("an old read")
    assert history.contradictions([(1, 1), (1, 2), (2, 1)]) == ["an old read"]
