"""Cancel requests: an application's key is ours, and stands for whatever backend runs its query now.

A cancel request carries no answer, and acts on whatever its backend runs when it arrives. So while one is under way the
backend is sent nothing new by its session, and is held back from its next owner, until PostgreSQL has dealt with the
request: then it closes the connection, and we close the application's. Where that cannot be known the backend is not
used again.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Coroutine

from pgamb.client.opener import Opener
from pgamb.client.pools import Pools
from pgamb.client.predecessor import Predecessor
from pgamb.client.replication import Replications
from pgamb.relay.backend import Backend
from pgamb.relay.frontend import Frontend
from pgamb.relay.pool import Pool
from pgamb.relay.session import Relay

log = logging.getLogger(__name__)


class Canceller:
    """Delivers cancel requests."""

    def __init__(
        self,
        relay: Relay,
        pools: Pools,
        replications: Replications,
        opener: Opener,
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self._relay = relay
        self._pools = pools
        self._replications = replications
        self._opener = opener
        self._spawn = spawn
        # It may still have the session that a request is for.
        self.predecessor: Predecessor | None = None

    async def cancel(self, pid: int, secret: bytes) -> None:
        """Cancel what the session with this key runs; a wrong key is ignored, as PostgreSQL does.

        Returns when nothing that the session sends from now on can be met.
        """
        session = self._replications.sessions.get(pid)
        if session is not None and hmac.compare_digest(session.secret, secret):
            await self._replications.cancel(session)
            return
        frontend: Frontend | None = self._relay.frontends.get(pid)
        if frontend is None or not hmac.compare_digest(frontend.secret, secret):
            if self.predecessor is not None:
                await self.predecessor.cancel(pid, secret)
            log.debug("cancel.unknown", extra={"kv": {"pid": pid}})
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def due(backend: Backend | None) -> None:
            if backend is None:
                _settle(done)
            else:
                backend.cancels += 1
                self._spawn(self._deliver(backend, done))

        frontend.cancel(due)
        await done

    async def _deliver(self, backend: Backend, done: asyncio.Future[None]) -> None:
        pool = backend.home
        assert isinstance(pool, Pool)
        opened = self._pools.address_of(backend)
        try:
            if opened is not None and not await self._opener.send_cancel(opened):
                # It may still arrive, whenever that is.
                backend.tainted = True
                log.warning("cancel.undelivered", extra={"kv": {"member": pool.name, "pid": backend.pid}})
        finally:
            pool.cancel_done(backend)
            _settle(done)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
