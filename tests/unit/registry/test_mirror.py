"""The mirror, and the announcer above it, against a store that goes away, forgets and lags."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pgamb.registry.announcer import Announcer
from pgamb.registry.keys import Keys
from pgamb.registry.latest import Latest
from pgamb.registry.memory import ManualClock, MemoryStore
from pgamb.registry.mirror import Mirror, Timing
from pgamb.registry.model import Address, Member, Role
from pgamb.registry.store import Batch, KeyRange, Position, Put
from tests.support.waiting import wait_for_async

DEADLINE_S = 10.0
TIMING = Timing(resync_s=30.0, retry_min_s=0.001, retry_max_s=0.002)
RANGE = KeyRange.prefix("/k/")
KEYS = Keys("db")
MEMBER = Member("pg1", Role.REPLICA, (Address("h"),), 1, "1", 150000)


@asynccontextmanager
async def mirroring(store: MemoryStore, clock: ManualClock, timing: Timing = TIMING) -> AsyncIterator[Mirror]:
    mirror = Mirror(store, RANGE, timing=timing, clock=clock, jitter=lambda: 0.5)
    task = asyncio.create_task(mirror.run())
    await wait_for_async(lambda: mirror.connected, DEADLINE_S, "the watch")
    try:
        yield mirror
    finally:
        task.cancel()
        await asyncio.wait([task])


def held(mirror: Mirror) -> dict[str, bytes]:
    return {} if mirror.contents is None else {key: item.value for key, item in mirror.contents.items.items()}


async def test_it_freezes_while_the_store_is_away_and_goes_on_from_there(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    await store.put(Put("/k/a", b"1"))
    with caplog.at_level(logging.INFO, "pgamb.registry.mirror"):
        async with mirroring(store, clock) as mirror:
            store.away = True
            await wait_for_async(lambda: not mirror.connected, DEADLINE_S, "the loss")
            clock.advance(100)
            assert mirror.age_s == 100
            assert held(mirror) == {"/k/a": b"1"}
            assert "away" in (mirror.last_error or "")
            for _ in range(20):
                await asyncio.sleep(0.001)
            store.away = False
            await store.put(Put("/k/b", b"2"))
            await store.delete("/k/a")
            await wait_for_async(lambda: held(mirror) == {"/k/b": b"2"}, DEADLINE_S, "what came meanwhile")
            assert (mirror.connected, mirror.age_s, mirror.last_error) == (True, 0, None)
    said = [record.message for record in caplog.records]
    assert said == ["registry.connected", "registry.lost", "registry.connected"], "once for each change"


async def test_it_follows_what_comes_changes_and_goes_without_listing() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    async with mirroring(store, clock) as mirror:
        for number in range(3):
            await store.put(Put("/k/a", b"%d" % number))
            await wait_for_async(lambda: held(mirror).get("/k/a") == b"%d" % number, DEADLINE_S, "the value")  # noqa: B023
        await store.delete("/k/a")
        await wait_for_async(lambda: held(mirror) == {}, DEADLINE_S, "the end")


async def test_it_lists_again_after_a_compaction_and_after_a_wipe() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    for _ in range(5):
        await store.put(Put("/k/a", b"1"))
    async with mirroring(store, clock) as mirror:
        store.away = True
        await wait_for_async(lambda: not mirror.connected, DEADLINE_S, "the loss")
        store.away = False
        await store.put(Put("/k/b", b"2"))
        store.compact()
        await wait_for_async(lambda: len(held(mirror)) == 2, DEADLINE_S, "the list after the compaction")
        assert mirror.contents is not None
        assert mirror.contents.generation == 0
        for same_id in (True, False):
            generation = mirror.contents.generation
            store.wipe(same_id=same_id)
            await store.put(Put("/k/c", b"3"))
            await wait_for_async(lambda: held(mirror) == {"/k/c": b"3"}, DEADLINE_S, "the list after the wipe")
            await wait_for_async(lambda: mirror.connected, DEADLINE_S, "the watch")
            if not same_id:
                assert mirror.contents.generation > generation
            await store.put(Put("/k/c", b"4"))
            await wait_for_async(lambda: held(mirror) == {"/k/c": b"4"}, DEADLINE_S, "the watch after the wipe")


async def test_a_store_that_was_wiped_and_has_caught_up_is_found_out_by_a_list() -> None:
    """Its id is the same and its revision is not behind: nothing in the watch gives it away."""
    clock = ManualClock()
    store = MemoryStore(clock)
    await store.put(Put("/k/old", b""))
    async with mirroring(store, clock) as mirror:
        store.wipe()
        for _ in range(10):
            await store.put(Put("/elsewhere", b""))
        await wait_for_async(lambda: held(mirror) == {}, DEADLINE_S, "the old key goes")


async def test_a_watch_that_does_not_notice_another_store_is_given_up() -> None:
    class Numb(MemoryStore):
        watches = 0

        async def watch(self, key_range: KeyRange, after: Position) -> AsyncGenerator[Batch, None]:
            self.watches += 1
            yield Batch((), after)
            await asyncio.Event().wait()

    clock = ManualClock()
    store = Numb(clock)
    for _ in range(5):
        await store.put(Put("/k/old", b""))
    async with mirroring(store, clock) as mirror:
        store.wipe()
        await store.put(Put("/k/new", b""))
        mirror.refresh()
        await wait_for_async(lambda: held(mirror) == {"/k/new": b""}, DEADLINE_S, "the new store's keys")
        await wait_for_async(lambda: store.watches > 1, DEADLINE_S, "a watch of the new store")
        assert mirror.contents is not None
        assert mirror.contents.generation == 1


@pytest.mark.parametrize("steps", range(6))
async def test_it_ends_when_it_is_cancelled_in_the_moment_of_a_loss(steps: int) -> None:
    """A task group (until Python 3.13) that reports a child's failure forgets that it was cancelled meanwhile: the
    mirror went on for ever. Now it owns its two tasks, and waits for them by `asyncio.wait`, which forgets nothing."""
    clock = ManualClock()
    store = MemoryStore(clock)
    mirror = Mirror(store, RANGE, timing=TIMING, clock=clock)
    task = asyncio.create_task(mirror.run())
    await wait_for_async(lambda: mirror.connected, DEADLINE_S, "the watch")
    store.away = True
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task], timeout=1.0)
    done = task.done()
    while not task.done():  # the defect would outlive this test otherwise
        task.cancel()
        await asyncio.sleep(0.01)
    assert done
    assert task.cancelled()


async def test_a_refresh_lists_without_waiting_for_its_time() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    async with mirroring(store, clock) as mirror:
        await asyncio.sleep(0.02)
        clock.advance(50)
        assert mirror.age_s == 50
        mirror.refresh()
        await wait_for_async(lambda: mirror.age_s == 0, DEADLINE_S, "the list")


async def test_a_reader_of_the_latest_skips_what_is_no_longer_new_and_hears_the_end() -> None:
    latest: Latest[int] = Latest()
    values = latest.values()
    waiting = asyncio.ensure_future(anext(values))
    await asyncio.sleep(0)
    latest.set(1)
    latest.set(2)
    assert await waiting == 2
    latest.set(3)
    latest.end(ValueError("broken"))
    latest.end()
    assert await anext(values) == 3
    with pytest.raises(ValueError, match="broken"):
        await anext(values)
    assert await latest.first() == 3


@asynccontextmanager
async def announcing(store: MemoryStore, clock: ManualClock) -> AsyncIterator[Announcer]:
    announcer = Announcer(store, "db", "pg1", 6, timing=TIMING, clock=clock)
    task = asyncio.create_task(announcer.run())
    await wait_for_async(lambda: announcer.view() is not None, DEADLINE_S, "the view")
    try:
        yield announcer
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_registry_that_is_away_holds_up_nobody_and_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    with caplog.at_level(logging.INFO, "pgamb.registry.announcer"):
        async with announcing(store, clock) as agent:
            assert await agent.announce(MEMBER)
            store.away = True
            clock.advance(5.9)
            assert [agent.lease_valid] == [True]
            await wait_for_async(lambda: tried(agent), DEADLINE_S, "it was noticed")
            clock.advance(0.1)
            assert [agent.lease_valid] == [False]
            view = agent.view()
            assert view is not None
            assert not view.connected
            assert view.age_s == 6.0
            assert view.members == (MEMBER,), "what was known stands"
            for _ in range(50):
                assert not await agent.announce(MEMBER, wait_s=60)
            store.away = False
            await wait_for_async(lambda: agent.lease_valid, DEADLINE_S, "registered again by itself")
    said = [record.message for record in caplog.records]
    assert said == [
        "registry.announced", "registry.not-announced", "registry.lease-lost", "registry.announced", "registry.reached",
    ]  # fmt: skip


async def tried(agent: Announcer) -> bool:
    await agent.announce(MEMBER)
    return agent.last_error is not None


async def test_after_a_wipe_all_is_written_again_at_once() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    async with announcing(store, clock) as agent:
        assert await agent.announce(MEMBER)
        store.wipe()
        await wait_for_async(lambda: written(store), DEADLINE_S, "both keys are back")
        assert agent.lease_valid


async def written(store: MemoryStore) -> bool:
    return await store.get(KEYS.member("pg1")) is not None and await store.get(KEYS.cluster) is not None


async def test_a_withdrawal_that_is_not_heard_is_tried_again() -> None:
    clock = ManualClock()
    store = MemoryStore(clock)
    async with announcing(store, clock) as agent:
        assert await agent.announce(MEMBER)
        store.away = True
        assert not await agent.withdraw(wait_s=0.01)
        store.away = False
        await wait_for_async(lambda: gone(store), DEADLINE_S, "the member goes, long before its lease would end")
        await wait_for_async(lambda: agent.withdraw(), DEADLINE_S, "and that is known")


async def gone(store: MemoryStore) -> bool:
    return await store.get(KEYS.member("pg1")) is None
