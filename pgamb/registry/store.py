"""The few operations of etcd that the registry stands on, as a seam.

Rules that every implementation keeps (`tests/conformance` runs on all of them):

* Revisions only grow; every write that changes something makes one, a transaction makes one for all its writes.
* `list` is linearizable; `watch(range, after)` delivers every event behind that position, in order, none twice.
* A watch ends by an exception only: `RegistryUnavailable` (resume it), `Compacted` or `StoreReplaced` (list again).
* `transact` that may or may not have happened raises `OutcomeUnknown`: read before repeating it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from enum import Enum
from typing import Protocol

import msgspec

from pgamb.errors import RegistryError, RegistryUnavailable


class OutcomeUnknown(RegistryUnavailable):
    """The store went away while it worked on a transaction."""


class Compacted(RegistryError):
    """The history behind that position is gone; what is there now has to be listed."""


class StoreReplaced(RegistryError):
    """Another store answers (wiped, restored from a backup): positions of the old one mean nothing."""


class LeaseGone(RegistryError):
    """The lease that a write names has expired or was revoked."""


class Position(msgspec.Struct, frozen=True):
    """A point in the history of one particular store."""

    store_id: int
    revision: int


class KeyRange(msgspec.Struct, frozen=True):
    """All keys from `start` up to, not including, `end`, in byte order."""

    start: bytes
    end: bytes

    @classmethod
    def prefix(cls, prefix: str) -> KeyRange:
        """Cover all keys that begin with `prefix` (not empty, its last character below U+007F)."""
        start = prefix.encode()
        return cls(start, start[:-1] + bytes([start[-1] + 1]))

    def __contains__(self, key: bytes) -> bool:
        return self.start <= key < self.end


class KeyValue(msgspec.Struct, frozen=True):
    """A key as it stands; `version` counts its writes since it was created, `lease_id` 0 is none."""

    key: str
    value: bytes
    mod_revision: int
    version: int = 1
    lease_id: int = 0


class Listing(msgspec.Struct, frozen=True):
    items: tuple[KeyValue, ...]
    position: Position


class EventKind(Enum):
    PUT = "put"
    DELETE = "delete"


class Event(msgspec.Struct, frozen=True):
    """A change; of a deletion, by lease expiry too, `item` has the key and the revision only."""

    kind: EventKind
    item: KeyValue


class Batch(msgspec.Struct, frozen=True):
    """What one message of a watch carried. Without events it only says that the watch is alive.

    `position` is where to resume: behind the last event that was delivered, never further.
    """

    events: tuple[Event, ...]
    position: Position


class Compare(msgspec.Struct, frozen=True):
    """`key` was last changed at `mod_revision`; 0 says that it does not exist."""

    key: str
    mod_revision: int


class Put(msgspec.Struct, frozen=True):
    """A write; without `lease_id` the key is detached from the lease that it had."""

    key: str
    value: bytes
    lease_id: int = 0


class Outcome(msgspec.Struct, frozen=True):
    """Whether all comparisons held and the writes were done, and the store's revision then."""

    succeeded: bool
    revision: int


class Store(Protocol):
    """A key-value store with revisions, watches and leases. Raises RegistryError and its kin only."""

    @property
    def endpoint(self) -> str | None:
        """Name the server that answered last."""

    async def list(self, key_range: KeyRange) -> Listing:
        """Return the keys in `key_range`, sorted."""

    async def get(self, key: str) -> KeyValue | None: ...

    def watch(self, key_range: KeyRange, after: Position) -> AsyncGenerator[Batch, None]:
        """Yield all that happens in `key_range` behind `after`; close the generator to stop.

        A batch without events comes first, as soon as the store has accepted the watch.
        """

    async def transact(self, compares: Sequence[Compare], puts: Sequence[Put]) -> Outcome:
        """Do all of `puts` if all of `compares` hold, else nothing; raises OutcomeUnknown, LeaseGone."""

    async def put(self, put: Put) -> int:
        """Write one key, return the revision; raises LeaseGone."""

    async def delete(self, key: str) -> bool:
        """Remove one key, return whether it was there."""

    async def grant(self, lease_id: int, ttl_s: int) -> int:
        """Make a lease under the caller's own id (so that it can be repeated); return the seconds granted."""

    async def keep_alive(self, lease_id: int) -> int:
        """Renew a lease, return the seconds left; 0 says that it is gone."""

    async def revoke(self, lease_id: int) -> None:
        """End a lease and remove its keys; nothing happens when it is gone already."""

    async def close(self) -> None: ...
