"""The part of an ambassador that asks members for their positions, in front of real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgamb.client.monitor import Asker as LogIn
from pgamb.client.monitor import asker_from_dsn
from pgamb.client.opener import Opener
from pgamb.client.positions import Positions
from pgamb.config import ClientOptions
from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import HOST, PostgresServer
from pgamb.registry.model import Address, Member, PrimaryRecord, Role, Topology
from pgamb.relay.freshness import Freshness, Position
from pgamb.relay.reactor import Reactor, Source
from tests.support.waiting import wait_for_async

if TYPE_CHECKING:
    from tests.support.watcher import Watcher

DEADLINE_S = 30.0


@dataclass(slots=True)
class Rig:
    """The askers of an ambassador in front of a cluster, without the ambassador."""

    cluster: Cluster
    positions: Positions
    watcher: Watcher
    activity: int = 0

    @property
    def freshness(self) -> Freshness:
        return self.positions.freshness

    def apply(self, primary: PostgresServer, timeline: int, *replicas: PostgresServer) -> None:
        """Tell what a registry would; of replicas it claims nothing but that they are there."""
        members = [_member(primary, Role.PRIMARY, timeline), *(_member(server, Role.REPLICA, 1) for server in replicas)]
        self.positions.apply(Topology("db", tuple(members), PrimaryRecord(primary.name, timeline)))

    def position(self, server: PostgresServer) -> Position:
        position = self.positions.position(server.name)
        assert position is not None
        return position

    async def usable(self, server: PostgresServer) -> Position:
        position = self.position(server)
        await wait_for_async(lambda: position.usable, DEADLINE_S, f"{position!r} is usable")
        return position

    async def floor(self) -> int:
        """Say that something was committed, and wait until its floor is known."""
        self.watcher.committed()
        required = self.freshness.required
        await wait_for_async(lambda: self.watcher.known(required), DEADLINE_S, "the floor is known")
        assert self.freshness.floor_lsn == self.watcher.floor_of(required)
        return self.freshness.floor_lsn

    async def replayed(self, position: Position, floor: int, deadline_s: float = DEADLINE_S) -> None:
        """Wait as a session does, again and again, until the replica shows what lies before the floor."""

        def wait_again() -> bool:
            self.watcher.wait(position, floor)
            return position.replay_lsn >= floor

        await wait_for_async(wait_again, deadline_s, f"{position!r} has replayed {floor:X}")
        self.watcher.forget()


def _member(server: PostgresServer, role: Role, timeline: int) -> Member:
    return Member(server.name, role, (Address(HOST, server.port),), timeline, "7", 0)


@asynccontextmanager
async def running_rig(
    cluster: Cluster,
    watcher_type: type[Watcher],
    login: LogIn | None = None,
    lent: LogIn | None = None,
    **options: object,
) -> AsyncIterator[Rig]:
    loop = asyncio.get_running_loop()
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    def spawn(work: Coroutine[object, object, None]) -> None:
        tasks.add(loop.create_task(work))

    def defect(source: Source, error: Exception) -> None:
        failures.append(error)

    given = ClientOptions(registry="static://127.0.0.1", **options)  # type: ignore[arg-type]
    reactor = Reactor(loop, defect)
    positions = Positions(
        given,
        reactor,
        Opener(given),
        None if lent is not None else login or asker_from_dsn(cluster.servers[0].dsn()),
        spawn,
        activity=lambda: running.activity,
        refresh=lambda: None,
    )
    running = Rig(cluster, positions, watcher_type(positions.freshness))
    spawn(positions.tick_forever())
    if lent is not None:
        loop.call_later(0.05, positions.lend, lent)
    try:
        yield running
    finally:
        positions.close()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        reactor.close()
    assert not failures
    assert not [task for task in tasks if not task.cancelled() and task.exception()]
