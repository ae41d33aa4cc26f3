"""Where statements go, and what an application hears when the server that it went to is gone."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, pq

from pgamb.demo.cluster import Cluster
from tests.e2e.conftest import MakeCluster
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.waiting import wait_for

Session = psycopg.Connection[Any]
REPLICAS = {"pg2", "pg3"}
MEMBER = "SELECT current_setting('cluster_name')"


@pytest.fixture(scope="module")
def ambassador(bare_cluster: Cluster) -> Iterator[Ambassador]:
    with running_ambassador(bare_cluster.servers, "--pool-size", "5", "--replica-wait", "5") as running:
        wait_for(lambda: members_of_reads(running) == REPLICAS, 30, "reads are answered by both replicas")
        yield running


def connect(ambassador: Ambassador, **parameters: Any) -> Session:
    return psycopg.connect(ambassador.dsn(), autocommit=True, **parameters)


def ask(session: Session, sql: str = MEMBER) -> Any:
    row = session.execute(sql).fetchone()
    assert row is not None
    return row[0]


def members_of_reads(ambassador: Ambassador, count: int = 12) -> set[Any]:
    """Tell which members answer a read; each on a connection of its own."""
    found = set()
    for _ in range(count):
        with connect(ambassador) as session:
            found.add(ask(session))
    return found


def until(condition: Callable[[], Any], what: str) -> Any:
    return wait_for(condition, 60, what)


def test_reads_go_to_replicas(ambassador: Ambassador) -> None:
    assert members_of_reads(ambassador, 20) == REPLICAS
    with connect(ambassador) as session:
        session.prepare_threshold = 0
        # One session keeps to one of them: it never reads older than it has read.
        assert {ask(session) for _ in range(20)} in [{"pg2"}, {"pg3"}]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT current_setting('cluster_name'), pg_is_in_recovery()",
        "SELECT current_setting('cluster_name') FROM pg_class WHERE relname = 'pg_class' FOR SHARE",
        "SELECT current_setting('cluster_name'), txid_current()",
        "WITH w AS (INSERT INTO routed VALUES (1)) SELECT current_setting('cluster_name')",
        "SELECT current_setting('cluster_name'), set_config('work_mem', '5MB', false)",
        "INSERT INTO routed VALUES (2) RETURNING current_setting('cluster_name')",
    ],
)
def test_what_is_no_proven_read_goes_to_the_primary(ambassador: Ambassador, bare_cluster: Cluster, sql: str) -> None:
    bare_cluster.primary.query("CREATE TABLE IF NOT EXISTS routed (id int)")
    with connect(ambassador) as session:
        for _ in range(4):
            assert ask(session, sql) == "pg1"


def test_transactions_read_from_replicas_until_they_need_to_be_real(ambassador: Ambassador) -> None:
    with connect(ambassador) as session, session.transaction():
        assert ask(session) in REPLICAS
        assert ask(session, MEMBER + ", now()") == "pg1"
        assert ask(session) == "pg1"
    with connect(ambassador) as session:
        session.read_only = True
        for _ in range(5):
            with session.transaction():
                first = ask(session)
                assert first in REPLICAS
                assert {ask(session) for _ in range(4)} == {first}
                with pytest.raises(errors.ReadOnlySqlTransaction), session.transaction():
                    session.execute("CREATE TABLE never ()")
    with connect(ambassador) as session:
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        first = ask(session)
        assert first in REPLICAS
        # One snapshot, one now().
        assert ask(session, MEMBER + ", now()") == first
        session.execute("COMMIT")
        # SERIALIZABLE cannot run on a standby, and who may write does so on the primary.
        for modes in ("SERIALIZABLE READ ONLY", "SERIALIZABLE", "REPEATABLE READ"):
            session.execute("BEGIN ISOLATION LEVEL " + modes)
            assert ask(session) == "pg1"
            session.execute("COMMIT")


@pytest.mark.parametrize("consistency", ["ambassador", "eventual"])
def test_exact_transactions_begin_at_once(bare_cluster: Cluster, consistency: str) -> None:
    options = ("--pool-size", "5", "--transactions", "exact", "--consistency", consistency)
    with running_ambassador(bare_cluster.servers, *options) as ambassador:
        wait_for(lambda: members_of_reads(ambassador) == REPLICAS, 30, "reads are answered by both replicas")
        with connect(ambassador) as session:
            session.execute("BEGIN")
            assert session.info.backend_pid
            open_now = bare_cluster.primary.query(
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query = 'BEGIN'"
            )
            assert open_now == [(1,)]
            assert ask(session) == "pg1"
            session.execute("COMMIT")
            session.execute("BEGIN READ ONLY")
            # Where nothing is promised about age a replica will do; else each of its statements would have to be as
            # new as what was committed before it.
            assert ask(session) in (REPLICAS if consistency == "eventual" else {"pg1"})
            session.execute("COMMIT")
            assert ask(session) in REPLICAS


def test_a_session_that_defaults_to_serializable_reads_from_the_primary(ambassador: Ambassador) -> None:
    with connect(ambassador, options="-c default_transaction_isolation=serializable") as session:
        for _ in range(4):
            assert ask(session) == "pg1"
            assert ask(session, "SELECT count(*) >= 0 FROM pg_class") is True


def test_who_wrote_reads_what_it_wrote_on_replicas(ambassador: Ambassador, bare_cluster: Cluster) -> None:
    bare_cluster.primary.query("CREATE TABLE IF NOT EXISTS routed (id int)")
    members = set()
    with connect(ambassador) as session:
        for number in range(100, 140):
            session.execute("INSERT INTO routed VALUES (%s)", [number])
            row = session.execute(
                "SELECT current_setting('cluster_name'), count(*) FROM routed WHERE id = %s", [number]
            ).fetchone()
            assert row is not None
            assert row[1] == 1
            members.add(row[0])
            session.execute("DELETE FROM routed WHERE id = %s", [number])
            assert ask(session, f"SELECT count(*) FROM routed WHERE id = {number}") == 0
    assert members & REPLICAS


def test_hints_say_where_to_go(ambassador: Ambassador, bare_cluster: Cluster) -> None:
    with connect(ambassador) as session:
        assert ask(session, f"/* pgamb: primary */ {MEMBER}") == "pg1"
        assert ask(session) in REPLICAS
        session.execute("SET pgamb.role = primary")
        assert ask(session) == "pg1"
        assert ask(session, "SHOW pgamb.role") == "primary"
        assert "asked for the primary" in ask(session, "SHOW pgamb.last_route")
        session.execute("SET pgamb.role TO 'replica'")
        assert ask(session) in REPLICAS
        assert ask(session, "SELECT current_setting('cluster_name'), pg_is_in_recovery()") in REPLICAS
        with pytest.raises(errors.ReadOnlySqlTransaction):
            session.execute("CREATE TABLE never ()")
        session.execute("RESET pgamb.role")
        assert ask(session, "SELECT current_setting('cluster_name'), pg_is_in_recovery()") == "pg1"
        with pytest.raises(errors.InvalidParameterValue, match="standby") as caught:
            session.execute("SET pgamb.role = standby")
        assert caught.value.diag.message_hint == "It is primary, replica or auto."
        # A hint that is undone is undone.
        session.execute("BEGIN")
        session.execute("SET LOCAL pgamb.role = 'replica'")
        session.execute("ROLLBACK")
        assert ask(session, "SHOW pgamb.role") == "auto"
    with connect(ambassador, options="-c pgamb.role=replica") as session:
        assert ask(session, "SELECT current_setting('cluster_name'), pg_is_in_recovery()") in REPLICAS
    with connect(ambassador, options="-c default_transaction_read_only=on") as session:
        assert ask(session) in REPLICAS
        with pytest.raises(errors.ReadOnlySqlTransaction):
            session.execute("CREATE TABLE never ()")


def test_a_database_alias_says_where_to_go(ambassador: Ambassador) -> None:
    with psycopg.connect(ambassador.dsn(), dbname="postgres?role=replica", autocommit=True) as session:
        assert ask(session, "SELECT current_setting('cluster_name'), pg_is_in_recovery()") in REPLICAS
        assert ask(session, "SELECT current_database()") == "postgres"
    with psycopg.connect(ambassador.dsn(), dbname="postgres?role=primary", autocommit=True) as session:
        assert ask(session) == "pg1"
    with pytest.raises(psycopg.OperationalError, match="is no role"):
        psycopg.connect(ambassador.dsn(), dbname="postgres?role=standby")
    with pytest.raises(psycopg.OperationalError, match='"standby"'):
        psycopg.connect(ambassador.dsn(), options="-c pgamb.role=standby")


def test_a_role_that_is_none_is_refused_in_plain_words(ambassador: Ambassador) -> None:
    with connect(ambassador) as session:
        for prepare in (None, True):
            with pytest.raises(errors.InvalidParameterValue, match='"boss"') as found:
                session.execute("SET pgamb.role = 'boss'", prepare=prepare)
            # Nobody has written PL/pgSQL.
            assert found.value.diag.context is None
        # A function that sets it takes any value: then the session is told that it counts for nothing.
        told: list[str | None] = []
        session.add_notice_handler(lambda notice: told.append(notice.message_primary))
        for _ in range(2):
            session.execute("SELECT set_config('pgamb.role', 'boss', false)")
            assert ask(session) in REPLICAS
        assert told == ['"boss" is no role']


def test_a_session_can_ask_for_what_pgamb_knows(ambassador: Ambassador) -> None:
    with connect(ambassador) as session:
        for prepare in (None, True):
            member = ask(session)
            found = session.execute("SHOW pgamb.last_route", prepare=prepare).fetchone()
            assert found is not None
            assert found[0].startswith(f"{member} (replica): a proven read")
            status = session.execute("SHOW pgamb.status", prepare=prepare).fetchone()
            assert status is not None
            assert "primary pg1" in status[0]
            position = session.execute("SHOW pgamb.lsn", prepare=prepare).fetchone()
            assert position is not None
            assert re.fullmatch(r"[0-9A-F]+/[0-9A-F]+@1", position[0])
        # To prepare the question goes somewhere, too, and is not what is asked about.
        session.execute("CREATE TABLE IF NOT EXISTS asked ()")
        session.execute("INSERT INTO asked DEFAULT VALUES")
        found = session.execute("SHOW /* not seen before */ pgamb.last_route", prepare=True).fetchone()
        assert found is not None
        assert found[0].startswith("pg1 (primary): may write (INSERT")
        session.execute("DROP TABLE asked")
        session.execute("BEGIN")
        assert ask(session, "SHOW pgamb.last_route").startswith("pgamb: answered by pgamb")
        session.execute("ROLLBACK")


def test_parameters_follow_to_every_member(ambassador: Ambassador) -> None:
    with connect(ambassador, options="-c work_mem=9MB") as one, connect(ambassador) as two:
        two.execute("SET search_path = pg_catalog")
        for _ in range(6):
            assert one.execute(MEMBER + ", current_setting('work_mem')").fetchone() in [(m, "9MB") for m in REPLICAS]
            assert ask(one, "/* pgamb: primary */ SELECT current_setting('work_mem')") == "9MB"
            assert ask(two, "SHOW search_path") == "pg_catalog"
        assert ask(one, "SHOW in_hot_standby") == "off"
        assert one.info.parameter_status("in_hot_standby") == "off"


def test_the_primary_stops_and_comes_back(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(agents=False, client=False, etcd=False)
    with running_ambassador(cluster.servers, "--pool-size", "9", "--hold-timeout", "50") as ambassador:
        until(lambda: members_of_reads(ambassador) == REPLICAS, "reads are answered by both replicas")
        idle, busy, writing, pinned = [connect(ambassador) for _ in range(4)]
        idle.execute("CREATE TABLE kept (id int)")
        busy.execute("BEGIN")
        busy.execute("INSERT INTO kept VALUES (1)")
        pinned.execute("CREATE TEMP TABLE own ()")
        ends = [connect(ambassador) for _ in range(5)]
        commits, rollbacks = ends[:3], ends[3:]
        for number, ending in enumerate(ends):
            ending.execute("BEGIN")
            ending.execute("INSERT INTO kept VALUES (%s)", (10 + number,))
        # Where the last commit stands must be known by now: only the primary can tell.
        until(lambda: members_of_reads(ambassador) == REPLICAS, "reads are answered by both replicas again")
        cluster.servers[0].stop("immediate")
        # Reads of new sessions go on, at replicas.
        assert members_of_reads(ambassador, 6) <= REPLICAS
        # The open transaction hears that it is lost, and its connection goes on.
        with pytest.raises(errors.SerializationFailure, match="was lost") as caught:
            busy.execute("INSERT INTO kept VALUES (2)")
        assert caught.value.diag.message_hint == "Repeat the transaction."
        with pytest.raises(errors.InFailedSqlTransaction):
            busy.execute("SELECT 1")
        busy.execute("ROLLBACK")
        # A COMMIT that fails has ended its transaction, and a ROLLBACK does not fail, however they are sent.
        for committing, prepare in zip(commits, (None, False, True), strict=True):
            with pytest.raises(errors.SerializationFailure, match="was lost"):
                committing.execute("COMMIT", prepare=prepare)
            assert committing.info.transaction_status == pq.TransactionStatus.IDLE
        for rolling_back, prepare in zip(rollbacks, (None, False), strict=True):
            rolling_back.execute("ROLLBACK", prepare=prepare)
            assert rolling_back.info.transaction_status == pq.TransactionStatus.IDLE
        # A session's own state cannot be had again.
        with pytest.raises(psycopg.OperationalError, match="temporary"):
            pinned.execute("SELECT * FROM own")
        assert pinned.closed
        # A write is held, and done when there is a primary again.
        began = time.monotonic()
        cluster.servers[0].start()
        writing.execute("INSERT INTO kept VALUES (3)")
        assert time.monotonic() - began < 50
        busy.execute("INSERT INTO kept VALUES (4)")
        assert ask(idle, "SELECT array_agg(id ORDER BY id) FROM kept") == [3, 4]
        for session in (idle, busy, writing, *ends):
            session.close()


def test_a_replica_dies_and_no_new_read_fails(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(agents=False, client=False, etcd=False)
    with running_ambassador(cluster.servers, "--pool-size", "5") as ambassador:
        until(lambda: members_of_reads(ambassador) == REPLICAS, "reads are answered by both replicas")
        sessions = [connect(ambassador) for _ in range(6)]
        transaction = connect(ambassador)
        transaction.read_only = True
        transaction.autocommit = False
        victim = ask(transaction)
        cluster.server(victim).kill()
        others = REPLICAS - {victim} | {"pg1"}
        for _ in range(10):
            assert {ask(session) for session in sessions} <= others
        # Nothing but reads has run in the transaction: it goes on elsewhere.
        assert ask(transaction) in others
        transaction.rollback()
        assert ask(transaction) in others
        transaction.close()
        cluster.server(victim).start()
        until(lambda: victim in members_of_reads(ambassador, 6), "the replica takes part again")
        for session in sessions:
            session.close()
