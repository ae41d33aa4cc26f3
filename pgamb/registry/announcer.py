"""What an agent writes: its member and statistics on a lease, the cluster's identity, and claims of `primary`.

The agent says what should be announced; one task, the keeper, makes it so and keeps it so: it grants and renews the
lease, writes the keys, and writes them all again when the lease or the whole store was lost. While the registry is away
the wish is kept and tried again; whoever announces does not wait for it.

Invariants:
* A key of ours is never written without our lease, so it cannot outlive us.
* Nothing is registered in a service whose `cluster` is another PostgreSQL cluster: the write itself compares.
* `primary` changes by compare-and-swap only, in the same transaction that finds our own member key as we wrote it, and
  never to a lower timeline than the one it is compared with.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable

from pgamb.errors import ConfigError, RegistryError, RegistryMismatch, RegistryUnavailable
from pgamb.registry.keys import DEFAULT_PREFIX, Keys, decode, encode, read_cluster, read_topology
from pgamb.registry.lease import Lease, new_lease_id
from pgamb.registry.mirror import Contents, Mirror, Timing
from pgamb.registry.model import Member, PrimaryRecord, RegistryView, Stats
from pgamb.registry.store import Compare, LeaseGone, OutcomeUnknown, Put, Store

log = logging.getLogger(__name__)

# A compare-and-swap whose answer got lost is read and repeated this often before the caller hears of it.
CLAIM_ATTEMPTS = 3


class Announcer:
    """Keeps the registration of `node` in `service` truthful; `run` does the work and belongs to the caller's task."""

    def __init__(
        self,
        store: Store,
        service: str,
        node: str,
        ttl_s: int = 5,
        *,
        prefix: str = DEFAULT_PREFIX,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        new_id: Callable[[], int] = new_lease_id,
    ) -> None:
        if ttl_s < 1:
            raise ConfigError(
                f"a TTL of {ttl_s} s is too short", hint="The TTL is a whole number of seconds, at least 1."
            )
        self._store = store
        self._keys = Keys(service, prefix)
        self._node = node
        self._member_key = self._keys.member(node)
        self._stats_key = self._keys.stats(node)
        self._timing = timing or Timing()
        self._clock = clock
        self._lease = Lease(store, ttl_s, clock=clock, new_id=new_id)
        self._mirror = Mirror(store, self._keys.watched, timing=self._timing, clock=clock, jitter=jitter)
        self._wanted: tuple[Member, Stats | None] | None = None
        self._written: Member | None = None
        self._written_stats: Stats | None = None
        self._written_at = 0.0
        self._member_revision = 0
        self._member_generation = 0
        self._cluster_revision: int | None = None
        self._wishes = 0
        self._attempted = 0
        self._failures = 0
        self._error: RegistryError | None = None
        self._wake = asyncio.Event()
        self._attempt_done = asyncio.Event()

    async def run(self) -> None:
        """Follow the registry and keep the registration, for ever; ends by cancellation only."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._mirror.run(), name="announcer-mirror")
            group.create_task(self._keep(), name="announcer-keeper")
            group.create_task(self._check_own_key(), name="announcer-check")

    async def announce(self, member: Member, stats: Stats | None = None, *, wait_s: float = 1.0) -> bool:
        """Register `member`, from now on; return whether the registry has it.

        Waits for the write at most `wait_s`, and not at all while the registry is known to be away. Raises
        RegistryMismatch when the service belongs to another PostgreSQL cluster.
        """
        if member.node != self._node or (stats is not None and stats.node != self._node):
            raise ConfigError(f'this agent announces "{self._node}", not "{member.node}"')
        self._wanted = (member, stats)
        await self._wish_done(wait_s)
        if isinstance(self._error, RegistryMismatch):
            raise self._error
        return self._written == member and self._lease.valid

    async def withdraw(self, *, wait_s: float = 2.0) -> bool:
        """Remove the registration, from now on; return whether that is done after `wait_s` at most.

        What cannot be removed now ends with its lease.
        """
        self._wanted = None
        await self._wish_done(wait_s, even_if_away=True)
        return self._lease.id == 0

    async def ensure_cluster(self, system_identifier: str) -> None:
        """Make `cluster` the service's identity, or find it so.

        Raises RegistryMismatch when it is another, RegistryUnavailable when that cannot be known now.
        """
        key = self._keys.cluster
        item = await self._store.get(key)
        for _ in range(CLAIM_ATTEMPTS):
            if item is not None:
                break
            try:
                await self._store.transact([Compare(key, 0)], [Put(key, system_identifier.encode())])
            except OutcomeUnknown:
                log.debug("registry.cluster.outcome-unknown", extra={"kv": {"key": key}})
            item = await self._store.get(key)
        if item is None:
            raise RegistryUnavailable(f"{key} could not be written")
        found = item.value.decode(errors="replace")
        if found != system_identifier:
            raise RegistryMismatch(
                f'service "{self._keys.service}" is the PostgreSQL cluster {found}, '
                f"and this server belongs to cluster {system_identifier}",
                hint="Give this server the --service of its own cluster; if the old cluster is gone for good, "
                f"remove the key {key}.",
            )
        self._cluster_revision = item.mod_revision

    async def claim_primary(self, record: PrimaryRecord, expected_revision: int) -> bool:
        """Write `primary` if it is still as at `expected_revision` (0: absent); return whether it is ours now.

        False means that somebody else was faster, or that our own registration is not in place: look again and
        decide anew. Raises RegistryUnavailable when the outcome cannot be known now.
        """
        if record.node != self._node:
            raise ConfigError(f'this agent claims for "{self._node}", not for "{record.node}"')
        for _ in range(CLAIM_ATTEMPTS):
            item = await self._store.get(self._keys.primary)
            current = None if item is None else decode(item, PrimaryRecord, [])
            if current == record:
                return True
            if (0 if item is None else item.mod_revision) != expected_revision:
                return False
            if current is not None and current.timeline > record.timeline:
                log.error("registry.claim.refused", extra={"kv": _kv(record) | {"recorded": current.timeline}})
                return False
            if self._written is None or self._cluster_revision is None or not self._lease.valid:
                return False
            compares = [
                Compare(self._keys.primary, expected_revision),
                Compare(self._keys.cluster, self._cluster_revision),
                Compare(self._member_key, self._member_revision),
            ]
            try:
                outcome = await self._store.transact(compares, [Put(self._keys.primary, encode(record))])
            except OutcomeUnknown as error:
                log.warning("registry.claim.outcome-unknown", extra={"kv": _kv(record) | {"error": error.message}})
                continue
            if outcome.succeeded:
                log.info("registry.primary-claimed", extra={"kv": _kv(record) | {"was": current and current.node}})
            return outcome.succeeded
        raise RegistryUnavailable(f"whether {self._node} became the registered primary is not known yet")

    async def close(self) -> None:
        """Close the store; to be called when `run` has ended."""
        await self._store.close()

    @property
    def lease_valid(self) -> bool:
        """Whether the registration holds for sure, by our own clock."""
        return self._lease.valid

    @property
    def last_error(self) -> str | None:
        return self._mirror.last_error if self._error is None else self._error.message

    def view(self) -> RegistryView | None:
        """Return what the registry is known to hold; None before it was first reached.

        `connected` is false, and `age_s` the longer, also when it is the lease that is not acknowledged.
        """
        contents = self._mirror.contents
        return None if contents is None else self._view(contents)

    async def views(self) -> AsyncGenerator[RegistryView, None]:
        """Yield the view now, if there is one, and at each change of the keys."""
        async for contents in self._mirror.latest.values():
            yield self._view(contents)

    def _view(self, contents: Contents) -> RegistryView:
        problems: list[str] = []
        topology = read_topology(self._keys, contents.items, contents.position.revision, problems)
        primary, cluster = contents.items.get(self._keys.primary), contents.items.get(self._keys.cluster)
        age_s = self._mirror.age_s or 0.0
        if self._wanted is not None:
            age_s = max(age_s, self._lease.age_s or 0.0)
        return RegistryView(
            members=topology.members,
            primary=topology.primary,
            primary_revision=0 if primary is None else primary.mod_revision,
            cluster=read_cluster(self._keys, contents.items),
            cluster_revision=0 if cluster is None else cluster.mod_revision,
            age_s=age_s,
            connected=self._mirror.connected and (self._lease.id == 0 or self._lease.valid),
        )

    async def _wish_done(self, wait_s: float, *, even_if_away: bool = False) -> None:
        self._wishes += 1
        mine = self._wishes
        if self._failures and not even_if_away:
            return
        self._wake.set()
        try:
            async with asyncio.timeout(wait_s):
                while self._attempted < mine:
                    await self._attempt_done.wait()
        except TimeoutError:
            return

    async def _keep(self) -> None:
        while True:
            wish = self._wishes
            try:
                await self._make_it_so()
            except RegistryError as error:
                self._failed(error)
            else:
                self._succeeded()
            self._attempted = wish
            self._attempt_done.set()
            self._attempt_done = asyncio.Event()
            if self._wishes == wish:
                await self._rest()

    async def _rest(self) -> None:
        """Sleep until the lease is due, a retry is, or somebody wants something."""
        rest_s = self._lease.interval_s if self._lease.id or self._failures == 0 else self._timing.retry_max_s
        if self._failures:
            rest_s = min(rest_s, self._timing.retry_min_s * 2 ** min(self._failures - 1, 10), self._timing.retry_max_s)
        try:
            async with asyncio.timeout(rest_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    async def _make_it_so(self) -> None:
        if self._wanted is None:
            if self._lease.id:
                await self._lease.end()
                log.info("registry.withdrawn", extra={"kv": {"node": self._node}})
            self._written = None
            return
        try:
            if self._lease.is_due:
                await self._lease.renew()
            await self._write(*self._wanted)
        except LeaseGone:
            # With the lease went the keys: everything is written again, on a new one.
            log.warning("registry.lease-lost", extra={"kv": {"node": self._node}})
            self._lease.forget()
            self._written = None
            await self._write(*self._wanted)

    async def _write(self, member: Member, stats: Stats | None) -> None:
        if self._written == member:
            if stats is not None and stats != self._written_stats:
                await self._store.put(Put(self._stats_key, encode(stats), await self._lease.hold()))
                self._written_stats = stats
            return
        for _ in range(2):
            if self._cluster_revision is None:
                await self.ensure_cluster(member.system_identifier)
            assert self._cluster_revision is not None
            lease_id = await self._lease.hold()
            puts = [Put(self._member_key, encode(member), lease_id)]
            if stats is not None:
                puts.append(Put(self._stats_key, encode(stats), lease_id))
            outcome = await self._store.transact([Compare(self._keys.cluster, self._cluster_revision)], puts)
            if outcome.succeeded:
                self._wrote(member, stats, outcome.revision)
                return
            self._cluster_revision = None
        raise RegistryUnavailable(f"{self._keys.cluster} changes all the time")

    def _wrote(self, member: Member, stats: Stats | None, revision: int) -> None:
        if self._written is None or self._written.role is not member.role:
            log.info("registry.announced", extra={"kv": _kv(member) | {"role": member.role.value}})
        contents = self._mirror.contents
        self._written, self._written_stats = member, stats
        self._written_at = self._clock()
        self._member_revision = revision
        self._member_generation = 0 if contents is None else contents.generation

    async def _check_own_key(self) -> None:
        """Write again what somebody else removed or changed: an operator, a restored backup, a write that came late.

        At most once in a renewal interval, so that two agents of one name do not make a storm.
        """
        async for contents in self._mirror.latest.values():
            same_store = contents.generation == self._member_generation
            if self._written is None or (same_store and contents.position.revision < self._member_revision):
                continue
            item = contents.items.get(self._member_key)
            if item is not None and item.lease_id == self._lease.id and item.value == encode(self._written):
                continue
            pause_s = self._written_at + self._lease.interval_s - self._clock()
            if item is not None and pause_s > 0:
                await asyncio.sleep(pause_s)
            self._written = None
            self._wake.set()

    def _failed(self, error: RegistryError) -> None:
        self._failures += 1
        if self._error is None or type(self._error) is not type(error):
            log.warning("registry.not-announced", extra={"kv": {"node": self._node, "error": error.message}})
        self._error = error

    def _succeeded(self) -> None:
        if self._error is not None:
            log.info("registry.reached", extra={"kv": {"node": self._node, "endpoint": self._store.endpoint}})
        self._failures = 0
        self._error = None


def _kv(value: Member | PrimaryRecord) -> dict[str, object]:
    return {"node": value.node, "timeline": value.timeline}
