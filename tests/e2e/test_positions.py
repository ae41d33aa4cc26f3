"""What is told of positions in the WAL, by real servers: floors, lag, timelines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import asyncpg
import pytest

from pgamb.client.monitor import Asker as LogIn
from pgamb.client.monitor import asker_from_dsn
from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import MONITOR
from pgamb.routing.freshness import LONG_HEADER_BYTES, PAGE_BYTES, SHORT_HEADER_BYTES, end_of_record, parse_lsn
from tests.e2e.conftest import MakeCluster
from tests.support import free_port, wait_for
from tests.support.ambassador import running_ambassador
from tests.support.askers import DEADLINE_S, Rig, running_rig
from tests.support.status_page import Page
from tests.support.waiting import wait_for_async

if TYPE_CHECKING:
    from tests.support.watcher import Watcher

# Whoever starts servers takes what initdb makes of --wal-segsize 1.
SEGMENT_BYTES = 1 << 20


@pytest.fixture
async def rig(bare_cluster: Cluster, watcher_type: type[Watcher]) -> AsyncIterator[Rig]:
    async with running_rig(bare_cluster, watcher_type) as running:
        running.apply(bare_cluster.primary, 1, *bare_cluster.replicas)
        yield running


@pytest.fixture
async def connection(bare_cluster: Cluster) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A session on the primary itself."""
    connection = await asyncpg.connect(bare_cluster.primary.dsn())
    yield connection
    await connection.close()


async def insert_position(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    return parse_lsn(await connection.fetchval("SELECT pg_current_wal_insert_lsn()::text"))


async def emit(connection: asyncpg.Connection[asyncpg.Record], size: int) -> int:
    """Commit something of about that size, and return where the next record will begin."""
    await connection.execute("SELECT pg_logical_emit_message(true, 'p', repeat('x', $1))", size)
    return await insert_position(connection)


async def test_what_was_committed_is_shown_by_a_replica_that_has_reached_its_floor(
    rig: Rig, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("CREATE TABLE IF NOT EXISTS of_positions (n int)")
    async with AsyncExitStack() as stack:
        readers = {}
        for server in rig.cluster.replicas:
            await rig.usable(server)
            readers[server] = await asyncpg.connect(server.dsn())
            stack.push_async_callback(readers[server].close)
        for n in range(50):
            await connection.execute("INSERT INTO of_positions VALUES ($1)", n)
            floor = await rig.floor()
            for server, reader in readers.items():
                await rig.replayed(rig.position(server), floor)
                assert await reader.fetchval("SELECT max(n) FROM of_positions") == n
    await connection.execute("DROP TABLE of_positions")
    assert rig.freshness.questions >= 50
    assert all(position.bound_lsn >= position.replay_lsn for position in rig.freshness.positions)


async def _fill_page(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """Commit so that the commit's record ends with its page; returns the insert position, behind the next header."""
    at = await insert_position(connection)
    while True:
        # How much a commit with this message takes; larger ones take eight bytes more for each eight.
        before, at = at, await emit(connection, 300)
        taken = at - before
        left = PAGE_BYTES - at % PAGE_BYTES
        if before // PAGE_BYTES != at // PAGE_BYTES or left < taken:
            continue
        at = await emit(connection, 300 + left - taken)
        if at % PAGE_BYTES == SHORT_HEADER_BYTES:
            return at


async def _fill_segment(connection: asyncpg.Connection[asyncpg.Record]) -> int:
    """Let the WAL end with its segment."""
    while True:
        await emit(connection, 300)
        await connection.execute("SELECT pg_switch_wal()")
        at = await insert_position(connection)
        if at % SEGMENT_BYTES == LONG_HEADER_BYTES:
            return at


@pytest.mark.parametrize("fill", [_fill_page, _fill_segment])
async def test_a_replica_reaches_a_floor_at_the_end_of_a_page(
    rig: Rig, connection: asyncpg.Connection[asyncpg.Record], fill: object
) -> None:
    # The insert position stood behind the next page's header, replay before it: of an idle cluster, no replica
    # was new enough any more after one commit of several hundred. Now the header is taken off.
    assert callable(fill)
    server = rig.cluster.replicas[0]
    position = await rig.usable(server)
    for _ in range(20):
        at = await fill(connection)
        floor = await rig.floor()
        try:
            # Every 15 s the background writer adds a record, and hides the fault.
            await rig.replayed(position, floor, 5.0)
        except AssertionError:
            if await insert_position(connection) == at:
                raise
            continue
        if await insert_position(connection) == at:
            # Nothing else was written: it is this very end that was reached.
            assert floor == end_of_record(at, segment_bytes=SEGMENT_BYTES) == position.replay_lsn < at
            return
    pytest.fail("something else was written each time")


async def test_who_may_not_see_the_wal_receiver_still_learns_of_positions(
    bare_cluster: Cluster, watcher_type: type[Watcher], connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("DROP ROLE IF EXISTS of_no_rights")
    await connection.execute("CREATE ROLE of_no_rights LOGIN PASSWORD 'x' ")
    await connection.execute("ALTER ROLE of_no_rights SET default_transaction_isolation = 'serializable'")
    await connection.execute("ALTER ROLE of_no_rights SET statement_timeout = '1ms'")
    login = asker_from_dsn(bare_cluster.primary.dsn(user="of_no_rights", password="x"))
    async with running_rig(bare_cluster, watcher_type, login) as rig:
        rig.apply(bare_cluster.primary, 1, *bare_cluster.replicas)
        for server in bare_cluster.replicas:
            position = await rig.usable(server)
            await emit(connection, 100)
            await rig.replayed(position, await rig.floor())
    await connection.execute("DROP ROLE of_no_rights")


async def test_a_replica_that_lags_is_left_out_and_comes_back(
    make_cluster: MakeCluster, watcher_type: type[Watcher], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    cluster = make_cluster(etcd=0, agents=False, client=False)
    late, other = cluster.replicas
    async with running_rig(cluster, watcher_type, max_lag_s=0.5) as rig:
        rig.apply(cluster.primary, 1, late, other)
        position = await rig.usable(late)
        await rig.usable(other)
        late.query("ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
        late.query("SELECT pg_reload_conf()")
        connection = await asyncpg.connect(cluster.primary.dsn())

        async def is_left_out() -> bool:
            rig.activity += 1
            await emit(connection, 1000)
            return not position.usable

        await wait_for_async(is_left_out, DEADLINE_S, "the late replica is left out")
        assert position.lagging
        assert position.lag_s > 0.5
        assert position.lag_bytes >= 1000
        assert "--max-lag" in position.why_not
        assert rig.watcher.behind(position)
        assert rig.position(other).usable
        late.query("ALTER SYSTEM RESET recovery_min_apply_delay")
        late.query("SELECT pg_reload_conf()")
        position = await rig.usable(late)
        assert not position.lagging
        await wait_for_async(
            lambda: (
                [record.msg for record in caplog.records if record.msg.startswith("replica.")][-1:]
                == ["replica.caught_up"]
            ),
            DEADLINE_S,
            "it is logged",
        )
        await connection.close()
    told = [record for record in caplog.records if record.msg == "replica.lags"]
    assert {record.__dict__["kv"]["member"] for record in told} == {late.name}


async def test_a_promotion_leaves_no_floor_and_no_replica_of_the_old_branch(
    make_cluster: MakeCluster, watcher_type: type[Watcher]
) -> None:
    cluster = make_cluster(etcd=0, agents=False, client=False)
    old, new, left = cluster.servers
    async with running_rig(cluster, watcher_type) as rig:
        rig.apply(old, 1, new, left)
        for server in (new, left):
            await rig.usable(server)
        connection = await asyncpg.connect(old.dsn())
        await emit(connection, 100)
        await connection.close()
        floor = await rig.floor()
        required = rig.freshness.required
        await rig.replayed(rig.position(left), floor)
        await asyncio.to_thread(new.promote)
        # The old branch goes on, and one replica goes on with it.
        old.query("SELECT pg_logical_emit_message(true, 'p', repeat('x', 100000))")
        await rig.replayed(rig.position(left), await rig.floor())
        beyond = rig.watcher.moment()
        rig.apply(new, 2, old, left)
        assert not rig.watcher.known(required)
        assert not rig.watcher.known(beyond)
        assert not rig.position(left).usable
        assert not rig.position(old).usable
        await wait_for_async(lambda: rig.watcher.known(beyond), DEADLINE_S, "the new primary has answered")
        assert rig.watcher.floor_of(required) == rig.watcher.floor_of(beyond) == rig.freshness.lsn
        # It has replayed more than the new primary has, and yet not what the new primary shows.
        position = rig.position(left)
        asked = position.sent
        await wait_for_async(lambda: position.answered > asked, DEADLINE_S, "it has answered since")
        assert position.replay_lsn > rig.freshness.lsn
        assert not position.usable
        assert position.why_not == "on timeline 1, the primary is on 2"
        # A server that was the primary comes back behind the new one.
        await asyncio.to_thread(old.rewind, new)
        assert (await rig.usable(old)).timeline == 2
        new.query("SELECT pg_logical_emit_message(true, 'p', repeat('x', 100))")
        await rig.replayed(rig.position(old), await rig.floor())
        assert not position.usable


async def test_a_primary_that_restarts_is_asked_again_what_was_not_answered(
    make_cluster: MakeCluster, watcher_type: type[Watcher]
) -> None:
    cluster = make_cluster(etcd=0, agents=False, client=False, replicas=1)
    primary, replica = cluster.servers
    async with running_rig(cluster, watcher_type) as rig:
        rig.apply(primary, 1, replica)
        await rig.usable(replica)
        await rig.floor()
        await asyncio.to_thread(primary.stop)
        asker = rig.freshness.primary
        assert asker is not None
        await wait_for_async(lambda: not asker.connected, DEADLINE_S, "the connection is lost")
        rig.watcher.committed()
        required = rig.freshness.required
        assert not rig.watcher.known(required)
        await asyncio.to_thread(primary.start)
        await wait_for_async(lambda: rig.watcher.known(required), DEADLINE_S, "it is asked again")
        await rig.replayed(await rig.usable(replica), rig.freshness.floor_lsn)


async def test_a_server_that_is_frozen_is_given_up(make_cluster: MakeCluster, watcher_type: type[Watcher]) -> None:
    cluster = make_cluster(etcd=0, agents=False, client=False, replicas=1)
    primary, replica = cluster.servers
    async with running_rig(cluster, watcher_type) as rig:
        rig.apply(primary, 1, replica)
        position = await rig.usable(replica)
        epoch = position.epoch
        replica.pause()
        await wait_for_async(lambda: not position.usable, DEADLINE_S, "it is no longer read from")
        await wait_for_async(lambda: position.epoch > epoch, DEADLINE_S, "its connection is given up")
        replica.resume()
        await rig.usable(replica)


async def test_without_a_replica_nobody_is_asked(bare_cluster: Cluster, watcher_type: type[Watcher]) -> None:
    async with running_rig(bare_cluster, watcher_type) as rig:
        rig.apply(bare_cluster.primary, 1)
        tracked = rig.freshness.tracks
        assert not tracked
        assert rig.positions.position(bare_cluster.primary.name) is None
        rig.watcher.committed()
        moment = rig.watcher.moment()
        # What was committed meanwhile is asked for when there is one.
        rig.apply(bare_cluster.primary, 1, bare_cluster.replicas[0])
        assert rig.freshness.tracks
        await wait_for_async(lambda: rig.watcher.known(moment), DEADLINE_S, "the floor is known")


async def test_the_monitoring_role_of_the_agents_sees_the_timeline(
    bare_cluster: Cluster, watcher_type: type[Watcher]
) -> None:
    login = asker_from_dsn(bare_cluster.primary.dsn(user=MONITOR))
    login = LogIn("postgres", login.user, login.credentials)
    async with running_rig(bare_cluster, watcher_type, login) as rig:
        rig.apply(bare_cluster.primary, 1, *bare_cluster.replicas)
        for server in bare_cluster.replicas:
            assert (await rig.usable(server)).timeline == 1


async def test_without_a_log_in_of_its_own_it_asks_as_an_application(
    bare_cluster: Cluster, watcher_type: type[Watcher], connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await connection.execute("DROP DATABASE IF EXISTS of_application")
    await connection.execute("DROP ROLE IF EXISTS of_application")
    await connection.execute("CREATE ROLE of_application LOGIN PASSWORD 'x'")
    await connection.execute("CREATE DATABASE of_application")
    credentials = asker_from_dsn(bare_cluster.primary.dsn(user="of_application", password="x")).credentials
    lent = LogIn("of_application", "of_application", credentials)
    async with running_rig(bare_cluster, watcher_type, lent=lent) as rig:
        rig.apply(bare_cluster.primary, 1, *bare_cluster.replicas)
        assert not rig.freshness.positions[0].usable
        for server in bare_cluster.replicas:
            await rig.usable(server)
        await rig.floor()
        # It is not in the way of who wants to be rid of the database.
        await connection.execute("DROP DATABASE of_application")
        found = await connection.fetch(
            "SELECT datname, usename FROM pg_stat_activity WHERE application_name = 'pgamb_freshness'"
        )
        assert ("postgres", "of_application") in [tuple(row) for row in found]
    await connection.execute("DROP ROLE of_application")


def askers(cluster: Cluster) -> int:
    """Count the connections for questions that the primary has now; other tests' ambassadors may have theirs."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgamb_freshness'"
    [(count,)] = cluster.primary.query(sql)
    assert isinstance(count, int)
    return count


def test_an_ambassador_tells_how_far_its_replicas_are(bare_cluster: Cluster) -> None:
    port = free_port()
    others = askers(bare_cluster)
    with running_ambassador(bare_cluster.servers, "--status-listen", f"127.0.0.1:{port}"):
        page = Page(port)
        replicas = {server.name for server in bare_cluster.replicas}

        def read_from() -> bool:
            members = [member for member in page.look().members if member.role == "replica"]
            return {member.node for member in members if not member.unread_because} == replicas

        wait_for(read_from, DEADLINE_S, "the replicas have answered")
        snapshot = page.look()
        for member in snapshot.members:
            assert (member.node in replicas) == (member.replay_lsn is not None) == (member.lag_s is not None)
            assert member.lag_bytes is None or member.lag_bytes < 1 << 20
        assert snapshot.freshness.questions > 0
        assert snapshot.freshness.consistency == "ambassador"
        series = page.metrics()
        for node in replicas:
            assert series[f'pgamb_replica_usable{{member="{node}"}}'] == 1
            assert series[f'pgamb_replica_lag_seconds{{member="{node}"}}'] < DEADLINE_S
            assert series[f'pgamb_replica_lag_bytes{{member="{node}"}}'] < 1 << 20
        assert askers(bare_cluster) == others + 1
    wait_for(lambda: askers(bare_cluster) == others, DEADLINE_S, "its connection has gone with it")
