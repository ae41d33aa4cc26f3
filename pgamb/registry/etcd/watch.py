"""One watch of one range, from one position, until it breaks.

What etcd does that is easy to get wrong, and what is done about it:

* A watch that etcd cancels (compaction, rights, token) is one message on a stream that stays open, then silence; with
  `created` set in the same message when it is about rights. So `canceled` is looked at first.
* `header.revision` of a `created` or a progress message is the store's revision, not what was delivered. The position
  moves by the events alone.
* A watch from a revision that a wiped store has not reached yet is created, and silent for ever.
* A hung server keeps the connection open: after some silence it is asked for its progress, and has to answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import msgspec

from pgamb.errors import RegistryUnavailable
from pgamb.registry.etcd.connection import Connection
from pgamb.registry.etcd.messages import EVENT_DELETE, MESSAGES
from pgamb.registry.store import Batch, Compacted, Event, EventKind, KeyRange, KeyValue, Position, StoreReplaced


class Heartbeat(msgspec.Struct, frozen=True):
    """Ask after `interval_s` of silence; give the stream up `timeout_s` later."""

    interval_s: float = 5.0
    timeout_s: float = 2.0


async def watch(
    connection: Connection, key_range: KeyRange, after: Position, heartbeat: Heartbeat
) -> AsyncGenerator[Batch, None]:
    """Yield batches behind `after` as `Store.watch` says; ends by an exception only."""
    endpoint = connection.endpoint
    async with connection.stream("watch") as call:
        stream = _Stream(call, heartbeat)
        try:
            create = MESSAGES["WatchCreateRequest"](
                key=key_range.start, range_end=key_range.end, start_revision=after.revision + 1
            )
            await stream.send(MESSAGES["WatchRequest"](create_request=create))
            position = after
            created = False
            while True:
                message = await stream.receive()
                _check_store(message.header, after)
                if message.compact_revision > 0:
                    raise Compacted(f"revisions up to {message.compact_revision} are compacted")
                if message.canceled:
                    raise connection.stream_error(None, message.cancel_reason or "the watch was cancelled", endpoint)
                if message.created:
                    if message.header.revision < after.revision:
                        raise StoreReplaced(f"etcd is at revision {message.header.revision}, behind {after.revision}")
                    created = True
                    connection.answered = endpoint
                if not created:
                    continue
                events = tuple(_event(event) for event in message.events)
                if events:
                    position = Position(after.store_id, events[-1].item.mod_revision)
                yield Batch(events, position)
        finally:
            stream.close()


class _Stream:
    """Reads by one task that is waited on: a deadline around `read()` itself would cancel the whole call."""

    def __init__(self, call: Any, heartbeat: Heartbeat) -> None:
        self._call = call
        self._heartbeat = heartbeat
        self._reader: asyncio.Task[Any] | None = None

    async def send(self, request: Any) -> None:
        try:
            async with asyncio.timeout(self._heartbeat.timeout_s):
                await self._call.write(request)
        except TimeoutError:
            raise RegistryUnavailable("etcd takes no more requests") from None

    async def receive(self) -> Any:
        """Return the next message, asking for one after some silence."""
        if not await self._arrived(self._heartbeat.interval_s):
            await self.send(MESSAGES["WatchRequest"](progress_request=MESSAGES["WatchProgressRequest"]()))
            if not await self._arrived(self._heartbeat.timeout_s):
                raise RegistryUnavailable(
                    f"etcd has been silent for {self._heartbeat.interval_s + self._heartbeat.timeout_s:g} s"
                )
        assert self._reader is not None
        reader, self._reader = self._reader, None
        if reader.cancelled():  # by grpc, when the channel is closed under the call
            raise RegistryUnavailable("the connection to etcd was closed")
        message = reader.result()
        if message is grpc.aio.EOF:
            await self._raise_status()
        return message

    async def _arrived(self, timeout_s: float) -> bool:
        if self._reader is None:
            self._reader = asyncio.ensure_future(self._call.read())
        done, _ = await asyncio.wait({self._reader}, timeout=timeout_s)
        return bool(done)

    async def _raise_status(self) -> None:
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            raise RegistryUnavailable("etcd ended the watch")
        raise grpc.aio.AioRpcError(
            code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=await self._call.details() or code.name
        )

    def close(self) -> None:
        if self._reader is not None:
            self._reader.add_done_callback(_forget)
            self._reader.cancel()


def _forget(reader: asyncio.Task[Any]) -> None:
    """Look at the result of a reader that nobody waits for any more, so that asyncio does not complain."""
    if not reader.cancelled():
        reader.exception()


def _check_store(header: Any, after: Position) -> None:
    if header.cluster_id != after.store_id:
        raise StoreReplaced(f"etcd cluster {header.cluster_id:x} answers, not {after.store_id:x}")


def _event(event: Any) -> Event:
    kind = EventKind.DELETE if event.type == EVENT_DELETE else EventKind.PUT
    return Event(kind, key_value(event.kv))


def key_value(kv: Any) -> KeyValue:
    return KeyValue(
        key=kv.key.decode(errors="surrogateescape"),
        value=kv.value,
        mod_revision=kv.mod_revision,
        version=kv.version,
        lease_id=kv.lease,
    )
