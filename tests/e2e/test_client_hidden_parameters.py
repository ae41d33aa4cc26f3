"""What a session sets where no text shows it is never another session's: with row-level security, another tenant's."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.waiting import wait_for
from tests.support.wire import Wire

FUNCTION = """
CREATE OR REPLACE FUNCTION hidden_set(tenant text) RETURNS void LANGUAGE sql
AS $$ SELECT set_config('hidden.tenant', tenant, false), set_config('work_mem', '13MB', false) $$
"""
DYNAMIC = """
CREATE OR REPLACE FUNCTION hidden_dynamic(tenant text) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN EXECUTE format('SET hidden.tenant = %L', tenant); END $$
"""
CALLING = """
CREATE OR REPLACE FUNCTION hidden_calling(tenant text) RETURNS void LANGUAGE plpgsql
AS $$ BEGIN PERFORM hidden_set(tenant); END $$
"""


@pytest.fixture(scope="module")
def narrow(postgres: PostgresServer) -> Iterator[Ambassador]:
    """One backend for all, so that what is left on it is seen."""
    for sql in (FUNCTION, DYNAMIC, CALLING):
        postgres.query(sql)
    with running_ambassador([postgres], "--pool-size", "1") as ambassador:
        yield ambassador
    postgres.query("DROP FUNCTION hidden_set(text), hidden_dynamic(text), hidden_calling(text)")


def connect(ambassador: Ambassador) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(ambassador.dsn(), autocommit=True)


@pytest.mark.parametrize(
    ("statement", "parameter"),
    [
        ("SELECT hidden_set('secret')", "hidden.tenant"),
        ("DO $$ BEGIN PERFORM hidden_set('secret'); END $$", "hidden.tenant"),
        ("SELECT set_config/**/('hidden.comment', 'secret', false)", "hidden.comment"),
        ("SELECT 1; SET \"hidden.quoted\" = 'secret'", "hidden.quoted"),
        ("SELECT 1; SET/**/hidden.several = 'secret'", "hidden.several"),
        ("SELECT U&\"set\\005fconfig\"('hidden.unicode', 'secret', false)", "hidden.unicode"),
    ],
)
def test_a_hidden_custom_parameter_stays_with_its_session(narrow: Ambassador, statement: str, parameter: str) -> None:
    # It was found on the pooled backend by whoever came next.
    with connect(narrow) as first, connect(narrow) as second:
        first.execute(statement)
        row = second.execute("SELECT current_setting(%s, true), current_setting('work_mem')", (parameter,)).fetchone()
        assert row is not None
        assert row[0] in (None, "")
        assert row[1] != "13MB"


@pytest.mark.parametrize("setter", ["hidden_set", "hidden_dynamic", "hidden_calling"])
def test_a_function_that_sets_for_the_session_does(postgres: PostgresServer, narrow: Ambassador, setter: str) -> None:
    # It was gone with the transaction. Now the names that functions may set are read with the catalogue.
    def stays(session: psycopg.Connection[tuple[object, ...]], value: str) -> bool:
        session.execute(f"SELECT {setter}('{value}')")
        return session.execute("SELECT current_setting('hidden.tenant', true)").fetchone() == (value,)

    with connect(narrow) as first, connect(narrow) as second:
        wait_for(lambda: stays(first, "one"), 20, "the catalogue is read")
        assert second.execute("SELECT current_setting('hidden.tenant', true)").fetchone() in ((None,), ("",))
        assert stays(second, "two")
        for _ in range(2):
            for session, value in ((first, "one"), (second, "two")):
                assert session.execute("SELECT current_setting('hidden.tenant', true)").fetchone() == (value,)
        first.execute(f"BEGIN; SELECT {setter}('three'); ROLLBACK")
        assert first.execute("SELECT current_setting('hidden.tenant', true)").fetchone() == ("one",)
        first.execute("RESET ALL")
        assert first.execute("SELECT current_setting('hidden.tenant', true)").fetchone() in ((None,), ("",))


def test_a_name_that_is_bound_does_not_pin(narrow: Ambassador) -> None:
    sql = "SELECT set_config(%s, %s, false)"
    with connect(narrow) as first, connect(narrow) as second:
        for prepare in (False, True, True):
            first.execute(sql, ("hidden.bound", "mine"), prepare=prepare)
            second.execute(sql, ("hidden.other", "yours"), prepare=prepare)
            # There is one backend for both.
            query = "SELECT current_setting('hidden.bound', true), current_setting('hidden.other', true)"
            found = [
                [value or None for value in session.execute(query).fetchone() or ()] for session in (first, second)
            ]
            assert found == [["mine", None], [None, "yours"]]


def test_an_ordinary_parameter_set_by_a_function_stays_set_for_its_session(narrow: Ambassador) -> None:
    with connect(narrow) as first, connect(narrow) as second:
        first.execute("SELECT hidden_set('secret')")
        second.execute("SELECT 1")
        assert first.execute("SHOW work_mem").fetchone() == ("13MB",)


def test_a_function_call_keeps_its_backend(postgres: PostgresServer) -> None:
    # FunctionCall of set_config (oid 2078), as libpq's PQfn sends it.
    arguments = (b"hidden.fast", b"secret", b"f")
    body = struct.pack("!ihhh", 2078, 1, 0, len(arguments))
    body += b"".join(struct.pack("!i", len(argument)) + argument for argument in arguments) + struct.pack("!h", 0)
    with (
        running_ambassador([postgres], "--pool-size", "2") as roomy,
        Wire(roomy.port) as wire,
        connect(roomy) as second,
    ):
        wire.log_in(password=postgres.credentials.superuser)
        wire.send(b"F" + struct.pack("!i", len(body) + 4) + body)
        wire.until_ready()
        assert second.execute("SELECT current_setting('hidden.fast', true)").fetchone() in ((None,), ("",))
        assert wire.value("SELECT current_setting('hidden.fast', true)") == "secret"
