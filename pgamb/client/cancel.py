"""Cancel requests: an application's key is ours, and stands for whatever backend runs its query now.

A cancel request carries no answer, and acts on whatever its backend runs when it arrives. So the backend is held
back from its next owner until PostgreSQL has dealt with the request (it closes the connection when it has).
"""

from __future__ import annotations

import hmac
import logging

from pgamb.client.opener import Opener
from pgamb.client.pools import Pools
from pgamb.client.replication import Replications
from pgamb.errors import QueryCanceled
from pgamb.relay.frontend import Frontend
from pgamb.relay.session import Relay

log = logging.getLogger(__name__)


class Canceller:
    """Delivers cancel requests."""

    def __init__(self, relay: Relay, pools: Pools, replications: Replications, opener: Opener) -> None:
        self._relay = relay
        self._pools = pools
        self._replications = replications
        self._opener = opener

    async def cancel(self, pid: int, secret: bytes) -> None:
        """Cancel what the session with this key runs; a wrong key is ignored, as PostgreSQL does."""
        session = self._replications.sessions.get(pid)
        if session is not None and hmac.compare_digest(session.secret, secret):
            await self._replications.cancel(session)
            return
        frontend: Frontend | None = self._relay.frontends.get(pid)
        if frontend is None or not hmac.compare_digest(frontend.secret, secret):
            log.info("cancel.unknown", extra={"kv": {"pid": pid}})
            return
        if frontend.state_name == "waiting":
            frontend.fail_waiting(QueryCanceled("canceling statement due to user request"))
            return
        backend = frontend.backend
        if backend is None or not backend.owed or frontend.state_name in ("asking", "restoring"):
            # What it was meant for has ended; what runs now is ours.
            return
        opened = self._pools.address_of(backend)
        pool = frontend.pool
        if opened is None or pool is None:
            return
        backend.cancels += 1
        try:
            await self._opener.send_cancel(opened.address, backend.pid, backend.secret)
        finally:
            pool.cancel_done(backend)
