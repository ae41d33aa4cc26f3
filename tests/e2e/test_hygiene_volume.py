"""Large values, large results, large COPYs: byte for byte, and never held in the ambassador's memory.

PGAMB_TEST_LONG=1 moves 300 MB at a time instead of 60.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator

import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from pgamb.wire.messages import bind, execute, parse, query, sync
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.conversations import COPY_DONE, copy_data
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors, kinds

MEGABYTE = 1 << 20
VOLUME_BYTES = (300 if os.environ.get("PGAMB_TEST_LONG") else 60) * MEGABYTE
# What one connection may hold, both directions together, and what the allocator does not give back at once.
BOUND_BYTES = 8 * MEGABYTE
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def ambassador(postgres: PostgresServer) -> Iterator[Ambassador]:
    with running_ambassador([postgres], "--pool-size", "2") as ambassador:
        yield ambassador


@pytest.fixture
def wire(ambassador: Ambassador) -> Iterator[Wire]:
    with Wire(ambassador.port, deadline_s=DEADLINE_S) as wire:
        yield wire.log_in(ambassador.servers[0].credentials.superuser)


def waits_for(server: PostgresServer, event: str) -> None:
    """Wait until a backend of PostgreSQL's has nothing to do but to wait for this."""
    sql = f"SELECT 1 FROM pg_stat_activity WHERE wait_event = '{event}' AND application_name = 'volume'"
    wait_for(lambda: server.query(sql), DEADLINE_S, f"a backend waits for {event}")


def test_large_messages_in_every_direction(wire: Wire) -> None:
    text = b"0123456789abcdef" * (20 * MEGABYTE // 16)
    wire.send(parse("", "SELECT length($1), md5($1)") + bind("", "", [text]) + execute("") + sync())
    assert kinds(wire.until_ready()) == "12DCZ"
    wire.send(parse("named", "SELECT $1::text") + bind("", "named", [text]) + execute("") + sync())
    found = wire.until_ready()
    assert kinds(found) == "12DCZ"
    assert messages.parse_data_row(found[2].payload) == [text]
    assert wire.value(f"SELECT length('{'y' * 5 * MEGABYTE}')") == str(5 * MEGABYTE)
    assert wire.value(f"SELECT repeat('z', {20 * MEGABYTE})") == "z" * 20 * MEGABYTE
    error = errors(wire.query(f"SELECT '{'y' * 2 * MEGABYTE}' FROM nowhere"))
    assert [e[1] for e in error] == ["42P01"]
    assert wire.value("SELECT 1") == "1"


def test_a_slow_reader_is_waited_for(wire: Wire, ambassador: Ambassador) -> None:
    wire.query("SET application_name = 'volume'")
    before = ambassador.resident_bytes
    rows = VOLUME_BYTES // 8000
    wire.send(query(f"SELECT repeat('x', 8000) FROM generate_series(1, {rows})"))
    waits_for(ambassador.servers[0], "ClientWrite")
    assert ambassador.resident_bytes - before < BOUND_BYTES
    with Wire(ambassador.port).log_in(ambassador.servers[0].credentials.superuser) as other:
        assert other.value("SELECT 'served meanwhile'") == "served meanwhile"
    count = 0
    while (message := wire.receive()) is not None and message.type != ord("Z"):
        count += message.type == ord("D")
    assert count == rows
    assert ambassador.resident_bytes - before < BOUND_BYTES


def test_a_slow_server_is_waited_for(wire: Wire, ambassador: Ambassador) -> None:
    server = ambassador.servers[0]
    wire.query("DROP TABLE IF EXISTS volume; CREATE UNLOGGED TABLE volume (t text)")
    wire.query("SET application_name = 'volume'")
    before = ambassador.resident_bytes
    piece = copy_data(b"x" * 8000 + b"\n") * 100
    pieces = VOLUME_BYTES // len(piece)
    with Wire(server.port).log_in(server.credentials.superuser) as lock:
        lock.query("BEGIN; LOCK TABLE volume")
        wire.send(query("COPY volume FROM STDIN"))
        waits_for(server, "relation")
        sent = _send_until_blocked(wire.sock, piece * pieces)
        assert sent < VOLUME_BYTES // 2
        assert ambassador.resident_bytes - before < BOUND_BYTES
        lock.query("COMMIT")
    wire.send((piece * pieces)[sent:] + COPY_DONE)
    assert kinds(wire.until_ready()) == "GCZ"
    assert wire.value("SELECT count(*) FROM volume") == str(pieces * 100)
    assert ambassador.resident_bytes - before < BOUND_BYTES
    wire.query("DROP TABLE volume")


def _send_until_blocked(sock: socket.socket, data: bytes) -> int:
    """Send as much as the peer takes; it takes no more when nothing moved for a second."""
    view = memoryview(data)
    sent = 0
    moved = time.monotonic()
    timeout = sock.gettimeout()
    sock.setblocking(False)
    while time.monotonic() - moved < 1.0 and sent < len(data):
        try:
            sent += sock.send(view[sent : sent + 65536])
            moved = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    sock.settimeout(timeout)
    return sent


def test_who_leaves_in_the_middle_of_a_result_leaves_nothing(ambassador: Ambassador) -> None:
    server = ambassador.servers[0]
    with Wire(ambassador.port).log_in(server.credentials.superuser) as wire:
        wire.query("SET application_name = 'volume'")
        wire.send(query("SELECT repeat('x', 8000) FROM generate_series(1, 1000000)"))
        waits_for(server, "ClientWrite")
    gone = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'volume' AND state = 'active'"
    wait_for(lambda: not server.query(gone), DEADLINE_S, "the statement is ended")
