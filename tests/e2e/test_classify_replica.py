"""PostgreSQL is the oracle: what is called a read runs on a real replica, and writes nothing on the primary."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg import pq

from pgamb.demo.binaries import find_postgres
from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.routing.classify import classify
from pgamb.routing.intent import Need
from tests.support import wait_for
from tests.unit.routing import corpus
from tests.unit.routing.test_manual import COMMANDS

DATABASE = "classify"
READS = [sql for sql in corpus.EVERYTHING if classify(sql.encode()).need & Need.READ]
# Did it get a transaction id; has the sequence stayed; its locks beyond those of reading; what it listens to.
EFFECTS = """
    SELECT pg_current_xact_id_if_assigned() IS NOT NULL,
           (SELECT (last_value, is_called) = (1, false) FROM seq),
           (SELECT count(*) FROM pg_locks
            WHERE pid = pg_backend_pid()
              AND (locktype = 'advisory' OR mode NOT IN ('AccessShareLock', 'ExclusiveLock'))),
           (SELECT count(*) FROM pg_listening_channels())
"""
NO_EFFECT = [b"f", b"t", b"0", b"0"]


class Backend:
    """A connection that runs SQL as it stands, by the simple protocol."""

    def __init__(self, server: PostgresServer) -> None:
        self._connection = pq.PGconn.connect(server.dsn(database=DATABASE).encode())
        assert self._connection.status == pq.ConnStatus.OK, self._connection.error_message

    def run(self, sql: str) -> list[bytes | None]:
        """Run it, and give the first row. Raises psycopg.Error."""
        result = self._connection.exec_(sql.encode())
        if result.status == pq.ExecStatus.COPY_OUT:
            while self._connection.get_copy_data(0)[0] >= 0:
                pass
            closing_result = self._connection.get_result()
            assert closing_result is not None
            result = closing_result
            assert self._connection.get_result() is None
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.lookup((result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode())(
                result.error_message.decode()
            )
        return [result.get_value(0, column) for column in range(result.nfields)] if result.ntuples else []

    def close(self) -> None:
        self._connection.finish()


@pytest.fixture(scope="module")
def members(bare_cluster: Cluster) -> tuple[PostgresServer, PostgresServer]:
    """The primary and one replica, both with the corpus's schema."""
    primary, replica = bare_cluster.primary, bare_cluster.replicas[0]
    primary.query(f"CREATE DATABASE {DATABASE}")
    with closing(Backend(primary)) as backend:
        backend.run(corpus.SCHEMA)
    position = primary.query("SELECT pg_current_wal_insert_lsn()::text")[0][0]
    wait_for(
        lambda: replica.query("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position) == [(True,)],
        10,
        "the replica has the schema",
    )
    return primary, replica


@pytest.fixture
def on_primary(members: tuple[PostgresServer, PostgresServer]) -> Iterator[Backend]:
    with closing(Backend(members[0])) as backend:
        yield backend


@pytest.fixture
def on_replica(members: tuple[PostgresServer, PostgresServer]) -> Iterator[Backend]:
    with closing(Backend(members[1])) as backend:
        yield backend


def test_every_proven_read_runs_on_a_replica(on_replica: Backend) -> None:
    assert len(READS) >= 130
    refused: list[str] = []
    for sql in READS:
        try:
            on_replica.run(sql)
        except psycopg.Error as error:
            refused.append(f"{sql}: {error.sqlstate} {error}")
    assert not refused, "\n".join(refused)


def test_no_proven_read_has_an_effect_on_the_primary(on_primary: Backend) -> None:
    harmful: list[str] = []
    for sql in READS:
        on_primary.run("BEGIN")
        on_primary.run(sql)
        effects = on_primary.run(EFFECTS)
        # The planner takes the locks that the explained statement would take; it writes nothing.
        compared = 2 if sql.startswith("EXPLAIN") else len(NO_EFFECT)
        if effects[:compared] != NO_EFFECT[:compared]:
            harmful.append(f"{sql}: {effects}")
        on_primary.run("ROLLBACK")
    assert not harmful, "\n".join(harmful)


@pytest.mark.parametrize("sql", ["INSERT INTO t VALUES (99)", "SELECT nextval('seq')", "SELECT * FROM t FOR UPDATE"])
def test_the_oracle_can_say_no(on_primary: Backend, on_replica: Backend, sql: str) -> None:
    """Without this, the tests above could pass because nothing is ever refused or seen."""
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        on_replica.run(sql)
    on_primary.run("BEGIN")
    on_primary.run(sql)
    assert on_primary.run(EFFECTS) != NO_EFFECT
    on_primary.run("ROLLBACK")
    on_primary.run("ALTER SEQUENCE seq RESTART")


def test_the_list_of_commands_is_that_of_psql(bare_cluster: Cluster) -> None:
    psql = find_postgres().tool("psql")
    if not psql.exists():
        pytest.skip("these binaries come without psql")
    command = [str(psql), "-X", "-d", bare_cluster.primary.dsn(), "-c", r"\h"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    lines = listing.splitlines()[1:]
    # Two columns, with ABORT at the top of the first.
    middle = re.search(r"ABORT +", lines[0]).end()  # type: ignore[union-attr]
    listed = {name.strip() for line in lines for name in (line[:middle], line[middle:]) if name.strip()}
    assert len(listed) > 150
    assert listed - set(COMMANDS) == set()
