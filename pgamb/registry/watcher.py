"""The topology of a service, from etcd, kept true by list and watch, whoever writes the keys.

While etcd is away the last topology stays. What pgamb's own agents write is read here, what Patroni writes in
`patroni_watcher`. An etcd that comes back *empty* (wiped, restored from before the service existed) is not believed
either until its agents have told it again who is primary: `cluster` and `primary` have no lease and nobody removes
them, so a store without them, after one with them, has lost its memory, not its members.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable

import msgspec

from pgamb.registry.keys import DEFAULT_PREFIX, Keys, decode, read_topology
from pgamb.registry.latest import Latest
from pgamb.registry.mirror import Contents, Mirror, Timing
from pgamb.registry.model import RegistryStatus, Stats, Topology
from pgamb.registry.store import KeyRange, Store

log = logging.getLogger(__name__)


class Reading(msgspec.Struct, frozen=True):
    """What was made of the keys: no topology where the last one stays. `notes` say what is unusual, `problems` what was
    left out because it cannot be read or contradicts the rest."""

    topology: Topology | None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class WatchedRegistry(ABC):
    """Implements `Registry` for one range of keys; owns its task and `store`."""

    def __init__(
        self,
        store: Store,
        key_range: KeyRange,
        *,
        source: str,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._source = source
        self._mirror = Mirror(store, key_range, timing=timing, clock=clock, jitter=jitter)
        self._latest: Latest[Topology] = Latest()
        self._problems: tuple[str, ...] = ()
        self._notes: tuple[str, ...] = ()
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def stats(self) -> tuple[Stats, ...]:
        """Read all statistics once, sorted by node; raises RegistryError."""

    @abstractmethod
    def _read(self, contents: Contents, known: Topology | None) -> Reading:
        """Make a topology of the keys, when `known` is the last one."""

    async def topologies(self) -> AsyncGenerator[Topology, None]:
        """Yield the newest topology as soon as there is one, then each that differs."""
        self._start()
        async for topology in self._latest.values():
            yield topology

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
            notes=self._notes,
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
            group.create_task(self._publish_all())

    async def _publish_all(self) -> None:
        async for contents in self._mirror.latest.values():
            self._publish(contents)

    def _publish(self, contents: Contents) -> None:
        """Let everybody know what these keys mean, if that is news."""
        known = self._latest.value
        reading = self._read(contents, known)
        if reading.topology is None:
            kv = {"endpoint": self._store.endpoint, "kept": "last topology"}
            log.warning("registry.empty", extra={"kv": kv})
        else:
            self._note_problems(reading.problems)
        self._note(reading.notes)
        topology = reading.topology
        if topology is not None and (known is None or _but_revision(topology) != _but_revision(known)):
            self._latest.set(topology)

    def _note_problems(self, problems: tuple[str, ...]) -> None:
        for problem in problems:
            if problem not in self._problems:
                log.warning("registry.ignored", extra={"kv": {"problem": problem}})
        self._problems = problems

    def _note(self, notes: tuple[str, ...]) -> None:
        for note in notes:
            if note not in self._notes:
                log.info("registry.note", extra={"kv": {"note": note}})
        self._notes = notes


class EtcdRegistry(WatchedRegistry):
    """What agents of pgamb have written."""

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
        self._keys = Keys(service, prefix)
        super().__init__(store, self._keys.watched, source=source, timing=timing, clock=clock, jitter=jitter)

    async def stats(self) -> tuple[Stats, ...]:
        """Read all statistics once, sorted by node; raises RegistryError."""
        listing = await self._store.list(self._keys.stats_range)
        problems: list[str] = []
        read = [decode(item, Stats, problems) for item in listing.items]
        return tuple(stats for stats in read if stats is not None)

    def _read(self, contents: Contents, known: Topology | None) -> Reading:
        if known is not None and (
            (known.cluster is not None and self._keys.cluster not in contents.items)
            or (known.primary is not None and self._keys.primary not in contents.items)
        ):
            return Reading(None)
        problems: list[str] = []
        topology = read_topology(self._keys, contents.items, contents.position.revision, problems)
        return Reading(topology, tuple(problems))


def _but_revision(topology: Topology) -> tuple[object, ...]:
    return topology.service, topology.members, topology.primary, topology.cluster, topology.conflict
