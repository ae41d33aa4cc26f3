"""The agent's loop with everything around it scripted: when it looks, in which order it acts, what it says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import pytest

from pgamb.errors import RegistryMismatch, RegistryUnavailable
from pgamb.registry.latest import Latest
from pgamb.registry.model import Address, Member, PrimaryRecord, RegistryView, Role, Stats
from pgamb.server.agent import Agent
from pgamb.server.decide import Identity, PeerAnswer, PeerState, Refusal
from pgamb.server.reading import Probe, Reading, Unreachable

DEADLINE_S = 5.0
ME = Identity("a", (Address("10.0.0.1"),), Address("127.0.0.1"))
PRIMARY = Reading(False, 1, "7", 150004, 1.0, wal_lsn=100, connections=3)
REPLICA = Reading(True, 1, "7", 150004, 1.0, replay_lsn=90, lag_bytes=10)
GONE = Unreachable("connection refused", is_gone=True, is_silent=True)
EMPTY = RegistryView((), None, 0, None, 0, 0.0, True)


@dataclass(slots=True)
class Scene:
    """PostgreSQL, registry, peers and port in one; `events` is what the agent did to them, in order."""

    probe_result: Probe = PRIMARY
    probes: int = 0
    events: list[tuple[object, ...]] = field(default_factory=list)
    known: Latest[RegistryView] = field(default_factory=Latest)
    failure: Exception | None = None
    announced: bool = True
    claim_succeeds: bool = True
    statistics: Stats | None = None

    async def probe(self) -> Probe:
        self.probes += 1
        return self.probe_result

    async def announce(self, member: Member, stats: Stats | None = None) -> bool:
        if self.failure is not None:
            raise self.failure
        self.events.append(("announce", member.role.value))
        self.statistics = stats
        return self.announced

    async def withdraw(self) -> bool:
        self.events.append(("withdraw",))
        return True

    async def claim_primary(self, record: PrimaryRecord, expected_revision: int) -> bool:
        self.events.append(("claim", record.timeline, expected_revision))
        return self.claim_succeeds

    def view(self) -> RegistryView | None:
        return self.known.value

    async def views(self) -> AsyncGenerator[RegistryView, None]:
        async for view in self.known.values():
            yield view

    async def ask(self, member: Member, own: Reading) -> PeerAnswer:
        self.events.append(("ask", member.node))
        return PeerAnswer(PeerState.SILENT, reason="refused")

    def set_refusal(self, refusal: Refusal | None) -> None:
        self.events.append(("relay",) if refusal is None else ("refuse", refusal.message))


def agent_in(scene: Scene, *, interval_s: float = 1.0, wake: asyncio.Event | None = None) -> Agent:
    return Agent(ME, scene, scene, scene, port=scene, interval_s=interval_s, wake=wake)


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[None]:
    task = asyncio.create_task(agent.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the agent tells nobody but its log
            await asyncio.sleep(0.001)


async def test_a_primary_is_announced_then_claimed_then_relayed_to() -> None:
    scene = Scene()
    scene.known.set(EMPTY)
    await agent_in(scene).step()
    assert scene.events == [("announce", "primary"), ("claim", 1, 0), ("relay",)]
    assert scene.statistics == Stats("a", wal_lsn=100, connections=3)


async def test_a_port_is_shut_before_anything_is_written() -> None:
    scene = Scene()
    scene.known.set(RegistryView((), PrimaryRecord("b", 2), 4, "7", 1, 0.0, True))
    await agent_in(scene).step()
    assert scene.events[0][0] == "refuse"
    assert scene.events[1:] == [("announce", "stale-primary")]


async def test_a_port_is_shut_although_the_registry_fails() -> None:
    scene = Scene(failure=RegistryUnavailable("away"))
    scene.known.set(RegistryView((), PrimaryRecord("b", 2), 4, "7", 1, 0.0, True))
    await agent_in(scene).step()
    assert [event[0] for event in scene.events] == ["refuse"]


async def test_what_the_registry_refuses_is_not_relayed_to() -> None:
    scene = Scene(failure=RegistryMismatch("another cluster", hint="mend it"))
    scene.known.set(EMPTY)
    await agent_in(scene).step()
    assert scene.events == [("refuse", "another cluster")]


async def test_withdrawing_happens_once() -> None:
    scene = Scene(probe_result=REPLICA)
    scene.known.set(EMPTY)
    agent = agent_in(scene)
    await agent.step()
    scene.probe_result = GONE
    for _ in range(3):
        await agent.step()
    assert scene.events.count(("withdraw",)) == 1
    assert scene.events[-1][0] == "refuse"


async def test_a_probe_without_an_answer_changes_nothing() -> None:
    scene = Scene(probe_result=REPLICA)
    scene.known.set(EMPTY)
    agent = agent_in(scene)
    await agent.step()
    before = list(scene.events)
    scene.probe_result = Unreachable("no answer", is_gone=False, is_silent=True)
    await agent.step()
    assert scene.events == before


async def test_a_lost_claim_is_decided_anew_on_the_next_view() -> None:
    scene = Scene(claim_succeeds=False)
    scene.known.set(EMPTY)
    agent = agent_in(scene)
    await agent.step()
    scene.known.set(RegistryView((), PrimaryRecord("b", 1), 9, "7", 1, 0.0, True))
    await agent.step()
    assert scene.events[-1] == ("announce", "primary")
    assert scene.events[-2][0] == "refuse"


async def test_a_claim_that_succeeded_is_remembered_by_us_whatever_the_registry_forgets() -> None:
    scene = Scene()
    scene.known.set(EMPTY)
    agent = agent_in(scene)
    await agent.step()
    rival = Member("b", Role.PRIMARY, (Address("10.0.0.2"),), 1, "7", 150004)
    scene.known.set(RegistryView((rival,), None, 0, None, 0, 0.0, True))
    await agent.step()
    assert scene.events[-3:] == [("announce", "primary"), ("claim", 1, 0), ("relay",)]


async def test_the_recorded_node_is_asked_itself_before_its_timeline_is_claimed() -> None:
    holder = Member("b", Role.PRIMARY, (Address("10.0.0.2"),), 1, "7", 150004)
    scene = Scene()
    scene.known.set(RegistryView((holder,), PrimaryRecord("b", 1), 9, "7", 1, 0.0, True))
    agent = agent_in(scene)
    await agent.step()
    assert ("ask", "b") not in scene.events
    scene.known.set(RegistryView((), PrimaryRecord("b", 1), 9, "7", 1, 0.0, True))
    await agent.step()
    assert scene.events[-4:] == [("ask", "b"), ("announce", "primary"), ("claim", 1, 9), ("relay",)]


async def test_it_looks_at_once_when_woken_and_when_the_registry_changes() -> None:
    scene = Scene(probe_result=REPLICA)
    primary = Member("b", Role.PRIMARY, (Address("10.0.0.2"),), 1, "7", 150004)
    calm = RegistryView((primary,), PrimaryRecord("b", 1), 1, "7", 1, 0.0, True)
    scene.known.set(calm)
    wake = asyncio.Event()
    async with running(agent_in(scene, interval_s=3600, wake=wake)):
        await eventually(lambda: scene.probes >= 2)  # at the start, and at the first view
        await asyncio.sleep(0.1)
        probes = scene.probes
        wake.set()
        await eventually(lambda: scene.probes == probes + 1)
        scene.known.set(replace_view(calm, primary_revision=2))
        await eventually(lambda: scene.probes == probes + 2)


async def test_it_looks_often_while_there_is_no_primary() -> None:
    scene = Scene(probe_result=REPLICA)
    scene.known.set(EMPTY)
    async with running(agent_in(scene, interval_s=3600)):
        await eventually(lambda: scene.probes >= 4)


async def test_each_state_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pgamb.server.agent")
    scene = Scene(probe_result=GONE)
    scene.known.set(EMPTY)
    agent = agent_in(scene)
    for probe in (GONE, REPLICA, GONE):
        scene.probe_result = probe
        for _ in range(3):
            await agent.step()
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "server.waiting",
        "server.port.refusing",
        "server.announced",
        "server.port.relaying",
        "server.withdrawn",
        "server.port.refusing",
    ]


async def test_an_announcement_that_did_not_arrive_is_not_called_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pgamb.server.agent")
    scene = Scene(probe_result=REPLICA, announced=False)
    scene.known.set(EMPTY)
    agent = agent_in(scene)
    await agent.step()
    assert "server.announced" not in [record.getMessage() for record in caplog.records]
    scene.announced = True
    await agent.step()
    assert "server.announced" in [record.getMessage() for record in caplog.records]


async def test_withdraw_at_the_end_is_told() -> None:
    scene = Scene(probe_result=replace(REPLICA))
    agent = agent_in(scene)
    assert await agent.withdraw()
    assert scene.events == [("withdraw",)]


def replace_view(view: RegistryView, *, primary_revision: int) -> RegistryView:
    return RegistryView(
        view.members, view.primary, primary_revision, view.cluster, view.cluster_revision, view.age_s, view.connected
    )
