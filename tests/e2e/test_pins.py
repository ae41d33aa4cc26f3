"""What pins a session, and what lets it go again: PostgreSQL is asked, so that both are exact.

Each story is told to PostgreSQL itself and through an ambassador, statement by statement; the answers must be the same.
Behind each statement stands what pins the session then: nothing of it may be lost while it is there, and none may stay
pinned without a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.waiting import wait_for

Session = psycopg.Connection[tuple[object, ...]]
FREE = "not pinned"

SCHEMA = """
CREATE SCHEMA pins;
CREATE FUNCTION pins.lock(k int) RETURNS void LANGUAGE sql AS 'SELECT pg_advisory_lock(k)';
CREATE FUNCTION pins.unlock(k int) RETURNS bool LANGUAGE sql AS 'SELECT pg_advisory_unlock(k)';
CREATE FUNCTION pins.scratch() RETURNS void LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE hidden (a int); END';
CREATE FUNCTION pins.tidy() RETURNS void LANGUAGE plpgsql AS 'BEGIN DROP TABLE hidden; END';
CREATE FUNCTION pins.passing() RETURNS void LANGUAGE plpgsql AS
    'BEGIN CREATE TEMP TABLE gone (a int) ON COMMIT DROP; END';
CREATE FUNCTION pins.listen() RETURNS void LANGUAGE plpgsql AS $$BEGIN EXECUTE 'LISTEN hidden'; END$$;
CREATE FUNCTION pins.hold() RETURNS void LANGUAGE plpgsql AS
    $$BEGIN EXECUTE 'DECLARE hidden CURSOR WITH HOLD FOR SELECT 1'; END$$;
CREATE FUNCTION pins.harmless() RETURNS int VOLATILE LANGUAGE sql AS 'SELECT 1';
"""


@dataclass(frozen=True)
class Said:
    """One statement, and what pins the session afterwards."""

    sql: str
    pinned_by: str = ""


def story(*steps: tuple[str, str] | str) -> list[Said]:
    return [Said(step) if isinstance(step, str) else Said(*step) for step in steps]


STORIES = {
    "temporary table": story(
        ("CREATE TEMP TABLE mine AS SELECT 7 AS a", "temporary"),
        ("SELECT a FROM mine", "temporary"),
        ("CREATE TEMP TABLE other (a int)", "temporary"),
        ("DROP TABLE mine", "temporary"),
        "DROP TABLE other",
        "SELECT to_regclass('mine')",
    ),
    "temporary table not made": story(
        "CREATE TEMP TABLE pg_temp.mine (a nonsense)",
        ("CREATE TEMP TABLE mine (a int)", "temporary"),
        ("CREATE TEMP TABLE mine (a int)", "temporary"),
        "DISCARD TEMP",
    ),
    "temporary table rolled back": story(
        "BEGIN",
        ("CREATE TEMP TABLE mine (a int)", "temporary"),
        "ROLLBACK",
        "BEGIN",
        ("CREATE TEMP TABLE mine (a int)", "temporary"),
        ("SAVEPOINT s", "temporary"),
        ("DROP TABLE mine", "temporary"),
        ("ROLLBACK TO s", "temporary"),
        ("COMMIT", "temporary"),
        "DROP TABLE mine",
    ),
    "select into": story(("SELECT 1 AS a INTO TEMP mine", "temporary"), ("TABLE mine", "temporary"), "DROP TABLE mine"),
    "dropped on commit": story(
        "BEGIN", "CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT 1 AS a", "TABLE mine", "COMMIT", "TABLE mine"
    ),
    "other temporary things": story(
        ("CREATE TEMP VIEW v AS SELECT 1", "temporary"),
        "DROP VIEW v",
        ("CREATE TEMP SEQUENCE s", "temporary"),
        "DROP SEQUENCE s",
        ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 3'", "temporary"),
        ("SELECT pg_temp.f()", "temporary"),
        "DROP FUNCTION pg_temp.f()",
        ("CREATE TYPE pg_temp.t AS (a int)", "temporary"),
        "DROP TYPE pg_temp.t",
    ),
    "search_path": story(
        "SET search_path = pg_temp, public",
        ("CREATE TABLE mine (a int)", "temporary"),
        ("SELECT count(*) FROM mine", "temporary"),
        ("RESET search_path", "temporary"),
        "DROP TABLE mine",
        "BEGIN",
        ("SET LOCAL search_path = pg_temp", "temporary"),
        ("CREATE TABLE mine (a int)", "temporary"),
        ("COMMIT", "temporary"),
        "DROP TABLE pg_temp.mine",
        "SET search_path = public, pg_temp",
        "CREATE TABLE pins_plain (a int)",
        "DROP TABLE pins_plain",
    ),
    "hidden temporary table": story(
        ("SELECT pins.scratch()", "temporary"),
        ("SELECT count(*) FROM hidden", "temporary"),
        "SELECT pins.tidy()",
        ("DO $$BEGIN CREATE TEMP TABLE hidden (a int); END$$", "temporary"),
        "DROP TABLE hidden",
        "SELECT pins.passing()",
        "SELECT pins.harmless()",
    ),
    "listen": story(
        ("LISTEN a", "listen"),
        ("LISTEN b", "listen"),
        ("UNLISTEN a", "listen"),
        ("SELECT pg_listening_channels()", "listen"),
        "UNLISTEN b",
        "BEGIN",
        ("LISTEN c", "listen"),
        "ROLLBACK",
        ("SELECT pins.listen()", "listen"),
        ("BEGIN", "listen"),
        ("UNLISTEN *", "listen"),
        ("ROLLBACK", "listen"),
        ("SELECT pg_listening_channels()", "listen"),
        "UNLISTEN *",
    ),
    "advisory locks": story(
        ("SELECT pg_advisory_lock(1)", "advisory_lock"),
        ("SELECT pg_advisory_lock(1)", "advisory_lock"),
        ("SELECT pg_try_advisory_lock_shared(2)", "advisory_lock"),
        ("SELECT pg_advisory_unlock(1)", "advisory_lock"),
        ("SELECT pg_advisory_unlock(1)", "advisory_lock"),
        "SELECT pg_advisory_unlock_shared(2)",
        "SELECT pg_advisory_unlock(1)",
        ("SELECT pg_advisory_lock(3), pg_advisory_lock(4)", "advisory_lock"),
        "SELECT pg_advisory_unlock_all()",
        "SELECT pg_advisory_lock(5), pg_advisory_unlock(5)",
        "SELECT pg_advisory_xact_lock(6)",
    ),
    "advisory locks outlast a rollback": story(
        "BEGIN",
        ("SELECT pg_advisory_lock(1)", "advisory_lock"),
        ("SELECT pg_advisory_xact_lock(2)", "advisory_lock"),
        ("ROLLBACK", "advisory_lock"),
        ("SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()", "advisory_lock"),
        "SELECT pg_advisory_unlock(1)",
    ),
    "hidden advisory locks": story(
        ("SELECT pins.lock(1)", "advisory_lock"),
        "SELECT pins.unlock(1)",
        ("DO $$BEGIN PERFORM pg_advisory_lock(2); END$$", "advisory_lock"),
        "SELECT pg_advisory_unlock(2)",
        ("INSERT INTO pins_written SELECT 1 FROM pins.lock(4)", "advisory_lock"),
        "SELECT pins.unlock(4)",
    ),
    "cursors with hold": story(
        ("DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 3)", "hold_cursor"),
        ("DECLARE d CURSOR WITH HOLD FOR SELECT 1", "hold_cursor"),
        ("FETCH 2 FROM c", "hold_cursor"),
        ("CLOSE d", "hold_cursor"),
        ("FETCH 2 FROM c", "hold_cursor"),
        "CLOSE c",
        "BEGIN",
        ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "hold_cursor"),
        "ROLLBACK",
        ("SELECT pins.hold()", "hold_cursor"),
        ("FETCH ALL FROM hidden", "hold_cursor"),
        "CLOSE ALL",
    ),
    "several": story(
        ("LISTEN a; CREATE TEMP TABLE mine (a int); SELECT pg_advisory_lock(1)", "temporary, listen, advisory_lock"),
        ("DROP TABLE mine", "listen, advisory_lock"),
        ("UNLISTEN *", "advisory_lock"),
        "SELECT pg_advisory_unlock(1); SELECT 1",
        ("LISTEN a; SELECT 1/0", ""),
        ("SELECT pg_advisory_lock(1); SELECT 1/0", "advisory_lock"),
        "DISCARD ALL",
    ),
    "discard all": story(
        ("LISTEN a; CREATE TEMP TABLE mine (a int); SELECT pg_advisory_lock(1)", "temporary, listen, advisory_lock"),
        "DISCARD ALL",
        "SELECT pg_listening_channels()",
        ("LOAD 'plpgsql'", "load"),
        "DISCARD ALL",
    ),
    "session authorization": story(
        ("SET SESSION AUTHORIZATION pins_other", "session_authorization"),
        ("SELECT session_user", "session_authorization"),
        "RESET SESSION AUTHORIZATION",
        "BEGIN",
        ("SET SESSION AUTHORIZATION pins_other", "session_authorization"),
        "ROLLBACK",
        "SELECT session_user",
        ("DO $$BEGIN SET SESSION AUTHORIZATION pins_other; END$$", "session_authorization"),
        ("SELECT session_user", "session_authorization"),
        "SET SESSION AUTHORIZATION DEFAULT",
    ),
    "two-phase commit": story(
        "TRUNCATE pins_written",
        "BEGIN",
        "INSERT INTO pins_written VALUES (1)",
        "PREPARE TRANSACTION 'pins'",
        "SELECT count(*) FROM pins_written WHERE a = 1",
        "COMMIT PREPARED 'pins'",
        "DELETE FROM pins_written WHERE a = 1",
        "BEGIN; DELETE FROM pins_written; PREPARE TRANSACTION 'pins'",
        "ROLLBACK PREPARED 'pins'",
        "ROLLBACK PREPARED 'pins'",
        "BEGIN",
        "PREPARE TRANSACTION 'pins'",
        "COMMIT PREPARED 'pins'",
    ),
}


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    for sql in (
        "DROP SCHEMA IF EXISTS pins CASCADE",
        "DROP TABLE IF EXISTS pins_written",
        "DROP ROLE IF EXISTS pins_other",
        "CREATE ROLE pins_other SUPERUSER",
        "CREATE TABLE pins_written (a int)",
        *filter(str.strip, SCHEMA.replace(";\n", ";\n\0").split("\0")),
    ):
        postgres.query(sql)
    yield postgres
    for sql in ("DROP SCHEMA pins CASCADE", "DROP TABLE pins_written", "DROP ROLE pins_other"):
        postgres.query(sql)


@pytest.fixture(scope="module")
def roomy(server: PostgresServer) -> Iterator[Ambassador]:
    with running_ambassador([server], "--pool-size", "3") as ambassador:
        yield ambassador


def connect(place: PostgresServer | Ambassador) -> Session:
    return psycopg.connect(place.dsn(), autocommit=True, prepare_threshold=None)


def say(session: Session, sql: str) -> object:
    """Return what is answered, as a simple Query: rows, a tag, or an error."""
    return answer_of(session.pgconn.exec_(sql.encode()))


def answer_of(result: psycopg.pq.abc.PGresult) -> object:
    error = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
    rows = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    return error or (result.command_status, rows)


def pinned_by(session: Session) -> str:
    """Ask pgamb what pins a session; in a transaction that has failed nobody answers."""
    result = session.pgconn.exec_(b"SHOW pgamb.status")
    value = result.get_value(0, 0)
    assert value is not None, result.error_message
    _, _, pins = value.decode().rpartition("pinned by ")
    return "" if value.endswith(FREE.encode()) else pins


def say_extended(session: Session, sql: str) -> object:
    """Return what is answered to the same as Parse, Bind, Describe, Execute and Sync."""
    return answer_of(session.pgconn.exec_params(sql.encode(), []))


def tell_one(session: Session, sql: str, tell: Callable[[Session, str], object]) -> object:
    """Say it, several statements at once always as a simple Query."""
    several = ";" in sql and not sql.startswith("DO ")
    return say(session, sql) if several else tell(session, sql)


@pytest.mark.parametrize("tell", [say, say_extended])
@pytest.mark.parametrize("name", STORIES)
def test_pins_come_and_go(
    server: PostgresServer, roomy: Ambassador, name: str, tell: Callable[[Session, str], object]
) -> None:
    with connect(server) as direct:
        expected = [tell_one(direct, step.sql, tell) for step in STORIES[name]]
    with connect(roomy) as through:
        for step, answer in zip(STORIES[name], expected, strict=True):
            assert tell_one(through, step.sql, tell) == answer, step.sql
            if through.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
                assert pinned_by(through) == step.pinned_by, step.sql


def test_a_session_that_is_let_go_leaves_its_backend_to_others(server: PostgresServer) -> None:
    with (
        running_ambassador([server], "--pool-size", "1", "--pool-timeout", "20") as narrow,
        connect(narrow) as one,
        connect(narrow) as two,
    ):
        for number in range(20):
            say(one, f"CREATE TEMP TABLE mine (a int); SELECT pg_advisory_lock({number}); LISTEN a")
            say(one, f"UNLISTEN a; DROP TABLE mine; SELECT pg_advisory_unlock({number})")
            # There is one backend for both.
            assert say(two, "SELECT to_regclass('mine')") == (b"SELECT 1", [[None]])


def test_a_lock_that_was_not_to_be_had_pins_nobody(server: PostgresServer, roomy: Ambassador) -> None:
    with connect(server) as direct, connect(roomy) as through:
        say(direct, "SELECT pg_advisory_lock(77)")
        assert say(through, "SELECT pg_try_advisory_lock(77)") == (b"SELECT 1", [[b"f"]])
        assert pinned_by(through) == ""
        say(direct, "SELECT pg_advisory_unlock_all()")
        assert say(through, "SELECT pg_try_advisory_lock(77)") == (b"SELECT 1", [[b"t"]])
        assert pinned_by(through) == "advisory_lock"
        # It is held for all the others as long as the session is there.
        assert say(direct, "SELECT pg_try_advisory_lock(77)") == (b"SELECT 1", [[b"f"]])
    with connect(server) as direct:
        wait_for(
            lambda: say(direct, "SELECT pg_try_advisory_lock(77)") == (b"SELECT 1", [[b"t"]]), 20, "the lock is free"
        )


def test_two_sessions_commit_what_one_has_prepared(server: PostgresServer, roomy: Ambassador) -> None:
    with connect(roomy) as one, connect(roomy) as two:
        say(one, "BEGIN; INSERT INTO pins_written VALUES (8); PREPARE TRANSACTION 'elsewhere'")
        one.close()
        assert say(two, "SELECT count(*) FROM pins_written WHERE a = 8") == (b"SELECT 1", [[b"0"]])
        assert say(two, "COMMIT PREPARED 'elsewhere'") == (b"COMMIT PREPARED", [])
        assert say(two, "DELETE FROM pins_written WHERE a = 8") == (b"DELETE 1", [])
