"""What happens to the cluster while the applications work. Each scenario is one round: break, watch, mend, compare.

A `Round` tells what the applications noticed; what must never be is in `wrong`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pgamb.demo.failures import drain
from pgamb.demo.postgres import PostgresServer
from tests.chaos.history import Failure
from tests.chaos.load import Load
from tests.chaos.world import DEADLINE_S, Kind, World, contradictions, running_load
from tests.support.waiting import wait_for

# How long the applications work undisturbed before, and with what is broken.
CALM_S = 1.0
BROKEN_S = 2.0
# Longer than the lease of an agent, and than everybody's patience with a silent registry.
LEASE_S = 8.0

READS = ("read", "begin of reads", "read in a transaction of reads", "commit of reads")


@dataclass(slots=True)
class Round:
    """One round of a scenario. `figures` are milliseconds."""

    connections: int
    writes: int
    reads: int
    dropped: int
    refused: int
    failures: list[Failure]
    wrong: list[str]
    longest_ms: dict[str, float]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def failed_reads(self) -> list[Failure]:
        """Errors of reads that were in no transaction, or in one that only reads."""
        return [failure for failure in self.failures if failure.what in READS]


@dataclass(frozen=True, slots=True)
class Scenario:
    """`run` adds a round. With `silent` no application may get an error; if not, only what was really in flight."""

    name: str
    run: Callable[[World], Round]
    kind: Kind
    silent: bool

    @property
    def about(self) -> str:
        return " ".join((self.run.__doc__ or "").split())


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    kind: Kind = Kind.EXPOSED, *, silent: bool = True
) -> Callable[[Callable[[World], Round]], Callable[[World], Round]]:
    """Make a scenario of a function; its name, with dashes, is the scenario's."""

    def register(run: Callable[[World], Round]) -> Callable[[World], Round]:
        name = run.__name__.replace("_", "-")
        SCENARIOS[name] = Scenario(name, run, kind, silent)
        return run

    return register


class _Watch:
    """The applications at work, and what is measured; `round` is there when the block has ended."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.figures: dict[str, float] = {}
        self._round: Round | None = None

    @property
    def round(self) -> Round:
        assert self._round is not None
        return self._round

    def end(self, world: World) -> None:
        history = self.load.history
        self._round = Round(
            connections=self.load.connections,
            writes=len(history.writes),
            reads=history.reads,
            dropped=history.dropped,
            refused=len(history.refused),
            failures=history.failures,
            wrong=contradictions(world, history),
            longest_ms={what: seconds * 1000 for what, seconds in history.longest_s.items()},
            figures=self.figures,
        )

    def promoted(self, at_s: float) -> None:
        """Measure how long it takes from a promotion to the first write."""
        history = self.load.history
        wait_for(lambda: history.first_write_after(at_s) is not None, DEADLINE_S, "a write is acknowledged")
        first = history.first_write_after(at_s)
        assert first is not None
        self.figures["promotion to first write"] = (first - at_s) * 1000


@contextmanager
def _watched(world: World) -> Iterator[_Watch]:
    """Run the applications during the block, and compare at its end; the block leaves the cluster whole."""
    world.primary.query("TRUNCATE history")
    with running_load(world) as load:
        watch = _Watch(load)
        time.sleep(CALM_S)
        yield watch
        time.sleep(CALM_S)
    watch.end(world)


Act = Callable[[World, PostgresServer], object]


def _replica_lost(world: World, lose: Act, mend: Act, broken_s: float = BROKEN_S) -> Round:
    with _watched(world) as watch:
        victim = world.next_replica()
        lose(world, victim)
        time.sleep(broken_s)
        mend(world, victim)
        world.wait_whole()
    return watch.round


@scenario()
def replica_killed(world: World) -> Round:
    """SIGKILL for a replica and all its sessions."""
    return _replica_lost(world, lambda _, server: server.kill(), lambda _, server: server.start())


@scenario()
def replica_stopped(world: World) -> Round:
    """A fast shutdown of a replica."""
    return _replica_lost(world, lambda _, server: server.stop(), lambda _, server: server.start())


@scenario()
def replica_cut_off(world: World) -> Round:
    """A replica whose machine answers nothing any more, and comes back."""
    return _replica_lost(world, lambda _, server: server.pause(), lambda _, server: server.resume())


@scenario()
def replica_agent_killed(world: World) -> Round:
    """SIGKILL for the agent of a replica, and with it for the port that leads there."""
    return _replica_lost(
        world,
        lambda world, server: world.agents[server.name].kill(),
        lambda world, server: world.agents[server.name].start(),
    )


@scenario(silent=False)
def primary_killed(world: World) -> Round:
    """SIGKILL for the primary; its newest replica is promoted half a second later."""
    with _watched(world) as watch:
        old = world.primary
        old.kill()
        time.sleep(0.5)
        watch.promoted(world.promote(world.cluster.newest_replica()))
        world.rejoin(old)
    return watch.round


@scenario()
def switchover(world: World) -> Round:
    """The primary is drained and stopped, a replica is promoted, and the old primary follows it."""
    with _watched(world) as watch:
        old = world.primary
        begun = time.monotonic()
        drain(world.cluster, old.name)
        drained = time.monotonic()
        old.stop()
        promoted = world.promote(world.cluster.newest_replica())
        watch.promoted(promoted)
        watch.figures["drain"] = (drained - begun) * 1000
        watch.figures["stop and promote"] = (promoted - drained) * 1000
        old.follow(world.primary)
        old.start()
        world.wait_whole()
    return watch.round


@scenario(silent=False)
def old_primary_revived(world: World) -> Round:
    """The primary is killed and another promoted; then it comes back as the primary that it was, and takes writes."""
    with _watched(world) as watch:
        old = world.primary
        old.kill()
        watch.promoted(world.promote(world.cluster.newest_replica()))
        old.start()
        time.sleep(BROKEN_S)
        world.rejoin(old)
    return watch.round


@scenario(silent=False)
def primary_cut_off(world: World) -> Round:
    """The primary's machine answers nothing any more, another is promoted, and the first wakes again."""
    with _watched(world) as watch:
        old = world.primary
        world.agents[old.name].pause()
        old.pause()
        watch.promoted(world.promote(world.cluster.newest_replica()))
        old.resume()
        world.agents[old.name].resume()
        time.sleep(BROKEN_S)
        world.rejoin(old)
    return watch.round


@scenario()
def registry_stopped(world: World) -> Round:
    """etcd is away for longer than any lease, and comes back."""
    with _watched(world) as watch:
        world.etcd.stop()
        time.sleep(LEASE_S)
        world.etcd.start()
        world.wait_whole()
    return watch.round


@scenario()
def registry_wiped(world: World) -> Round:
    """etcd comes back empty."""
    with _watched(world) as watch:
        world.etcd.stop()
        world.etcd.wipe()
        world.etcd.start()
        time.sleep(BROKEN_S)
        world.wait_whole()
    return watch.round


@scenario(Kind.THREE_ETCD)
def registry_leader_killed(world: World) -> Round:
    """SIGKILL for the leader of three etcd nodes."""
    with _watched(world) as watch:
        leader = world.etcd_leader()
        leader.kill()
        time.sleep(LEASE_S)
        leader.start()
        world.wait_whole()
    return watch.round


@scenario(Kind.DIRECT)
def primary_agent_killed(world: World) -> Round:
    """SIGKILL for the primary's agent, for longer than its lease; its server is reached directly."""
    with _watched(world) as watch:
        agent = world.agents[world.primary.name]
        agent.kill()
        time.sleep(LEASE_S)
        agent.start()
        world.wait_whole()
    return watch.round


@scenario(Kind.DIRECT, silent=False)
def failover_without_registry(world: World) -> Round:
    """etcd is away; the primary is killed, and a replica promoted."""
    with _watched(world) as watch:
        world.etcd.stop()
        time.sleep(LEASE_S)
        old = world.primary
        old.kill()
        watch.promoted(world.promote(world.cluster.newest_replica()))
        time.sleep(BROKEN_S)
        world.etcd.start()
        world.rejoin(old)
    return watch.round
