"""The compiled pipe between two sockets: whole transfers, half-close, backpressure, resets."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pgamb.relay.pipe import End, Pipe
from pgamb.relay.reactor import Reactor, Source

DEADLINE_S = 10.0


@dataclass(slots=True)
class Bench:
    """A reactor, and pairs of sockets piped through it; what went wrong inside is in `errors`."""

    reactor: Reactor
    closed: list[object] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    def pair(self, family: str) -> tuple[socket.socket, socket.socket]:
        if family == "unix":
            left, right = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                left = socket.create_connection(listener.getsockname())
                right, _ = listener.accept()
        for end in (left, right):
            end.setblocking(False)
        return left, right

    def piped(self, front: str = "tcp", back: str = "tcp") -> tuple[socket.socket, socket.socket, Pipe]:
        """Answer the application's socket, PostgreSQL's socket, and the pipe between them."""
        application, front_end = self.pair(front)
        back_end, postgres = self.pair(back)
        pipe = Pipe(self.reactor, front_end.detach(), back_end.detach(), self.closed.append)
        self.sockets += [application, postgres]
        return application, postgres, pipe


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    errors: list[BaseException] = []

    def failed(source: Source, error: Exception) -> None:
        errors.append(error)
        assert isinstance(source, End)
        source.abort()

    reactor = Reactor(asyncio.get_running_loop(), failed)
    made = Bench(reactor, errors=errors)
    yield made
    for one in made.sockets:
        one.close()
    reactor.close()
    assert not errors


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process, or in the kernel
            await asyncio.sleep(0.001)


async def read_to_end(source: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    chunks = []
    async with asyncio.timeout(DEADLINE_S):
        while chunk := await loop.sock_recv(source, 65536):
            chunks.append(chunk)
    return b"".join(chunks)


async def send_and_end(target: socket.socket, data: bytes) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.get_running_loop().sock_sendall(target, data)
    target.shutdown(socket.SHUT_WR)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def reset(one: socket.socket) -> None:
    """Close with a TCP reset."""
    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


@pytest.mark.parametrize("back", ["tcp", "unix"])
async def test_bytes_cross_in_both_directions_at_once(bench: Bench, back: str) -> None:
    application, postgres, pipe = bench.piped(back=back)
    up, down = random.Random(1).randbytes(3_000_000), random.Random(2).randbytes(5_000_000)
    _, _, got_up, got_down = await asyncio.gather(
        send_and_end(application, up), send_and_end(postgres, down), read_to_end(postgres), read_to_end(application)
    )
    assert hashlib.sha256(got_up).digest() == hashlib.sha256(up).digest()
    assert hashlib.sha256(got_down).digest() == hashlib.sha256(down).digest()
    await eventually(lambda: pipe.closed)
    assert (pipe.bytes_up, pipe.bytes_down) == (len(up), len(down))
    assert bench.closed == [pipe]


@pytest.mark.parametrize("back", ["tcp", "unix"])
async def test_a_half_closed_direction_leaves_the_other_open(bench: Bench, back: str) -> None:
    application, postgres, pipe = bench.piped(back=back)
    await send_and_end(application, b"the last question")
    assert await read_to_end(postgres) == b"the last question"
    assert not pipe.closed
    await send_and_end(postgres, b"the answer")
    assert await read_to_end(application) == b"the answer"
    await eventually(lambda: pipe.closed)


@pytest.mark.parametrize("back", ["tcp", "unix"])
async def test_what_is_not_taken_stops_the_sender(bench: Bench, back: str) -> None:
    """Memory is bounded: with nobody reading, only the kernel's buffers and one read fill up."""
    application, postgres, pipe = bench.piped(back=back)
    payload = random.Random(3).randbytes(64_000_000)
    before_bytes = resident_bytes()
    sending = asyncio.create_task(send_and_end(postgres, payload))
    last = -1
    while last != pipe.bytes_down:
        last = pipe.bytes_down
        await asyncio.sleep(0.1)
    assert 0 < last < 32_000_000
    assert not sending.done()
    assert resident_bytes() - before_bytes < 4_000_000
    got = await read_to_end(application)
    await sending
    assert hashlib.sha256(got).digest() == hashlib.sha256(payload).digest()


async def test_a_stuck_direction_does_not_stop_the_other(bench: Bench) -> None:
    application, postgres, pipe = bench.piped()
    loop = asyncio.get_running_loop()
    sending = asyncio.create_task(send_and_end(postgres, bytes(32_000_000)))
    await eventually(lambda: pipe.bytes_down > 500_000)
    await loop.sock_sendall(application, b"still heard")
    assert await asyncio.wait_for(loop.sock_recv(postgres, 100), DEADLINE_S) == b"still heard"
    assert len(await read_to_end(application)) == 32_000_000
    await sending


@pytest.mark.parametrize("back", ["tcp", "unix"])
async def test_the_last_words_of_postgres_arrive_although_the_application_sends(bench: Bench, back: str) -> None:
    application, postgres, pipe = bench.piped(back=back)
    await asyncio.get_running_loop().sock_sendall(postgres, b"FATAL: terminating connection")
    postgres.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012 - the reset comes when it comes
        for _ in range(10_000):
            await asyncio.get_running_loop().sock_sendall(application, b"x" * 1000)
            await asyncio.sleep(0)
    assert await asyncio.get_running_loop().sock_recv(application, 100) == b"FATAL: terminating connection"
    await eventually(lambda: pipe.closed)


@pytest.mark.parametrize("back", ["tcp", "unix"])
async def test_what_postgres_said_is_kept_when_it_takes_nothing_more(bench: Bench, back: str) -> None:
    application, postgres, pipe = bench.piped(back=back)
    loop = asyncio.get_running_loop()
    sending = asyncio.create_task(loop.sock_sendall(postgres, bytes(32_000_000)))
    last = -1
    while last != pipe.bytes_down:
        last = pipe.bytes_down
        await asyncio.sleep(0.1)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    postgres.close()
    # The second of these fails at the latest: the first one had PostgreSQL's side reset the connection.
    for _ in range(3):
        await loop.sock_sendall(application, b"x")
        await asyncio.sleep(0.02)
    received = 0
    with suppress(ConnectionResetError):  # what we sent last was not read by anybody
        while chunk := await asyncio.wait_for(loop.sock_recv(application, 65536), DEADLINE_S):
            received += len(chunk)
    assert received >= last
    await eventually(lambda: pipe.closed)


async def test_a_reset_ends_the_pipe(bench: Bench) -> None:
    application, postgres, pipe = bench.piped()
    reset(application)
    assert await read_to_end(postgres) == b""
    await eventually(lambda: pipe.closed)


@pytest.mark.parametrize("back", ["tcp", "unix"])
async def test_a_hang_up_that_cannot_be_handled_yet_costs_no_cpu(bench: Bench, back: str) -> None:
    """epoll reports a hang-up for ever: PostgreSQL is gone, and the application does not take what it said before."""
    application, postgres, pipe = bench.piped(back=back)
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(postgres, bytes(32_000_000)))
    last = -1
    while last != pipe.bytes_down:
        last = pipe.bytes_down
        await asyncio.sleep(0.1)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    postgres.shutdown(socket.SHUT_RDWR)
    postgres.close()
    await asyncio.sleep(0.05)
    events = bench.reactor.events
    await asyncio.sleep(0.2)
    assert bench.reactor.events - events < 10
    assert not pipe.closed
    assert len(await read_to_end(application)) >= last
    application.close()
    await eventually(lambda: pipe.closed)


async def test_close_ends_both_sockets_at_once_and_only_once(bench: Bench) -> None:
    application, postgres, pipe = bench.piped()
    pipe.close()
    pipe.close()
    assert await read_to_end(application) == b""
    assert await read_to_end(postgres) == b""
    assert bench.closed == [pipe]


async def test_closing_in_the_callback_of_another_is_safe(bench: Bench) -> None:
    """Two pipes end in one round of the reactor, and the first one's end closes the second."""
    first_application, _, first = bench.piped()
    second_application, _, second = bench.piped()
    application, front_end = bench.pair("tcp")
    back_end, postgres = bench.pair("tcp")

    def close_the_others(_: Pipe) -> None:
        first.close()
        second.close()

    third = Pipe(bench.reactor, front_end.detach(), back_end.detach(), close_the_others)
    for one in (application, postgres, first_application, second_application):
        one.close()
    await eventually(lambda: first.closed and second.closed and third.closed)


async def test_a_descriptor_that_cannot_be_waited_for_closes_both(bench: Bench, tmp_path: Path) -> None:
    application, front_end = bench.pair("tcp")
    front_fd = front_end.detach()
    file_fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
    with pytest.raises(PermissionError):
        Pipe(bench.reactor, front_fd, file_fd, bench.closed.append)
    for fd in (front_fd, file_fd):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    application.close()
    assert bench.closed == []


async def test_random_chunks_and_pauses_keep_every_byte_in_order(bench: Bench) -> None:
    loop = asyncio.get_running_loop()

    async def talk(seed: int) -> None:
        rng = random.Random(seed)
        application, postgres, _ = bench.piped(back=rng.choice(["tcp", "unix"]))
        payload = rng.randbytes(rng.randrange(1, 2_000_000))
        received = bytearray()

        async def slowly_read() -> None:
            while chunk := await loop.sock_recv(postgres, rng.randrange(1, 100_000)):
                received.extend(chunk)
                if rng.random() < 0.1:
                    await asyncio.sleep(0.001)

        async def send_in_pieces() -> None:
            at = 0
            while at < len(payload):
                piece = payload[at : at + rng.randrange(1, 200_000)]
                await loop.sock_sendall(application, piece)
                at += len(piece)
            application.shutdown(socket.SHUT_WR)

        await asyncio.gather(slowly_read(), send_in_pieces())
        assert bytes(received) == payload

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for seed in range(20):
            group.create_task(talk(seed))
