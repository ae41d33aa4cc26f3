"""Time limits act as PostgreSQL's would, whoever has set them, also while no PostgreSQL sees the session."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.wire import Wire, errors

IDLE = ("FATAL", "57P05", "terminating connection due to idle-session timeout")
IDLE_IN_TRANSACTION = ("FATAL", "25P03", "terminating connection due to idle-in-transaction timeout")
CANCELED = ("ERROR", "57014", "canceling statement due to statement timeout")
PASSWORD = "limits"


@pytest.fixture(scope="module")
def limited(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server with users and databases whose time is limited."""
    for sql in (
        f"CREATE ROLE limits_none LOGIN PASSWORD '{PASSWORD}'",
        f"CREATE ROLE limits_idle LOGIN PASSWORD '{PASSWORD}'",
        "ALTER ROLE limits_idle SET idle_session_timeout = '400ms'",
        f"CREATE ROLE limits_block LOGIN PASSWORD '{PASSWORD}'",
        "ALTER ROLE limits_block SET idle_in_transaction_session_timeout = '400ms'",
        "CREATE DATABASE limits_idle",
        "ALTER DATABASE limits_idle SET idle_session_timeout = '400ms'",
    ):
        postgres.query(sql)
    yield postgres
    postgres.query("DROP DATABASE limits_idle WITH (FORCE)")
    postgres.query("DROP TABLE IF EXISTS limits_kept")
    for name in ("none", "idle", "block"):
        postgres.query(f"DROP ROLE limits_{name}")


@pytest.fixture(scope="module")
def through(limited: PostgresServer) -> Iterator[Ambassador]:
    with running_ambassador([limited], "--pool-size", "3") as ambassador:
        yield ambassador


@pytest.fixture(params=["direct", "through"])
def port(request: pytest.FixtureRequest, limited: PostgresServer, through: Ambassador) -> int:
    return limited.port if request.param == "direct" else through.port


@contextmanager
def session(port: int, user: str = "limits_none", database: str = "postgres", **parameters: str) -> Iterator[Wire]:
    with Wire(port) as wire:
        yield wire.log_in(PASSWORD, user=user, database=database, parameters=parameters)


def end_of(wire: Wire) -> tuple[list[tuple[str, str, str]], float]:
    """Wait for the end; return the errors told before it, and how long it took."""
    began = time.monotonic()
    return errors(wire.until_closed()), time.monotonic() - began


def test_idle_sessions_end(port: int) -> None:
    options = {"options": "-c idle_session_timeout=400"}
    with ExitStack() as stack:
        by_role = stack.enter_context(session(port, "limits_idle"))
        by_database = stack.enter_context(session(port, database="limits_idle"))
        by_option = stack.enter_context(session(port, **options))
        by_set = stack.enter_context(session(port))
        by_set.query("SET idle_session_timeout = '400ms'")
        by_function = stack.enter_context(session(port))
        by_function.query("SELECT set_config('idle_session_timeout', '0.4s', false)")
        for wire in (by_role, by_database, by_option, by_set, by_function):
            told, took_s = end_of(wire)
            assert told == [IDLE]
            assert took_s < 5


def test_who_is_busy_or_without_a_limit_stays(port: int) -> None:
    with session(port, "limits_idle") as busy, session(port, "limits_idle") as lifted, session(port) as free:
        lifted.query("SET idle_session_timeout = 0")
        for _ in range(6):
            assert busy.value("SELECT 1 FROM pg_sleep(0.1)") == "1"
            time.sleep(0.1)
        assert busy.value("SELECT 2 FROM pg_sleep(0.6)") == "2"
        # A transaction has a limit of its own.
        busy.query("BEGIN")
        time.sleep(0.6)
        assert busy.value("SELECT 3") == "3"
        busy.query("COMMIT")
        assert lifted.value("SELECT 4") == free.value("SELECT 4") == "4"
        lifted.query("RESET idle_session_timeout")
        assert end_of(lifted)[0] == [IDLE]
        assert end_of(busy)[0] == [IDLE]


@pytest.mark.parametrize("begun", ["BEGIN", "BEGIN; SELECT 1", "BEGIN; CREATE TABLE limits_never ()"])
@pytest.mark.parametrize("last", ["SELECT 1", "SELECT no_such_column", "SELECT 1/0", "SAVEPOINT s", ""])
def test_idle_transactions_end(port: int, begun: str, last: str) -> None:
    with session(port, "limits_block") as wire:
        for sql in begun.split("; "):
            wire.query(sql)
        wire.query(last)
        told, took_s = end_of(wire)
        assert told == [IDLE_IN_TRANSACTION]
        assert 0.3 < took_s < 5


def test_an_idle_transaction_ends_whoever_has_said_so(port: int) -> None:
    with session(port) as wire, session(port, options="-c idle_in_transaction_session_timeout=300ms") as second:
        wire.query("SET idle_in_transaction_session_timeout = 300")
        for each in (wire, second):
            each.query("BEGIN")
            each.query("COMMIT")
        time.sleep(0.5)
        for each in (wire, second):
            # Idle, but in no transaction.
            assert each.value("SELECT 1") == "1"
            each.query("BEGIN")
            assert end_of(each)[0] == [IDLE_IN_TRANSACTION]


def test_a_pinned_session_is_idle_too(port: int) -> None:
    with session(port, "limits_idle") as wire:
        wire.query("LISTEN limits")
        assert end_of(wire)[0] == [IDLE]


def test_statements_are_cancelled(port: int) -> None:
    with session(port, options="-c statement_timeout=200") as wire:
        assert errors(wire.query("SELECT pg_sleep(5)")) == [CANCELED]
        assert wire.value("SELECT 1") == "1"
        wire.query("BEGIN; SET LOCAL lock_timeout = 100")
        assert errors(wire.query("SELECT 1, pg_sleep(5)")) == [CANCELED]
        wire.query("ROLLBACK")
        assert wire.value("SHOW lock_timeout") == "0"


def test_the_wait_for_a_backend_counts_as_time_of_the_statement(limited: PostgresServer) -> None:
    with (
        running_ambassador([limited], "--pool-size", "1") as narrow,
        session(narrow.port) as holder,
        session(narrow.port, options="-c statement_timeout=300") as waiter,
    ):
        holder.query("BEGIN")
        holder.query("SELECT txid_current()")
        for request in (messages.query("SELECT 1"), messages.parse("", "SELECT 1") + messages.sync()):
            began = time.monotonic()
            waiter.send(request)
            assert errors(waiter.until_ready()) == [CANCELED]
            assert 0.25 < time.monotonic() - began < 5
        holder.query("COMMIT")
        assert waiter.value("SELECT 1") == "1"


def test_nobody_gets_a_backend_that_is_about_to_end(limited: PostgresServer) -> None:
    # Each backend is ended 400 ms after its last use: those who come just then must not notice.
    with (
        running_ambassador([limited], "--pool-size", "1") as narrow,
        session(narrow.port, "limits_idle", options="-c idle_session_timeout=0") as wire,
    ):
        with session(narrow.port, "limits_idle") as first:
            first.query("SELECT 1")
        for number in range(12):
            with session(narrow.port, "limits_idle") as other:
                assert other.value("SELECT 1") == "1"
            time.sleep(0.38 + number * 0.004)
            assert not errors(wire.query("NOTIFY limits; SELECT 1"))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [("SELECT count(*) FROM limits_kept", []), ("INSERT INTO limits_kept VALUES (1)", ["40001"]), ("BEGIN", ["40001"])],
)
def test_a_backend_that_ends_as_it_is_given_a_statement(limited: PostgresServer, sql: str, expected: list[str]) -> None:
    # PostgreSQL looks whether its time is over before it looks at a statement that has come meanwhile.
    limited.query("DROP TABLE IF EXISTS limits_kept")
    limited.query("CREATE TABLE limits_kept (a int)")
    limited.query("GRANT ALL ON limits_kept TO limits_none")
    with (
        running_ambassador([limited], "--pool-size", "1", "--replica-wait", "0") as narrow,
        session(narrow.port) as wire,
    ):
        # pgamb knows nothing of this limit: it was set by nobody whom it has let in since.
        limited.query("ALTER ROLE limits_none SET idle_session_timeout = '1s'")
        try:
            wire.query("SELECT txid_current()")
            ((pid,),) = limited.query("SELECT pid FROM pg_stat_activity WHERE usename = 'limits_none'")
            assert isinstance(pid, int)
        finally:
            limited.query("ALTER ROLE limits_none RESET idle_session_timeout")
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(1.3)
            if sql == "BEGIN":
                wire.query("BEGIN")
                wire.send(messages.query("INSERT INTO limits_kept VALUES (1)"))
            else:
                wire.send(messages.query(sql))
            time.sleep(0.2)
        finally:
            os.kill(pid, signal.SIGCONT)
        answer = wire.until_ready()
        assert [code for _, code, _ in errors(answer)] == expected
        status = answer[-1].payload
        assert status == (b"E" if sql == "BEGIN" else b"I")
        wire.query("ROLLBACK")
        assert wire.value("SELECT count(*) FROM limits_kept") == "0"
