"""Which registry a URL names, and the one seam that a proxy reads it by."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from pgamb.registry.model import RegistryStatus, Stats, Topology


class Registry(Protocol):
    """Where a proxy learns the topology of one service."""

    def topologies(self) -> AsyncGenerator[Topology, None]:
        """Yield the newest snapshot as soon as one is known, then again on every change.

        Does not end while the registry is away: the last snapshot stays true until a newer one is known.
        """

    async def stats(self) -> tuple[Stats, ...]:
        """Read once what the members last said of their WAL positions and load; raises RegistryError."""

    def status(self) -> RegistryStatus: ...

    async def close(self) -> None: ...
