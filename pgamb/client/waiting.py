"""How long anybody waits, and what is told to who has waited in vain: for whom or what, and what to do about it."""

from __future__ import annotations

import asyncio
import time

from pgamb.client.pools import Pools
from pgamb.config import ClientOptions
from pgamb.errors import CannotConnectNow, PgambError, TooManyConnections
from pgamb.registry.model import Topology
from pgamb.relay.pool import Pool


def no_primary(topology: Topology | None, timeout_s: float) -> CannotConnectNow:
    """Nobody was primary for `timeout_s`."""
    why = "the registry has not been reached yet"
    if topology is not None:
        why = "the registry names none that answers"
        if topology.conflict:
            why = f"{', '.join(topology.conflict)} claim to be it at the same time"
    return CannotConnectNow(
        f"no primary was found within {timeout_s:g} s: {why}",
        hint="The statement was not sent. See `pgamb status`.",
    )


def member_down(pool: Pool, last_error: str, timeout_s: float) -> CannotConnectNow:
    """The member, the primary as a rule, has not answered for `timeout_s`."""
    return CannotConnectNow(
        f"{pool.name} could not be reached within {timeout_s:g} s: {last_error}",
        hint="The statement was not sent. See `pgamb status`, and the logs of pgamb client.",
    )


def pool_full(pool: Pool, timeout_s: float, *, member_limit: int | None) -> TooManyConnections:
    """All backends were busy for `timeout_s`; `member_limit` is what the member leaves us, if that is the reason."""
    detail = (
        f"The pool of {pool.user}@{pool.database} on {pool.name} has {pool.open_count} backends of "
        f"{pool.limit} (--pool-size), all in use, and {pool.waiting_count} sessions wait for one."
    )
    if member_limit is not None:
        detail += f" {pool.name} leaves {member_limit} connections in all (its max_connections), all of them open."
    holder = pool.longest_held()
    if holder is not None:
        session, held_s = holder
        detail += f" Longest held: by the session with pid {session.pid}, for {held_s:.1f} s"
        detail += f", pinned by {', '.join(session.pin_names)}." if session.pin_names else "."
    return TooManyConnections(
        f"no backend became free within {timeout_s:g} s",
        detail=detail,
        hint="End transactions sooner, raise --pool-size (and the server's max_connections), or wait longer "
        "(--pool-timeout).",
    )


TICK_S = 0.1
SWEEP_S = 5.0


class Patience:
    """Gives up on what has waited too long, and closes what has been idle too long."""

    def __init__(self, options: ClientOptions, pools: Pools) -> None:
        self._options = options
        self._pools = pools

    async def tick_forever(self) -> None:
        """Look after everybody who waits, until cancelled."""
        next_sweep = time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            for group in self._pools.groups():
                if group.held_count:
                    error = no_primary(self._pools.topology, self._options.hold_timeout_s)
                    given_up = group.fail_held(error, now - self._options.hold_timeout_s)
                    self._pools.tally.gave_up[error.sqlstate] += given_up
            for pool in self._pools.pools():
                pool.flee()
                if pool.waiting_count:
                    self._expire_waiting(pool, now)
            if now >= next_sweep:
                next_sweep = now + SWEEP_S
                for pool in self._pools.pools():
                    pool.close_idle(now - self._options.idle_timeout_s)

    def _expire_waiting(self, pool: Pool, now: float) -> None:
        state = self._pools.used(pool.name)
        down = state is not None and state.down_since is not None
        if state is not None and state.room and not down:
            # An attempt of another pool may have failed, and left room that nobody was told of.
            pool.retry()
        timeout_s = self._options.hold_timeout_s if down else self._options.pool_timeout_s
        while (waiter := pool.longest_waiting()) is not None and now - waiter.waiting_since > timeout_s:
            error: PgambError
            if down and state is not None:
                error = member_down(pool, state.last_error, timeout_s)
            else:
                full = state is not None and not state.room
                error = pool_full(pool, timeout_s, member_limit=state.limit if state and full else None)
            self._pools.tally.gave_up[error.sqlstate] += 1
            waiter.fail_waiting(error)
