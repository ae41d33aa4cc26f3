"""What somebody is told who has waited in vain: for whom or what, and what to do about it."""

from __future__ import annotations

from pgamb.errors import CannotConnectNow, TooManyConnections
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
