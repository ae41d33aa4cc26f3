"""What went wrong once in unusual turns of a conversation, and cannot now."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors

from pgamb.demo.cluster import Cluster
from pgamb.wire import constants as c
from pgamb.wire import messages
from tests.e2e.conftest import MakeCluster
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.waiting import wait_for
from tests.support.wire import Wire, kinds

REPLICAS = ("pg2", "pg3")
MEMBER = "SELECT current_setting('cluster_name')"


@pytest.fixture(scope="module")
def ambassador(bare_cluster: Cluster) -> Iterator[Ambassador]:
    bare_cluster.primary.query("CREATE TABLE IF NOT EXISTS turns (id int)")
    with running_ambassador(bare_cluster.servers, "--pool-size", "3", "--replica-wait", "5") as running:
        wait_for(lambda: member_of(running) in REPLICAS, 30, "reads are answered by a replica")
        yield running


def connect(ambassador: Ambassador, **options: object) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(ambassador.dsn(), autocommit=True, **options)  # type: ignore[arg-type]


def ask(session: psycopg.Connection[tuple[object, ...]], sql: str) -> object:
    row = session.execute(sql).fetchone()
    assert row is not None
    return row[0]


def member_of(ambassador: Ambassador) -> object:
    with connect(ambassador) as session:
        return ask(session, MEMBER)


@pytest.fixture
def wire(ambassador: Ambassador) -> Iterator[Wire]:
    with Wire(ambassador.port).log_in(ambassador.servers[0].credentials.superuser) as wire:
        yield wire


def status(wire: Wire, sql: str) -> str:
    return wire.query(sql)[-1].payload.decode()


def test_show_in_a_transaction_never_waits(ambassador: Ambassador) -> None:
    # SHOW pgamb.lsn waited for a floor with the transaction's backend attached; a cancel then took the pool away from
    # under it, and the process died. Now nothing waits inside a transaction.
    with connect(ambassador) as session:
        for _ in range(20):
            session.execute("BEGIN")
            session.execute("INSERT INTO turns VALUES (1)")
            canceller = threading.Thread(target=session.cancel_safe)
            canceller.start()
            with contextlib.suppress(errors.QueryCanceled):
                assert session.execute("SHOW pgamb.lsn").fetchone() is not None
            canceller.join()
            session.execute("ROLLBACK")
    with connect(ambassador) as session:
        assert ask(session, "SELECT count(*) FROM turns WHERE id = 1") == 0


def test_a_hint_makes_no_write_a_read(ambassador: Ambassador, bare_cluster: Cluster) -> None:
    # A hinted INSERT counted as a read wherever it ran: it ran outside of its transaction, and was repeated.
    with connect(ambassador) as session:
        session.execute("BEGIN")
        session.execute("/* pgamb: replica */ INSERT INTO turns VALUES (2)")
        session.execute("ROLLBACK")
        assert ask(session, "SELECT count(*) FROM turns WHERE id = 2") == 0
        # A replica refuses it, and the primary does it once.
        session.execute("/* pgamb: replica */ INSERT INTO turns VALUES (3)")
        assert ask(session, "SELECT count(*) FROM turns WHERE id = 3") == 1
        session.execute("/* pgamb: replica */ SELECT set_config('work_mem', '7MB', false)")
        assert ask(session, "SHOW work_mem") == "7MB"
    for _ in range(6):
        with connect(ambassador) as other:
            assert ask(other, f"/* pgamb: primary */ {MEMBER.replace('cluster_name', 'work_mem')}") != "7MB"
    bare_cluster.primary.query("DELETE FROM turns")


CLOSE_FIRST = messages.close(c.STATEMENT, "x")


@pytest.mark.parametrize(
    ("before", "sql", "portal", "after"),
    [(CLOSE_FIRST, "ROLLBACK", "", "I"), (b"", "ROLLBACK", "p", "I"), (CLOSE_FIRST, "ROLLBACK TO a", "", "T")],
    ids=["close_first", "named_portal", "rollback_to"],
)
def test_a_failed_transaction_is_ended_in_any_form(
    wire: Wire, before: bytes, sql: str, portal: str, after: str
) -> None:
    # What was not answered here was asked of PostgreSQL in passing: the transaction stayed failed, a backend was lost.
    for _ in range(5):
        wire.query("BEGIN")
        wire.query("SAVEPOINT a")
        assert status(wire, "SELECT 1/0") == "E"
        batch = messages.parse("", sql) + messages.bind(portal, "") + messages.execute(portal) + messages.sync()
        wire.send(before + batch)
        assert wire.until_ready()[-1].payload.decode() == after
        assert kinds(wire.query("SELECT 7")) == "TDCZ"
        if after == "T":
            assert status(wire, "ROLLBACK") == "I"


def test_a_failed_transaction_refuses_what_its_backend_has_prepared(wire: Wire) -> None:
    # Where a backend had the statement already, its Parse was answered here, though the transaction had failed.
    for _ in range(6):
        wire.send(messages.parse("kept", "SELECT 1, txid_current()") + messages.bind("", "kept") + messages.sync())
        wire.until_ready()
        wire.send(messages.close(c.STATEMENT, "kept") + messages.sync())
        wire.until_ready()
        wire.query("BEGIN")
        assert status(wire, "SELECT 1/0") == "E"
        wire.send(messages.parse("kept", "SELECT 1, txid_current()") + messages.sync())
        assert kinds(wire.until_ready()) == "EZ"
        assert status(wire, "ROLLBACK") == "I"


def test_a_failed_transaction_refuses_what_is_prepared_with_a_flush(wire: Wire) -> None:
    # It was prepared like any other, and the backend went back to its pool in a failed transaction.
    for _ in range(4):
        wire.query("BEGIN")
        assert status(wire, "SELECT 1/0") == "E"
        wire.send(messages.parse("", "SELECT 1") + messages.flush())
        while (message := wire.receive()) is not None and message.type != c.ERROR_RESPONSE:
            pass
        wire.send(messages.query("COMMIT") + messages.sync())
        assert wire.until_ready()[-1].payload == b"E"
        assert status(wire, "ROLLBACK") == "I"


def test_set_transaction_comes_in_time_behind_what_takes_no_snapshot(wire: Wire) -> None:
    # SHOW, Parse of a SET and Close counted as queries: SET TRANSACTION was refused (25001), as psycopg found out.
    wire.query("BEGIN")
    wire.query("SHOW work_mem")
    for prepared in ("SET LOCAL work_mem = '3MB'", "COMMIT"):
        wire.send(messages.parse("", prepared) + messages.sync())
        wire.until_ready()
    wire.send(messages.close(c.STATEMENT, "x") + messages.sync())
    wire.until_ready()
    assert kinds(wire.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")) == "CZ"
    assert wire.value("SHOW transaction_isolation") == "serializable"
    wire.query("ROLLBACK")
    wire.query("BEGIN")
    wire.query("SELECT 1")
    assert kinds(wire.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")) == "EZ"
    wire.query("ROLLBACK")


def test_another_sessions_unnamed_statement_is_not_ours(ambassador: Ambassador) -> None:
    # A Bind of the unnamed statement found the one that another session had left on the backend.
    password = ambassador.servers[0].credentials.superuser
    with Wire(ambassador.port).log_in(password) as one, Wire(ambassador.port).log_in(password) as two:
        for _ in range(8):
            one.send(messages.parse("", "SELECT 'theirs', txid_current()") + messages.sync())
            one.until_ready()
            two.send(messages.bind("", "") + messages.execute("") + messages.sync())
            assert kinds(two.until_ready()) == "EZ"


def test_a_statement_that_is_closed_is_gone_at_once(wire: Wire) -> None:
    # In one batch, Close and then Bind still found the statement.
    wire.send(messages.parse("s", "SELECT 7") + messages.sync())
    wire.until_ready()
    gone = messages.close(c.STATEMENT, "s") + messages.bind("", "s") + messages.execute("") + messages.sync()
    wire.send(gone)
    assert kinds(wire.until_ready()) == "3EZ"


def test_show_works_in_a_pipeline(ambassador: Ambassador) -> None:
    # With anything else in the batch PostgreSQL was asked, who knows no such parameter.
    with connect(ambassador) as session, session.pipeline():
        route = session.execute("SHOW pgamb.last_route")
        one = session.execute("SELECT 1")
        assert route.fetchone() is not None
        assert one.fetchone() == (1,)


def test_a_position_that_nobody_has_reached_can_be_taken_back(ambassador: Ambassador) -> None:
    # RESET did not lift it: all reads went to the primary, each after a wait, until the session ended.
    with connect(ambassador) as session:
        session.execute("SET pgamb.min_lsn = 'FFFFFFFF/FFFFFFFF'")
        assert ask(session, MEMBER) == "pg1"
        assert not str(ask(session, "SHOW pgamb.lsn")).startswith("FFFFFFFF")
        session.execute("RESET pgamb.min_lsn")
        wait_for(lambda: ask(session, MEMBER) in REPLICAS, 20, "it reads from replicas again")


def test_role_replica_is_as_new_as_any_other_read(make_cluster: MakeCluster) -> None:
    # Statements that are no proven reads went to any replica, however old.
    cluster = make_cluster(agents=False, client=False, etcd=False)
    primary, *replicas = cluster.servers
    primary.query("CREATE TABLE counter AS SELECT 0 AS n")
    with running_ambassador(cluster.servers) as ambassador:
        wait_for(lambda: member_of(ambassador) in REPLICAS, 30, "reads are answered by a replica")
        for replica in replicas:
            replica.query("ALTER SYSTEM SET recovery_min_apply_delay = '400ms'")
            replica.query("SELECT pg_reload_conf()")
        with connect(ambassador) as session:
            for number in range(1, 9):
                session.execute("SET pgamb.role = 'auto'")
                session.execute("UPDATE counter SET n = n + 1")
                session.execute("SET pgamb.role = 'replica'")
                assert ask(session, "SELECT n FROM counter WHERE pg_is_in_recovery() IS NOT NULL") == number
                session.execute("BEGIN")
                assert ask(session, "SELECT n, now() FROM counter") == number
                session.execute("COMMIT")


@pytest.mark.parametrize("transaction", [False, True], ids=["autocommit", "virtual"])
def test_a_read_that_is_ended_by_the_server_is_done_again(
    ambassador: Ambassador, bare_cluster: Cluster, transaction: bool
) -> None:
    # The FATAL error came in one packet with what stands before rows, and that was forwarded: 40001.
    with connect(ambassador) as session:
        if transaction:
            session.execute("BEGIN")
        member = str(ask(session, MEMBER))
        assert member in REPLICAS
        server = bare_cluster.server(member)

        def end() -> None:
            wait_for(
                lambda: server.query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT ''ended''%'"
                ),
                20,
                "the read runs",
            )

        ending = threading.Thread(target=end)
        ending.start()
        assert ask(session, "SELECT 'ended', pg_sleep(1) FROM pg_class LIMIT 1") == "ended"
        ending.join()
