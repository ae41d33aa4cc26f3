"""A value of which only the newest counts, and those who wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Generic, TypeVar

T = TypeVar("T")


class Latest(Generic[T]):
    """Holds the newest value; a slow reader skips those in between. Ends once, with or without an error."""

    def __init__(self) -> None:
        self.value: T | None = None
        self._version = 0
        self._changed = asyncio.Event()
        self._ended = False
        self._error: BaseException | None = None

    def set(self, value: T) -> None:
        self.value = value
        self._version += 1
        self._announce()

    def end(self, error: BaseException | None = None) -> None:
        """Let every reader stop, by `error` if there is one; a second call changes nothing."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._announce()

    def follow(self, task: asyncio.Task[None]) -> None:
        """End as `task`, which sets the values, has ended; to be its done callback."""
        self.end(None if task.cancelled() else task.exception())

    async def values(self) -> AsyncGenerator[T, None]:
        """Yield the newest value, if there is one already, and each later one that is still the newest when asked."""
        seen = 0
        while True:
            if seen != self._version and self.value is not None:
                seen = self._version
                yield self.value
            elif self._ended:
                if self._error is not None:
                    raise self._error
                return
            else:
                await self._changed.wait()

    async def first(self) -> T | None:
        """Return the newest value, waiting for the first; None if it ended without one."""
        while self.value is None and not self._ended:
            await self._changed.wait()
        if self.value is None and self._error is not None:
            raise self._error
        return self.value

    def _announce(self) -> None:
        # Whoever waits holds the old event; a new one makes those who come later wait for what comes later.
        self._changed.set()
        self._changed = asyncio.Event()
