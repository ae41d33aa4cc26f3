"""The topology of a service, from etcd, kept true by list and watch.

While etcd is away the last topology stays. An etcd that comes back *empty* (wiped, restored from before the service
existed) is not believed either until its agents have told it again who is primary: `cluster` and `primary` have no
lease and nobody removes them, so a store without them, after one with them, has lost its memory, not its members.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable

from pgamb.registry.keys import DEFAULT_PREFIX, Keys, decode, read_topology
from pgamb.registry.latest import Latest
from pgamb.registry.mirror import Contents, Mirror, Timing
from pgamb.registry.model import RegistryStatus, Stats, Topology
from pgamb.registry.store import Store

log = logging.getLogger(__name__)


class EtcdRegistry:
    """Implements `Registry`; owns its task and `store`."""

    def __init__(
        self,
        store: Store,
        service: str,
        *,
        source: str = "etcd://",
        prefix: str = DEFAULT_PREFIX,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._source = source
        self._keys = Keys(service, prefix)
        self._mirror = Mirror(store, self._keys.watched, timing=timing, clock=clock, jitter=jitter)
        self._latest: Latest[Topology] = Latest()
        self._problems: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None

    async def topologies(self) -> AsyncGenerator[Topology, None]:
        """Yield the newest topology as soon as there is one, then each that differs."""
        self._start()
        async for topology in self._latest.values():
            yield topology

    async def stats(self) -> tuple[Stats, ...]:
        """Read all statistics once, sorted by node; raises RegistryError."""
        listing = await self._store.list(self._keys.stats_range)
        problems: list[str] = []
        read = [decode(item, Stats, problems) for item in listing.items]
        return tuple(stats for stats in read if stats is not None)

    def refresh(self) -> None:
        """List everything soon, beside the watch."""
        self._mirror.refresh()

    def status(self) -> RegistryStatus:
        problems = "; ".join(self._problems) or None
        return RegistryStatus(
            source=self._source,
            endpoint=self._store.endpoint,
            connected=self._mirror.connected,
            age_s=self._mirror.age_s,
            last_error=self._mirror.last_error or problems,
        )

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._latest.end()
        await self._store.close()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="registry-etcd")
            self._task.add_done_callback(self._latest.follow)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mirror.run())
            group.create_task(self._publish())

    async def _publish(self) -> None:
        async for contents in self._mirror.latest.values():
            if self._has_lost_its_memory(contents):
                log.warning("registry.empty", extra={"kv": {"endpoint": self._store.endpoint, "kept": "last topology"}})
                continue
            problems: list[str] = []
            topology = read_topology(self._keys, contents.items, contents.position.revision, problems)
            self._note(tuple(problems))
            known = self._latest.value
            if known is None or _but_revision(topology) != _but_revision(known):
                self._latest.set(topology)

    def _has_lost_its_memory(self, contents: Contents) -> bool:
        known = self._latest.value
        return known is not None and (
            (known.cluster is not None and self._keys.cluster not in contents.items)
            or (known.primary is not None and self._keys.primary not in contents.items)
        )

    def _note(self, problems: tuple[str, ...]) -> None:
        for problem in problems:
            if problem not in self._problems:
                log.warning("registry.ignored", extra={"kv": {"problem": problem}})
        self._problems = problems


def _but_revision(topology: Topology) -> tuple[object, ...]:
    return topology.service, topology.members, topology.primary, topology.cluster, topology.conflict
