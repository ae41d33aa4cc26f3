"""A session whose role is gone poisons nothing, never runs as somebody else, and can leave it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.exchanges import run, sync
from tests.support.wire import Wire, errors

PASSWORD = "keys"
GONE = [("ERROR", "22023", 'role "dropped_tenant" does not exist')]
WHO = "SELECT current_user"


@pytest.fixture(scope="module")
def narrow(postgres: PostgresServer) -> Iterator[Ambassador]:
    """One backend for all."""
    for role in ("dropped_owner", "dropped_tenant", "dropped_other"):
        postgres.query(f"DROP ROLE IF EXISTS {role}")
    postgres.query("CREATE ROLE dropped_other")
    postgres.query(f"CREATE ROLE dropped_owner LOGIN PASSWORD '{PASSWORD}' IN ROLE dropped_other")
    with running_ambassador([postgres], "--pool-size", "1") as ambassador:
        yield ambassador


@pytest.fixture
def orphan(postgres: PostgresServer, narrow: Ambassador) -> Iterator[Wire]:
    """A session that has set its role to one that is no more."""
    postgres.query("CREATE ROLE dropped_tenant")
    postgres.query("GRANT dropped_tenant TO dropped_owner")
    with Wire(narrow.port).log_in(PASSWORD, user="dropped_owner") as wire:
        assert not errors(wire.query("SET ROLE dropped_tenant"))
        with Wire(narrow.port).log_in(PASSWORD, user="dropped_owner") as other:
            # The backend is somebody else's now.
            assert other.value(WHO) == "dropped_owner"
        postgres.query("DROP ROLE dropped_tenant")
        yield wire


def pids(postgres: PostgresServer) -> object:
    return postgres.query("SELECT pid FROM pg_stat_activity WHERE usename = 'dropped_owner' ORDER BY 1")


def test_it_is_refused_and_nobody_else_notices(postgres: PostgresServer, narrow: Ambassador, orphan: Wire) -> None:
    with Wire(narrow.port).log_in(PASSWORD, user="dropped_owner") as other:
        assert other.value(WHO) == "dropped_owner"
        before = pids(postgres)
        for _ in range(5):
            assert errors(orphan.query("SELECT 1")) == GONE
            exchange = run(WHO) + sync()
            orphan.send(exchange.data)
            assert errors(orphan.until_ready()) == GONE
            assert other.value(WHO) == "dropped_owner"
        # No backend was given up for it.
        assert pids(postgres) == before


@pytest.mark.parametrize(
    ("sql", "then"),
    [("RESET ROLE", "dropped_owner"), ("SET ROLE dropped_other", "dropped_other"), ("DISCARD ALL", "dropped_owner")],
)
@pytest.mark.parametrize("extended", [False, True])
def test_it_can_leave_the_role(orphan: Wire, sql: str, then: str, extended: bool) -> None:
    assert errors(orphan.query("SELECT 1")) == GONE
    orphan.send((run(sql) + sync()).data if extended else messages.query(sql))
    assert not errors(orphan.until_ready())
    assert orphan.value(WHO) == then


def test_it_never_runs_as_who_has_logged_in(orphan: Wire) -> None:
    # What stands before it in the same batch must not run without the role.
    for exchange in (run(WHO) + run("RESET ROLE") + sync(), run("RESET ROLE") + run(WHO) + sync()):
        orphan.send(exchange.data)
        assert errors(orphan.until_ready()) == GONE
    assert errors(orphan.query("SELECT current_user; RESET ROLE")) == GONE
    # An attempt that fails leaves it where it was.
    assert errors(orphan.query("SET ROLE postgres")) == [("ERROR", "42501", 'permission denied to set role "postgres"')]
    assert errors(orphan.query(WHO)) == GONE
    assert not errors(orphan.query("RESET ROLE"))
    assert orphan.value(WHO) == "dropped_owner"


def test_in_a_transaction(orphan: Wire) -> None:
    orphan.query("BEGIN")
    assert errors(orphan.query(WHO)) == GONE
    assert orphan.query("ROLLBACK")[-1].payload == b"I"
    orphan.query("BEGIN")
    assert not errors(orphan.query("RESET ROLE"))
    assert orphan.value(WHO) == "dropped_owner"
    orphan.query("ROLLBACK")
    assert errors(orphan.query(WHO)) == GONE


def test_a_timeout_of_another_session_is_not_this_one_s(postgres: PostgresServer) -> None:
    # Who had the backend before may have a limit that giving it other parameters exceeds.
    with (
        running_ambassador([postgres], "--pool-size", "1") as narrow,
        psycopg.connect(narrow.dsn(), autocommit=True) as hasty,
        psycopg.connect(narrow.dsn(), autocommit=True) as patient,
    ):
        patient.execute("SET work_mem = '7MB'")
        for _ in range(20):
            hasty.execute("SET statement_timeout = '10ms'")
            assert patient.execute("SHOW work_mem").fetchone() == ("7MB",)
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                assert hasty.execute("SHOW statement_timeout").fetchone() == ("10ms",)
            hasty.execute("SET statement_timeout = 0")
