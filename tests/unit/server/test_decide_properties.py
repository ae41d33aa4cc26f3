"""Agents of several servers over random events: promotions, crashes, restarts, a registry that lags or forgets."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pgamb.registry.model import Address, Member, PrimaryRecord, RegistryView, Role
from pgamb.server.decide import (
    Announce,
    Decision,
    History,
    Identity,
    PeerAnswer,
    PeerState,
    Withdraw,
    announcing,
    claimed,
    decide,
    peers_to_ask,
    remember,
    withdrawn,
)
from pgamb.server.reading import Probe, Reading, Unreachable

NODES = ("a", "b", "c")


@dataclass
class Server:
    """A PostgreSQL as its agent sees it."""

    in_recovery: bool
    timeline: int = 1
    running: bool = True

    def probe(self, start: float) -> Probe:
        if not self.running:
            return Unreachable("connection refused", is_gone=True, is_silent=True)
        return Reading(self.in_recovery, self.timeline, "7", 150004, start)


@dataclass
class Registry:
    """Keys with revisions; each agent may look at an older state than the newest."""

    members: dict[str, Member] = field(default_factory=dict)
    primary: PrimaryRecord | None = None
    revision: int = 0
    reachable: bool = True
    wiped: bool = False
    written: list[PrimaryRecord] = field(default_factory=list)

    def view(self) -> RegistryView:
        members = tuple(self.members[node] for node in sorted(self.members))
        return RegistryView(members, self.primary, self.revision, "7", 1, 0.0, True)

    def claim(self, record: PrimaryRecord, expected: int) -> bool:
        if not self.reachable or expected != self.revision:
            return False
        self.primary = record
        self.revision += 1
        self.written.append(record)
        return True


@dataclass
class Agent:
    identity: Identity
    history: History = field(default_factory=History)
    seen: RegistryView | None = None
    connected: bool = True
    decision: Decision | None = None


class World:
    def __init__(self) -> None:
        self.servers = {node: Server(in_recovery=node != "a") for node in NODES}
        self.registry = Registry()
        self.agents = {
            node: Agent(Identity(node, (Address(f"10.0.0.{number}"),), Address("127.0.0.1")))
            for number, node in enumerate(NODES)
        }
        self.highest = 1

    def look(self, node: str) -> None:
        if self.registry.reachable:
            self.agents[node].seen = self.registry.view()

    def lose_registry(self, node: str) -> None:
        agent = self.agents[node]
        if agent.seen is not None:
            old = agent.seen
            agent.seen = RegistryView(
                old.members, old.primary, old.primary_revision, old.cluster, old.cluster_revision, 99.0, False
            )

    def step(self, node: str, lag: bool) -> None:
        """One turn of an agent; with `lag` it decides on what it saw before."""
        agent = self.agents[node]
        if not lag:
            self.look(node)
        probe = self.servers[node].probe(float(ord(node)))
        view = agent.seen
        history = remember(agent.history, probe, view)
        answers = {
            member.node: self.answer(member.node) for member in peers_to_ask(probe, history, view, agent.identity)
        }
        if answers:
            history = remember(history, probe, view, answers)
        agent.decision = decide(probe, history, view, agent.identity, answers)
        agent.history = history
        if not self.registry.reachable:
            return
        if isinstance(agent.decision, Withdraw):
            agent.history = withdrawn(history)
            self.registry.members.pop(node, None)
        elif isinstance(agent.decision, Announce):
            agent.history = announcing(history)
            self.registry.members[node] = agent.decision.member
            claim = agent.decision.claim
            if claim is not None and view is not None and self.registry.claim(claim, view.primary_revision):
                agent.history = claimed(agent.history, claim, agent.decision.member)

    def answer(self, node: str) -> PeerAnswer:
        server = self.servers[node]
        if not server.running:
            return PeerAnswer(PeerState.SILENT)
        return PeerAnswer(PeerState.REPLICA if server.in_recovery else PeerState.PRIMARY, server.timeline)

    def promote(self, node: str) -> None:
        """Somebody else's failover: it never makes two primaries on one timeline."""
        server = self.servers[node]
        if server.running and server.in_recovery:
            self.highest += 1
            server.in_recovery = False
            server.timeline = self.highest

    def rewind(self, node: str) -> None:
        """Let a server follow the newest primary."""
        if any(other != node and self.servers[other].timeline == self.highest for other in NODES):
            self.servers[node].in_recovery = True
            self.servers[node].timeline = self.highest

    def relaying_primaries(self) -> list[str]:
        return [
            node
            for node, agent in self.agents.items()
            if isinstance(agent.decision, Announce)
            and agent.decision.member.role is Role.PRIMARY
            and agent.decision.refusal is None
        ]


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "step",
                "step",
                "step",
                "lag",
                "promote",
                "stop",
                "start",
                "rewind",
                "wipe",
                "away",
                "back",
                "expire",
                "restart",
            ]
        ),
        st.sampled_from(NODES),
    ),
    max_size=60,
)


def happen(world: World, event: str, node: str) -> None:
    if event in ("step", "lag"):
        world.step(node, lag=event == "lag")
    elif event == "promote":
        world.promote(node)
    elif event in ("stop", "start"):
        world.servers[node].running = event == "start"
    elif event == "rewind":
        world.rewind(node)
    elif event == "wipe":
        world.registry.members.clear()
        world.registry.primary = None
        world.registry.revision += 1
        world.registry.written.append(PrimaryRecord("", 0))
    elif event in ("away", "back"):
        world.registry.reachable = event == "back"
        if event == "away":
            for each in NODES:
                world.lose_registry(each)
    elif event == "expire":
        world.registry.members.pop(node, None)
    elif event == "restart":
        world.agents[node] = Agent(world.agents[node].identity)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_primary_never_goes_back(events: list[tuple[str, str]]) -> None:
    """Between two losses of its memory the registry sees only higher timelines, or the same one of the same server."""
    world = World()
    for event, node in events:
        happen(world, event, node)
    written = world.registry.written
    for before, after in pairwise(written):
        if after.timeline:
            assert after.timeline > before.timeline or after.node == before.node, written


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_agents_that_see_the_registry_as_it_is_agree_on_one_primary(events: list[tuple[str, str]]) -> None:
    world = World()
    for event, node in events:
        happen(world, event, node)
    world.registry.reachable = True
    # Everyone looks and acts until nothing changes any more.
    for _ in range(3):
        for node in NODES:
            world.step(node, lag=False)
    relaying = world.relaying_primaries()
    assert len(relaying) <= 1, relaying
    primaries = [n for n in NODES if world.servers[n].running and not world.servers[n].in_recovery]
    if primaries:
        newest = max(primaries, key=lambda n: world.servers[n].timeline)
        recorded = world.registry.primary
        # The newest running primary is the rightful one, unless one on a higher timeline was recorded and is down.
        if recorded is None or recorded.timeline <= world.servers[newest].timeline:
            assert relaying == [newest]
            assert recorded == PrimaryRecord(newest, world.servers[newest].timeline)
        else:
            assert relaying == []


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_nobody_relays_to_a_primary_below_one_that_it_has_seen_recorded(events: list[tuple[str, str]]) -> None:
    world = World()
    seen = dict.fromkeys(NODES, 0)
    for event, node in events:
        happen(world, event, node)
        if event == "restart":
            seen[node] = 0
        agent = world.agents[node]
        if event in ("step", "lag") and agent.seen is not None and agent.seen.primary is not None:
            seen[node] = max(seen[node], agent.seen.primary.timeline)
        if event in ("step", "lag") and isinstance(agent.decision, Announce):
            member = agent.decision.member
            if member.role is Role.PRIMARY:
                assert member.timeline >= seen[node]
            if member.role is Role.STALE_PRIMARY:
                assert agent.decision.refusal is not None
                assert agent.decision.claim is None
