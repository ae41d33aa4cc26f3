"""PostgreSQL judges statements from a grammar: what has an effect is no read, and a read is none for a replica alone.

2,000 of them; with `PGAMB_LONG=1`, 100,000.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.routing.classify import classify
from pgamb.routing.intent import Need
from tests.support import grammar
from tests.support.oracle import EFFECTS, NO_EFFECT, NO_REMAINS, REMAINS, Backend, create_database

DATABASE = "generated"
EXAMPLES = 100_000 if os.environ.get("PGAMB_LONG") else 2_000


@pytest.fixture(scope="module")
def members(bare_cluster: Cluster) -> tuple[PostgresServer, PostgresServer]:
    return create_database(bare_cluster, DATABASE, grammar.SCHEMA)


class Judge:
    """Runs statements on a primary, in a transaction that is rolled back, and the reads on a replica too."""

    def __init__(self, primary: Backend, replica: Backend) -> None:
        self._primary = primary
        self._replica = replica
        self.counts: Counter[str] = Counter()

    def judge(self, sql: str) -> None:
        read = bool(classify(sql.encode()).need & Need.READ)
        error, effects = self._run(sql)
        changed = bool(effects)
        if changed:
            self._clean()
        self.counts.update(
            {
                "statements": 1,
                "valid": error is None,
                "reads": read,
                "valid reads": read and error is None,
                "effects": changed,
            }
        )
        assert not read or not changed, f"called a read, but: {effects}: {sql}"
        if read and error is None:
            try:
                self._replica.run(sql)
            except psycopg.Error as refusal:
                raise AssertionError(f"called a read, and refused by a replica: {refusal}: {sql}") from refusal

    def _run(self, sql: str) -> tuple[psycopg.Error | None, list[str]]:
        self._primary.run("BEGIN")
        names = ("transaction id", "sequence", "locks", "prepared statements or cursors", "parameters")
        try:
            self._primary.run(sql)
            found = self._primary.run(EFFECTS)
            error = None
            effects = [name for name, value, none in zip(names, found, NO_EFFECT, strict=True) if value != none]
        except psycopg.Error as raised:
            error, effects = raised, []
        self._primary.run("ROLLBACK")
        if error is not None and self._primary.run(REMAINS) != NO_REMAINS:
            effects = ["what outlives a transaction"]
        return error, effects

    def _clean(self) -> None:
        self._primary.run("ALTER SEQUENCE seq RESTART")
        self._primary.run("DISCARD ALL")


@pytest.fixture
def judge(members: tuple[PostgresServer, PostgresServer]) -> Iterator[Judge]:
    with ExitStack() as stack:
        primary, replica = (stack.enter_context(closing(Backend(member, DATABASE))) for member in members)
        yield Judge(primary, replica)


def test_nothing_with_an_effect_is_called_a_read(judge: Judge) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(st.integers(0, 2**64))
    def run(seed: int) -> None:
        judge.judge(grammar.Writer(seed).statements())

    run()
    counts = judge.counts
    print(f"\n{dict(counts)}")  # noqa: T201
    # Else this test would prove nothing.
    assert counts["statements"] >= EXAMPLES
    assert counts["valid"] > 0.6 * counts["statements"]
    assert counts["valid reads"] > 0.3 * counts["statements"]
    assert counts["effects"] > 0.1 * counts["statements"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT nextval('seq')",
        "SELECT 1 FROM t FOR SHARE",
        "PREPARE q AS SELECT 1",
        "SELECT set_config('my.x', '1', false)",
    ],
)
def test_the_judge_sees_effects(judge: Judge, sql: str) -> None:
    judge.judge(sql)
    assert judge.counts["effects"] == 1
