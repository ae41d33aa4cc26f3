"""currval() and lastval() tell a session of its own sequence values, never of another session's."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.waiting import wait_for


@pytest.fixture
def ambassador(postgres: PostgresServer) -> Iterator[Ambassador]:
    postgres.query("DROP TABLE IF EXISTS numbered")
    postgres.query("CREATE TABLE numbered (id serial, owner text)")
    with running_ambassador([postgres], "--pool-size", "1") as started:
        yield started
    postgres.query("DROP TABLE IF EXISTS numbered")


def connect(ambassador: Ambassador) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(ambassador.dsn(), autocommit=True)


def insert(connection: psycopg.Connection[tuple[object, ...]], owner: str) -> int:
    row = connection.execute("INSERT INTO numbered (owner) VALUES (%s) RETURNING id", (owner,)).fetchone()
    assert row is not None
    return int(str(row[0]))


def last(connection: psycopg.Connection[tuple[object, ...]], function: str = "lastval()") -> int:
    row = connection.execute(f"SELECT {function}").fetchone()
    assert row is not None
    return int(str(row[0]))


def test_lastval_after_an_insert_of_its_own(ambassador: Ambassador) -> None:
    with connect(ambassador) as first:
        assert last_after_insert(first, "first")
        # It keeps its backend from now on, and goes on to be right.
        assert last_after_insert(first, "first")


def last_after_insert(connection: psycopg.Connection[tuple[object, ...]], owner: str) -> bool:
    number = insert(connection, owner)
    return last(connection) == number == last(connection, "currval('numbered_id_seq')")


def test_lastval_never_tells_what_another_session_got(ambassador: Ambassador) -> None:
    # Two sessions share the one backend: the second one's insert came last, and was the answer to the first one.
    with connect(ambassador) as first, connect(ambassador) as second:
        insert(first, "first")
        insert(second, "second")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            last(first)
        assert first.execute("SELECT 1").fetchone() == (1,)


def test_a_session_that_has_used_no_sequence_is_told_so(ambassador: Ambassador) -> None:
    with connect(ambassador) as first, connect(ambassador) as second:
        insert(first, "first")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            last(second, "currval('numbered_id_seq')")


def test_once_asked_for_every_session_keeps_its_own(ambassador: Ambassador, postgres: PostgresServer) -> None:
    with running_ambassador([postgres], "--pool-size", "4") as roomy:
        with connect(roomy) as teacher, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            last(teacher)
        with connect(roomy) as first, connect(roomy) as second, connect(roomy) as third:
            numbers = {connection: insert(connection, "x") for connection in (first, second, third)}
            assert {connection: last(connection) for connection in numbers} == numbers
        # Their backends are nobody's any more, and remember nothing.
        with connect(roomy) as fourth, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            last(fourth)


def test_lastval_in_the_transaction_of_its_insert(ambassador: Ambassador) -> None:
    with connect(ambassador) as first, connect(ambassador) as second:
        insert(second, "second")
        with first.transaction():
            number = insert(first, "first")
            assert last(first) == number


@pytest.mark.parametrize("seen", [True, False])
def test_a_default_that_asks_has_the_sessions_own(postgres: PostgresServer, seen: bool) -> None:
    # The text of the INSERT does not say that it asks: another session's value went into the row.
    table = "CREATE TABLE numbered_twice (id serial, again int DEFAULT currval('numbered_twice_id_seq'))"
    postgres.query("DROP TABLE IF EXISTS numbered_twice")
    if not seen:
        postgres.query(table)
    with running_ambassador([postgres], "--pool-size", "4") as ambassador:
        if not seen:
            wait_for(lambda: "catalogue.read" in ambassador.log, 10, "the default is known")
        with connect(ambassador) as first, connect(ambassador) as second:
            if seen:
                second.execute(table)
            number = number_of(first, "INSERT INTO numbered_twice DEFAULT VALUES RETURNING id")
            assert number_of(second, "INSERT INTO numbered_twice DEFAULT VALUES RETURNING id") == number + 1
            assert number_of(first, "INSERT INTO numbered_twice (id) VALUES (0) RETURNING again") == number
    postgres.query("DROP TABLE numbered_twice")


def number_of(connection: psycopg.Connection[tuple[object, ...]], sql: str) -> int:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return int(str(row[0]))
