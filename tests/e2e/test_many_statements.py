"""Tens of thousands of prepared statements: a backend keeps its fill, and what nobody names any more is forgotten."""

from __future__ import annotations

import threading

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.wire import messages
from tests.support.ambassador import running_ambassador
from tests.support.wire import Wire, errors

COUNT = 50_000
STEP = 1000
# Each takes some 1.5 kB; the rest are caches, which are bounded by themselves.
ROOM_BYTES = 128 << 20
AGAIN_BYTES = 32 << 20


def say(wire: Wire, said: bytes, answers: int) -> None:
    sender = threading.Thread(target=wire.send, args=(said,))
    sender.start()
    found = wire.until_ready(answers)
    sender.join()
    assert errors(found) == []


@pytest.mark.parametrize(("count", "by"), [(COUNT, "parse"), (COUNT // 10, "prepare")])
def test_one_session_after_the_other(bare_cluster: Cluster, count: int, by: str) -> None:
    with running_ambassador(bare_cluster.servers[:1], "--pool-size", "1") as ambassador:
        before, first = ambassador.resident_bytes, 0
        for turn in range(4):
            with Wire(ambassador.port).log_in(bare_cluster.credentials.superuser) as wire:
                for start in range(0, count, STEP):
                    texts = [f"SELECT {turn}, {number}, 'some text'" for number in range(start, start + STEP)]
                    if by == "parse":
                        said = b"".join(messages.parse(f"s{start + at}", sql) for at, sql in enumerate(texts))
                        say(wire, said + messages.sync(), 1)
                    else:
                        said = b"".join(
                            messages.query(f"PREPARE s{start + at} AS {sql}") for at, sql in enumerate(texts)
                        )
                        say(wire, said, STEP)
                say(wire, messages.bind("", "s0") + messages.execute("") + messages.sync(), 1)
                assert wire.value(f"EXECUTE s{count - 1}") == str(turn)
            first = first or ambassador.resident_bytes
        assert first < before + ROOM_BYTES
        assert ambassador.resident_bytes < first + AGAIN_BYTES
