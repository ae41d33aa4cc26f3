"""The live picture: who is primary, how far the replicas are, how many queries a second each answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.demo.process import ChildProcess

REFRESH_S = 1.0
SAMPLE_TIMEOUT_S = 0.9
SAMPLE = """
SELECT pg_catalog.pg_is_in_recovery(),
       pg_catalog.pg_wal_lsn_diff(
           CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END, '0/0')::int8,
       (SELECT sum(xact_commit + xact_rollback)::int8 FROM pg_catalog.pg_stat_database),
       (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one member answered. `at_s` is on the event loop's clock; `position_bytes` counts from WAL position 0/0."""

    at_s: float
    in_recovery: bool
    position_bytes: int
    transactions: int
    connections: int


class Watch:
    """One member, asked again and again over one connection; a lost one is opened anew."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.now: Sample | None = None
        self.before: Sample | None = None
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def refresh(self) -> None:
        """Take a sample; `now` is None when the member does not answer in time."""
        self.before = self.now
        try:
            async with asyncio.timeout(SAMPLE_TIMEOUT_S):
                self.now = await self._ask()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.now = None
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ask(self) -> Sample:
        if self._connection is None:
            settings = {"application_name": "pgamb demo"}
            self._connection = await asyncpg.connect(self.server.dsn(), server_settings=settings, ssl=False)
        row = await self._connection.fetchrow(SAMPLE)
        assert row is not None
        return Sample(asyncio.get_running_loop().time(), row[0], row[1] or 0, row[2] or 0, row[3])

    @property
    def rate(self) -> float | None:
        """Transactions a second between the last two samples; a statement outside of a transaction is one."""
        if self.now is None or self.before is None or self.now.at_s <= self.before.at_s:
            return None
        return max(0, self.now.transactions - self.before.transactions) / (self.now.at_s - self.before.at_s)


async def show(cluster: Cluster, stopped: asyncio.Event, console: Console) -> None:
    """Draw the picture each second until `stopped` is set."""
    watches = [Watch(server) for server in cluster.servers]
    try:
        with Live(console=console, auto_refresh=False) as live:
            while not stopped.is_set():
                async with asyncio.TaskGroup() as group:
                    for watch in watches:
                        group.create_task(watch.refresh())
                live.update(render(watches, ended(cluster)), refresh=True)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), REFRESH_S)
    finally:
        for watch in watches:
            watch.close()


def render(watches: Sequence[Watch], troubles: Sequence[str]) -> RenderableType:
    """Lay out one picture."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for heading in ("member", "role", "address"):
        table.add_column(heading)
    for heading in ("lag", "connections", "queries/s"):
        table.add_column(heading, justify="right")
    primaries = [w.now.position_bytes for w in watches if w.now is not None and not w.now.in_recovery]
    ahead = max(primaries, default=None)
    for watch in watches:
        table.add_row(*_row(watch, ahead))
    return Group(table, *(Text(trouble, style="red") for trouble in troubles))


def ended(cluster: Cluster) -> list[str]:
    """Say which processes of the cluster are gone, and where to read why."""
    processes: list[ChildProcess] = [server.process for server in cluster.servers]
    processes += cluster.agents.values()
    processes += [cluster.client] if cluster.client is not None else []
    processes += [node.process for node in cluster.etcd.servers] if cluster.etcd is not None else []
    return [
        f"{process.name} ended with status {process.returncode}: see {process.log}"
        for process in processes
        if not process.running
    ]


def _row(watch: Watch, ahead: int | None) -> tuple[str | Text, ...]:
    server, sample = watch.server, watch.now
    address = f"127.0.0.1:{server.port}"
    if sample is None:
        return server.name, Text("down", style="red"), address, "", "", ""
    role = Text("replica", style="cyan") if sample.in_recovery else Text("primary", style="bold green")
    lag = amount(max(0, ahead - sample.position_bytes)) if sample.in_recovery and ahead is not None else ""
    rate = watch.rate
    return server.name, role, address, lag, str(sample.connections), f"{rate:,.0f}" if rate is not None else "…"


def amount(count_bytes: int) -> str:
    """Write a number of bytes as PostgreSQL's `pg_size_pretty` would, roughly."""
    if count_bytes < 10 * 1024:
        return f"{count_bytes} B"
    if count_bytes < 10 * 1024 * 1024:
        return f"{count_bytes / 1024:.0f} kB"
    return f"{count_bytes / 1024 / 1024:.0f} MB"
