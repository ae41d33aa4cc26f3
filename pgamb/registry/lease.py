"""One lease after another: what keeps an agent's keys in the registry for as long as the agent lives.

A TTL is a lower bound and the store's clock is not ours. So the lease counts as lost, here, when nothing that was
*sent* within the granted time was acknowledged; the store may keep it longer, never shorter.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from pgamb.registry.store import LeaseGone, Store


def new_lease_id() -> int:
    """Choose an id at random; positive, as etcd wants it."""
    return random.getrandbits(62) + 1


class Lease:
    """Holds at most one lease of `ttl_s`; a lost one is replaced by one with another id."""

    def __init__(
        self,
        store: Store,
        ttl_s: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], int] = new_lease_id,
    ) -> None:
        self.id = 0
        self._store = store
        self._ttl_s = ttl_s
        self._granted_s = ttl_s
        self._clock = clock
        self._new_id = new_id
        self._held = False
        self._acknowledged_at: float | None = None

    @property
    def valid(self) -> bool:
        age_s = self.age_s
        return self._held and age_s is not None and age_s < self._granted_s

    @property
    def age_s(self) -> float | None:
        """Seconds since what was last acknowledged was sent; goes on after a loss, None before the first lease."""
        return None if self._acknowledged_at is None else self._clock() - self._acknowledged_at

    @property
    def is_due(self) -> bool:
        """Whether to renew now; from half the interval on, as the next occasion could be a whole one later."""
        age_s = self.age_s
        return self._held and age_s is not None and age_s >= 0.5 * self.interval_s

    @property
    def interval_s(self) -> float:
        """How often to renew: two renewals may get lost before the lease does."""
        return self._granted_s / 3

    async def hold(self) -> int:
        """Return the id of the lease, made now if there is none; raises RegistryError."""
        if not self._held:
            # Chosen before it is asked for, and kept when the answer is lost: asking again makes no second lease.
            self.id = self.id or self._new_id()
            sent_at = self._clock()
            try:
                self._granted_s = await self._store.grant(self.id, self._ttl_s)
            except LeaseGone:
                self.forget()
                raise
            self._acknowledged_at = sent_at
            self._held = True
        return self.id

    async def renew(self) -> None:
        """Keep the lease; raises LeaseGone, after which `hold` makes a new one, or RegistryError."""
        sent_at = self._clock()
        left_s = await self._store.keep_alive(self.id)
        if left_s <= 0:
            self.forget()
            raise LeaseGone("the lease has ended")
        self._granted_s = left_s
        self._acknowledged_at = sent_at

    async def end(self) -> None:
        """Revoke the lease and with it its keys; raises RegistryError, and can then be tried again."""
        if self.id:
            await self._store.revoke(self.id)
            self.forget()
            self._acknowledged_at = None

    def forget(self) -> None:
        """Count the lease as gone; the next one gets a new id."""
        self.id = 0
        self._held = False
