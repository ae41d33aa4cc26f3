"""What every `Store` does, in memory as on a real etcd."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from pgamb.registry.lease import new_lease_id
from pgamb.registry.store import (
    Batch,
    Compacted,
    Compare,
    Event,
    EventKind,
    KeyRange,
    KeyValue,
    LeaseGone,
    Position,
    Put,
    StoreReplaced,
)
from tests.conformance.conftest import Subject

DEADLINE_S = 15.0


async def collect(subject: Subject, after: Position, count: int) -> list[Event]:
    """Watch the subject's prefix until `count` events have come."""
    events: list[Event] = []
    async with asyncio.timeout(DEADLINE_S), aclosing(subject.store.watch(KeyRange.prefix(subject.prefix), after)) as w:
        async for batch in w:
            events += batch.events
            if len(events) >= count:
                break
    return events


async def now(subject: Subject) -> Position:
    return (await subject.store.list(KeyRange.prefix(subject.prefix))).position


async def test_puts_gets_lists_in_order_and_deletes(subject: Subject) -> None:
    store, prefix = subject.store, subject.prefix
    assert await store.get(prefix + "a") is None
    second = await store.put(Put(prefix + "b", b"2"))
    first = await store.put(Put(prefix + "a", b"1"))
    assert first > second
    assert await store.get(prefix + "a") == KeyValue(prefix + "a", b"1", first)
    listing = await store.list(KeyRange.prefix(prefix))
    assert [item.key for item in listing.items] == [prefix + "a", prefix + "b"]
    assert listing.position.revision >= first
    assert await store.delete(prefix + "a")
    assert not await store.delete(prefix + "a")
    assert [item.key for item in (await store.list(KeyRange.prefix(prefix))).items] == [prefix + "b"]


async def test_versions_count_the_writes_of_a_key(subject: Subject) -> None:
    key = subject.prefix + "k"
    await subject.store.put(Put(key, b"1"))
    revision = await subject.store.put(Put(key, b"2"))
    assert await subject.store.get(key) == KeyValue(key, b"2", revision, version=2)


async def test_a_range_ends_before_its_end(subject: Subject) -> None:
    for name in ("a", "m", "s", "s/1", "t"):
        await subject.store.put(Put(subject.prefix + name, b""))
    covered = KeyRange(subject.prefix.encode(), (subject.prefix + "s").encode())
    listing = await subject.store.list(covered)
    assert [item.key.removeprefix(subject.prefix) for item in listing.items] == ["a", "m"]


async def test_compare_and_swap_lets_one_of_two_win(subject: Subject) -> None:
    store, key = subject.store, subject.prefix + "k"
    outcomes = await asyncio.gather(
        *(store.transact([Compare(key, 0)], [Put(key, name)]) for name in (b"one", b"two")),
    )
    assert sorted(outcome.succeeded for outcome in outcomes) == [False, True]
    item = await store.get(key)
    assert item is not None
    assert item.value in (b"one", b"two")
    assert not (await store.transact([Compare(key, item.mod_revision + 1)], [Put(key, b"three")])).succeeded
    changed = await store.transact([Compare(key, item.mod_revision)], [Put(key, b"three")])
    assert changed.succeeded
    assert await store.get(key) == KeyValue(key, b"three", changed.revision, version=2)


async def test_a_transaction_does_all_or_nothing_at_one_revision(subject: Subject) -> None:
    store, prefix = subject.store, subject.prefix
    after = await now(subject)
    await store.put(Put(prefix + "there", b""))
    puts = [Put(prefix + "x", b"1"), Put(prefix + "y", b"2")]
    refused = await store.transact([Compare(prefix + "gone", 0), Compare(prefix + "there", 0)], puts)
    assert not refused.succeeded
    assert await store.get(prefix + "x") is None
    done = await store.transact([Compare(prefix + "gone", 0)], puts)
    events = await collect(subject, after, 3)
    assert [(e.item.key.removeprefix(prefix), e.item.mod_revision) for e in events[1:]] == [
        ("x", done.revision),
        ("y", done.revision),
    ]


async def test_a_watch_says_first_that_it_is_there(subject: Subject) -> None:
    after = await now(subject)
    async with asyncio.timeout(DEADLINE_S), aclosing(subject.store.watch(KeyRange.prefix(subject.prefix), after)) as w:
        assert await anext(w) == Batch((), after)


async def test_a_watch_delivers_what_was_and_what_comes_once_and_in_order(subject: Subject) -> None:
    store, prefix = subject.store, subject.prefix
    after = await now(subject)
    for number in range(5):
        await store.put(Put(f"{prefix}{number}", b""))
    watching = asyncio.create_task(collect(subject, after, 11))
    for number in range(5, 10):
        await store.put(Put(f"{prefix}{number}", b""))
    await store.put(Put("/elsewhere" + prefix, b""))
    await store.delete(f"{prefix}3")
    events = await watching
    assert [event.item.key.removeprefix(prefix) for event in events] == [*"0123456789", "3"]
    assert [event.kind for event in events] == [EventKind.PUT] * 10 + [EventKind.DELETE]
    revisions = [event.item.mod_revision for event in events]
    assert revisions == sorted(set(revisions))


async def test_a_watch_resumed_at_its_position_repeats_and_loses_nothing(subject: Subject) -> None:
    """Guard 3: the position is that of the last event, whatever the revision of the store is."""
    store, prefix = subject.store, subject.prefix
    position = await now(subject)
    seen: list[str] = []
    for number in range(12):
        await store.put(Put(f"{prefix}{number:02}", b""))
        await store.put(Put(f"/elsewhere{prefix}{number}", b""))
        if number % 3 != 2:
            continue
        async with asyncio.timeout(DEADLINE_S), aclosing(store.watch(KeyRange.prefix(prefix), position)) as watch:
            async for batch in watch:
                seen += [event.item.key.removeprefix(prefix) for event in batch.events]
                position = batch.position
                if f"{number:02}" in seen:
                    break
    assert seen == [f"{number:02}" for number in range(12)]


async def test_a_compacted_position_is_an_error_and_not_silence(subject: Subject) -> None:
    """Guards 1 and 2."""
    after = await now(subject)
    for _ in range(3):
        await subject.store.put(Put(subject.prefix + "k", b""))
    await subject.compact()
    with pytest.raises(Compacted):
        await collect(subject, after, 1)


async def test_a_position_in_the_future_or_of_another_store_is_an_error_and_not_silence(subject: Subject) -> None:
    """Guard 4."""
    here = await now(subject)
    with pytest.raises(StoreReplaced):
        await collect(subject, Position(here.store_id, here.revision + 1000), 1)
    with pytest.raises(StoreReplaced):
        await collect(subject, Position(here.store_id + 1, here.revision), 1)


async def test_a_lease_takes_its_keys_along_and_its_deletions_are_empty(subject: Subject) -> None:
    """Guards 12, 14 and 17."""
    store, prefix, lease_id = subject.store, subject.prefix, new_lease_id()
    after = await now(subject)
    assert await store.grant(lease_id, 20) == 20
    assert await store.grant(lease_id, 20) == 20, "the same id again is the same lease"
    await store.put(Put(prefix + "held", b"value", lease_id))
    await store.put(Put(prefix + "detached", b"value", lease_id))
    await store.put(Put(prefix + "detached", b"value"))
    item = await store.get(prefix + "held")
    assert item is not None
    assert item.lease_id == lease_id
    assert await store.keep_alive(lease_id) == 20
    await store.revoke(lease_id)
    await store.revoke(lease_id)
    assert await store.keep_alive(lease_id) == 0
    events = await collect(subject, after, 4)
    assert events[3].kind is EventKind.DELETE
    assert events[3].item.value == b""
    assert [item.key for item in (await store.list(KeyRange.prefix(prefix))).items] == [prefix + "detached"]


async def test_a_lease_that_is_not_kept_ends(subject: Subject) -> None:
    store, key, lease_id = subject.store, subject.prefix + "k", new_lease_id()
    granted_s = await store.grant(lease_id, 1)
    assert granted_s >= 1, "etcd may grant more than was asked for"
    await store.put(Put(key, b"value", lease_id))
    after = await now(subject)
    await subject.outlast(granted_s)
    (event,) = await collect(subject, after, 1)
    assert (event.kind, event.item.key) == (EventKind.DELETE, key)
    assert await store.keep_alive(lease_id) == 0


async def test_a_write_on_a_lease_that_is_gone_is_refused(subject: Subject) -> None:
    key, lease_id = subject.prefix + "k", new_lease_id()
    with pytest.raises(LeaseGone):
        await subject.store.put(Put(key, b"", lease_id))
    with pytest.raises(LeaseGone):
        await subject.store.transact([Compare(key, 0)], [Put(key, b"", lease_id)])
    assert await subject.store.get(key) is None
