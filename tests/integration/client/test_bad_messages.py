"""Bad messages after a log-in: a clear end, or PostgreSQL's own error, and nobody else harmed."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator

import pytest

from pgamb.wire.messages import bind, execute, flush, parse, query, sync
from tests.integration.client.conftest import Path
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors, kinds

TYPES = "QPBDECHSFdcfXp?\0\x7f\xff"


@pytest.fixture
def neighbour(path: Path) -> Iterator[Wire]:
    """A session in a transaction, which must never notice anything."""
    with path.through() as wire:
        wire.query("BEGIN")
        assert wire.value("SELECT 'before'") == "before"
        yield wire
        assert wire.value("SELECT 'after'") == "after"
        assert kinds(wire.query("COMMIT")) == "CZ"


@pytest.mark.parametrize("length", [-1, 0, 3, 2**31 - 1])
@pytest.mark.parametrize("before", [b"", parse("", "SELECT 1") + bind("", "") + execute("")], ids=["first", "batch"])
def test_an_impossible_length_ends_the_connection(path: Path, neighbour: Wire, length: int, before: bytes) -> None:
    for kind in TYPES.encode("latin-1"):
        with path.through() as wire:
            wire.send_all(before + bytes([kind]) + struct.pack("!i", length) + b"SELECT 1\0")
            found = wire.until_closed()
            ((severity, sqlstate, _),) = errors(found)
            assert (severity, sqlstate) == ("FATAL", "08P01"), chr(kind)


def test_random_bytes_are_harmless(path: Path, neighbour: Wire) -> None:
    chance = random.Random(3)
    for _ in range(60):
        with path.through() as wire:
            wire.send_all(chance.choice(TYPES.encode("latin-1")).to_bytes(1, "big") + chance.randbytes(200))
            wire.close()


def test_random_messages_are_harmless(path: Path, neighbour: Wire) -> None:
    """Whatever follows, whoever comes next finds a clean backend."""
    chance = random.Random(5)
    for _ in range(4000 if os.environ.get("PGAMB_TEST_LONG") else 40):
        with path.through() as wire:
            for _ in range(chance.randint(1, 12)):
                body = chance.choice((b"", b"\0", b"\0\0", b"S\0", b"P\0", b"x\0SELECT 1\0\0\0", chance.randbytes(9)))
                kind = chance.choice("QPBDECHSFdcf").encode()
                wire.send_all(kind + struct.pack("!I", len(body) + 4) + body)
            wire.send_all(sync() + query("SELECT 'end'"))
            wire.sock.shutdown(1)
            wire.until_closed()
        with path.through() as wire:
            assert wire.value("SELECT 'clean'") == "clean"


def test_a_malformed_flush_behind_a_sync_is_answered(path: Path, neighbour: Wire) -> None:
    # Nothing was owed for it, so the backend was let go behind the Sync, and the error reached nobody, or was taken for
    # that of what followed; now it is owed one.
    data = sync() + b"H" + struct.pack("!I", 5) + b"\0"
    for connect in (path.direct, path.through):
        with connect() as wire:
            wire.send_all(data)
            assert kinds(wire.until_ready()) == "Z"
            wire.send_all(query("SELECT 1") + sync())
            assert kinds(wire.until_ready()) == "EZ"
            assert wire.value("SELECT 'clean'") == "clean"


def test_a_storm_of_syncs_is_answered_one_by_one(path: Path, neighbour: Wire) -> None:
    with path.through() as wire:
        for data in (sync() * 20_000, query("BEGIN") + sync() * 20_000):
            wire.send(data)
            assert kinds(wire.until_ready(20_000)).strip("C") == "Z" * 20_000
        assert kinds(wire.until_ready()) == "Z"


def test_who_leaves_in_the_middle_of_a_batch_commits_nothing(path: Path) -> None:
    # Without a Sync an INSERT is in a transaction still open; a backend went back to its pool with it, and the next
    # session's statement committed it. Now a backend knows of the batch, and is closed.
    with path.direct() as direct:
        direct.query("DROP TABLE IF EXISTS half; CREATE TABLE half (n int)")
        for end in (flush(), b""):
            with path.through() as wire:
                wire.send(parse("", "INSERT INTO half VALUES (1)") + bind("", "") + execute("") + end)
                if end:
                    while (message := wire.receive()) is not None and message.type != ord("C"):
                        pass
        for _ in range(6):
            with path.through() as wire:
                assert wire.value("SELECT count(*) FROM half") == "0"
        active = "SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND query LIKE '%half%'"
        wait_for(lambda: not path.server.query(active), 20, "no transaction is left open")
        assert direct.value("SELECT count(*) FROM half") == "0"


def test_a_flush_alone_takes_no_backend(path: Path) -> None:
    # Each attached a backend, which waited for an answer that nothing had asked for.
    wires = [path.through() for _ in range(8)]
    for wire in wires:
        wire.send(flush())
    assert [wire.value("SELECT 1") for wire in reversed(wires)] == ["1"] * 8
    for wire in wires:
        wire.close()
