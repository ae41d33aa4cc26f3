"""A local copy of one range of keys that follows the store, whatever happens to the connection.

List, then watch from the list's revision. A broken watch is resumed behind the last *event* that was delivered; a
compaction or another store means listing again. A full list now and then heals whatever was missed all the same.

Invariants: `contents` is what the store held at one revision, never a mixture; it never goes back within one store;
while the store is away it stays as it is, and `age_s` grows.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing

import msgspec

from pgamb.errors import RegistryError, RegistryUnavailable
from pgamb.registry.latest import Latest
from pgamb.registry.store import (
    Compacted,
    Event,
    EventKind,
    KeyRange,
    KeyValue,
    Listing,
    Position,
    Store,
    StoreReplaced,
)

log = logging.getLogger(__name__)


class Contents(msgspec.Struct, frozen=True):
    """The keys of the range at `position`; `generation` counts how often the store was replaced by another."""

    items: Mapping[str, KeyValue]
    position: Position
    generation: int = 0


class Timing(msgspec.Struct, frozen=True):
    """When to list again, and how long to wait before another try.

    `resync_s` is stretched at random up to twice, so that a thousand proxies do not list in step. The first try after
    a loss is immediate; from then on the wait doubles from `retry_min_s` to `retry_max_s`.
    """

    resync_s: float = 30.0
    retry_min_s: float = 0.2
    retry_max_s: float = 2.0


class Mirror:
    """Keeps `latest` true to `key_range`; `run` does the work and belongs to the caller's task."""

    def __init__(
        self,
        store: Store,
        key_range: KeyRange,
        *,
        timing: Timing | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.latest: Latest[Contents] = Latest()
        self.connected = False
        self.last_error: str | None = None
        self._store = store
        self._range = key_range
        self._timing = timing or Timing()
        self._clock = clock
        self._jitter = jitter
        self._confirmed_at: float | None = None
        self._failures = 0
        self._resync_soon = asyncio.Event()

    @property
    def contents(self) -> Contents | None:
        return self.latest.value

    @property
    def age_s(self) -> float | None:
        """Seconds since the store last confirmed the contents; None before the first list."""
        return None if self._confirmed_at is None else self._clock() - self._confirmed_at

    async def run(self) -> None:
        """Follow the store for ever; ends by cancellation only."""
        relist = True
        while True:
            try:
                if relist or self.contents is None:
                    self._adopt(await self._store.list(self._range))
                    relist = False
                await self._follow()
            except RegistryError as error:
                relist = relist or isinstance(error, Compacted | StoreReplaced)
                await self._pause(error)

    def refresh(self) -> None:
        """List within `retry_max_s`; at random, so that all who lost the same thing do not ask at once."""
        self._resync_soon.set()

    async def _follow(self) -> None:
        """Watch, and list beside it, until one of them fails; raises what it raised.

        Not a TaskGroup: until Python 3.13 that forgets a cancellation which comes in the moment of a child's failure.
        """
        tasks = {asyncio.create_task(self._watch()), asyncio.create_task(self._resync())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
        raise errors[0] if errors else RegistryUnavailable("the watch was cancelled")

    async def _watch(self) -> None:
        assert self.contents is not None
        async with aclosing(self._store.watch(self._range, self.contents.position)) as batches:
            async for batch in batches:
                self._confirm()
                if batch.events:
                    self._apply(batch.events, batch.position)
        raise RegistryUnavailable("the watch ended")

    async def _resync(self) -> None:
        """List now and then beside the watch; soon after a loss, when a store that was wiped may have caught up."""
        while True:
            try:
                async with asyncio.timeout(self._timing.resync_s * (1 + self._jitter())):
                    await self._resync_soon.wait()
            except TimeoutError:
                pass
            else:
                self._resync_soon.clear()
                await asyncio.sleep(self._timing.retry_max_s * self._jitter())
            try:
                listing = await self._store.list(self._range)
            except RegistryUnavailable as error:
                log.debug("registry.resync", extra={"kv": {"error": error.message}})
                continue
            self._reconcile(listing)

    def _adopt(self, listing: Listing) -> None:
        self._confirmed_at = self._clock()
        known = self.contents
        generation = 0 if known is None else known.generation
        if known is not None and _is_older(listing.position, known.position):
            generation += 1
            log.warning(
                "registry.replaced", extra={"kv": {"endpoint": self._store.endpoint, "keys": len(listing.items)}}
            )
        self.latest.set(Contents({item.key: item for item in listing.items}, listing.position, generation))

    def _reconcile(self, listing: Listing) -> None:
        known = self.contents
        assert known is not None
        if _is_older(listing.position, known.position):
            raise StoreReplaced("the store holds an older state than the one already seen")
        self._confirmed_at = self._clock()
        items = {item.key: item for item in listing.items}
        if items != known.items:
            # The watch is behind the list, ordinarily by a moment; its events up to there will change nothing.
            self.latest.set(Contents(items, listing.position, known.generation))
            log.debug("registry.healed", extra={"kv": {"revision": listing.position.revision}})

    def _apply(self, events: tuple[Event, ...], position: Position) -> None:
        known = self.contents
        assert known is not None
        items = dict(known.items)
        for event in events:
            if event.item.mod_revision <= known.position.revision:
                continue
            if event.kind is EventKind.PUT:
                items[event.item.key] = event.item
            else:
                items.pop(event.item.key, None)
        if position.revision > known.position.revision:
            self.latest.set(Contents(items, position, known.generation))

    def _confirm(self) -> None:
        self._confirmed_at = self._clock()
        self._failures = 0
        if not self.connected:
            self.connected = True
            self.last_error = None
            log.info("registry.connected", extra={"kv": {"endpoint": self._store.endpoint}})

    async def _pause(self, error: RegistryError) -> None:
        """Wait before the next try. A loss that the first try mends is none that anyone hears of."""
        self._resync_soon.set()
        self._failures += 1
        if self._failures == 1 and self.connected:
            return
        if self.connected or self.last_error != error.message:
            log.warning("registry.lost", extra={"kv": {"error": error.message, "endpoint": self._store.endpoint}})
        self.connected = False
        self.last_error = error.message
        wait_s = min(self._timing.retry_min_s * 2 ** min(self._failures - 1, 10), self._timing.retry_max_s)
        await asyncio.sleep(wait_s * (0.75 + 0.5 * self._jitter()))


def _is_older(listed: Position, known: Position) -> bool:
    return listed.store_id != known.store_id or listed.revision < known.revision
