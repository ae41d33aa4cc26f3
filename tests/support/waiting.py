"""Wait for a condition with a deadline, never for luck."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

T = TypeVar("T")

POLL_S = 0.01


def wait_for(condition: Callable[[], T], deadline_s: float, what: str) -> T:
    """Call `condition` until its answer is true, and return that. Raises AssertionError that names `what`."""
    end = time.monotonic() + deadline_s
    while not (answer := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what} (last answer: {answer!r})")
        time.sleep(POLL_S)
    return answer


@overload
async def wait_for_async(condition: Callable[[], Awaitable[T]], deadline_s: float, what: str) -> T: ...


@overload
async def wait_for_async(condition: Callable[[], T], deadline_s: float, what: str) -> T: ...


async def wait_for_async(condition: Callable[[], T | Awaitable[T]], deadline_s: float, what: str) -> T:
    """Like `wait_for`, without blocking the loop; the condition may be a coroutine function."""
    end = time.monotonic() + deadline_s
    while True:
        given = condition()
        answer: T = await given if isinstance(given, Awaitable) else given
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {deadline_s:g} s: {what} (last answer: {answer!r})")
        await asyncio.sleep(POLL_S)
