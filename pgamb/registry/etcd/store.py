"""`Store` on a real etcd."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import grpc

from pgamb.errors import RegistryError, RegistryUnavailable
from pgamb.registry.etcd.connection import Connection
from pgamb.registry.etcd.messages import COMPARE_EQUAL, COMPARE_MOD_REVISION, MESSAGES
from pgamb.registry.etcd.watch import Heartbeat, key_value, watch
from pgamb.registry.store import (
    Batch,
    Compare,
    KeyRange,
    KeyValue,
    LeaseGone,
    Listing,
    Outcome,
    OutcomeUnknown,
    Position,
    Put,
)


class EtcdStore:
    """Implements `Store`. Calls that may be repeated are, on the next endpoint; transactions never are."""

    def __init__(self, connection: Connection, *, heartbeat: Heartbeat | None = None) -> None:
        self._connection = connection
        self._heartbeat = heartbeat or Heartbeat()

    @property
    def endpoint(self) -> str | None:
        return self._connection.answered

    async def list(self, key_range: KeyRange) -> Listing:
        request = MESSAGES["RangeRequest"](key=key_range.start, range_end=key_range.end)
        response = await self._connection.call("range", request)
        position = Position(response.header.cluster_id, response.header.revision)
        return Listing(tuple(key_value(kv) for kv in response.kvs), position)

    async def get(self, key: str) -> KeyValue | None:
        response = await self._connection.call("range", MESSAGES["RangeRequest"](key=key.encode()))
        return key_value(response.kvs[0]) if response.kvs else None

    async def watch(self, key_range: KeyRange, after: Position) -> AsyncGenerator[Batch, None]:
        async with aclosing(watch(self._connection, key_range, after, self._heartbeat)) as batches:
            async for batch in batches:
                yield batch

    async def transact(self, compares: Sequence[Compare], puts: Sequence[Put]) -> Outcome:
        request = MESSAGES["TxnRequest"](
            compare=[
                MESSAGES["Compare"](
                    result=COMPARE_EQUAL,
                    target=COMPARE_MOD_REVISION,
                    key=compare.key.encode(),
                    mod_revision=compare.mod_revision,
                )
                for compare in compares
            ],
            success=[MESSAGES["RequestOp"](request_put=_put_request(put)) for put in puts],
        )
        try:
            response = await self._connection.call("txn", request, retry=False)
        except RegistryUnavailable as error:
            raise OutcomeUnknown(error.message) from error
        return Outcome(response.succeeded, response.header.revision)

    async def put(self, put: Put) -> int:
        response = await self._connection.call("put", _put_request(put))
        return int(response.header.revision)

    async def delete(self, key: str) -> bool:
        response = await self._connection.call("delete", MESSAGES["DeleteRangeRequest"](key=key.encode()))
        return bool(response.deleted)

    async def grant(self, lease_id: int, ttl_s: int) -> int:
        request = MESSAGES["LeaseGrantRequest"](TTL=ttl_s, ID=lease_id)
        try:
            response = await self._connection.call("grant", request)
        except RegistryError as error:
            if "lease already exists" not in error.message:
                raise
            # An earlier attempt of ours came through after all, its answer did not.
            granted_s = await self.keep_alive(lease_id)
            if granted_s == 0:
                raise LeaseGone("the lease ended while it was being made") from error
            return granted_s
        return int(response.TTL)

    async def keep_alive(self, lease_id: int) -> int:
        timeout_s = self._connection.call_timeout_s
        async with self._connection.stream("keep_alive", timeout_s) as call:
            await call.write(MESSAGES["LeaseKeepAliveRequest"](ID=lease_id))
            response: Any = await call.read()
            if response is grpc.aio.EOF:
                raise RegistryUnavailable(f"etcd ended the keep-alive: {await call.details() or 'no reason given'}")
        return int(response.TTL)

    async def revoke(self, lease_id: int) -> None:
        try:
            await self._connection.call("revoke", MESSAGES["LeaseRevokeRequest"](ID=lease_id))
        except LeaseGone:
            return

    async def close(self) -> None:
        await self._connection.close()


def _put_request(put: Put) -> Any:
    return MESSAGES["PutRequest"](key=put.key.encode(), value=put.value, lease=put.lease_id)
