"""A Patroni cluster's keys, over the store in memory and over a real etcd: what a proxy hears of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from pgamb.demo.etcd import EtcdServer
from pgamb.errors import ConnectionFailure
from pgamb.registry.lease import new_lease_id
from pgamb.registry.model import Address, PrimaryRecord, Role, Topology
from pgamb.registry.patroni_watcher import PatroniRegistry
from pgamb.registry.source import open_registry
from pgamb.registry.static import Observation, Prober
from pgamb.registry.store import Put, Store
from tests.conformance.conftest import EtcdSubject, MemorySubject, Subject, open_store
from tests.conformance.registering import DEADLINE_S, TIMING, following, until
from tests.support.etcd import enable_authentication, etcdctl
from tests.support.patroni_keys import CLUSTER, KEYS, ROOT, keys_of, member
from tests.support.waiting import wait_for_async

PAIR = {"pg1": member("pg1", "primary"), "pg2": member("pg2")}


class Servers:
    """Answers for servers: a primary on some timeline, a replica, or nothing at all."""

    def __init__(self) -> None:
        self.timelines: dict[str, int | None] = {}
        self.cluster = CLUSTER
        self.asked = 0

    async def probe(self, address: Address) -> Observation:
        self.asked += 1
        if address.host not in self.timelines:
            raise ConnectionFailure(f"{address} does not answer")
        timeline = self.timelines[address.host]
        role = Role.REPLICA if timeline is None else Role.PRIMARY
        return Observation(address.host, role, timeline or 1, self.cluster, 150004)


@pytest.fixture
async def store(subject: Subject) -> Store:
    """A store in which no other test has left anything of this cluster."""
    for key in keys_of(PAIR, leader="pg1", config={}, failover={}):
        await subject.store.delete(key)
    return subject.store


def proxy(subject: Subject, prober: Prober | None = None) -> PatroniRegistry:
    if isinstance(subject, EtcdSubject):
        return PatroniRegistry(open_store(subject.server), "db", ROOT, prober=prober, timing=TIMING)
    assert isinstance(subject, MemorySubject)
    return PatroniRegistry(subject.memory, "db", ROOT, prober=prober, timing=TIMING)


async def write(store: Store, keys: Mapping[str, bytes], lease_id: int = 0) -> None:
    for key, value in keys.items():
        await store.put(Put(key, value, lease_id))


def primary(topology: Topology) -> str | None:
    found = topology.primary_member()
    return found.node if found is not None else None


async def test_a_leader_goes_with_its_lease_and_another_takes_over(subject: Subject, store: Store) -> None:
    lease_id = new_lease_id()
    await store.grant(lease_id, 60)
    await write(store, keys_of({"pg1": PAIR["pg1"]}, leader="pg1"), lease_id)
    await write(store, keys_of({"pg2": PAIR["pg2"]}))
    registry = proxy(subject)
    async with following(registry) as heard:
        topology = await until(heard, primary, "the leader")
        assert topology.primary == PrimaryRecord("pg1", 1)
        assert [each.node for each in topology.replicas()] == ["pg2"]
        assert [each.node for each in await registry.stats()] == ["pg1", "pg2"]
        assert registry.status().notes == ()
        await store.revoke(lease_id)
        topology = await until(heard, lambda t: primary(t) is None and len(t.members) == 1, "the end of the lease")
        assert [each.node for each in topology.replicas()] == ["pg2"], "reads go on"
        assert "nobody holds the leader key" in registry.status().notes[0]
        await write(store, keys_of({"pg2": member("pg2", "primary", 2)}, leader="pg2"))
        topology = await until(heard, primary, "the new leader")
        assert topology.primary == PrimaryRecord("pg2", 2)
        assert registry.status().notes == ()
        count = len(heard)
        await write(store, keys_of({"pg2": member("pg2", "primary", 2, xlog_location=1)}, leader="pg2"))
        await wait_for_async(lambda: at(registry, 1), DEADLINE_S, "a position that has moved")
        assert len(heard) == count, "wakes nobody"


async def at(registry: PatroniRegistry, wal_lsn: int) -> bool:
    return [stats.wal_lsn for stats in await registry.stats()] == [wal_lsn]


async def test_a_promotion_is_known_before_patroni_has_told_it(subject: Subject, store: Store) -> None:
    servers = Servers()
    await write(store, keys_of(PAIR, leader="pg1"))
    async with following(proxy(subject, servers)) as heard:
        await until(heard, primary, "the leader")
        await store.delete(KEYS.member("pg1"))
        await write(store, keys_of({"pg2": member("pg2", "promoted")}, leader="pg2"))
        await wait_for_async(lambda: servers.asked > 2, DEADLINE_S, "pg2 is asked, and asked again")
        assert primary(heard[-1]) is None
        servers.timelines["pg2.example"] = None
        asked = servers.asked
        await wait_for_async(lambda: servers.asked > asked + 1, DEADLINE_S, "it says replica")
        assert primary(heard[-1]) is None
        servers.timelines["pg2.example"] = 2
        topology = await until(heard, primary, "it says primary")
        assert topology.primary == PrimaryRecord("pg2", 2)
        asked, count = servers.asked, len(heard)
        del servers.timelines["pg2.example"]
        await wait_for_async(lambda: servers.asked > asked + 2, DEADLINE_S, "it is silent for a while")
        assert len(heard) == count, "silence is no contradiction"
        await write(store, keys_of({"pg2": member("pg2", "primary", 2)}, leader="pg2"))
        await wait_for_async(lambda: rests(servers), DEADLINE_S, "nobody is asked any more")
        assert primary(heard[-1]) == "pg2"


async def rests(servers: Servers) -> bool:
    asked = servers.asked
    await asyncio.sleep(0.2)
    return servers.asked == asked


async def test_a_server_of_another_cluster_is_not_believed(subject: Subject, store: Store) -> None:
    servers = Servers()
    servers.cluster, servers.timelines = "1", {"pg2.example": 2}
    await write(store, keys_of({"pg2": PAIR["pg2"]}, leader="pg2"))
    async with following(proxy(subject, servers)) as heard:
        await wait_for_async(lambda: servers.asked > 3, DEADLINE_S, "it is asked")
        assert primary(heard[-1]) is None


async def test_an_etcd_that_comes_back_empty_is_believed_when_it_knows_the_leader(own_etcd: EtcdServer) -> None:
    writer = open_store(own_etcd, call_timeout_s=0.5)
    await write(writer, keys_of(PAIR, leader="pg1"))
    registry = PatroniRegistry(open_store(own_etcd), "db", ROOT, timing=TIMING)
    async with following(registry) as heard:
        await until(heard, primary, "the leader")
        count = len(heard)
        await asyncio.to_thread(own_etcd.stop)
        await wait_for_async(lambda: not registry.status().connected, DEADLINE_S, "the loss")
        own_etcd.wipe()
        await asyncio.to_thread(own_etcd.start)
        await wait_for_async(lambda: "forgotten" in "".join(registry.status().notes), DEADLINE_S, "the empty store")
        await write(writer, keys_of({"pg2": PAIR["pg2"]}))
        await wait_for_async(lambda: registry.status().connected, DEADLINE_S, "the connection")
        assert len(heard) == count, "the last topology stands"
        await write(writer, keys_of({"pg2": member("pg2", "primary", 2)}, leader="pg2"))
        topology = await until(heard, lambda t: primary(t) == "pg2", "the new store")
        assert [each.node for each in topology.members] == ["pg2"]
        assert registry.status().notes == ()
    await writer.close()


async def test_an_etcd_with_users_is_read_with_a_right_to_read(own_etcd: EtcdServer) -> None:
    writer = open_store(own_etcd)
    await write(writer, keys_of(PAIR, leader="pg1"))
    await writer.close()
    etcdctl(own_etcd, "role", "add", "reader")
    etcdctl(own_etcd, "role", "grant-permission", "reader", "read", "--prefix=true", f"{ROOT}/")
    etcdctl(own_etcd, "user", "add", "proxy:p@ss")
    etcdctl(own_etcd, "user", "grant-role", "proxy", "reader")
    enable_authentication(own_etcd)
    registry = open_registry(f"patroni+etcd://proxy:p%40ss@{own_etcd.endpoint}{ROOT}", "db")
    async with following(registry) as heard:
        topology = await until(heard, primary, "the leader")
        assert topology.cluster == CLUSTER
        assert "p@ss" not in registry.status().source
