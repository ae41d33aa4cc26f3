"""Sees to the time limits of sessions that no PostgreSQL sees: those that have no backend."""

from __future__ import annotations

import asyncio
import time

from pgamb.client.tally import Tally
from pgamb.relay.frontend import Frontend
from pgamb.session.limits import Doing


class Timekeeper:
    """Looks at a session when one of its limits may be exceeded, not before."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._next: dict[int, asyncio.TimerHandle] = {}

    def watch(self, session: Frontend) -> None:
        """The limits of a session are others than before."""
        self.forget(session)
        self._look(session)

    def forget(self, session: Frontend) -> None:
        """A session is gone."""
        handle = self._next.pop(session.pid, None)
        if handle is not None:
            handle.cancel()

    def _look(self, session: Frontend) -> None:
        self._next.pop(session.pid, None)
        limits = session.limits
        if session.fd < 0 or not limits:
            return
        now_s = time.monotonic()
        doing = Doing(session.doing)
        for_s = now_s - (session.waiting_since if doing is Doing.WAITING else session.heard_at)
        in_transaction_for_s = now_s - session.began_at
        error = limits.exceeded(doing, for_s, in_transaction_for_s)
        if error is not None and doing is not Doing.WAITING:
            session.close(error)
            return
        if error is not None:
            self._tally.gave_up[error.sqlstate] += 1
            session.fail_waiting(error)
            for_s = in_transaction_for_s = 0.0
        delay_s = limits.next_look_s(doing, for_s, in_transaction_for_s)
        # A millisecond more, so that it is not looked at just before its time.
        handle = asyncio.get_running_loop().call_later(max(delay_s, 0.0) + 0.001, self._look, session)
        self._next[session.pid] = handle
