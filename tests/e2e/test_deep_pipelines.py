"""Pipelines as deep as an application likes: what is due does not make each answer dearer."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.wire import Wire

READS = 10_000
ROOM_BYTES = 64 << 20


@pytest.fixture(scope="module")
def ambassador(bare_cluster: Cluster) -> Iterator[Ambassador]:
    with running_ambassador(bare_cluster.servers, "--pool-size", "2") as running:
        yield running


@pytest.mark.parametrize("ending", ["sync", "flush", "nothing"])
def test_a_very_deep_pipeline_is_answered_in_bounded_memory(
    bare_cluster: Cluster, ambassador: Ambassador, ending: str
) -> None:
    unit = messages.parse("", "SELECT repeat('x', 1000)") + messages.bind("", "") + messages.execute("")
    unit += {"sync": b"S\0\0\0\4", "flush": b"H\0\0\0\4", "nothing": b""}[ending]
    before = ambassador.resident_bytes
    with Wire(ambassador.port).log_in(bare_cluster.credentials.superuser) as wire:
        sender = threading.Thread(target=wire.send, args=(unit * READS + b"S\0\0\0\4",))
        sender.start()
        found = wire.until_ready(READS + 1 if ending == "sync" else 1)
        sender.join()
    assert sum(message.type == ord("D") for message in found) == READS
    assert ambassador.resident_bytes < before + ROOM_BYTES
