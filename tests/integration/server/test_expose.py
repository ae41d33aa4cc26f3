"""The exposed port against a scripted PostgreSQL: relaying, refusing, and changing over between the two."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pgamb.config.listen import ListenAddress
from pgamb.errors import ConfigError
from pgamb.registry.model import Address
from pgamb.server.decide import Refusal
from pgamb.server.expose import MAX_REFUSALS, REFUSAL_TIMEOUT_S, Exposure
from pgamb.wire import messages

DEADLINE_S = 10.0
STALE = Refusal("pg1 is a stale primary: it is on timeline 1, and pg2 is primary on timeline 2", "Connect to pg2.")
STARTUP = messages.startup_message({"user": "ann", "database": "shop"})


@dataclass(slots=True)
class Echo:
    """A server that says its greeting and then repeats what it hears."""

    address: Address
    connections: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def echoing(folder: Path | None = None) -> AsyncIterator[Echo]:
    if folder is not None:
        echo = Echo(Address(str(folder), 5432))
        server = await asyncio.start_unix_server(echo.serve, echo.address.socket_path)
    else:
        echo = Echo(Address("127.0.0.1", 0))
        server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
        echo.address = Address("127.0.0.1", server.sockets[0].getsockname()[1])
    try:
        yield echo
    finally:
        server.close()
        for writer in echo.writers:
            writer.transport.abort()


@dataclass(slots=True)
class Exposed:
    exposure: Exposure
    unreachable: list[str]

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(asyncio.open_connection("127.0.0.1", self.exposure.port), DEADLINE_S)


@asynccontextmanager
async def exposing(postgres: Address, *, relay: bool = True) -> AsyncIterator[Exposed]:
    unreachable: list[str] = []
    exposure = Exposure(ListenAddress("127.0.0.1", 0), postgres, lambda: unreachable.append("told"))
    exposure.bind()
    if relay:
        exposure.set_refusal(None)
    running = asyncio.create_task(exposure.run())
    try:
        yield Exposed(exposure, unreachable)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    assert exposure.connections == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def read_all(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), DEADLINE_S)


def fields(answer: bytes) -> dict[str, str]:
    """Read one ErrorResponse and nothing else."""
    assert answer[:1] == b"E", answer
    assert int.from_bytes(answer[1:5], "big") == len(answer) - 1
    return messages.parse_error_fields(answer[5:])


async def eventually(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in the kernel
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("unix", [False, True])
async def test_bytes_are_relayed_to_tcp_and_unix_servers(unix: bool, tmp_path: Path) -> None:
    payload = os.urandom(1_000_000)
    async with echoing(tmp_path if unix else None) as echo, exposing(echo.address) as exposed:
        reader, writer = await exposed.connect()
        writer.write(payload)
        writer.write_eof()
        assert await read_all(reader) == payload
        writer.close()
        await eventually(lambda: exposed.exposure.connections == 0)
        assert exposed.unreachable == []


async def test_a_refused_connection_hears_why_behind_its_startup_message() -> None:
    async with echoing() as echo, exposing(echo.address) as exposed:
        exposed.exposure.set_refusal(STALE)
        reader, writer = await exposed.connect()
        writer.write(STARTUP)
        error = fields(await read_all(reader))
        assert (error["S"], error["V"], error["C"]) == ("FATAL", "FATAL", "57P03")
        assert error["M"] == STALE.message
        assert error["H"] == STALE.hint
        assert echo.connections == 0
        writer.close()


async def test_a_refusal_is_not_lost_to_what_the_peer_sent_beyond_its_startup_message() -> None:
    async with exposing(Address("127.0.0.1", 1), relay=False) as exposed:
        reader, writer = await exposed.connect()
        writer.write(STARTUP + bytes(1000))
        await asyncio.sleep(0.05)
        writer.write(bytes(1000))
        assert fields(await read_all(reader))["C"] == "57P03"
        writer.close()


async def test_a_refusal_that_comes_while_a_connection_is_made_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with echoing() as echo, exposing(echo.address) as exposed:
        connect, connecting = exposed.exposure._connect, asyncio.Event()
        go_on = asyncio.Event()

        async def slowly() -> socket.socket:
            connecting.set()
            await go_on.wait()
            return await connect()

        monkeypatch.setattr(exposed.exposure, "_connect", slowly)
        reader, writer = await exposed.connect()
        writer.write(STARTUP)
        await asyncio.wait_for(connecting.wait(), DEADLINE_S)
        exposed.exposure.set_refusal(STALE)
        go_on.set()
        assert fields(await read_all(reader))["M"] == STALE.message
        writer.close()


async def test_encryption_requests_are_answered_no_before_a_refusal() -> None:
    async with exposing(Address("127.0.0.1", 1), relay=False) as exposed:
        reader, writer = await exposed.connect()
        for request in (messages.gssenc_request(), messages.ssl_request()):
            writer.write(request)
            assert await asyncio.wait_for(reader.readexactly(1), DEADLINE_S) == b"N"
        writer.write(STARTUP)
        assert fields(await read_all(reader))["C"] == "57P03"
        writer.close()


async def test_a_refusal_arrives_whole_when_the_startup_message_comes_byte_by_byte() -> None:
    async with exposing(Address("127.0.0.1", 1), relay=False) as exposed:
        reader, writer = await exposed.connect()
        for byte in STARTUP:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert fields(await read_all(reader))["C"] == "57P03"
        writer.close()


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01", b"GET / HTTP/1.1\r\n\r\n", bytes(8), b"\xff" * 100, STARTUP[:-1]],
)
async def test_garbage_and_truncated_starts_are_closed_without_harm(garbage: bytes) -> None:
    async with exposing(Address("127.0.0.1", 1), relay=False) as exposed:
        reader, writer = await exposed.connect()
        writer.write(garbage)
        writer.write_eof()
        with suppress(ConnectionResetError):
            assert await read_all(reader) == b""
        writer.close()
        reader, writer = await exposed.connect()
        writer.write(STARTUP)
        assert fields(await read_all(reader))["C"] == "57P03"
        writer.close()


async def test_a_refused_cancel_is_closed_without_an_answer() -> None:
    async with exposing(Address("127.0.0.1", 1), relay=False) as exposed:
        reader, writer = await exposed.connect()
        writer.write(messages.cancel_request(1, b"abcd"))
        assert await read_all(reader) == b""
        writer.close()


@pytest.mark.parametrize("unix", [False, True])
async def test_an_unreachable_server_is_told_to_both_sides(unix: bool, tmp_path: Path) -> None:
    address = Address(str(tmp_path), 5432) if unix else Address("127.0.0.1", free_port())
    async with exposing(address) as exposed:
        reader, writer = await exposed.connect()
        writer.write(STARTUP)
        error = fields(await read_all(reader))
        assert (error["S"], error["C"]) == ("FATAL", "57P03")
        assert error["M"].startswith(f"cannot connect to PostgreSQL at {address}: ")
        assert exposed.unreachable == ["told"]
        writer.close()


async def test_a_refusal_that_cuts_ends_running_connections() -> None:
    async with echoing() as echo, exposing(echo.address) as exposed:
        reader, writer = await exposed.connect()
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), DEADLINE_S) == b"hello"
        assert exposed.exposure.connections == 1
        exposed.exposure.set_refusal(STALE)
        assert await read_all(reader) == b""
        assert exposed.exposure.connections == 0
        writer.close()


async def test_a_refusal_that_does_not_cut_leaves_running_connections() -> None:
    async with echoing() as echo, exposing(echo.address) as exposed:
        reader, writer = await exposed.connect()
        writer.write(b"hello")
        assert await asyncio.wait_for(reader.readexactly(5), DEADLINE_S) == b"hello"
        exposed.exposure.set_refusal(Refusal("cannot connect", "Start it.", cut=False))
        writer.write(b"still")
        assert await asyncio.wait_for(reader.readexactly(5), DEADLINE_S) == b"still"
        other_reader, other_writer = await exposed.connect()
        other_writer.write(STARTUP)
        assert fields(await read_all(other_reader))["M"] == "cannot connect"
        exposed.exposure.set_refusal(None)
        third_reader, third_writer = await exposed.connect()
        third_writer.write(b"again")
        assert await asyncio.wait_for(third_reader.readexactly(5), DEADLINE_S) == b"again"
        for one in (writer, other_writer, third_writer):
            one.close()


async def test_a_crowd_of_refused_connections_is_bounded_and_harms_nobody() -> None:
    count = MAX_REFUSALS + 50
    async with exposing(Address("127.0.0.1", 1), relay=False) as exposed:
        crowd = [await exposed.connect() for _ in range(count)]
        # Those beyond the limit are closed at once, the others wait for what we want to say.
        closed = await asyncio.wait_for(
            asyncio.gather(*(reader.read() for reader, _ in crowd[-50:])), REFUSAL_TIMEOUT_S / 2
        )
        assert closed == [b""] * 50
        for _, writer in crowd:
            writer.close()
        await eventually(lambda: exposed.exposure._refusals == 0)
        reader, writer = await exposed.connect()
        writer.write(STARTUP)
        assert fields(await read_all(reader))["C"] == "57P03"
        writer.close()


async def test_nothing_is_left_open_when_it_stops() -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with echoing() as echo:
        async with exposing(echo.address) as exposed:
            writers = [(await exposed.connect())[1] for _ in range(20)]
            for writer in writers:
                writer.write(b"x")
            await eventually(lambda: exposed.exposure.connections == 20)
        with pytest.raises(ConnectionRefusedError):
            await exposed.connect()
        for writer in writers:
            writer.transport.abort()
    await eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_taken_port_is_an_error_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        exposure = Exposure(ListenAddress("127.0.0.1", port), Address("127.0.0.1", 1), lambda: None)
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port} is already in use"):
            exposure.bind()


async def test_a_unix_socket_replaces_an_abandoned_one_only(tmp_path: Path) -> None:
    listen = ListenAddress(str(tmp_path), 6000)
    abandoned = socket.socket(socket.AF_UNIX)
    abandoned.bind(listen.socket_path)
    abandoned.close()
    first = Exposure(listen, Address("127.0.0.1", 1), lambda: None)
    first.bind()
    with pytest.raises(ConfigError, match="already in use"):
        Exposure(listen, Address("127.0.0.1", 1), lambda: None).bind()
    running = asyncio.create_task(first.run())
    await asyncio.sleep(0)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert os.listdir(tmp_path) == []
