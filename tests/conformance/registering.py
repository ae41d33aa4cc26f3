"""Agents as the tests of registration run them, and proxies that listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from pgamb.registry.announcer import Announcer
from pgamb.registry.mirror import Timing
from pgamb.registry.model import Address, Member, PrimaryRecord, Role, Topology
from pgamb.registry.source import Registry
from pgamb.registry.store import Store
from tests.support.waiting import wait_for_async

DEADLINE_S = 15.0
CLUSTER = "7412345678901234567"
TIMING = Timing(resync_s=30.0, retry_min_s=0.05, retry_max_s=0.3)


def member(node: str, role: Role = Role.REPLICA, timeline: int = 1, cluster: str = CLUSTER) -> Member:
    return Member(node, role, (Address("10.0.0.1", 5432),), timeline, cluster, 150004, zone="a")


@asynccontextmanager
async def announcing(store: Store, prefix: str, node: str, ttl_s: int = 30) -> AsyncIterator[Announcer]:
    """Run an announcer that has reached its registry."""
    announcer = Announcer(store, "db", node, ttl_s, prefix=prefix, timing=TIMING)
    running = asyncio.create_task(announcer.run())
    try:
        await wait_for_async(lambda: announcer.view() is not None, DEADLINE_S, "the first view")
        yield announcer
    finally:
        running.cancel()
        await asyncio.wait([running])


async def revision(agent: Announcer, record: PrimaryRecord) -> int:
    """Wait until an agent sees this record, and return where."""

    def seen() -> int:
        view = agent.view()
        return view.primary_revision if view is not None and view.primary == record else 0

    return await wait_for_async(seen, DEADLINE_S, f"{record} in the view")


@asynccontextmanager
async def following(registry: Registry) -> AsyncIterator[list[Topology]]:
    """Collect what a proxy hears; the newest is the last."""
    heard: list[Topology] = []

    async def follow() -> None:
        async with aclosing(registry.topologies()) as topologies:
            async for topology in topologies:
                heard.append(topology)  # noqa: PERF401

    task = asyncio.create_task(follow())
    try:
        yield heard
    finally:
        task.cancel()
        await asyncio.wait([task])
        await registry.close()


async def until(heard: list[Topology], condition: Callable[[Topology], object], what: str) -> Topology:
    await wait_for_async(lambda: bool(heard) and bool(condition(heard[-1])), DEADLINE_S, what)
    return heard[-1]
