"""One text, two tables: what a name means is the session's own affair, also for statements that sessions share."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador

Session = psycopg.Connection[tuple[object, ...]]
TEXT = "SELECT * FROM thing"


@pytest.fixture(scope="module")
def narrow(postgres: PostgresServer) -> Iterator[Ambassador]:
    """One backend for all, so that nobody is spared."""
    with running_ambassador([postgres], "--pool-size", "1") as ambassador:
        yield ambassador


def connect(ambassador: Ambassador, path: str) -> Session:
    session: Session = psycopg.connect(ambassador.dsn(), autocommit=True)
    session.execute(f"SET search_path = {path}")
    return session


HELD = f"SELECT DISTINCT name FROM pg_prepared_statements WHERE statement = $${TEXT}$$"


def test_tables_of_one_name_and_different_columns(narrow: Ambassador) -> None:
    # Sessions with another search_path shared the statement of the one that came first, and got "cached plan must not
    # change result type". Statements are shared by those to whom names mean the same.
    server = narrow.servers[0]
    for schema, columns in {"naming_one": "1 AS n", "naming_two": "'a' AS x, 'b' AS y"}.items():
        server.query(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        server.query(f"CREATE SCHEMA {schema}")
        server.query(f"CREATE TABLE {schema}.thing AS SELECT {columns}")
    with (
        connect(narrow, "naming_one") as one,
        connect(narrow, "naming_two") as two,
        connect(narrow, "naming_one") as three,
    ):
        for _ in range(2):
            assert one.execute(TEXT, prepare=True).fetchall() == [(1,)]
            assert two.execute(TEXT, prepare=True).fetchall() == [("a", "b")]
            assert three.execute(TEXT, prepare=True).fetchall() == [(1,)]
        # As before, those to whom they mean the same share one. (Who asks openly is shown its own statements only.)
        held = one.execute(f"SELECT query_to_xml({HELD!r}, false, true, '')::text").fetchone()
        assert str(held).count("<name>") == 2


def test_an_error_speaks_of_a_statement_by_the_session_s_own_name(narrow: Ambassador) -> None:
    # PostgreSQL knows it by a name that sessions share, and said that one to the application.
    with psycopg.connect(narrow.dsn(), autocommit=True) as session:
        session.pgconn.prepare(b"mine", b"SELECT $1::int")
        refused = session.pgconn.exec_prepared(b"mine", [])
        assert b'prepared statement "mine" requires 1' in refused.error_message
