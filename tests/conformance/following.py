"""Watches and mirrors as the tests of etcd use them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pgamb.errors import RegistryError
from pgamb.registry.etcd.store import EtcdStore
from pgamb.registry.mirror import Mirror, Timing
from pgamb.registry.store import Batch, KeyRange
from tests.support.waiting import wait_for_async

PREFIX = "/pgamb/guards/"
RANGE = KeyRange.prefix(PREFIX)
DEADLINE_S = 20.0
QUICK = Timing(resync_s=30.0, retry_min_s=0.05, retry_max_s=0.3)


class Following:
    """A mirror with its task."""

    def __init__(self, store: EtcdStore, timing: Timing = QUICK) -> None:
        self.mirror = Mirror(store, RANGE, timing=timing)
        self._store = store

    async def __aenter__(self) -> Mirror:
        self._task = asyncio.create_task(self.mirror.run())
        await wait_for_async(lambda: self.mirror.connected, DEADLINE_S, "the first watch")
        return self.mirror

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._store.close()


def keys(mirror: Mirror) -> list[str]:
    return [] if mirror.contents is None else sorted(key.removeprefix(PREFIX) for key in mirror.contents.items)


async def first_failure(watch: AsyncGenerator[Batch, None]) -> RegistryError:
    """Return what ends a watch."""
    async with asyncio.timeout(DEADLINE_S), aclosing(watch):
        try:
            async for _ in watch:
                pass
        except RegistryError as error:
            return error
    raise AssertionError("the watch ended without an error")
