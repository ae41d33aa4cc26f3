"""Where a lazy transaction runs: on a replica and in no transaction while it only reads, then on the primary in one.

What a server knows of a transaction is asked of every server, after every statement.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.exchanges import Exchange, Heard, Transcript, query, run, sync
from tests.support.placement import NOWHERE, ON_PRIMARY, ON_REPLICA, OPENS, READS_ONLY, STAYS, Placement
from tests.support.twins import DATABASE, Twins
from tests.support.waiting import wait_for
from tests.support.wire import Wire

LONG = bool(os.environ.get("PGAMB_LONG"))
RANDOM = settings(
    # The same ones in every ordinary run: what the long run finds becomes a story.
    derandomize=not LONG,
    deadline=None,
    database=None,
    max_examples=2_000 if LONG else 60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
REPLICAS = {"pg2", "pg3"}
MEMBER = "SELECT current_setting('cluster_name')"
OPEN_SQL = (
    f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{DATABASE}' AND pid <> pg_backend_pid()"
    " AND state LIKE 'idle in transaction%'"
)


def open_transactions(twins: Twins) -> dict[str, int]:
    """Tell how many sessions of each member wait in a transaction, those that have none left out."""
    found = {name: int(wire.value(OPEN_SQL) or 0) for name, wire in twins.watching.items()}
    return {name: count for name, count in found.items() if count}


class Session:
    """A session through pgamb that asks where it is."""

    def __init__(self, twins: Twins, wire: Wire) -> None:
        self._twins = twins
        self._wire = wire

    def say(self, sql: str, way: str = "simple") -> list[Heard]:
        """Say one statement and return what is heard."""
        exchange: Exchange = query(sql) if way == "simple" else run(sql) + sync()
        return Transcript(self._wire).hold(0, exchange)

    def value(self, sql: str) -> str:
        return self._wire.value(sql) or ""

    @property
    def member(self) -> str:
        return self.value(MEMBER)

    @property
    def open(self) -> dict[str, int]:
        return open_transactions(self._twins)


@contextmanager
def session(twins: Twins) -> Iterator[Session]:
    """Give a session to whom replicas are open: no earlier write keeps its reads on the primary."""
    twins.restore()
    wait_for(lambda: not open_transactions(twins), 20, "nobody is in a transaction")

    found: list[Wire] = []

    def reads_from_a_replica() -> bool:
        wire = twins.through()
        if wire.value(MEMBER + " FROM seen WHERE n = 1") in REPLICAS:
            found.append(wire)
            return True
        wire.close()
        return False

    # Whether `seen` is a plain view is known when the catalogue has been read.
    wait_for(reads_from_a_replica, 20, "a session reads from a replica")
    try:
        yield Session(twins, found[0])
    finally:
        found[0].close()
        wait_for(lambda: not open_transactions(twins), 20, "who has left is in no transaction")
        twins.restore()


@pytest.mark.parametrize("way", ["simple", "extended"])
@pytest.mark.parametrize("begin", ["BEGIN", "START TRANSACTION ISOLATION LEVEL READ COMMITTED", "BEGIN READ ONLY"])
def test_reads_stay_on_one_replica_and_in_no_transaction(twins: Twins, begin: str, way: str) -> None:
    with session(twins) as app:
        for end in ("COMMIT", "ROLLBACK", "COMMIT AND CHAIN", "ROLLBACK"):
            app.say(begin, way)
            assert app.open == {}
            members = set()
            for sql in ("SAVEPOINT a", "SELECT n FROM lazy", "SAVEPOINT b", "ROLLBACK TO a", "RELEASE a", ""):
                app.say(sql, way)
                assert app.open == {}, sql
                members.add(app.member)
            assert len(members) == 1
            assert members <= REPLICAS
            app.say(end, way)
            assert app.open == {}


def test_both_replicas_serve_transactions(twins: Twins) -> None:
    members = set()
    with session(twins):
        for _ in range(30):
            with twins.through() as wire:
                wire.query("BEGIN")
                members.add(wire.value(MEMBER))
                wire.query("COMMIT")
    assert members == REPLICAS


def test_a_failed_transaction_holds_nothing(twins: Twins) -> None:
    with session(twins) as app:
        for statements in (("SELECT 1/0",), ("SAVEPOINT a", "SELECT * FROM nowhere"), ("SELECT broken()",)):
            for sql in (
                "BEGIN",
                *statements,
                "SELECT 1",
                "ROLLBACK TO nowhere",
                "INSERT INTO lazy VALUES (102)",
                "BEGIN",
            ):
                app.say(sql)
                # What PostgreSQL was asked in passing is rolled back behind its answer.
                wait_for(lambda: app.open == {}, 5, f"nothing is open behind {sql}")
            app.say("COMMIT")
        for sql in ("BEGIN", "SAVEPOINT a", "SELECT 1/0", "ROLLBACK TO a"):
            app.say(sql)
        assert app.open == {}
        assert app.member in REPLICAS


@pytest.mark.parametrize("way", ["simple", "extended"])
def test_a_write_opens_one_transaction_on_the_primary(twins: Twins, way: str) -> None:
    with session(twins) as app:
        app.say("BEGIN", way)
        assert app.member in REPLICAS
        app.say("SAVEPOINT a", way)
        for number in range(101, 104):
            app.say(f"INSERT INTO lazy VALUES ({number})", way)
            assert app.open == {"pg1": 1}
            assert app.member == "pg1"
        assert app.value("SELECT count(DISTINCT xmin::text) FROM lazy WHERE n > 100") == "1"
        app.say("RELEASE a", way)
        app.say("INSERT INTO lazy VALUES (104)", way)
        assert app.value("SELECT xmin = pg_current_xact_id()::xid FROM lazy WHERE n = 104") == "t"
        app.say("COMMIT", way)
        assert app.open == {}
    with session(twins) as app:
        app.say("BEGIN", way)
        assert app.member in REPLICAS
        for number in range(101, 105):
            app.say(f"INSERT INTO lazy VALUES ({number})", way)
        own = app.value("SELECT pg_current_xact_id()::xid")
        app.say("COMMIT", way)
        assert app.value("SELECT array_agg(DISTINCT xmin::text) FROM lazy WHERE n > 100") == f"{{{own}}}"


@pytest.mark.parametrize("sql", OPENS)
def test_what_needs_a_transaction_gets_it_on_the_primary(twins: Twins, sql: str) -> None:
    with session(twins) as app:
        app.say("BEGIN")
        assert app.member in REPLICAS
        heard = app.say(sql)
        assert app.open == {"pg1": 1}
        assert "nowhere" in sql or heard[-1].text == "Z b'T'"
        assert "nowhere" in sql or app.member == "pg1"
        app.say("ROLLBACK")
        assert app.open == {}


@pytest.mark.parametrize("sql", READS_ONLY)
def test_what_needs_no_transaction_gets_none(twins: Twins, sql: str) -> None:
    with session(twins) as app:
        app.say("BEGIN")
        first = app.member
        app.say(sql)
        assert app.open == {}
        assert app.member == first
        assert first in REPLICAS


def test_a_stable_function_is_read_from_a_replica(twins: Twins) -> None:
    def member() -> str | None:
        with twins.through() as wire:
            return wire.value(MEMBER + " FROM seen WHERE n = loud(1)")

    wait_for(lambda: member() in REPLICAS, 20, "the catalogue has told that it is stable")
    with session(twins) as app:
        app.say("BEGIN")
        app.say("SELECT loud(3)")
        assert app.open == {}
        assert app.member in REPLICAS


@pytest.mark.parametrize(
    ("begin", "where"),
    [
        ("BEGIN ISOLATION LEVEL REPEATABLE READ", ON_PRIMARY),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE", ON_PRIMARY),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", ON_PRIMARY),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ON_REPLICA),
    ],
)
def test_a_snapshot_needs_a_transaction(twins: Twins, begin: str, where: str) -> None:
    with session(twins) as app:
        app.say(begin)
        member = app.member
        assert member == "pg1" if where == ON_PRIMARY else member in REPLICAS
        assert app.open == {member: 1}
        app.say("COMMIT")
        assert app.open == {}


@settings(RANDOM)
@given(
    statements=st.lists(st.sampled_from([*STAYS, *STAYS, *OPENS]), max_size=10),
    way=st.sampled_from(["simple", "extended"]),
)
def test_the_model_says_where_it_is(twins: Twins, statements: Sequence[str], way: str) -> None:
    with session(twins) as app:
        placement = Placement()
        for sql in ("BEGIN", *statements, "ROLLBACK"):
            heard = app.say(sql, way)
            placement.hear(sql, heard[-1].text)
            expected = {"pg1"} if placement.where == ON_PRIMARY else set()
            # What PostgreSQL was asked in passing is rolled back behind its answer.
            wait_for(lambda e=expected: set(app.open) == e, 5, f"{expected} behind {sql}, {placement}")  # type: ignore[misc]
            if placement.where != NOWHERE and not placement.failed:
                member = app.member
                assert member in placement.members(), (sql, member, placement)
                placement.read_from(member)
