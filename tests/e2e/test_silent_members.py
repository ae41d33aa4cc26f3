"""A member that says nothing any more, and closes nothing either: what was under way ends with the truth, in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support import wait_for
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.silent import SilentRelay, running_silent

DEADLINE_S = 60.0
TIMEOUT_S = 2.0
# What a busy machine adds.
SLACK_S = 10.0

Session = psycopg.Connection[tuple[object, ...]]


@contextmanager
def behind_relay(postgres: PostgresServer) -> Iterator[tuple[SilentRelay, Ambassador]]:
    with running_silent(postgres.port) as relay:
        options = ["--registry", f"static://127.0.0.1:{relay.port}", "--silence-timeout", f"{TIMEOUT_S:g}"]
        # The members' addresses are given twice, and the last one counts.
        with running_ambassador([postgres], *options, "--connect-timeout", "1") as ambassador:
            yield relay, ambassador


class Running:
    """Something that a session does meanwhile."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.error: psycopg.Error | None = None
        self.took_s = 0.0
        self._work = work
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._work()
        except psycopg.Error as error:
            self.error = error
        self.took_s = time.monotonic() - began

    def sqlstate(self) -> str | None:
        """Wait for its end; the SQLSTATE it met, None if it went well."""
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "it is still waiting"
        return self.error.sqlstate if self.error is not None else None


@pytest.fixture
def table(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"silent_{abs(hash(request.node.name)) % 10**9}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as session:
        session.execute(f"CREATE TABLE {name} (n int)")
        yield name
        session.execute(f"DROP TABLE {name}")


def test_what_is_under_way_ends_with_the_truth(postgres: PostgresServer, table: str) -> None:
    # A member that vanished behind a connection that stayed kept whoever had asked it something waiting for ever.
    with behind_relay(postgres) as (relay, ambassador):
        dsn = ambassador.dsn()
        with (
            psycopg.connect(dsn, autocommit=True) as writer,
            psycopg.connect(dsn) as in_transaction,
            psycopg.connect(dsn) as committing,
            psycopg.connect(dsn, autocommit=True) as other,
        ):
            # The last one leaves an idle backend, which the next one that wants something is given.
            for session in (in_transaction, committing, writer):
                session.execute(f"INSERT INTO {table} VALUES (0)")
            relay.silence()
            began = time.monotonic()
            write = Running(lambda: writer.execute(f"INSERT INTO {table} VALUES (1)"))
            statement = Running(lambda: in_transaction.execute(f"INSERT INTO {table} VALUES (2)"))
            commit = Running(committing.commit)
            assert write.sqlstate() == "08007"
            assert statement.sqlstate() == "40001"
            assert commit.sqlstate() == "08007"
            # `--silence-timeout`, and at most one look more; never before it can be known.
            for running in (write, statement, commit):
                assert TIMEOUT_S / 2 < running.took_s < TIMEOUT_S + SLACK_S
            assert "has fallen silent" in str(write.error)
            assert time.monotonic() - began < TIMEOUT_S + SLACK_S
            # What was not sent is held, and carried out when the member is back: on the same connections.
            later = Running(lambda: other.execute(f"INSERT INTO {table} VALUES (3)"))
            relay.speak()
            assert later.sqlstate() is None
            in_transaction.rollback()
            in_transaction.execute("SELECT 1")
            row = writer.execute(f"SELECT count(*) FROM {table} WHERE n = 3").fetchone()
            assert row == (1,)


def test_nothing_is_given_to_a_backend_whose_member_is_suspect(postgres: PostgresServer, table: str) -> None:
    with behind_relay(postgres) as (relay, ambassador):
        dsn = ambassador.dsn()
        with psycopg.connect(dsn, autocommit=True) as first, psycopg.connect(dsn) as second:
            # Two backends, both idle afterwards.
            second.execute("SELECT 1 FROM pg_class")
            second.execute(f"INSERT INTO {table} VALUES (0)")
            first.execute(f"INSERT INTO {table} VALUES (0)")
            second.commit()
            relay.silence()
            write = Running(lambda: first.execute(f"INSERT INTO {table} VALUES (1)"))
            wait_for(lambda: "member.suspect" in ambassador.log, DEADLINE_S, "it is suspected")
            # Had it been sent, it would be lost with the other one.
            held = Running(lambda: second.execute(f"INSERT INTO {table} VALUES (2)"))
            assert write.sqlstate() == "08007"
            relay.speak()
            assert held.sqlstate() is None
            second.commit()
            assert second.execute(f"SELECT count(*) FROM {table} WHERE n = 2").fetchone() == (1,)


def test_a_long_query_is_no_silence(postgres: PostgresServer) -> None:
    with behind_relay(postgres) as (_, ambassador), psycopg.connect(ambassador.dsn(), autocommit=True) as session:
        session.execute(f"SELECT pg_sleep({3 * TIMEOUT_S})")
        assert "member.suspect" not in ambassador.log
        assert "member.silent" not in ambassador.log


def test_a_reset_in_the_middle_of_a_message_closes_its_session_only(postgres: PostgresServer, table: str) -> None:
    with behind_relay(postgres) as (relay, ambassador):
        dsn = ambassador.dsn()
        with (
            psycopg.connect(dsn, autocommit=True) as reader,
            psycopg.connect(dsn, autocommit=True) as writer,
            psycopg.connect(dsn, autocommit=True) as idle,
        ):
            for session in (reader, writer, idle):
                session.execute("SELECT 1")
            # Two backends at the same time, for the two that are to be cut off.
            with idle.transaction():
                idle.execute(f"INSERT INTO {table} VALUES (0)")
                writer.execute(f"INSERT INTO {table} VALUES (0)")
            relay.silence_within(b"x" * 100, 200_000)
            read = Running(lambda: reader.execute("SELECT repeat('x', 10000000)"))
            wait_for(lambda: relay.is_silent, DEADLINE_S, "a part of the row has passed")
            write = Running(lambda: writer.execute(f"INSERT INTO {table} VALUES (1)"))
            wait_for(lambda: table.encode() in b"".join(relay.kept), DEADLINE_S, "the write has been sent")
            relay.reset()
            relay.speak()
            # Half of a row cannot be taken back, and nothing can be said behind it.
            read.sqlstate()
            assert isinstance(read.error, psycopg.OperationalError)
            assert reader.closed
            assert write.sqlstate() == "08007"
            assert idle.execute("SELECT 1").fetchone() == (1,)
            assert writer.execute("SELECT 2").fetchone() == (2,)
