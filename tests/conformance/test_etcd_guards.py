"""What a correct etcd client guards against, each seen on a real etcd that is stopped, killed, wiped or locked.

Those that hold for every store are in `test_store.py`, those of an agent in `test_registration.py`, those about rights
in `test_etcd_security.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest

from pgamb.demo.etcd import EtcdServer
from pgamb.errors import RegistryError, RegistryUnavailable
from pgamb.registry.etcd.connection import CHANNEL_OPTIONS, Connection
from pgamb.registry.etcd.store import EtcdStore
from pgamb.registry.etcd.watch import Heartbeat
from pgamb.registry.mirror import Timing
from pgamb.registry.store import Batch, Compare, KeyRange, OutcomeUnknown, Position, Put
from tests.conformance.conftest import open_store
from tests.conformance.following import DEADLINE_S, PREFIX, RANGE, Following, first_failure, keys
from tests.support.etcd import etcdctl
from tests.support.servers import running_etcd, running_etcd_cluster
from tests.support.waiting import wait_for_async


async def test_no_event_is_lost_or_repeated_over_restarts(own_etcd: EtcdServer) -> None:
    """Guards 3 and 9: sixty writes, etcd killed twice between them; sixty events, and quickly."""
    writer, reader = open_store(own_etcd), open_store(own_etcd)
    position = (await reader.list(RANGE)).position
    seen: list[str] = []

    async def read() -> None:
        nonlocal position
        while len(seen) < 60:
            try:
                async with aclosing(reader.watch(RANGE, position)) as watch:
                    async for batch in watch:
                        seen.extend(event.item.key.removeprefix(PREFIX) for event in batch.events)
                        position = batch.position
            except RegistryUnavailable:
                await asyncio.sleep(0.05)

    reading = asyncio.create_task(read())
    for number in range(60):
        await writer.put(Put(f"{PREFIX}{number:02}", b""))
        if number in (19, 39):
            await wait_for_async(lambda: len(seen) >= 10, DEADLINE_S, "some events")
            await asyncio.to_thread(own_etcd.kill)
            await asyncio.to_thread(own_etcd.start)
            await wait_for_async(partial(answers, writer), 3.0, "calls go through again after a restart")
    await wait_for_async(lambda: len(seen) >= 60, 3.0, f"all sixty events, not only {len(seen)}")
    reading.cancel()
    await asyncio.wait([reading])
    assert seen == [f"{number:02}" for number in range(60)]
    await writer.close()
    await reader.close()


async def answers(store: EtcdStore) -> bool:
    try:
        await store.get(PREFIX)
    except RegistryUnavailable:
        return False
    return True


async def test_a_wiped_etcd_is_listed_again(own_etcd: EtcdServer) -> None:
    """Guard 4: its revisions start over, so what we wait for would come in a long time or never."""
    store = open_store(own_etcd)
    for _ in range(20):
        await store.put(Put(PREFIX + "old", b""))
    async with Following(store) as mirror:
        assert keys(mirror) == ["old"]
        await asyncio.to_thread(own_etcd.stop)
        own_etcd.wipe()
        await asyncio.to_thread(own_etcd.start)
        await asyncio.to_thread(etcdctl, own_etcd, "put", PREFIX + "new", "")
        await wait_for_async(lambda: keys(mirror) == ["new"], DEADLINE_S, "the keys of the new store")
        assert mirror.contents is not None
        assert mirror.contents.generation >= 1


async def test_a_member_without_its_leader_is_left(tmp_path: Path) -> None:
    """Guards 5 and 11: of three nodes two die; the third neither feeds a watch nor answers, and says so soon."""
    with running_etcd_cluster(3) as cluster:
        alone, *others = cluster.servers
        store = EtcdStore(Connection((alone.endpoint,)), heartbeat=Heartbeat(60.0, 1.0))
        position = (await store.list(RANGE)).position
        watching = asyncio.create_task(first_failure(store.watch(RANGE, position)))
        rotating = open_store(*cluster.servers)
        await rotating.put(Put(PREFIX + "k", b"before"))
        await asyncio.to_thread(others[0].kill)
        await rotating.put(Put(PREFIX + "k", b"with two of three"))
        alone.pause()
        others[0].start(wait=False)
        await wait_for_async(
            partial(written, rotating, b"without the first"), DEADLINE_S, "another node takes the call"
        )
        alone.resume()
        for other in others:
            await asyncio.to_thread(other.kill)
        # The heartbeat is off: it is `hasleader` that ends the watch.
        assert isinstance(await watching, RegistryUnavailable)
        with pytest.raises(RegistryUnavailable):
            await store.get(PREFIX)
        await store.close()
        await rotating.close()


async def written(store: EtcdStore, value: bytes) -> bool:
    try:
        await store.put(Put(PREFIX + "k", value))
    except RegistryUnavailable:
        return False
    return True


async def test_a_hung_etcd_is_noticed_by_the_heartbeat_and_by_deadlines(own_etcd: EtcdServer) -> None:
    """Guard 6."""
    store = open_store(own_etcd, call_timeout_s=0.5)
    position = (await store.list(RANGE)).position
    watching = asyncio.create_task(first_failure(store.watch(RANGE, position)))
    await asyncio.sleep(0)
    own_etcd.pause()
    began = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        await store.get(PREFIX)
    assert time.monotonic() - began < 2.0
    assert isinstance(await watching, RegistryUnavailable)
    assert time.monotonic() - began < 5.0
    own_etcd.resume()
    await wait_for_async(partial(answers, store), DEADLINE_S, "calls go through again")
    await store.close()


def test_pings_are_not_too_many_and_come_from_the_option_that_works() -> None:
    """Guards 6, 7, 9, 10: etcd closes connections that ping more often than every 5 s."""
    options = dict(CHANNEL_OPTIONS)
    assert options["grpc.keepalive_time_ms"] >= 6000
    assert options["grpc.http2.ping_timeout_ms"] <= 3000
    assert options["grpc.use_local_subchannel_pool"] == 1
    assert options["grpc.max_reconnect_backoff_ms"] <= 2000
    assert options["grpc.enable_http_proxy"] == 0


async def test_an_idle_watch_outlives_many_heartbeats(own_etcd: EtcdServer) -> None:
    """Guard 8: waiting with a deadline must not cancel the call that is waited for."""
    store = EtcdStore(Connection((own_etcd.endpoint,)), heartbeat=Heartbeat(0.05, 2.0))
    position = (await store.list(RANGE)).position
    async with asyncio.timeout(DEADLINE_S), aclosing(store.watch(RANGE, position)) as watch:
        for _ in range(12):  # the batch of the start, then answers to heartbeats, all on one call
            assert not (await anext(watch)).events
        await store.put(Put(PREFIX + "k", b""))
        while not (batch := await anext(watch)).events:
            pass
    assert batch.events[0].item.key == PREFIX + "k"
    await store.close()


async def test_a_proxy_in_the_environment_is_not_used(own_etcd: EtcdServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard 10."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    store = open_store(own_etcd)
    await store.put(Put(PREFIX + "k", b""))
    await store.close()


async def test_a_dead_endpoint_costs_nothing_but_a_moment(own_etcd: EtcdServer) -> None:
    """Guard 11."""
    connection = Connection(("127.0.0.1:9", "localhost:9", own_etcd.endpoint))
    store = EtcdStore(connection)
    await store.put(Put(PREFIX + "k", b""))
    assert store.endpoint == own_etcd.endpoint
    assert connection.endpoint == own_etcd.endpoint, "the next call goes there at once"
    await store.close()


async def test_a_transaction_without_an_answer_is_neither_repeated_nor_called_failed(own_etcd: EtcdServer) -> None:
    """Guard 16."""
    rotating = EtcdStore(Connection(("127.0.0.1:9", own_etcd.endpoint)))
    with pytest.raises(OutcomeUnknown):
        await rotating.transact([], [Put(PREFIX + "elsewhere", b"")])
    assert await rotating.get(PREFIX + "elsewhere") is None, (
        "asked of one endpoint only; the next call goes to the other"
    )
    await rotating.close()
    store = open_store(own_etcd, call_timeout_s=0.5)
    await store.put(Put(PREFIX + "k", b"1"))
    own_etcd.pause()
    with pytest.raises(OutcomeUnknown):
        await store.transact([Compare(PREFIX + "once", 0)], [Put(PREFIX + "once", b"")])
    own_etcd.resume()
    await store.close()


def test_grpc_keeps_its_mouth_shut(etcd: EtcdServer) -> None:
    """Guard 18: nothing on stderr, not for a connection that is refused, nor for a handshake that fails.

    grpcio 1.85 has nothing to say here by itself; older ones have, unless the variable is set before their import.
    """
    environ = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"}
    program = (
        "import asyncio, os, sys\n"
        "from pgamb.registry.source import open_store\n"
        "async def main():\n"
        "    store = open_store(sys.argv[1])\n"
        "    try:\n"
        "        await store.get('k')\n"
        "    except Exception as error:\n"
        "        print(type(error).__name__)\n"
        "    await store.close()\n"
        "    print(os.environ['GRPC_VERBOSITY'])\n"
        "asyncio.run(main())\n"
    )
    for url in ("etcd://127.0.0.1:9", f"etcds://{etcd.endpoint}"):
        argv = [sys.executable, "-W", "error", "-c", program, url]
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=30, env=environ)
        assert (answer.stdout.split(), answer.stderr) == (["RegistryUnavailable", "NONE"], "")


class Forgetful(EtcdStore):
    """Delivers no event."""

    async def watch(self, key_range: KeyRange, after: Position) -> AsyncGenerator[Batch, None]:
        async with aclosing(super().watch(key_range, after)) as batches:
            async for batch in batches:
                if not batch.events:
                    yield batch


async def test_a_full_list_heals_what_the_watch_missed(own_etcd: EtcdServer) -> None:
    """Guard 19."""
    store = Forgetful(Connection((own_etcd.endpoint,)))
    async with Following(store, Timing(resync_s=0.1, retry_min_s=0.05, retry_max_s=0.3)) as mirror:
        await store.put(Put(PREFIX + "missed", b""))
        await wait_for_async(lambda: keys(mirror) == ["missed"], DEADLINE_S, "the key that the watch did not tell of")
        await store.delete(PREFIX + "missed")
        await wait_for_async(lambda: keys(mirror) == [], DEADLINE_S, "the end that the watch did not tell of")


class Interrupted(EtcdStore):
    """Can be kept from watching."""

    cut = False

    async def watch(self, key_range: KeyRange, after: Position) -> AsyncGenerator[Batch, None]:
        async with aclosing(super().watch(key_range, after)) as batches:
            async for batch in batches:
                if self.cut:
                    raise RegistryUnavailable("cut")
                yield batch


async def test_a_mirror_lists_again_after_a_compaction(own_etcd: EtcdServer) -> None:
    """Guard 2: what happened while the watch was away is compacted."""
    store = Interrupted(Connection((own_etcd.endpoint,)), heartbeat=Heartbeat(0.1, 1.0))
    async with Following(store) as mirror:
        await store.put(Put(PREFIX + "gone", b""))
        await wait_for_async(lambda: keys(mirror) == ["gone"], DEADLINE_S, "the first key")
        store.cut = True
        await wait_for_async(lambda: not mirror.connected, DEADLINE_S, "the loss")
        await store.delete(PREFIX + "gone")
        revision = await store.put(Put(PREFIX + "kept", b""))
        await asyncio.to_thread(etcdctl, own_etcd, "compact", str(revision))
        store.cut = False
        await wait_for_async(lambda: keys(mirror) == ["kept"] and mirror.connected, DEADLINE_S, "the new list")


async def test_an_etcd_that_is_full_says_what_to_do_and_can_be_read() -> None:
    with running_etcd(options=["--quota-backend-bytes", str(64 * 1024)]) as server:
        store = open_store(server)

        async def fill() -> None:
            async with asyncio.timeout(DEADLINE_S):  # etcd looks at its size a few times a second only
                for number in itertools.count():
                    await store.put(Put(f"{PREFIX}{number}", b"x" * 10_000))
                    await asyncio.sleep(0.01)

        with pytest.raises(RegistryError, match="is full") as caught:
            await fill()
        assert "etcdctl alarm disarm" in (caught.value.hint or "")
        assert (await store.list(RANGE)).items
        await store.close()
