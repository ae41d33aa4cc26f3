"""psycopg 3 at its ordinary work: the same on PostgreSQL itself and through the ambassador."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg import errors
from psycopg.pq import TransactionStatus

from pgamb.demo.postgres import PostgresServer
from tests.e2e.drivers import Target, ambassador, target
from tests.support.ambassador import Ambassador

__all__ = ["ambassador", "target"]

Session = psycopg.Connection[Any]
LONG = bool(os.environ.get("PGAMB_LONG"))
LARGE_BYTES = 100 << 20 if LONG else 24 << 20
BIND_BYTES = LARGE_BYTES // 2


@pytest.fixture
def session(target: Target) -> Iterator[Session]:
    with psycopg.connect(target.dsn, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS ordinary")
        connection.execute("CREATE TABLE ordinary (id int PRIMARY KEY, name text)")
        yield connection


def value(session: Session, sql: str, *arguments: object) -> Any:
    row = session.execute(sql, arguments or None).fetchone()
    assert row is not None
    return row[0]


def test_transactions_and_savepoints(session: Session) -> None:
    session.autocommit = False
    session.execute("INSERT INTO ordinary VALUES (1, 'one')")
    assert session.info.transaction_status == TransactionStatus.INTRANS
    session.rollback()
    assert value(session, "SELECT count(*) FROM ordinary") == 0
    session.commit()
    with session.transaction():
        session.execute("INSERT INTO ordinary VALUES (1, 'one')")
        with pytest.raises(errors.UniqueViolation), session.transaction():
            session.execute("INSERT INTO ordinary VALUES (2, 'two'); INSERT INTO ordinary VALUES (1, 'again')")
        with session.transaction(force_rollback=True):
            session.execute("INSERT INTO ordinary VALUES (3, 'three')")
        with session.transaction():
            session.execute("INSERT INTO ordinary VALUES (4, 'four')")
    session.commit()
    assert session.execute("SELECT id FROM ordinary ORDER BY id").fetchall() == [(1,), (4,)]


def test_an_error_fails_the_transaction_until_it_is_rolled_back(session: Session) -> None:
    session.autocommit = False
    with pytest.raises(errors.DivisionByZero):
        session.execute("SELECT 1/0")
    assert session.info.transaction_status == TransactionStatus.INERROR
    with pytest.raises(errors.InFailedSqlTransaction):
        session.execute("SELECT 1")
    session.rollback()
    assert value(session, "SELECT 1") == 1
    with pytest.raises(errors.SyntaxError) as caught:
        session.execute("SELEKT 1")
    assert caught.value.diag.statement_position == "1"
    session.rollback()


def test_isolation_and_read_only(session: Session) -> None:
    session.autocommit = False
    session.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    assert value(session, "SHOW transaction_isolation") == "serializable"
    session.rollback()
    session.isolation_level = None
    session.read_only = True
    with pytest.raises(errors.ReadOnlySqlTransaction):
        session.execute("INSERT INTO ordinary VALUES (1, 'one')")
    session.rollback()
    session.read_only = None
    session.deferrable = True
    assert value(session, "SHOW transaction_deferrable") == "on"


def test_prepared_statements_are_evicted(target: Target) -> None:
    with psycopg.connect(target.dsn, autocommit=True, prepare_threshold=0) as one:
        one.prepared_max = 5
        with psycopg.connect(target.dsn, autocommit=True, prepare_threshold=0) as two:
            two.prepared_max = 3
            for turn in range(40):
                number = turn * 7 % 12
                assert value(one, f"SELECT %s::int + {number}", 1) == 1 + number
                assert value(two, f"SELECT %s::text || '{number}'", "x") == f"x{number}"
        one.execute("DEALLOCATE ALL")
        one.prepared_max = 100
        with one.transaction():
            for number in range(20):
                assert value(one, f"SELECT %s::int + {number}", 1) == 1 + number


def test_a_prepared_statement_survives_the_ddl_that_changes_it(session: Session, target: Target) -> None:
    session.prepare_threshold = 0
    session.execute("INSERT INTO ordinary VALUES (1, 'one')")
    assert session.execute("SELECT * FROM ordinary WHERE id = %s", (1,)).fetchall() == [(1, "one")]
    with psycopg.connect(target.dsn, autocommit=True) as other:
        other.execute("ALTER TABLE ordinary ADD COLUMN more int")
    # PostgreSQL says so, and so does whoever passes it on; a new statement sees the new table.
    with pytest.raises(errors.FeatureNotSupported, match="cached plan must not change result type"):
        session.execute("SELECT * FROM ordinary WHERE id = %s", (1,))
    session.execute("DEALLOCATE ALL")
    session._prepared.clear()
    assert session.execute("SELECT * FROM ordinary WHERE id = %s", (1,)).fetchall() == [(1, "one", None)]


def test_pipeline_mode(session: Session) -> None:
    with session.pipeline() as pipeline:
        cursors = [session.execute("SELECT %s::int", (number,)) for number in range(50)]
        session.execute("INSERT INTO ordinary VALUES (1, 'one')")
        pipeline.sync()
        late = session.execute("SELECT name FROM ordinary")
    assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(50)]
    assert late.fetchall() == [("one",)]
    texts = ["INSERT INTO ordinary VALUES (2, 'two')", "SELECT 1/0", "INSERT INTO ordinary VALUES (3, 'three')"]
    with pytest.raises(errors.DivisionByZero), session.pipeline():
        [session.execute(text) for text in texts]
    assert session.execute("SELECT id FROM ordinary").fetchall() == [(1,)]
    with session.pipeline(), session.transaction():
        session.cursor().executemany("INSERT INTO ordinary VALUES (%s, %s)", [(n, str(n)) for n in range(10, 200)])
    assert value(session, "SELECT count(*) FROM ordinary") == 191


def test_executemany_with_results(session: Session) -> None:
    cursor = session.cursor()
    cursor.executemany("INSERT INTO ordinary VALUES (%s, %s) RETURNING id", [(1, "a"), (2, "b")], returning=True)
    assert [result.fetchone() for result in cursor.results()] == [(1,), (2,)]


def test_copy_both_ways(session: Session) -> None:
    cursor = session.cursor()
    with cursor.copy("COPY ordinary FROM STDIN") as copy:
        for number in range(20000):
            copy.write_row((number, f"name {number}"))
    assert cursor.rowcount == 20000
    with cursor.copy("COPY (SELECT id, name FROM ordinary ORDER BY id) TO STDOUT") as copy:
        rows = list(copy.rows())
    assert rows[0] == ("0", "name 0")
    assert len(rows) == 20000
    with cursor.copy("COPY ordinary TO STDOUT (FORMAT binary)") as copy:
        data = b"".join(bytes(block) for block in copy)
    session.execute("TRUNCATE ordinary")
    with cursor.copy("COPY ordinary FROM STDIN (FORMAT binary)") as copy:
        copy.write(data)
    assert value(session, "SELECT count(*) FROM ordinary") == 20000


def test_copy_that_fails_in_the_middle(session: Session) -> None:
    cursor = session.cursor()
    lines = [f"{number}\tx\n" if number != 2000 else "not a number\tx\n" for number in range(5000)]
    with pytest.raises(errors.InvalidTextRepresentation), cursor.copy("COPY ordinary FROM STDIN") as copy:
        copy.write("".join(lines))
    assert value(session, "SELECT count(*) FROM ordinary") == 0
    with pytest.raises(TypeError), cursor.copy("COPY ordinary FROM STDIN") as copy:
        copy.write_row(None)  # type: ignore[arg-type]
    assert value(session, "SELECT count(*) FROM ordinary") == 0
    failing = "COPY (SELECT 1/(n-9) FROM generate_series(1,99) n) TO STDOUT"
    with pytest.raises(errors.DivisionByZero), cursor.copy(failing) as copy:
        list(copy)
    assert value(session, "SELECT 1") == 1


def test_server_side_cursors(session: Session) -> None:
    with session.transaction(), session.cursor("scrolled", scrollable=True) as cursor:
        cursor.execute("SELECT generate_series(1, 1000)")
        assert cursor.fetchmany(3) == [(1,), (2,), (3,)]
        cursor.scroll(500, mode="absolute")
        assert cursor.fetchone() == (501,)
        cursor.itersize = 100
        assert len(cursor.fetchall()) == 499
    with session.cursor("kept", withhold=True) as cursor:
        cursor.execute("SELECT generate_series(1, 10)")
        assert cursor.fetchmany(2) == [(1,), (2,)]
        assert value(session, "SELECT 1") == 1
        assert cursor.fetchone() == (3,)
    assert value(session, "SELECT count(*) FROM pg_cursors") == 0


def test_cancel(session: Session) -> None:
    timer = threading.Timer(0.3, session.cancel_safe)
    timer.start()
    began = time.monotonic()
    with pytest.raises(errors.QueryCanceled, match="due to user request"):
        session.execute("SELECT pg_sleep(60)")
    assert time.monotonic() - began < 50
    timer.join()
    assert value(session, "SELECT 1") == 1
    session.cancel()
    assert value(session, "SELECT 2") == 2


def test_large_results_and_parameters(session: Session) -> None:
    large = value(session, "SELECT repeat('x', %s)", LARGE_BYTES)
    assert len(large) == LARGE_BYTES
    rows = session.execute("SELECT repeat('y', 100000) FROM generate_series(1, 500)").fetchall()
    assert sum(len(row[0]) for row in rows) == 50_000_000
    bound = "z" * BIND_BYTES
    row = session.execute("SELECT length(%s::text), md5(%s::text) = md5(repeat('z', %s))", (bound, "z", 1)).fetchone()
    assert row == (BIND_BYTES, True)
    # In the text itself, as psycopg2 and ORMs without server-side binding do it.
    assert value(session, f"SELECT length('{bound}')") == BIND_BYTES
    assert value(session, "SELECT 1") == 1


def test_notices(session: Session) -> None:
    heard: list[str | None] = []
    session.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    session.execute("DO $$ BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END $$")
    session.execute("SET client_min_messages = error")
    session.execute("DO $$ BEGIN RAISE NOTICE 'three'; END $$")
    assert heard == ["one", "two"]


def test_listen_and_notify(session: Session, target: Target) -> None:
    session.execute("LISTEN channel")
    with psycopg.connect(target.dsn, autocommit=True) as other:
        other.execute("NOTIFY channel, 'while idle'")
        (heard,) = session.notifies(timeout=20, stop_after=1)
        assert heard.payload == "while idle"
        assert value(session, "SELECT 1") == 1
        session.execute("UNLISTEN *")
        other.execute("NOTIFY channel, 'unheard'")
        assert list(session.notifies(timeout=0.2, stop_after=1)) == []


def test_connection_parameters(target: Target) -> None:
    with psycopg.connect(
        target.dsn,
        autocommit=True,
        application_name="my app",
        client_encoding="LATIN1",
        options="-c TimeZone=Asia/Tokyo -c work_mem=9MB",
    ) as session:
        assert value(session, "SELECT current_setting('application_name')") == "my app"
        assert value(session, "SHOW work_mem") == "9MB"
        assert session.info.timezone.key == "Asia/Tokyo"  # type: ignore[attr-defined]
        assert session.info.encoding == "iso8859-1"
        assert value(session, "SELECT %s::text", "grün") == "grün"
        with pytest.raises(errors.UntranslatableCharacter):
            session.execute("SELECT chr(8364)")


def test_several_statements_and_the_empty_one(session: Session) -> None:
    cursor = session.execute("SELECT 1; INSERT INTO ordinary VALUES (1, 'one'); SELECT name FROM ordinary")
    assert cursor.fetchall() == [(1,)]
    assert cursor.nextset()
    assert cursor.nextset()
    assert cursor.fetchall() == [("one",)]
    assert session.execute("").statusmessage is None
    with pytest.raises(errors.DivisionByZero):
        session.execute("INSERT INTO ordinary VALUES (2, 'two'); SELECT 1/0")
    assert value(session, "SELECT count(*) FROM ordinary") == 1


def test_procedures_that_commit_and_two_phase_commit(session: Session) -> None:
    body = "BEGIN INSERT INTO ordinary VALUES (7, 'p'); COMMIT; END"
    session.execute(f"CREATE OR REPLACE PROCEDURE seven() LANGUAGE plpgsql AS $$ {body} $$")
    session.execute("CALL seven()")
    assert value(session, "SELECT name FROM ordinary WHERE id = 7") == "p"
    two_phases = value(session, "SHOW max_prepared_transactions") != "0"
    session.execute("BEGIN; INSERT INTO ordinary VALUES (8, 'q')")
    if not two_phases:
        with pytest.raises(errors.ObjectNotInPrerequisiteState):
            session.execute("PREPARE TRANSACTION 'ordinary'")
        session.execute("ROLLBACK")
        return
    session.execute("PREPARE TRANSACTION 'ordinary'")
    assert value(session, "SELECT count(*) FROM ordinary WHERE id = 8") == 0
    session.execute("COMMIT PREPARED 'ordinary'")
    assert value(session, "SELECT name FROM ordinary WHERE id = 8") == "q"


def test_many_reconnects(target: Target) -> None:
    for number in range(30):
        with psycopg.connect(target.dsn, autocommit=number % 2 == 0) as session:
            assert value(session, "SELECT %s::int", number) == number
    with ExitStack() as stack:
        sessions = [stack.enter_context(psycopg.connect(target.dsn, autocommit=True)) for _ in range(20)]
        assert [value(each, "SELECT %s::int", index) for index, each in enumerate(sessions)] == list(range(20))
    with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
        psycopg.connect(target.place.dsn(database="nowhere"))


def test_what_was_prepared_with_a_type_that_never_was(target: Target) -> None:
    # Statements of one text were one on a backend, also when the types of their parameters had been rolled back with
    # the transaction that prepared them: "cache lookup failed for type", or a column's type of another time.
    for kind, shown in (("int", 7), ("text", "7"), ("passing_mood", "7")):
        for ends in ("ROLLBACK", "SELECT 1 / 0", ""):
            with psycopg.connect(target.dsn, prepare_threshold=0) as session:
                session.execute("CREATE TYPE passing_mood AS ENUM ('6', '7')")
                session.execute(f"CREATE TABLE ordinary_mood (name {kind})")
                session.execute("INSERT INTO ordinary_mood VALUES (%s)", ["7"])
                assert session.execute("SELECT 1 WHERE %s::passing_mood = '6'", ["7"]).fetchone() is None
                assert session.execute("SELECT name FROM ordinary_mood").fetchall() == [(shown,)]
                if ends:
                    with contextlib.suppress(errors.DivisionByZero):
                        session.execute(ends)
                session.rollback()


def test_what_others_dropped_fails_one_session_at_most(postgres: PostgresServer, ambassador: Ambassador) -> None:
    # Nobody but PostgreSQL hears of what is dropped behind pgamb's back; from then on every session that prepared the
    # same text got a statement with a type that was no more.
    def prepared() -> str | None:
        with psycopg.connect(ambassador.dsn(), prepare_threshold=0, autocommit=True) as session:
            return str(value(session, "/* pgamb: primary */ SELECT %s::passing", "a"))

    with psycopg.connect(postgres.dsn(), autocommit=True) as direct:
        for _ in range(2):
            direct.execute("DROP TYPE IF EXISTS passing")
            direct.execute("CREATE TYPE passing AS ENUM ('a')")
            with contextlib.suppress(errors.InternalError):
                prepared()
            assert [prepared() for _ in range(3)] == ["a", "a", "a"]
