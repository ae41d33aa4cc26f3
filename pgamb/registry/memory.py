"""A `Store` in memory with etcd's semantics: one history, revisions, leases on a given clock, compaction, outages.

For tests of everything above the seam. The conformance suite holds it and the real etcd to the same behaviour.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Sequence

import msgspec

from pgamb.errors import RegistryUnavailable
from pgamb.registry.store import (
    Batch,
    Compacted,
    Compare,
    Event,
    EventKind,
    KeyRange,
    KeyValue,
    LeaseGone,
    Listing,
    Outcome,
    OutcomeUnknown,
    Position,
    Put,
    StoreReplaced,
)


class MemoryStore:
    """Implements `Store`. `clock` gives seconds; a lease ends at the first `expire`, or operation, behind its time.

    `away` makes everything raise RegistryUnavailable, as an etcd that is down does; `lose_answers` lets that many
    transactions happen and then raise OutcomeUnknown.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.lose_answers = 0
        self.closed = False
        self._clock = clock
        self._away = False
        self._changed = asyncio.Event()
        self._start_over(random.getrandbits(63))

    def _start_over(self, store_id: int) -> None:
        self._store_id = store_id
        self._revision = 1
        self._compacted = 0
        self._items: dict[str, KeyValue] = {}
        self._history: list[Event] = []
        self._leases: dict[int, tuple[int, float]] = {}

    @property
    def endpoint(self) -> str | None:
        return "memory"

    @property
    def away(self) -> bool:
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        self._away = away
        self._wake()

    def wipe(self, *, same_id: bool = True) -> None:
        """Forget everything; etcd that is set up again the same way has the same id."""
        self._start_over(self._store_id if same_id else self._store_id + 1)
        self._wake()

    def compact(self) -> None:
        """Forget the history up to now."""
        self._compacted = self._revision
        self._history.clear()

    def expire(self) -> None:
        """End the leases whose time is over."""
        for lease_id in [lease_id for lease_id, (_, end) in self._leases.items() if end <= self._clock()]:
            self._end_lease(lease_id)

    async def list(self, key_range: KeyRange) -> Listing:
        self._enter()
        items = tuple(self._items[key] for key in sorted(self._items) if key.encode() in key_range)
        return Listing(items, Position(self._store_id, self._revision))

    async def get(self, key: str) -> KeyValue | None:
        self._enter()
        return self._items.get(key)

    async def watch(self, key_range: KeyRange, after: Position) -> AsyncGenerator[Batch, None]:
        store_id, position = self._store_id, after
        self._enter()
        if store_id != after.store_id or self._revision < after.revision:
            raise StoreReplaced("another store answers")
        if after.revision < self._compacted:
            raise Compacted(f"revisions up to {self._compacted} are compacted")
        yield Batch((), position)
        while True:
            changed = self._changed
            seen = self._history
            events = tuple(
                event
                for event in seen
                if event.item.mod_revision > position.revision and event.item.key.encode() in key_range
            )
            if events:
                position = Position(store_id, events[-1].item.mod_revision)
                yield Batch(events, position)
                continue
            await changed.wait()
            if self._away or seen is not self._history:
                raise RegistryUnavailable("the store has gone away")

    async def transact(self, compares: Sequence[Compare], puts: Sequence[Put]) -> Outcome:
        self._enter()
        for compare in compares:
            item = self._items.get(compare.key)
            if (0 if item is None else item.mod_revision) != compare.mod_revision:
                return Outcome(False, self._revision)
        self._put(puts)
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown("the answer got lost")
        return Outcome(True, self._revision)

    async def put(self, put: Put) -> int:
        self._enter()
        self._put([put])
        return self._revision

    async def delete(self, key: str) -> bool:
        self._enter()
        return self._delete([key])

    async def grant(self, lease_id: int, ttl_s: int) -> int:
        self._enter()
        if lease_id not in self._leases:
            self._leases[lease_id] = (ttl_s, self._clock() + ttl_s)
        return self._leases[lease_id][0]

    async def keep_alive(self, lease_id: int) -> int:
        self._enter()
        if lease_id not in self._leases:
            return 0
        ttl_s = self._leases[lease_id][0]
        self._leases[lease_id] = (ttl_s, self._clock() + ttl_s)
        return ttl_s

    async def revoke(self, lease_id: int) -> None:
        self._enter()
        if lease_id in self._leases:
            self._end_lease(lease_id)

    async def close(self) -> None:
        self.closed = True

    def _enter(self) -> None:
        if self._away:
            raise RegistryUnavailable("the store is away")
        self.expire()

    def _put(self, puts: Sequence[Put]) -> None:
        if any(put.lease_id and put.lease_id not in self._leases for put in puts):
            raise LeaseGone("no such lease")
        if not puts:
            return
        self._revision += 1
        for put in puts:
            known = self._items.get(put.key)
            version = 1 if known is None else known.version + 1
            item = KeyValue(put.key, put.value, self._revision, version, put.lease_id)
            self._items[put.key] = item
            self._history.append(Event(EventKind.PUT, item))
        self._wake()

    def _delete(self, keys: Sequence[str]) -> bool:
        gone = [key for key in keys if self._items.pop(key, None) is not None]
        if gone:
            self._revision += 1
            self._history += [
                Event(EventKind.DELETE, KeyValue(key, b"", self._revision, version=0)) for key in sorted(gone)
            ]
            self._wake()
        return bool(gone)

    def _end_lease(self, lease_id: int) -> None:
        del self._leases[lease_id]
        self._delete([key for key, item in self._items.items() if item.lease_id == lease_id])

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class ManualClock(msgspec.Struct):
    """A clock that stands still until it is moved."""

    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds_s: float) -> None:
        self.now_s += seconds_s
