"""One store in memory and one real etcd, behind the same face, so that each test of the seam runs on both."""

from __future__ import annotations

import asyncio
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import pytest

from pgamb.demo.etcd import EtcdServer
from pgamb.registry.etcd.connection import Connection
from pgamb.registry.etcd.store import EtcdStore
from pgamb.registry.etcd.watch import Heartbeat
from pgamb.registry.memory import ManualClock, MemoryStore
from pgamb.registry.store import Store
from tests.support.etcd import etcdctl
from tests.support.servers import running_etcd

QUICK = Heartbeat(interval_s=1.0, timeout_s=1.0)


class Subject(Protocol):
    """A store, and what its owner can do to it behind its back. `prefix` is the test's own."""

    store: Store
    prefix: str

    @abstractmethod
    async def compact(self) -> None:
        """Forget the history up to now."""

    @abstractmethod
    async def outlast(self, ttl_s: int) -> None:
        """Let more than a lease's time pass."""


class MemorySubject(Subject):
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.memory = MemoryStore(self.clock)
        self.store: Store = self.memory
        self.prefix = "/t/"

    async def compact(self) -> None:
        self.memory.compact()

    async def outlast(self, ttl_s: int) -> None:
        self.clock.advance(ttl_s + 1)
        self.memory.expire()


class EtcdSubject(Subject):
    def __init__(self, server: EtcdServer) -> None:
        self.server = server
        self.store: Store = open_store(server)
        self.prefix = f"/{uuid.uuid4().hex}/"

    async def compact(self) -> None:
        status = await asyncio.to_thread(etcdctl, self.server, "endpoint", "status", "--write-out", "fields")
        revision = next(line.split(":")[1].strip() for line in status.splitlines() if line.startswith('"Revision"'))
        await asyncio.to_thread(etcdctl, self.server, "compact", revision)

    async def outlast(self, ttl_s: int) -> None:
        return  # whoever waits for a lease's end waits with a deadline


def open_store(*servers: EtcdServer, call_timeout_s: float = 2.0) -> EtcdStore:
    endpoints = tuple(server.endpoint for server in servers)
    return EtcdStore(Connection(endpoints, call_timeout_s=call_timeout_s), heartbeat=QUICK)


@pytest.fixture(params=["memory", "etcd"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    chosen: Subject = MemorySubject() if request.param == "memory" else EtcdSubject(request.getfixturevalue("etcd"))
    yield chosen
    await chosen.store.close()


@pytest.fixture
def own_etcd() -> Iterator[EtcdServer]:
    """An etcd of the test's own, to be stopped, killed and wiped."""
    with running_etcd() as server:
        yield server
