"""An agent's registration and a proxy's topology, over the store in memory and over a real etcd."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from pgamb.demo.etcd import EtcdServer
from pgamb.errors import RegistryMismatch, RegistryUnavailable
from pgamb.registry.announcer import Announcer
from pgamb.registry.keys import Keys, encode
from pgamb.registry.model import Member, PrimaryRecord, Role, Stats
from pgamb.registry.store import Compare, Put
from pgamb.registry.watcher import EtcdRegistry
from tests.conformance.conftest import EtcdSubject, MemorySubject, Subject, open_store
from tests.conformance.registering import CLUSTER, DEADLINE_S, TIMING, announcing, following, member, revision, until
from tests.support.waiting import wait_for_async


def proxy(subject: Subject) -> EtcdRegistry:
    store = subject.memory if isinstance(subject, MemorySubject) else open_store(_server(subject))
    return EtcdRegistry(store, "db", prefix=subject.prefix, timing=TIMING)


def _server(subject: Subject) -> EtcdServer:
    assert isinstance(subject, EtcdSubject)
    return subject.server


async def test_a_member_comes_changes_and_goes(subject: Subject) -> None:
    registry = proxy(subject)
    async with announcing(subject.store, subject.prefix, "pg1") as agent, following(registry) as heard:
        assert await agent.announce(member("pg1"), Stats("pg1", wal_lsn=2**63 - 1, lag_s=0.5))
        topology = await until(heard, lambda t: t.members, "the member")
        assert topology.members == (member("pg1"),)
        assert topology.replicas() == (member("pg1"),)
        assert topology.cluster == CLUSTER
        assert topology.primary_member() is None
        assert await registry.stats() == (Stats("pg1", wal_lsn=2**63 - 1, lag_s=0.5),)
        count = len(heard)
        assert await agent.announce(member("pg1"), Stats("pg1", wal_lsn=7))
        await wait_for_async(lambda: read_stats(registry, 7), DEADLINE_S, "new statistics")
        item = await subject.store.get(Keys("db", subject.prefix).member("pg1"))
        assert item is not None
        await subject.store.put(Put(item.key, item.value, item.lease_id))
        await asyncio.sleep(0.05)
        assert len(heard) == count, "neither statistics nor the same once more wake anybody"
        assert await agent.announce(member("pg1", Role.PRIMARY, 2))
        await until(heard, lambda t: t.members == (member("pg1", Role.PRIMARY, 2),), "the new role")
        assert await agent.withdraw()
        topology = await until(heard, lambda t: not t.members, "the withdrawal")
        assert topology.cluster == CLUSTER
        assert await registry.stats() == ()
        assert not agent.lease_valid
        assert await agent.announce(member("pg1")), "a withdrawn member can come back"
        await until(heard, lambda t: t.members, "the member again")
        status = registry.status()
        assert status.connected
        assert status.age_s is not None
        assert status.last_error is None


async def read_stats(registry: EtcdRegistry, wal_lsn: int) -> bool:
    return [stats.wal_lsn for stats in await registry.stats()] == [wal_lsn]


async def test_both_keys_are_on_the_lease_after_every_write(subject: Subject) -> None:
    """Guard 12: a put without the lease would detach the key, and a dead agent's member would stay for ever."""
    keys = Keys("db", subject.prefix)
    async with announcing(subject.store, subject.prefix, "pg1") as agent:
        for lsn in range(3):
            assert await agent.announce(member("pg1", timeline=1 + lsn // 2), Stats("pg1", wal_lsn=lsn))
            items = [await subject.store.get(keys.member("pg1")), await subject.store.get(keys.stats("pg1"))]
            leases = [item.lease_id for item in items if item is not None]
            assert len(leases) == 2
            assert 0 not in leases
            assert leases[0] == leases[1]


async def test_the_primary_is_the_one_that_says_so_and_is_named(subject: Subject) -> None:
    async with (
        announcing(subject.store, subject.prefix, "pg1") as one,
        announcing(subject.store, subject.prefix, "pg2") as two,
        following(proxy(subject)) as heard,
    ):
        await one.announce(member("pg1", Role.PRIMARY, 3))
        topology = await until(heard, lambda t: t.members, "the member")
        assert topology.primary_member() is None, "saying so is not enough"
        assert await one.claim_primary(PrimaryRecord("pg1", 3), 0)
        topology = await until(heard, lambda t: t.primary, "the record")
        assert topology.primary_member() == member("pg1", Role.PRIMARY, 3)
        await two.announce(member("pg2", Role.PRIMARY, 4))
        view = one.view()
        assert view is not None
        assert await two.claim_primary(PrimaryRecord("pg2", 4), await revision(two, PrimaryRecord("pg1", 3)))
        topology = await until(heard, lambda t: t.primary == PrimaryRecord("pg2", 4), "the new record")
        assert topology.primary_member() == member("pg2", Role.PRIMARY, 4)
        stale = topology.member("pg1")
        assert stale is not None
        assert stale.role is Role.STALE_PRIMARY, "whatever its agent says"


async def test_another_cluster_is_refused_and_told_why(subject: Subject) -> None:
    keys = Keys("db", subject.prefix)
    async with (
        announcing(subject.store, subject.prefix, "pg1") as one,
        announcing(subject.store, subject.prefix, "pg2") as two,
    ):
        await one.announce(member("pg1"))
        with pytest.raises(RegistryMismatch, match=f"is the PostgreSQL cluster {CLUSTER}.*belongs to cluster 99"):
            await two.announce(member("pg2", cluster="99"))
        with pytest.raises(RegistryMismatch):
            await two.ensure_cluster("99")
        assert await subject.store.get(keys.member("pg2")) is None
        # What is mended is mended: the right server under that name is let in.
        await wait_for_async(lambda: announced(two, member("pg2")), DEADLINE_S, "the right server is registered")
        await one.ensure_cluster(CLUSTER)


async def announced(agent: Announcer, wanted: Member) -> bool:
    try:
        return await agent.announce(wanted)
    except RegistryMismatch:
        return False


async def test_a_key_that_was_removed_or_changed_by_others_comes_back(subject: Subject) -> None:
    keys = Keys("db", subject.prefix)
    async with (
        announcing(subject.store, subject.prefix, "pg1", ttl_s=3) as agent,
        following(proxy(subject)) as heard,
    ):
        await agent.announce(member("pg1"))
        await until(heard, lambda t: t.members, "the member")
        await subject.store.delete(keys.member("pg1"))
        await until(heard, lambda t: not t.members or len(heard) > 2, "the removal")
        await until(heard, lambda t: t.members == (member("pg1"),), "the member again")
        await subject.store.put(Put(keys.member("pg1"), b"nonsense"))
        await until(heard, lambda t: not t.members, "nonsense is no member")
        await until(heard, lambda t: t.members == (member("pg1"),), "the member once more")


async def test_nonsense_in_the_registry_is_left_out_and_named(subject: Subject) -> None:
    keys = Keys("db", subject.prefix)
    registry = proxy(subject)
    async with announcing(subject.store, subject.prefix, "pg1") as agent, following(registry) as heard:
        await agent.announce(member("pg1"))
        await subject.store.put(Put(keys.member("pg2"), b"\xff{"))
        await subject.store.put(Put(keys.member("pg3"), encode(member("pg4"))))
        await subject.store.put(Put(keys.member("pg5"), encode(member("pg5", cluster="99"))))
        await subject.store.put(Put(keys.primary, b"[]"))
        await wait_for_async(
            lambda: (registry.status().last_error or "").count(";") == 3, DEADLINE_S, "all four are complained of"
        )
        assert heard[-1].members == (member("pg1"),)
        assert heard[-1].primary is None


async def test_views_show_what_a_claim_is_compared_with(subject: Subject) -> None:
    async with announcing(subject.store, subject.prefix, "pg1") as agent:
        view = agent.view()
        assert view is not None
        assert (view.primary, view.primary_revision, view.cluster, view.members) == (None, 0, None, ())
        await agent.announce(member("pg1", Role.PRIMARY))
        async with asyncio.timeout(DEADLINE_S), aclosing(agent.views()) as views:
            async for view in views:
                if view.members:
                    break
        assert view.cluster == CLUSTER
        assert view.connected
        assert view.age_s < 30
        assert view.cluster_revision > 0
        transaction = await subject.store.transact(
            [Compare(Keys("db", subject.prefix).cluster, view.cluster_revision)], []
        )
        assert transaction.succeeded


async def test_an_etcd_that_comes_back_empty_is_believed_only_when_it_knows_the_primary_again(
    own_etcd: EtcdServer,
) -> None:
    store = open_store(own_etcd, call_timeout_s=0.5)
    async with announcing(store, "/pgamb", "pg1", ttl_s=5) as agent:
        registry = EtcdRegistry(open_store(own_etcd), "db", timing=TIMING)
        async with following(registry) as heard:
            await agent.announce(member("pg1", Role.PRIMARY, 2))
            assert await agent.claim_primary(PrimaryRecord("pg1", 2), 0)
            await until(heard, lambda t: t.primary_member(), "the primary")
            await asyncio.to_thread(own_etcd.stop)
            own_etcd.wipe()
            await wait_for_async(lambda: not registry.status().connected, DEADLINE_S, "the loss")
            await asyncio.to_thread(own_etcd.start)
            await wait_for_async(lambda: registry.status().connected, DEADLINE_S, "the connection")
            at = await wait_for_async(lambda: reregistered(agent), DEADLINE_S, "the agent writes all again")
            assert [t for t in heard if t.primary is not None and t.primary_member() is None] == []
            assert heard[-1].primary == PrimaryRecord("pg1", 2), "the last topology stands"
            assert at == (True, 0)
            assert await agent.claim_primary(PrimaryRecord("pg1", 2), 0)
            newest = await until(heard, lambda t: t.revision < 20 and t.primary_member(), "the new store")
            assert newest.cluster == CLUSTER
    await store.close()


def reregistered(agent: Announcer) -> tuple[bool, int] | None:
    view = agent.view()
    if view is None or not view.members or not view.connected or view.primary is not None:
        return None
    return True, view.primary_revision


async def test_an_ambassador_that_starts_before_its_etcd_waits_and_says_for_what(own_etcd: EtcdServer) -> None:
    own_etcd.stop()
    registry = EtcdRegistry(open_store(own_etcd), "db", timing=TIMING)
    async with following(registry) as heard:
        await wait_for_async(lambda: registry.status().last_error is not None, DEADLINE_S, "what it waits for")
        status = registry.status()
        assert own_etcd.endpoint in (status.last_error or "")
        assert (status.connected, status.age_s, heard) == (False, None, [])
        await asyncio.to_thread(own_etcd.start)
        topology = await until(heard, lambda t: t.revision, "the first topology")
        assert (topology.members, topology.primary) == ((), None)


async def test_an_agent_starts_before_its_etcd_and_outlives_it(own_etcd: EtcdServer) -> None:
    """Guards 12 and 13: etcd away at the start, then for longer than the lease."""
    own_etcd.stop()
    store = open_store(own_etcd, call_timeout_s=0.3)
    agent = Announcer(store, "db", "pg1", 2, timing=TIMING)
    running = asyncio.create_task(agent.run())
    assert agent.view() is None
    assert not await agent.announce(member("pg1"), wait_s=0.5)
    assert agent.last_error is not None
    with pytest.raises(RegistryUnavailable):
        await agent.ensure_cluster(CLUSTER)
    await asyncio.to_thread(own_etcd.start)
    await wait_for_async(lambda: agent.lease_valid, DEADLINE_S, "registered by itself")
    await wait_for_async(lambda: is_there(agent), DEADLINE_S, "seen in its own view")
    own_etcd.pause()
    await wait_for_async(lambda: not agent.lease_valid, DEADLINE_S, "the lease is lost by our own clock")
    await wait_for_async(lambda: not connected(agent), DEADLINE_S, "the view says so")
    before = asyncio.get_running_loop().time()
    assert not await agent.withdraw(wait_s=0.5)
    assert asyncio.get_running_loop().time() - before < 1.5, "a withdrawal waits no longer than it may"
    assert not await agent.announce(member("pg1", timeline=9))
    own_etcd.resume()
    await wait_for_async(lambda: agent.lease_valid and is_there(agent, 9), DEADLINE_S, "registered again")
    running.cancel()
    await asyncio.wait([running])
    await agent.close()


def is_there(agent: Announcer, timeline: int = 1) -> bool:
    view = agent.view()
    return view is not None and [member.timeline for member in view.members] == [timeline]


def connected(agent: Announcer) -> bool:
    view = agent.view()
    return view is not None and view.connected
