"""Databases come and go through the ambassador as they do with PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support import wait_for
from tests.support.ambassador import Ambassador, running_ambassador

Session = psycopg.Connection[tuple[object, ...]]


@pytest.fixture(scope="module")
def ambassador(postgres: PostgresServer) -> Iterator[Ambassador]:
    with running_ambassador([postgres]) as started:
        yield started


@pytest.fixture
def session(ambassador: Ambassador) -> Iterator[Session]:
    with psycopg.connect(ambassador.dsn(), autocommit=True) as session:
        session.execute("DROP DATABASE IF EXISTS of_a_test")
        session.execute("DROP DATABASE IF EXISTS of_another_test")
        session.execute("CREATE DATABASE of_a_test")
        yield session


def sessions_of(server: PostgresServer, database: str) -> int:
    return int(str(server.query(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'")[0][0]))


def test_a_database_that_all_have_left_can_be_dropped(ambassador: Ambassador, session: Session) -> None:
    # An idle pooled backend kept DROP DATABASE from working for ten minutes after the last application had left: no
    # test suite could drop its database. The backends of a database without applications are closed after a second.
    with psycopg.connect(ambassador.dsn(database="of_a_test"), autocommit=True) as other:
        other.execute("CREATE TABLE t (n int)")
        other.execute("BEGIN")
        other.execute("INSERT INTO t VALUES (1)")
    session.execute("DROP DATABASE of_a_test")


def test_a_database_that_all_have_left_can_be_renamed_and_copied(ambassador: Ambassador, session: Session) -> None:
    with psycopg.connect(ambassador.dsn(database="of_a_test"), autocommit=True) as other:
        other.execute("CREATE TABLE t AS SELECT 7 AS n")
    session.execute("CREATE DATABASE of_another_test TEMPLATE of_a_test")
    session.execute("DROP DATABASE of_a_test")
    session.execute("ALTER DATABASE of_another_test RENAME TO of_a_test")
    with psycopg.connect(ambassador.dsn(database="of_a_test"), autocommit=True) as other:
        assert other.execute("SELECT n FROM t").fetchone() == (7,)


def test_a_database_in_use_cannot(ambassador: Ambassador, session: Session) -> None:
    with psycopg.connect(ambassador.dsn(database="of_a_test"), autocommit=True) as other:
        other.execute("CREATE TABLE t (n int)")
        with pytest.raises(psycopg.errors.ObjectInUse):
            session.execute("DROP DATABASE of_a_test")
        assert other.execute("SELECT count(*) FROM t").fetchone() == (0,)
    wait_for(lambda: sessions_of(ambassador.servers[0], "of_a_test") == 0, 20, "nobody is left in it")
