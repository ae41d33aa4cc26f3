"""Finds the backends of sessions that others speak of by the process ids that applications were told.

A session has no backend most of the time. One that is named by a statement (`pg_terminate_backend(1100000007)`, a look
at `pg_stat_activity`) is given one, which it keeps, before that statement is sent with the true process id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from pgamb.client.pools import Pools
from pgamb.relay.frontend import Frontend
from pgamb.session.process_ids import NOBODY, Mention, rewritten

# A backend is opened in milliseconds. Whose session gets none in this time is told of as of a process that is gone.
PATIENCE_S = 1.0
STEP_S = 0.005
# How many steps are waited for a backend before one more is asked for: another session may have taken it.
STEPS_PER_BACKEND = 20


class Identities:
    """Knows which process an application means, and which application a process."""

    def __init__(
        self,
        frontends: Callable[[], dict[int, Frontend]],
        pools: Pools,
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self._frontends = frontends
        self._pools = pools
        self._spawn = spawn

    def named(self, asker: Frontend, number: int, unit: bytes, marks: list[int], pids: set[int]) -> None:
        """A session has sent a unit that names others; it waits until it may proceed."""
        self._spawn(self._name(asker, number, unit, marks, pids))

    async def _name(self, asker: Frontend, number: int, unit: bytes, marks: list[int], pids: set[int]) -> None:
        condemned = any(mark & Mention.TERMINATED for mark in marks)
        real: dict[int, int] = {}
        for step in range(round(PATIENCE_S / STEP_S)):
            await asyncio.sleep(STEP_S if step else 0)
            for pid in pids - real.keys():
                frontend = self._frontends().get(pid)
                real[pid] = NOBODY if frontend is None else frontend.identify(condemned, step % STEPS_PER_BACKEND == 0)
            real = {pid: found for pid, found in real.items() if found}
            if len(real) == len(pids):
                break
        asker.proceed(number, rewritten(unit, marks, asker.pid, dict.fromkeys(pids, NOBODY) | real), len(unit))

    def told_pid(self, pid: int) -> int:
        """Return what the session was told that has written last in process `pid` of the primary; 0: there is none."""
        for backend in self._pools.backends():
            if backend.pid == pid and not backend.in_recovery:
                owner = backend.owner
                return backend.sequences_of or (owner.pid if isinstance(owner, Frontend) else 0)
        return 0
