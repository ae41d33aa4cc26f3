"""The end of a process that serves no new application: who is in a transaction may end it, within bounds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from pgamb.client.login import LoginDesk
from pgamb.client.replication import Replications
from pgamb.errors import AdminShutdown
from pgamb.relay.frontend import Frontend
from pgamb.relay.session import Relay

log = logging.getLogger(__name__)

STEP_S = 0.05
# As long as a successor serves nobody is in a hurry: a session that has only just begun, or pauses between two
# transactions, is not cut off. One that has been idle for longer may be idle for hours.
IDLE_GRACE_S = 1.0
# Who was accepted before the end, and has not said yet what it wants, hears then that it is refused.
LOGIN_GRACE_S = 1.0
# As ReadyForQuery says it.
_IDLE_STATUS = ord("I")


@dataclass(slots=True)
class _Idle:
    """Since when a session has been idle, and how much it had done by then."""

    units: int
    since: float


class Drain:
    """Ends sessions: those that are idle soon, all others between two transactions, all that are left at a deadline.

    `gently` leaves the idle ones IDLE_GRACE_S, and lets log-ins be completed. It may be changed while it runs, and
    `hurry` be called.
    """

    def __init__(self, desk: LoginDesk, relay: Relay, replications: Replications, timeout_s: float) -> None:
        self._desk = desk
        self._relay = relay
        self._replications = replications
        self._timeout_s = timeout_s
        self._idle: dict[Frontend, _Idle] = {}
        self._hurried = False
        self.gently = False

    def hurry(self) -> None:
        """Wait for nobody any more."""
        self._hurried = True

    async def run(self, is_needed: Callable[[], bool]) -> None:
        """Return when nobody is left to wait for; some may still be connected if that took too long.

        `is_needed` tells whether something else needs this process yet.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        deadline = began + self._timeout_s
        kv = {"connections": self._desk.sessions, "timeout_s": self._timeout_s}
        log.info("client.draining", extra={"kv": kv})
        while (self._busy(began) or is_needed()) and not self._hurried:
            last = loop.time() >= deadline
            self._desk.draining = self._desk.draining or last or not self.gently
            self._replications.drain(last=last)
            for frontend in list(self._relay.frontends.values()):
                if last or self._is_done(frontend, loop.time()):
                    frontend.close(AdminShutdown("terminating connection due to administrator command"))
            if last:
                return
            if self._busy(began) or is_needed():
                await asyncio.sleep(STEP_S)

    def _busy(self, began: float) -> bool:
        if self._desk.sessions:
            return True
        in_time = asyncio.get_running_loop().time() < began + LOGIN_GRACE_S
        return bool(self._desk.logging_in and (self.gently or in_time))

    def _is_done(self, frontend: Frontend, now: float) -> bool:
        if not _is_idle(frontend):
            self._idle.pop(frontend, None)
            return False
        idle = self._idle.get(frontend)
        if idle is None or idle.units != frontend.units:
            self._idle[frontend] = idle = _Idle(frontend.units, now)
        return not self.gently or now - idle.since >= IDLE_GRACE_S


def _is_idle(frontend: Frontend) -> bool:
    """Tell whether nothing is under way in a session; one that is pinned may be idle, and has a backend."""
    backend = frontend.backend
    if backend is None:
        return frontend.state_name == "idle"
    return frontend.state_name == "active" and backend.owed == 0 and backend.status == _IDLE_STATUS
