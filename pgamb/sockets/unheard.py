"""Connections whose packets nobody acknowledges any more."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Protocol, TypeVar


class Heard(Hashable, Protocol):
    """A connection that can be asked, such as `relay.reactor.Source`."""

    def unheard_s(self) -> float:
        """Return for how long nothing has been acknowledged, negative if no acknowledgement is owed."""


S = TypeVar("S", bound=Heard)


class Unheard:
    """Remembers since when each connection owes us an acknowledgement.

    The kernel tells only when one came last, which may be long before what it owes now was sent. A peer that is there
    and takes no data acknowledges nevertheless (a zero window is probed), so that slowness is not taken for absence.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: dict[Heard, float] = {}

    def overdue(self, connections: Iterable[S], now: float) -> list[S]:
        """Look at all connections there are; return those that have been silent for the timeout."""
        since: dict[Heard, float] = {}
        late: list[S] = []
        for connection in connections:
            unheard_s = connection.unheard_s()
            if unheard_s < 0:
                continue
            # Something has come since it was seen to owe: from then on, it owes again.
            since[connection] = max(self._since.get(connection, now), now - unheard_s)
            if now - since[connection] >= self._timeout_s:
                late.append(connection)
        self._since = since
        return late
