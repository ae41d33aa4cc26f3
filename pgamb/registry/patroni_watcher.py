"""The topology of a Patroni cluster, from the keys that Patroni keeps in etcd. Nothing is ever written there.

Patroni writes what a member is once a round, and after a promotion when its own work for that is done: seconds late. So
a member that holds the leader key and says replica is asked itself, until it says primary or Patroni tells otherwise.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from pgamb.errors import PgambError
from pgamb.registry.mirror import Contents, Timing
from pgamb.registry.model import Role, Stats, Topology
from pgamb.registry.patroni import Awaited, Heard, Memory, PatroniKeys, read_stats, resolve
from pgamb.registry.static import Prober
from pgamb.registry.store import Store
from pgamb.registry.watcher import Reading, WatchedRegistry

# A promotion takes about a tenth of a second, and is not to be known much later than it is over.
ASK_EVERY_S = 0.05
ANSWER_WITHIN_S = 2.0


class PatroniRegistry(WatchedRegistry):
    """What Patroni has written below `root`, a namespace and a scope; `service` is what we call it."""

    def __init__(
        self,
        store: Store,
        service: str,
        root: str,
        *,
        prober: Prober | None = None,
        source: str = "patroni+etcd://",
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._service = service
        self._keys = PatroniKeys(root)
        self._prober = prober
        self._memory = Memory()
        self._awaited: Awaited | None = None
        self._heard: Heard | None = None
        self._asked_for = asyncio.Event()
        super().__init__(store, self._keys.watched, source=source, timing=timing, clock=clock, jitter=jitter)

    async def stats(self) -> tuple[Stats, ...]:
        """Return what the members last said, which is as old as their last round; sorted by node."""
        contents = self._mirror.contents
        return () if contents is None else read_stats(self._keys, contents.items)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(super()._run())
            if self._prober is not None:
                group.create_task(self._ask(self._prober))

    def _read(self, contents: Contents, known: Topology | None) -> Reading:
        items, revision = contents.items, contents.position.revision
        found = resolve(self._service, self._keys, items, revision, self._memory, self._heard)
        self._memory = found.memory
        if found.awaited != self._awaited:
            self._awaited, self._heard = found.awaited, None
            self._asked_for.set()
        return Reading(found.topology, found.problems, found.notes)

    async def _ask(self, prober: Prober) -> None:
        while True:
            awaited = self._awaited
            if awaited is None:
                self._asked_for.clear()
                await self._asked_for.wait()
                continue
            heard = await self._hear(prober, awaited)
            if awaited == self._awaited and heard != self._heard and self._mirror.contents is not None:
                self._heard = heard
                self._publish(self._mirror.contents)
            await asyncio.sleep(ASK_EVERY_S)

    async def _hear(self, prober: Prober, awaited: Awaited) -> Heard | None:
        """Ask one member; None when it says that it is not the primary. Silence changes nothing."""
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                said = await prober.probe(awaited.address)
        except (PgambError, TimeoutError):
            return self._heard
        if said.role is not Role.PRIMARY or said.system_identifier != self._memory.cluster:
            return None
        return Heard(awaited.node, said.timeline)
