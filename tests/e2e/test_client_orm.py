"""Applications that wrap all they do in transactions: SQLAlchemy over two drivers, and psycopg as it is by default.

Their reads are answered by replicas all the same, a transaction that has only read holds no backend, and whoever has
written reads that: in the transaction, and after it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import asyncpg
import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import ColumnElement, func, literal_column, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgamb.demo.cluster import Cluster
from pgamb.demo.ports import free_port
from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.counting import Counted, RoundTrip, counting_relays
from tests.support.freshness import wait_replayed
from tests.support.status_page import Page
from tests.support.waiting import wait_for, wait_for_async

USER, PASSWORD = "orm", "mapper"
REPLICAS = {"pg2", "pg3"}
MEMBER = "SELECT current_setting('cluster_name')"
# Fewer backends than there are applications with an open transaction.
POOL, APPLICATIONS = 2, 12
DELAY_MS = 100
DIALECTS = ("psycopg", "asyncpg")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "orm_item"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


@pytest.fixture(scope="module")
def late_cluster(template: PostgresServer) -> Iterator[Cluster]:
    """A cluster whose replicas are late: who is sent to one too early finds too little."""
    settings = {"recovery_min_apply_delay": f"{DELAY_MS}ms"}
    with Cluster(agents=False, client=False, etcd=False, template=template, settings=settings) as cluster:
        make_tables(cluster)
        yield cluster


def make_tables(cluster: Cluster) -> None:
    primary = cluster.primary
    for sql in (
        f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'",
        "CREATE TABLE orm_item (id serial PRIMARY KEY, name text UNIQUE NOT NULL)",
        f"GRANT ALL ON orm_item, orm_item_id_seq TO {USER}",
    ):
        primary.query(sql)
    wait_replayed(primary, cluster.replicas)


@pytest.fixture(scope="module")
def ambassador(late_cluster: Cluster) -> Iterator[Ambassador]:
    with running_ambassador(late_cluster.servers, "--pool-size", str(POOL), "--pool-timeout", "10") as running:
        wait_for(lambda: members_of_reads(running) == REPLICAS, 30, "reads are answered by both replicas")
        yield running


@pytest.fixture(params=DIALECTS)
async def engine(request: pytest.FixtureRequest, ambassador: Ambassador) -> AsyncIterator[AsyncEngine]:
    async for made in engine_of(request.param, ambassador.port):
        yield made


@pytest.fixture
async def another(engine: AsyncEngine, ambassador: Ambassador) -> AsyncIterator[AsyncEngine]:
    """A second application, which never writes."""
    async for made in engine_of(engine.dialect.driver, ambassador.port):
        yield made


async def engine_of(dialect: str, port: int) -> AsyncIterator[AsyncEngine]:
    url = make_url(f"postgresql+{dialect}://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres")
    engine = create_async_engine(url, pool_size=APPLICATIONS)
    try:
        yield engine
    finally:
        await engine.dispose()


def session_of(ambassador: Ambassador) -> psycopg.Connection[Any]:
    return psycopg.connect(ambassador.dsn(user=USER, password=PASSWORD))


def members_of_reads(ambassador: Ambassador) -> set[str]:
    found = set()
    for _ in range(8):
        with session_of(ambassador) as session:
            session.autocommit = True
            found.add(scalar(session, MEMBER))
    return found


def status(session: psycopg.Connection[Any]) -> TransactionStatus:
    return session.info.transaction_status


def scalar(session: psycopg.Connection[Any], sql: str, *arguments: object) -> Any:
    row = session.execute(sql, arguments or None).fetchone()
    assert row is not None
    return row[0]


async def count_and_member(session: AsyncSession, prefix: str) -> tuple[int, str]:
    """Count items, and tell which member has counted them."""
    member: ColumnElement[str] = literal_column("current_setting('cluster_name')")
    statement = select(func.count(Item.id), member).where(Item.name.startswith(prefix))
    row: Any = (await session.execute(statement)).one()
    return row[0], row[1]


# SQLAlchemy


async def test_sqlalchemy_reads_from_replicas(engine: AsyncEngine) -> None:
    found = set()
    for _ in range(12):
        async with AsyncSession(engine) as session:
            found.add((await session.execute(text(MEMBER))).scalar_one())
            assert (await session.execute(select(Item).where(Item.name == "nobody"))).all() == []
            await session.commit()
    assert found <= REPLICAS


async def test_sqlalchemy_reads_what_it_wrote(engine: AsyncEngine, another: AsyncEngine) -> None:
    prefix = f"wrote-{engine.dialect.driver}-"
    for number in range(1, 21):
        async with AsyncSession(engine) as session:
            before, _ = await count_and_member(session, prefix)
            assert before == number - 1
            item = Item(name=f"{prefix}{number}")
            session.add(item)
            await session.flush()
            # In the same transaction, which is real now.
            inside, member = await count_and_member(session, prefix)
            assert (inside, member) == (number, "pg1")
            assert await session.scalar(select(Item.name).where(Item.id == item.id)) == item.name
            await session.commit()
        async with AsyncSession(engine) as session:
            after, _ = await count_and_member(session, prefix)
            assert after == number
        async with AsyncSession(another) as session:
            elsewhere, member = await count_and_member(session, prefix)
            assert elsewhere == number, f"another application has read from {member}"


async def test_sqlalchemy_goes_back_to_replicas_after_a_write(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        session.add(Item(name=f"back-{engine.dialect.driver}"))
        await session.commit()

        async def by_a_replica() -> bool:
            _, member = await count_and_member(session, "back-")
            await session.commit()
            return member in REPLICAS

        await wait_for_async(by_a_replica, 10, "who has written reads from a replica again")


async def test_sqlalchemy_undoes_what_it_wrote(engine: AsyncEngine) -> None:
    prefix = f"undone-{engine.dialect.driver}-"
    async with AsyncSession(engine) as session:
        assert (await count_and_member(session, prefix))[0] == 0
        session.add(Item(name=f"{prefix}1"))
        await session.flush()
        await session.rollback()
        assert (await count_and_member(session, prefix))[0] == 0
        session.add(Item(name=f"{prefix}2"))
        await session.flush()
        with pytest.raises(IntegrityError):
            async with session.begin_nested():
                session.add(Item(name=f"{prefix}2"))
        # The savepoint is gone, the transaction is not.
        session.add(Item(name=f"{prefix}3"))
        await session.commit()
        assert (await count_and_member(session, prefix))[0] == 2


async def test_sqlalchemy_that_idles_in_a_transaction_holds_no_backend(
    engine: AsyncEngine, late_cluster: Cluster
) -> None:
    async def by_a_replica() -> bool:
        async with AsyncSession(engine) as session:
            return (await session.execute(text(MEMBER))).scalar_one() in REPLICAS

    await wait_for_async(by_a_replica, 10, "replicas have replayed what other tests have written")
    async with AsyncExitStack() as stack:
        began = time.monotonic()
        for _ in range(APPLICATIONS):
            session = await stack.enter_async_context(AsyncSession(engine))
            assert (await session.execute(text(MEMBER))).scalar_one() in REPLICAS
        assert time.monotonic() - began < 10, "somebody has waited for a backend"
        assert idle_in_transaction(late_cluster) == []


# psycopg


def test_psycopg_reads_from_replicas_and_writes_to_the_primary(ambassador: Ambassador) -> None:
    with session_of(ambassador) as session:
        for number in range(1, 21):
            assert (
                scalar(
                    session,
                    "SELECT count(*) FROM orm_item WHERE name LIKE 'plain-%%'",
                )
                == number - 1
            )
            assert status(session) == TransactionStatus.INTRANS
            wrote = "INSERT INTO orm_item (name) VALUES (%s) RETURNING current_setting('cluster_name')"
            assert scalar(session, wrote, f"plain-{number}") == "pg1"
            counted = "SELECT count(*) || current_setting('cluster_name') FROM orm_item WHERE name LIKE 'plain-%%'"
            assert scalar(session, counted) == f"{number}pg1"
            session.commit()
            assert scalar(session, "SELECT count(*) FROM orm_item WHERE name LIKE 'plain-%%'") == number
            session.commit()
            assert status(session) == TransactionStatus.IDLE

        def by_a_replica() -> bool:
            member = scalar(session, MEMBER)
            session.commit()
            return member in REPLICAS

        wait_for(by_a_replica, 10, "who has written reads from a replica again")


def test_psycopg_undoes_what_it_wrote(ambassador: Ambassador) -> None:
    with session_of(ambassador) as session:
        assert scalar(session, MEMBER) in REPLICAS
        session.execute("INSERT INTO orm_item (name) VALUES ('never')")
        session.rollback()
        assert scalar(session, "SELECT count(*) FROM orm_item WHERE name = 'never'") == 0


# What it costs


def idle_in_transaction(cluster: Cluster) -> list[tuple[object, ...]]:
    """Ask every member itself which backends of the application are in a transaction and do nothing."""
    question = "SELECT current_setting('cluster_name'), pid, state, query FROM pg_stat_activity WHERE usename = $1"
    return [
        row
        for server in cluster.servers
        for row in server.query(f"{question} AND (state LIKE 'idle in transaction%' OR xact_start IS NOT NULL)", USER)
    ]


@pytest.mark.parametrize("read", [False, True], ids=["after BEGIN", "after BEGIN and SELECT"])
def test_a_transaction_that_idles_holds_no_backend(late_cluster: Cluster, read: bool) -> None:
    port = free_port()
    options = ("--pool-size", str(POOL), "--pool-timeout", "10", "--status-listen", f"127.0.0.1:{port}")
    with running_ambassador(late_cluster.servers, *options) as ambassador, ExitStack() as stack:
        page = Page(port)
        wait_for(page.serves, 30, "the status page is served")
        sessions = [stack.enter_context(session_of(ambassador)) for _ in range(APPLICATIONS)]
        for session in sessions:
            session.autocommit = True
            session.execute("BEGIN")
            if read:
                assert scalar(session, "SELECT count(*) FROM orm_item") >= 0
        assert {session.info.transaction_status for session in sessions} == {TransactionStatus.INTRANS}
        assert idle_in_transaction(late_cluster) == []
        seen = page.look()
        assert seen.sessions.by_state["virtual"] == APPLICATIONS
        pools = [pool for pool in seen.pools if pool.user == USER]
        assert [pool for pool in pools if pool.active or pool.waiting] == []
        for session in sessions:
            session.execute("COMMIT")
            assert session.info.transaction_status == TransactionStatus.IDLE


@pytest.fixture(scope="module")
def counted(late_cluster: Cluster) -> Iterator[tuple[Ambassador, Counted]]:
    """An ambassador whose every round trip to a member is counted."""
    with (
        counting_relays(late_cluster.servers) as relays,
        running_ambassador(late_cluster.servers, "--registry", relays.registry) as ambassador,
    ):
        wait_for(lambda: members_of_reads(ambassador) == REPLICAS, 30, "reads are answered by both replicas")
        yield ambassador, relays


MARK = "one_round_trip"
TRANSACTIONS = 20


def since(relays: Counted, before: list[RoundTrip]) -> list[RoundTrip]:
    known = set(map(id, before))
    return [each for each in relays.of(USER, MARK.encode()) if id(each) not in known]


def test_psycopg_pays_one_round_trip_for_a_transaction_of_one_read(counted: tuple[Ambassador, Counted]) -> None:
    ambassador, relays = counted

    def transaction() -> None:
        assert scalar(session, f"SELECT count(*) AS {MARK} FROM orm_item WHERE name = %s", "x") == 0
        session.commit()

    with session_of(ambassador) as session:
        for _ in range(TRANSACTIONS):
            # Backends are opened, statements prepared.
            transaction()
        before = list(relays.of(USER, MARK.encode()))
        for _ in range(TRANSACTIONS):
            transaction()
        found = since(relays, before)
    assert len(found) == TRANSACTIONS, "\n".join(map(str, found[:12]))
    assert {each.member for each in found} <= REPLICAS


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_sqlalchemy_pays_one_round_trip_for_a_transaction_of_one_read(
    counted: tuple[Ambassador, Counted], dialect: str
) -> None:
    ambassador, relays = counted

    async def transaction(engine: AsyncEngine) -> None:
        async with AsyncSession(engine) as session:
            statement = select(func.count(Item.id).label(MARK)).where(Item.name == "x")
            assert await session.scalar(statement) == 0
            await session.commit()

    async for engine in engine_of(dialect, ambassador.port):
        for _ in range(TRANSACTIONS):
            await transaction(engine)
        before = list(relays.of(USER, MARK.encode()))
        for _ in range(TRANSACTIONS):
            await transaction(engine)
        found = since(relays, before)
        assert len(found) == TRANSACTIONS, "\n".join(map(str, found[:12]))
        assert {each.member for each in found} <= REPLICAS


@pytest.mark.parametrize("simple", [True, False], ids=["simple", "extended"])
async def test_a_plain_transaction_of_one_read_costs_one_round_trip(
    counted: tuple[Ambassador, Counted], simple: bool
) -> None:
    ambassador, relays = counted
    session = await asyncpg.connect(ambassador.dsn(user=USER, password=PASSWORD))
    question = f"SELECT count(*) AS {MARK} FROM orm_item"
    try:
        for turn in range(2 * TRANSACTIONS):
            if turn == TRANSACTIONS:
                before = list(relays.of(USER, MARK.encode()))
            await session.execute("BEGIN")
            await (session.execute(question) if simple else session.fetch(question))
            await session.execute("COMMIT")
        found = since(relays, before)
    finally:
        await session.close()
    assert len(found) == TRANSACTIONS, "\n".join(map(str, found[:12]))
    assert {each.member for each in found} <= REPLICAS


async def test_transactions_at_the_same_time_do_not_see_each_other(ambassador: Ambassador) -> None:
    """More open transactions than backends, each with its own reads, writes and end."""

    async def one(number: int) -> None:
        session = await asyncpg.connect(ambassador.dsn(user=USER, password=PASSWORD))
        try:
            for turn in range(6):
                name = f"crowd-{number}-{turn}"
                counted = "SELECT count(*) FROM orm_item WHERE name = $1"
                transaction = session.transaction()
                await transaction.start()
                assert await session.fetchval(counted, name) == 0
                await session.execute("INSERT INTO orm_item (name) VALUES ($1)", name)
                assert await session.fetchval(counted, name) == 1
                await (transaction.commit() if turn % 2 else transaction.rollback())
                assert await session.fetchval(counted, name) == turn % 2
        finally:
            await session.close()

    async with asyncio.TaskGroup() as group:
        for number in range(APPLICATIONS):
            group.create_task(one(number))
