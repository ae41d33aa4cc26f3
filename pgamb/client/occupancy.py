"""Which databases applications are connected to: one that all have left is soon left by pgamb, too.

A pooled backend counts as a session of its database. With PostgreSQL, DROP DATABASE, ALTER DATABASE ... RENAME and
CREATE DATABASE ... TEMPLATE work when everybody has disconnected, and wait five seconds for those who are about to.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable

from pgamb.relay.pool import Pool

# Longer than between two connections of an application that connects for each query, well below PostgreSQL's 5 s.
DESERTED_S = 1.0
STEP_S = 0.2


class Occupancy:
    """Counts applications by database, and closes the idle backends of a database without any."""

    def __init__(
        self,
        pools: Callable[[], Iterable[Pool]],
        *,
        entered: Callable[[str], object] = lambda database: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`entered` is told of a database that has its first application, or its first one again."""
        self._pools = pools
        self._entered = entered
        self._clock = clock
        self._present: Counter[str] = Counter()
        self._deserted: dict[str, float] = {}

    def enter(self, database: str) -> None:
        """An application has connected."""
        self._present[database] += 1
        self._deserted.pop(database, None)
        if self._present[database] == 1:
            self._entered(database)

    def is_present(self, database: str) -> bool:
        """Tell whether an application is connected to a database."""
        return database in self._present

    def leave(self, database: str) -> None:
        """An application has disconnected."""
        self._present[database] -= 1
        if self._present[database] <= 0:
            del self._present[database]
            self._deserted[database] = self._clock()

    def sweep(self) -> None:
        """Close what is idle in databases that nobody has been connected to for a while."""
        before = self._clock() - DESERTED_S
        due = {database for database, since in self._deserted.items() if since <= before}
        if not due:
            return
        left: set[str] = set()
        for pool in self._pools():
            if pool.database in due:
                pool.close_idle(math.inf)
                if pool.open_count or pool.opening:
                    # One is being cleaned, or opened: it will be idle next time.
                    left.add(pool.database)
        for database in due - left:
            del self._deserted[database]

    async def sweep_forever(self) -> None:
        """Sweep now and then."""
        while True:
            await asyncio.sleep(STEP_S)
            self.sweep()
