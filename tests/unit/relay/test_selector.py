"""The selector that asyncio and the data plane share, as asyncio sees it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from pgamb.relay.loop import SharedLoop
from pgamb.relay.reactor import Reactor


def run(work: object) -> object:
    with asyncio.Runner(loop_factory=SharedLoop) as runner:
        return runner.run(work)  # type: ignore[arg-type]


THREAD = """
import time
import asyncio
from pgamb.relay.loop import SharedLoop
with asyncio.Runner(loop_factory=SharedLoop) as runner:
    print(runner.run(asyncio.to_thread(lambda: time.sleep(0.2) or "done")))
"""


def test_threads_run_while_the_loop_sleeps() -> None:
    # epoll_wait kept the interpreter's lock: a thread (grpc's, a name's look-up) had to wait for the next event, and
    # for ever if it was itself what the loop waited for. In a process of its own, because that cannot be interrupted.
    ended = subprocess.run([sys.executable, "-c", THREAD], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "done\n"


def test_timers_streams_and_threads() -> None:
    async def work() -> bytes:
        left, right = socket.socketpair()
        left.setblocking(False)
        right.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, right.send, b"hello")
        received = await loop.sock_recv(left, 100)
        left.close()
        right.close()
        return received

    assert run(work()) == b"hello"


def test_one_reactor_a_loop() -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop, print)
        with pytest.raises(RuntimeError):
            Reactor(loop, print)
        reactor.close()
        Reactor(loop, print).close()

    run(work())


def test_descriptors_are_registered_once() -> None:
    async def work() -> None:
        selector = asyncio.get_running_loop().selector  # type: ignore[attr-defined]
        left, right = socket.socketpair()
        selector.register(left, 1)
        with pytest.raises(KeyError):
            selector.register(left, 1)
        assert selector.get_key(left).fd == left.fileno()
        selector.unregister(left)
        with pytest.raises(KeyError):
            selector.unregister(left)
        with pytest.raises(OSError, match="Bad file descriptor"):
            selector.register(10_000_000, 1)
        left.close()
        right.close()

    run(work())
