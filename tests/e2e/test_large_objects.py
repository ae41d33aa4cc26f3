"""Large objects by FunctionCall, as libpq's lo_* and JDBC call them: nothing of them outlasts the transaction."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.wire import Wire, errors

LO_OPEN, LO_CLOSE, LO_READ, LO_WRITE, LO_CREAT, LO_CREATE, LO_UNLINK = 952, 953, 954, 955, 957, 715, 964
LO_LSEEK64, LO_TELL64, LO_TRUNCATE64 = 3170, 3171, 3172
SET_CONFIG = 2078
READ_WRITE = 0x60000


@pytest.fixture(scope="module")
def narrow(postgres: PostgresServer) -> Iterator[Ambassador]:
    """One backend for all."""
    with running_ambassador([postgres], "--pool-size", "1", "--pool-timeout", "5") as ambassador:
        yield ambassador


def packed(value: int | bytes) -> bytes:
    return value if isinstance(value, bytes) else struct.pack("!q" if value > 0x7FFFFFFF else "!i", value)


def call(wire: Wire, function: int, *arguments: int | bytes) -> bytes | None:
    """Call a function by its oid with binary arguments; return its result, None for an error."""
    values = [packed(argument) for argument in arguments]
    body = struct.pack("!ihhh", function, 1, 1, len(values))
    body += b"".join(struct.pack("!i", len(value)) + value for value in values) + struct.pack("!h", 1)
    wire.send(b"F" + struct.pack("!i", len(body) + 4) + body)
    found = wire.until_ready()
    if errors(found):
        return None
    (answer,) = [message.payload for message in found if message.type == ord("V")]
    return answer[4:]


def long(value: int) -> bytes:
    return struct.pack("!q", value)


def test_a_large_object_is_written_and_read(postgres: PostgresServer, narrow: Ambassador) -> None:
    def hold(port: int) -> list[object]:
        heard: list[object] = []
        with Wire(port) as wire, Wire(port) as other:
            wire.log_in(postgres.credentials.superuser)
            other.log_in(postgres.credentials.superuser)
            assert call(wire, LO_CREATE, 4711) == packed(4711)
            wire.query("BEGIN")
            descriptor = call(wire, LO_OPEN, 4711, READ_WRITE)
            assert descriptor is not None
            heard += [descriptor, call(wire, LO_WRITE, descriptor, b"large" * 3000)]
            heard.append(call(wire, LO_LSEEK64, descriptor, long(5), 0))
            heard += [call(wire, LO_READ, descriptor, 7), call(wire, LO_TELL64, descriptor)]
            heard += [call(wire, LO_TRUNCATE64, descriptor, long(100)), call(wire, LO_CLOSE, descriptor)]
            heard.append(call(wire, LO_CLOSE, descriptor))
            heard.append([chr(m.type) for m in wire.query("COMMIT")])
            # It is let go: others are served by the only backend.
            assert other.value("SELECT 1") == "1"
            # Outside of a transaction a descriptor is gone as soon as it is there.
            descriptor = call(wire, LO_OPEN, 4711, READ_WRITE)
            assert descriptor is not None
            heard += [call(wire, LO_READ, descriptor, 7), other.value("SELECT length(lo_get(4711))")]
            heard += [call(wire, LO_UNLINK, 4711), call(wire, LO_UNLINK, 4711)]
            heard.append(call(other, LO_OPEN, 4711, READ_WRITE))
        return heard

    assert hold(narrow.port) == hold(postgres.port)


def test_calls_of_other_functions_keep_their_backend(postgres: PostgresServer) -> None:
    with running_ambassador([postgres], "--pool-size", "2") as roomy, Wire(roomy.port) as wire:
        wire.log_in(postgres.credentials.superuser)
        assert "not pinned" in (wire.value("SHOW pgamb.status") or "")
        call(wire, LO_CREATE, 4712)
        call(wire, LO_UNLINK, 4712)
        assert "not pinned" in (wire.value("SHOW pgamb.status") or "")
        call(wire, SET_CONFIG, b"a.b", b"c", b"\0")
        assert "pinned by other" in (wire.value("SHOW pgamb.status") or "")
