"""Reads that a replica refuses, or loses: answered all the same as long as no row of theirs had been passed on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import SUPERUSER, PostgresServer
from pgamb.session.conversation import Message
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.application import Application
from tests.support.freshness import connect, wait_replayed
from tests.support.waiting import wait_for, wait_for_async
from tests.support.wire import Wire, errors, kinds

REPLICAS = ("pg2", "pg3")
ROWS = 400
MEMBER = "SELECT current_setting('cluster_name')"
# The mark is how the test finds out which replica is at it. Nothing is sent before the sleep is over.
SLOW = "SELECT count(*) AS replay_mark FROM doomed WHERE (SELECT pg_sleep(1.5)) IS NOT NULL"
# A row each 10 ms, each larger than what PostgreSQL keeps before it sends.
ROW_BY_ROW = "SELECT repeat('x', 20000) AS replay_mark, pg_sleep(0.01) FROM doomed"
SETTINGS = {
    # Whatever is in the way of replay is cancelled at once.
    "max_standby_streaming_delay": "0",
    "hot_standby_feedback": "off",
    "autovacuum": "off",
}


@pytest.fixture(scope="module")
def fragile(template: PostgresServer) -> Iterator[Cluster]:
    """A primary and two replicas of this module's own, which its tests break."""
    with Cluster(agents=False, client=False, etcd=False, template=template, settings=SETTINGS) as cluster:
        primary = cluster.servers[0]
        for sql in (
            "CREATE SEQUENCE serial",
            "CREATE TABLE written (value bigint)",
            "CREATE UNLOGGED TABLE fleeting AS SELECT 5 AS value",
            "CREATE VIEW looks_harmless AS SELECT nextval('serial') AS value",
            function("honest() RETURNS text STABLE LANGUAGE sql", "SELECT current_setting('cluster_name')"),
            # What they do cannot be seen in their bodies.
            function(
                "counts() RETURNS bigint STABLE LANGUAGE plpgsql",
                "DECLARE n bigint; BEGIN EXECUTE 'SELECT next' || 'val(''ser' || 'ial'')' INTO n; RETURN n; END",
            ),
            function(
                "counts_too() RETURNS bigint STABLE LANGUAGE plpgsql",
                "DECLARE n int8; BEGIN EXECUTE format('SELECT %sval(''ser%s'')', 'next', 'ial') INTO n; RETURN n; END",
            ),
            function(
                "swallows() RETURNS bigint STABLE LANGUAGE plpgsql",
                "BEGIN RETURN nextval('serial'); EXCEPTION WHEN read_only_sql_transaction THEN RETURN -1; END",
            ),
            function("writes() RETURNS bigint LANGUAGE sql", "INSERT INTO written VALUES (1) RETURNING value"),
            function("hides_a_write() RETURNS bigint STABLE LANGUAGE plpgsql", "BEGIN RETURN writes(); END"),
        ):
            primary.query(sql)
        yield cluster


@pytest.fixture(scope="module")
def ambassador(fragile: Cluster) -> Iterator[Ambassador]:
    with running_ambassador(fragile.servers, "--pool-size", "10", "--replica-wait", "2") as running:
        yield running


@pytest.fixture
def cluster(fragile: Cluster, ambassador: Ambassador) -> Cluster:
    """The cluster with everything running, in use, and a table of known size."""
    primary, *replicas = fragile.servers
    for server in replicas:
        if not server.process.running:
            server.start()
    primary.query("DROP TABLE IF EXISTS doomed")
    primary.query(f"CREATE TABLE doomed AS SELECT generate_series(1, {ROWS}) AS id")
    primary.query("TRUNCATE written")
    wait_replayed(primary, replicas)
    found: set[str] = set()

    def both() -> bool:
        with session_of(ambassador) as session:
            found.update(scalar(session, MEMBER) for _ in range(4))
        return found >= set(REPLICAS)

    wait_for(both, 30, "reads are answered by both replicas")
    return fragile


def function(head: str, body: str) -> str:
    return f"CREATE FUNCTION {head} AS $$ {body} $$"


def session_of(ambassador: Ambassador) -> psycopg.Connection[Any]:
    return psycopg.connect(ambassador.dsn(), autocommit=True)


def scalar(session: psycopg.Connection[Any], sql: str) -> Any:
    row = session.execute(sql).fetchone()
    assert row is not None
    return row[0]


def at_work(cluster: Cluster) -> PostgresServer:
    """Wait until a replica runs the marked read, and tell which."""
    question = (
        "SELECT 1 FROM pg_stat_activity "
        "WHERE state = 'active' AND query LIKE '%replay_mark%' AND pid <> pg_backend_pid()"
    )

    def found() -> PostgresServer | None:
        return next((replica for replica in cluster.replicas if replica.query(question)), None)

    server = wait_for(found, 20, "a replica runs the read")
    assert server is not None
    return server


def conflicts(cluster: Cluster) -> int:
    """Count the reads that replicas have cancelled because replay could not wait for them."""
    return sum(len(re.findall("due to conflict with recovery", log(replica))) for replica in cluster.replicas)


def log(server: PostgresServer) -> str:
    assert server.process.log is not None
    return server.process.log.read_text()


def lock(cluster: Cluster) -> None:
    """Replay has to take a lock that the read is in the way of."""
    cluster.servers[0].query("TRUNCATE doomed")


def drop(cluster: Cluster) -> None:
    """The same, and the table is there again right away, with one row."""
    primary = cluster.servers[0]
    primary.query("DO $$ BEGIN DROP TABLE doomed; CREATE TABLE doomed AS SELECT 1 AS id; END $$")


def vacuum(cluster: Cluster) -> None:
    """Replay has to remove rows that the read may still see."""
    primary = cluster.servers[0]
    primary.query(f"DELETE FROM doomed WHERE id > {ROWS // 2}")
    primary.query("VACUUM doomed")


CONFLICTS = {lock: 0, drop: 1, vacuum: ROWS // 2}


@pytest.mark.parametrize("transaction", [False, True], ids=["autocommit", "virtual"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("conflict", CONFLICTS, ids=lambda conflict: conflict.__name__)
def test_a_read_in_the_way_of_replay_is_done_again(
    cluster: Cluster, ambassador: Ambassador, conflict: Any, extended: bool, transaction: bool
) -> None:
    before = conflicts(cluster)
    with session_of(ambassador) as session, ThreadPoolExecutor() as threads:
        if transaction:
            session.execute("BEGIN")
        reading = threads.submit(run, session, SLOW, extended)
        at_work(cluster)
        conflict(cluster)
        assert reading.result(60) == [(CONFLICTS[conflict],)]
        assert conflicts(cluster) > before, "no replica has cancelled it: this proves nothing"
        if transaction:
            assert session.info.transaction_status == TransactionStatus.INTRANS
            session.execute("COMMIT")
        assert scalar(session, MEMBER) in {"pg1", *REPLICAS}


def run(session: psycopg.Connection[Any], sql: str, extended: bool) -> list[tuple[Any, ...]]:
    cursor = session.cursor(binary=extended)
    cursor.execute(sql, prepare=extended)
    return cursor.fetchall()


@pytest.mark.parametrize("transaction", [False, True], ids=["autocommit", "virtual"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_a_read_whose_replica_is_killed_is_done_again(
    cluster: Cluster, ambassador: Ambassador, extended: bool, transaction: bool
) -> None:
    with session_of(ambassador) as session, ThreadPoolExecutor() as threads:
        if transaction:
            session.execute("BEGIN")
        reading = threads.submit(run, session, SLOW, extended)
        victim = at_work(cluster)
        victim.kill()
        assert reading.result(60) == [(ROWS,)]
        if transaction:
            assert session.info.transaction_status == TransactionStatus.INTRANS
            assert scalar(session, MEMBER) in {"pg1", *REPLICAS} - {victim.name}
            session.execute("COMMIT")


def kill(cluster: Cluster) -> None:
    at_work(cluster).kill()


@pytest.mark.parametrize("transaction", [False, True], ids=["autocommit", "virtual"])
@pytest.mark.parametrize("lose", [lock, kill], ids=["conflict", "killed"])
def test_a_read_whose_rows_were_passed_on_ends_in_40001(
    cluster: Cluster, ambassador: Ambassador, lose: Any, transaction: bool
) -> None:
    primary = cluster.servers[0]
    with Wire(ambassador.port).log_in(primary.credentials.superuser, user=SUPERUSER) as session:
        if transaction:
            session.query("BEGIN")
        session.send(query_message(ROW_BY_ROW))
        heard = list(until_row(session))
        at_work(cluster)
        lose(cluster)
        heard += session.until_ready()
        shown = kinds(heard)
        assert re.fullmatch("TD+EZ", shown), shown
        assert shown.count("D") < ROWS, "it had ended before"
        assert [code for _, code, _ in errors(heard)] == ["40001"]
        assert heard[-1].payload == (b"E" if transaction else b"I")
        if transaction:
            assert [code for _, code, _ in errors(session.query("SELECT 1"))] == ["25P02"]
            session.query("ROLLBACK")
        assert session.value("SELECT 7") == "7"


def query_message(sql: str) -> bytes:
    return b"Q" + (len(sql) + 5).to_bytes(4, "big") + sql.encode() + b"\0"


def until_row(session: Wire) -> Iterator[Message]:
    while (message := session.receive()) is not None:
        yield message
        if message.type == ord("D"):
            return


async def test_a_replica_that_is_stopped_costs_no_read(cluster: Cluster, ambassador: Ambassador) -> None:
    """Short reads from many sessions all the while, alone and in transactions, by both protocols."""
    victim, other = cluster.replicas
    stopped = asyncio.Event()
    answered: dict[str, int] = {}

    async def read_on(number: int) -> None:
        application = await connect(ambassador.port, cluster.servers[0])
        question = "SELECT count(*), current_setting('cluster_name') FROM doomed"
        left = 200
        try:
            while left:
                # So many more when it is gone.
                left -= stopped.is_set()
                for sql in ("BEGIN", question, question, "COMMIT") if number % 2 else (question,):
                    answer = await (application.run(sql) if number % 4 > 1 else application.query(sql))
                    assert not answer.errors, (number, sql, answer.errors)
                    for count, member in answer.rows:
                        assert count == str(ROWS).encode()
                        name = (member or b"").decode()
                        answered[name] = answered.get(name, 0) + 1
        finally:
            application.vanish()

    async def stop() -> None:
        await wait_for_async(lambda: answered.get(victim.name, 0) >= 100, 30, f"{victim.name} answers reads")
        await asyncio.to_thread(victim.stop, "immediate")
        stopped.set()

    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(read_on(number))
        group.create_task(stop())
    assert answered[other.name] > 0


@pytest.fixture
def catalogued(cluster: Cluster, ambassador: Ambassador) -> Cluster:
    """The cluster, when the ambassador has read what its functions are."""
    with session_of(ambassador) as session:
        wait_for(lambda: scalar(session, "SELECT honest()") in REPLICAS, 60, "a stable function is read from a replica")
    return cluster


def refused(cluster: Cluster) -> int:
    """Count what replicas have refused because it writes."""
    return sum(len(re.findall(r"ERROR: .* in a read-only transaction", log(replica))) for replica in cluster.replicas)


@pytest.mark.parametrize("transaction", [False, True], ids=["autocommit", "virtual"])
@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize("call", ["counts()", "counts_too()"])
def test_a_function_that_is_not_what_it_says_is_remembered(
    catalogued: Cluster, ambassador: Ambassador, call: str, extended: bool, transaction: bool
) -> None:
    """Declared STABLE, it moves a sequence: refused by a replica once, and from then on asked of the primary."""
    # A text of its own, that no other test has had remembered.
    sql = f"SELECT {call} AS number_{int(extended)}{int(transaction)}"
    before = refused(catalogued)
    [(first,)] = catalogued.servers[0].query("SELECT nextval('serial')")
    assert isinstance(first, int)
    with session_of(ambassador) as session:
        for number in range(1, 6):
            if transaction:
                session.execute("BEGIN")
            assert run(session, sql, extended) == [(first + number,)]
            if transaction:
                assert session.info.transaction_status == TransactionStatus.INTRANS
                session.execute("COMMIT")
    with session_of(ambassador) as another:
        assert run(another, sql, extended) == [(first + 6,)]
    assert refused(catalogued) == before + 1


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_a_hidden_write_belongs_to_its_transaction(catalogued: Cluster, ambassador: Ambassador, end: str) -> None:
    """A write that only a replica's refusal has brought to light is undone with the transaction it was made in."""
    with session_of(ambassador) as session:
        session.execute("BEGIN")
        assert scalar(session, MEMBER) in REPLICAS
        assert scalar(session, f"SELECT hides_a_write() AS hidden_{end}") == 1
        assert session.info.transaction_status == TransactionStatus.INTRANS
        session.execute(end)
    assert catalogued.servers[0].query("SELECT count(*) FROM written") == [(int(end == "COMMIT"),)]


def test_a_function_that_hides_the_refusal(catalogued: Cluster, ambassador: Ambassador) -> None:
    """It catches the error by which a replica refuses it, so that a replica would answer, and answer wrongly."""
    [(first,)] = catalogued.servers[0].query("SELECT nextval('serial')")
    assert isinstance(first, int)
    with session_of(ambassador) as session:
        for number in range(1, 4):
            assert scalar(session, "SELECT swallows()") == first + number


@pytest.mark.parametrize("transaction", [False, True], ids=["autocommit", "virtual"])
@pytest.mark.parametrize("relation", ["fleeting", "looks_harmless"])
def test_a_relation_that_no_replica_can_read(
    cluster: Cluster, ambassador: Ambassador, relation: str, transaction: bool
) -> None:
    """An unlogged table, and a view over a volatile function."""
    [(first,)] = cluster.servers[0].query("SELECT nextval('serial')")
    assert isinstance(first, int)
    with session_of(ambassador) as session:
        for number in range(1, 4):
            if transaction:
                session.execute("BEGIN")
            found = scalar(session, f"SELECT value FROM {relation}")
            assert found == (5 if relation == "fleeting" else first + number)
            if transaction:
                session.execute("COMMIT")


def test_a_foreign_table(cluster: Cluster, ambassador: Ambassador) -> None:
    primary = cluster.servers[0]
    if not primary.query("SELECT 1 FROM pg_available_extensions WHERE name = 'postgres_fdw'"):
        pytest.skip("this PostgreSQL has no postgres_fdw")
    secret = primary.credentials.superuser
    for sql in (
        "CREATE EXTENSION postgres_fdw",
        f"CREATE SERVER itself FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{primary.port}')",
        f"CREATE USER MAPPING FOR {SUPERUSER} SERVER itself OPTIONS (user '{SUPERUSER}', password '{secret}')",
        "CREATE FOREIGN TABLE far (value bigint) SERVER itself OPTIONS (table_name 'looks_harmless')",
        "SELECT nextval('serial')",
    ):
        primary.query(sql)
    wait_replayed(primary, cluster.replicas)
    [(last,)] = primary.query("SELECT last_value FROM serial")
    assert isinstance(last, int)
    with session_of(ambassador) as session:
        for number in range(1, 4):
            assert scalar(session, "SELECT value FROM far") == last + number


async def test_an_application_hears_nothing_of_a_replay(cluster: Cluster, ambassador: Ambassador) -> None:
    """Message by message what the primary itself would have said."""
    through = await connect(ambassador.port, cluster.servers[0])
    direct = await connect(cluster.servers[0].port, cluster.servers[0])
    try:
        for ask in (Application.query, Application.run):
            heard, wanted = [await ask(each, "SELECT value FROM fleeting") for each in (through, direct)]
            assert (heard.kinds, heard.rows, heard.status) == (wanted.kinds, wanted.rows, wanted.status)
    finally:
        through.vanish()
        direct.vanish()
