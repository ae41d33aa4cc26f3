"""Who does not take its answers is not listened to: what pgamb keeps for a session is bounded, whatever is said."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.wire import Wire

# More than all buffers of the system between two processes.
FLOOD_BYTES = 64 << 20
ROOM_BYTES = 24 << 20
# So long nothing is taken of what is sent: nobody listens.
SILENCE_S = 1.0

BIND = messages.bind("", "") + messages.execute("")
READY = b"Z\0\0\0\5"
FLOODS = {
    "transactions": messages.query("BEGIN") + messages.query("COMMIT"),
    "transactions, extended": messages.parse("", "BEGIN") + BIND + messages.parse("", "COMMIT") + BIND,
    "savepoints": messages.query("SAVEPOINT s") + messages.query("RELEASE s"),
    "nothing": messages.sync(),
    "closing": messages.close(b"S", "x") + messages.sync(),
    "reading": messages.parse("", "SELECT 1") + BIND + messages.sync(),
}


@pytest.fixture(scope="module")
def ambassador(bare_cluster: Cluster) -> Iterator[Ambassador]:
    with running_ambassador(bare_cluster.servers, "--pool-size", "2") as running:
        yield running


@pytest.fixture
def wire(bare_cluster: Cluster, ambassador: Ambassador) -> Iterator[Wire]:
    with Wire(ambassador.port) as wire:
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        yield wire.log_in(bare_cluster.credentials.superuser)


def flood(wire: Wire, unit: bytes) -> tuple[int, bytes]:
    """Send units until nobody takes them any more; return how many were begun, and what is left of the last one."""
    piece = unit * (1 << 16 // len(unit))
    sent = 0
    wire.sock.setblocking(False)
    while sent < FLOOD_BYTES and select.select([], [wire.sock], [], SILENCE_S)[1]:
        at = sent % len(piece)
        sent += wire.sock.send(piece[at:])
    wire.sock.settimeout(20)
    assert sent < FLOOD_BYTES, "all of it was taken"
    return -(-sent // len(unit)), unit[sent % len(unit) :] if sent % len(unit) else b""


def take(wire: Wire, end: bytes, times: int) -> int:
    """Take answers until `end` was among them so often; return how many bytes that was."""
    size, held = 0, b""
    while times:
        data = wire.sock.recv(1 << 20)
        assert data, f"closed while {times} were due"
        size += len(data)
        held += data
        times -= held.count(end)
        held = held[-len(end) + 1 :]
    return size


@pytest.mark.parametrize("what", FLOODS)
def test_without_taking_an_answer(ambassador: Ambassador, wire: Wire, what: str) -> None:
    unit = FLOODS[what]
    if what == "savepoints":
        wire.query("BEGIN")
    before = ambassador.resident_bytes
    units, rest = flood(wire, unit)
    assert ambassador.resident_bytes < before + ROOM_BYTES
    # All of it is answered when it is taken.
    sender = threading.Thread(target=wire.send, args=(rest + messages.sync(),))
    sender.start()
    answers = unit.count(b"Q\0\0\0") + unit.count(b"S\0\0\0\4")
    take(wire, READY, units * answers + 1)
    sender.join()
    assert ambassador.resident_bytes < before + ROOM_BYTES


@pytest.mark.parametrize("slow", ["SELECT pg_sleep(2)", "SELECT pg_sleep(2) FROM pg_database LIMIT 1"])
def test_behind_what_takes_its_time(ambassador: Ambassador, wire: Wire, slow: str) -> None:
    # What pgamb answers itself, once its turn has come, and a batch that PostgreSQL answers at its end only.
    count = 300_000
    close = messages.close(b"S", "x")
    before = ambassador.resident_bytes
    wire.send(messages.parse("", slow) + BIND)
    sender = threading.Thread(target=wire.send, args=(close * count + messages.sync(),))
    sender.start()
    size = take(wire, READY, 1)
    sender.join()
    # ... and what the statement itself is answered with.
    assert size == 5 * count + 41
    assert ambassador.resident_bytes < before + ROOM_BYTES
