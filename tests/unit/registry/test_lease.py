"""A lease, by our own clock."""

from __future__ import annotations

import pytest

from pgamb.errors import RegistryUnavailable
from pgamb.registry.lease import Lease, new_lease_id
from pgamb.registry.memory import ManualClock, MemoryStore
from pgamb.registry.store import LeaseGone, Put


class Slow(MemoryStore):
    """Answers only after `delay_s`, and grants `extra_s` more than was asked for."""

    delay_s = 0.0
    extra_s = 0
    clock: ManualClock

    async def grant(self, lease_id: int, ttl_s: int) -> int:
        granted_s = await super().grant(lease_id, ttl_s + self.extra_s)
        self.clock.advance(self.delay_s)
        return granted_s

    async def keep_alive(self, lease_id: int) -> int:
        left_s = await super().keep_alive(lease_id)
        self.clock.advance(self.delay_s)
        return left_s


def slow(clock: ManualClock) -> Slow:
    store = Slow(clock)
    store.clock = clock
    return store


def valid(lease: Lease) -> bool:
    return lease.valid


def is_due(lease: Lease) -> bool:
    return lease.is_due


async def test_it_is_lost_when_nothing_sent_within_its_time_was_acknowledged() -> None:
    """Guard 13: counted from when the request was sent, not from when its answer came."""
    clock = ManualClock()
    store = slow(clock)
    lease = Lease(store, 5, clock=clock)
    assert valid(lease) is False
    assert (lease.id, lease.age_s) == (0, None)
    store.delay_s = 2.0
    assert await lease.hold() == lease.id
    assert lease.age_s == 2.0
    clock.advance(2.9)
    assert valid(lease) is True
    clock.advance(0.1)
    assert valid(lease) is False
    store.delay_s = 0.0
    await store.grant(lease.id, 5)


async def test_the_granted_time_counts_and_not_the_one_asked_for() -> None:
    clock = ManualClock()
    store = slow(clock)
    store.extra_s = 4
    lease = Lease(store, 5, clock=clock)
    await lease.hold()
    clock.advance(8.9)
    assert valid(lease) is True
    assert lease.interval_s == 3.0


async def test_it_is_renewed_from_half_its_interval_on() -> None:
    clock = ManualClock()
    lease = Lease(MemoryStore(clock), 6, clock=clock)
    assert is_due(lease) is False
    await lease.hold()
    clock.advance(0.9)
    assert is_due(lease) is False
    clock.advance(0.1)
    assert is_due(lease) is True
    await lease.renew()
    assert lease.age_s == 0
    assert is_due(lease) is False


async def test_a_dead_lease_is_followed_by_another_one() -> None:
    """Guard 12: the keep-alive of a lease that is gone is no error, its TTL is 0."""
    clock = ManualClock()
    store = MemoryStore(clock)
    lease = Lease(store, 5, clock=clock)
    first = await lease.hold()
    clock.advance(5)
    with pytest.raises(LeaseGone):
        await lease.renew()
    assert valid(lease) is False
    assert lease.age_s == 5, "what the registry last said is not forgotten"
    assert await lease.hold() != first
    assert valid(lease) is True


async def test_asking_again_after_a_lost_answer_makes_no_second_lease() -> None:
    """Guard 14."""

    class Unheard(MemoryStore):
        heard = False

        async def grant(self, lease_id: int, ttl_s: int) -> int:
            granted_s = await super().grant(lease_id, ttl_s)
            if not self.heard:
                raise RegistryUnavailable("the answer got lost")
            return granted_s

    clock = ManualClock()
    store = Unheard(clock)
    lease = Lease(store, 5, clock=clock)
    with pytest.raises(RegistryUnavailable):
        await lease.hold()
    asked = lease.id
    store.heard = True
    assert await lease.hold() == asked


async def test_its_end_takes_the_keys_along() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    lease = Lease(store, 5, clock=clock)
    await lease.end()
    await store.put(Put("k", b"", await lease.hold()))
    await lease.end()
    assert await store.get("k") is None
    assert (lease.id, lease.valid, lease.age_s) == (0, False, None)


def test_ids_are_positive() -> None:
    assert all(0 < new_lease_id() < 2**63 for _ in range(100))
