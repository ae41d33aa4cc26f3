"""The process id that an application is told: it stands for its session wherever SQL speaks of processes."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import scalar_row

from pgamb.demo.cluster import Cluster
from pgamb.session.process_ids import FIRST_PID
from pgamb.wire.messages import bind, execute, parse, sync
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors, kinds

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def one(cluster: Cluster) -> Iterator[Connection]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture
def two(cluster: Cluster) -> Iterator[Connection]:
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        yield connection


def scalar(connection: Connection, sql: str, *arguments: object, **options: bool) -> object:
    with connection.cursor(row_factory=scalar_row) as cursor:
        return cursor.execute(sql, arguments or None, **options).fetchone()


def pins(cluster: Cluster, connection: Connection) -> str:
    return str(scalar(connection, "SHOW pgamb.status"))


@pytest.mark.parametrize("prepare", [False, True])
def test_a_session_is_told_one_number_and_asking_for_it_pins_nothing(
    cluster: Cluster, one: Connection, two: Connection, prepare: bool
) -> None:
    for connection in (one, two, one):
        cursor = connection.execute("SELECT pg_backend_pid(), current_user", prepare=prepare)
        assert cursor.description is not None
        assert next((column.name, column.type_code) for column in cursor.description) == ("pg_backend_pid", 23)
        assert cursor.fetchone() == (connection.info.backend_pid, "postgres")
        assert connection.info.backend_pid >= FIRST_PID
        assert "not pinned" in pins(cluster, connection)
    # Where it is used in PostgreSQL itself, it is that of the backend.
    assert scalar(one, "SELECT count(*) FROM pg_stat_activity WHERE pid = pg_backend_pid()") == 1
    assert "not pinned" in pins(cluster, one)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("idle", [True, False])
def test_it_names_the_session_to_pg_terminate_backend(
    one: Connection, two: Connection, binary: bool, idle: bool
) -> None:
    if not idle:
        two.execute("BEGIN")
        two.execute("CREATE TEMP TABLE mine ()")
    victim = two.info.backend_pid
    sql = f"SELECT pg_terminate_backend(%{'b' if binary else 't'})"
    assert one.execute(sql, (victim,)).fetchone() == (True,)
    with pytest.raises(psycopg.errors.AdminShutdown, match="terminating connection due to administrator command"):
        wait_for(lambda: two.execute("SELECT 1") and False, 10, "the session ends")
    assert two.closed
    # It is gone for others, too.
    assert scalar(one, f"SELECT count(*) FROM pg_stat_activity WHERE pid = {victim}") == 0
    assert scalar(one, "SELECT 'well'") == "well"


@pytest.mark.parametrize("sql", ["SELECT pg_terminate_backend(pg_backend_pid())", "SELECT pg_terminate_backend({})"])
def test_a_session_may_end_itself(one: Connection, sql: str) -> None:
    with pytest.raises(psycopg.errors.AdminShutdown, match="terminating connection due to administrator command"):
        one.execute(sql.format(one.info.backend_pid))
    assert one.closed


@pytest.mark.parametrize("whom", ["pg_backend_pid()", "$1"])
def test_a_session_may_end_itself_by_a_statement_of_an_earlier_batch(cluster: Cluster, whom: str) -> None:
    # Only the text in what was being sent was looked into: a Bind alone has none, and who ended itself with it heard of
    # a server that was lost. Now it is known of the statement.
    with Wire(cluster.client_port).log_in(cluster.credentials.superuser) as wire:
        wire.send(parse("end", f"SELECT pg_terminate_backend({whom})") + sync())
        assert kinds(wire.until_ready()) == "1Z"
        number = wire.value("SELECT pg_backend_pid()")
        assert number is not None
        wire.send(bind("", "end", [number.encode()] if whom == "$1" else []) + execute("") + sync())
        assert [error[:2] for error in errors(wire.until_closed())] == [("FATAL", "57P01")]


def test_a_named_session_keeps_its_backend(cluster: Cluster, one: Connection, two: Connection) -> None:
    query = "SELECT pid FROM pg_stat_activity WHERE pid = %s"
    real = scalar(one, query, two.info.backend_pid)
    assert isinstance(real, int)
    assert 0 < real < FIRST_PID
    assert "pinned by backend_pid" in pins(cluster, two)
    assert scalar(two, "SELECT pg_backend_pid() + 0") == real
    assert scalar(one, query, two.info.backend_pid) == real
    assert scalar(one, f"SELECT state FROM pg_stat_activity WHERE pid = {two.info.backend_pid}") == "idle"
    two.execute("DISCARD ALL")
    assert "not pinned" in pins(cluster, two)


def test_who_waits_for_whom_is_told_by_the_numbers(cluster: Cluster, one: Connection, two: Connection) -> None:
    one.execute("CREATE TABLE IF NOT EXISTS identity_lock ()")
    with psycopg.connect(cluster.dsn(), autocommit=True) as three:
        one.execute("BEGIN")
        one.execute("LOCK TABLE identity_lock")
        two.pgconn.send_query(b"BEGIN; LOCK TABLE identity_lock; COMMIT")
        pid, other = two.info.backend_pid, one.info.backend_pid
        asked = "SELECT pg_isolation_test_session_is_blocked(%s, %s)"
        wait_for(lambda: scalar(three, asked, pid, [other, pid]), 10, "the second waits for the first")
        blocking = f"SELECT pg_blocking_pids({pid}) = ARRAY[pid] FROM pg_stat_activity WHERE pid = {other}"
        assert scalar(three, blocking) is True
        one.execute("ROLLBACK")
        while two.pgconn.get_result():
            pass
    one.execute("DROP TABLE identity_lock")


def test_a_number_in_other_statements_is_a_number(one: Connection, two: Connection) -> None:
    pid = two.info.backend_pid
    assert scalar(one, f"SELECT {pid}") == pid
    with one.pipeline():
        number = one.execute("SELECT %s::int", (pid,))
        found = one.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,))
        assert number.fetchone() == (pid,)
        assert found.fetchone() == (1,)


def test_a_notification_tells_the_number_of_its_sender(one: Connection, two: Connection) -> None:
    one.execute("LISTEN identity")
    two.execute("NOTIFY identity, 'other'")
    one.execute("NOTIFY identity, 'own'")
    heard = {notify.payload: notify.pid for notify in one.notifies(timeout=5, stop_after=2)}
    assert heard == {"other": two.info.backend_pid, "own": one.info.backend_pid}


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT", "SAVEPOINT s"])
def test_who_is_terminated_hears_it_in_a_transaction_that_is_not_real(
    one: Connection, two: Connection, end: str
) -> None:
    # ROLLBACK was answered without PostgreSQL while its signal was on the way.
    for statement in ("BEGIN", "SELECT count(*) FROM pg_class", "SAVEPOINT before"):
        two.execute(statement)
    assert one.execute("SELECT pg_terminate_backend(%s)", (two.info.backend_pid,)).fetchone() == (True,)
    with pytest.raises(psycopg.errors.AdminShutdown):
        two.execute(end)
    assert two.closed


def state_of(asker: Connection, named: Connection) -> object:
    return scalar(asker, "SELECT state FROM pg_stat_activity WHERE pid = %s", named.info.backend_pid)


def test_a_named_sessions_transaction_becomes_real(one: Connection, two: Connection) -> None:
    # A Sync by itself was answered with the status of the backend, which knew of no transaction.
    for statement in ("BEGIN", "SELECT count(*) FROM pg_class", "SAVEPOINT s"):
        two.execute(statement)
    wait_for(lambda: state_of(one, two) == "idle in transaction", 10, "its BEGIN is sent")
    with two.pipeline() as pipeline:
        pipeline.sync()
    assert two.info.transaction_status == TransactionStatus.INTRANS
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        two.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
    two.execute("ROLLBACK TO s")
    two.execute("COMMIT")
    assert two.execute("SELECT 1").fetchone() == (1,)


def test_a_named_sessions_failed_transaction_stays_failed(one: Connection, two: Connection) -> None:
    two.execute("BEGIN")
    with pytest.raises(psycopg.errors.DivisionByZero):
        two.execute("SELECT 1 / 0")
    wait_for(lambda: state_of(one, two) == "idle in transaction (aborted)", 10, "it has failed in PostgreSQL, too")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        two.execute("SELECT 1")
    two.execute("ROLLBACK")
    assert two.execute("SELECT 1").fetchone() == (1,)
