"""A backend keeps its temporary schema for life, and nobody can tell that an earlier session has had one there."""

from __future__ import annotations

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import running_ambassador


@pytest.mark.parametrize("before", ["leave", "DISCARD ALL"])
def test_a_search_path_with_pg_temp_finds_no_temporary_schema(postgres: PostgresServer, before: str) -> None:
    # current_schema() makes the schema that is pending, and a transaction that has done so cannot be prepared. It could
    # be where an earlier session had made the schema: a prepared transaction was left behind.
    with (
        running_ambassador([postgres], "--pool-size", "2") as ambassador,
        psycopg.connect(ambassador.dsn(), autocommit=True) as earlier,
        psycopg.connect(ambassador.dsn(), autocommit=True) as session,
    ):
        session.execute("CREATE TEMP TABLE two ()")
        earlier.execute("CREATE TEMP TABLE one ()")
        for connection in (earlier, session):
            connection.execute("DISCARD ALL")
        if before == "leave":
            earlier.close()
        session.execute("SET search_path TO pg_temp")
        with pytest.raises(psycopg.errors.FeatureNotSupported, match="temporary objects"):
            session.execute("BEGIN; SELECT current_schema(); PREPARE TRANSACTION 'temporary_schema'")
