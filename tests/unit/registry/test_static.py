"""A static topology: the cells of its rule, and the loop around it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgamb.errors import ConfigError, ConnectionFailure, RegistryMismatch
from pgamb.registry.model import Address, PrimaryRecord, Role, Stats, Topology
from pgamb.registry.static import SILENT_ROUNDS, Memory, Observation, StaticRegistry, resolve

A, B, C = Address("a"), Address("b"), Address("c")
P, R = Role.PRIMARY, Role.REPLICA


def seen(address: Address, role: Role, timeline: int = 1, cluster: str = "1") -> Observation:
    return Observation(address.host, role, timeline, cluster, 150000, Stats(address.host, wal_lsn=timeline))


def round_of(memory: Memory, *answers: tuple[Address, Role, int]) -> tuple[Topology, Memory]:
    resolution = resolve("db", {address: seen(address, role, timeline) for address, role, timeline in answers}, memory)
    return resolution.topology, resolution.memory


def roles(topology: Topology) -> dict[str, str]:
    return {member.node: member.role.value for member in topology.members}


def test_a_primary_and_its_replicas() -> None:
    topology, _ = round_of(Memory(), (B, P, 3), (A, R, 3))
    assert roles(topology) == {"a": "replica", "b": "primary"}
    assert topology.primary == PrimaryRecord("b", 3)
    assert topology.primary_member() is not None
    assert (topology.cluster, topology.conflict) == ("1", ())


def test_the_higher_timeline_wins_and_is_remembered() -> None:
    topology, memory = round_of(Memory(), (A, P, 3), (B, P, 4))
    assert roles(topology) == {"a": "stale-primary", "b": "primary"}
    assert topology.primary == PrimaryRecord("b", 4)
    for _ in range(3 * SILENT_ROUNDS):
        topology, memory = round_of(memory, (A, P, 3))
        assert roles(topology)["a"] == "stale-primary"
    assert roles(topology) == {"a": "stale-primary"}
    assert topology.primary_member() is None


def test_a_replica_that_is_ahead_makes_a_primary_stale() -> None:
    topology, _ = round_of(Memory(), (A, P, 3), (B, R, 4))
    assert roles(topology) == {"a": "stale-primary", "b": "replica"}
    assert topology.primary_member() is None


def test_two_primaries_on_one_timeline_are_none_and_both_are_named() -> None:
    resolution = resolve("db", {A: seen(A, P, 2), B: seen(B, P, 2)}, Memory())
    assert resolution.topology.primary is None
    assert resolution.topology.conflict == ("a", "b")
    assert resolution.errors == ("a and b are both primary on timeline 2: no writes until one is stopped",)


def test_a_conflict_ends_when_one_is_a_replica_or_silent_for_long() -> None:
    _, memory = round_of(Memory(), (A, P, 2), (B, P, 2))
    topology, _ = round_of(memory, (A, P, 2), (B, R, 2))
    assert topology.primary == PrimaryRecord("a", 2)
    for _ in range(SILENT_ROUNDS):
        topology, memory = round_of(memory, (A, P, 2))
        assert topology.conflict == ("a", "b")
        assert topology.primary_member() is None
    topology, _ = round_of(memory, (A, P, 2))
    assert topology.primary == PrimaryRecord("a", 2)


def test_a_newcomer_on_the_timeline_of_a_silent_primary_has_to_wait() -> None:
    _, memory = round_of(Memory(), (A, P, 2), (B, R, 2))
    for _ in range(SILENT_ROUNDS):
        topology, memory = round_of(memory, (B, P, 2))
        assert topology.conflict == ("a", "b")
        assert topology.primary_member() is None
    topology, memory = round_of(memory, (B, P, 2))
    assert topology.primary == PrimaryRecord("b", 2)


def test_a_promotion_is_followed_at_once() -> None:
    _, memory = round_of(Memory(), (A, P, 2), (B, R, 2))
    topology, _ = round_of(memory, (B, P, 3))
    assert topology.primary == PrimaryRecord("b", 3)
    assert topology.primary_member() is not None


def test_different_clusters_are_an_error_at_the_start_and_left_out_later() -> None:
    with pytest.raises(RegistryMismatch, match="a:5432 is of 1, b:5432 is of 2") as caught:
        resolve("db", {A: seen(A, P), B: seen(B, P, cluster="2")}, Memory())
    assert caught.value.hint
    _, memory = round_of(Memory(), (A, P, 1))
    resolution = resolve("db", {A: seen(A, P), B: seen(B, P, 9, cluster="2")}, memory)
    assert roles(resolution.topology) == {"a": "primary"}
    assert resolution.errors == ("b:5432 belongs to cluster 2, not to 1: not used",)


def test_servers_of_one_name_are_told_apart() -> None:
    answers = {address: Observation("main", R, 1, "1", 150000) for address in (A, B)}
    resolution = resolve("db", answers, Memory())
    assert roles(resolution.topology) == {"main@a:5432": "replica", "main@b:5432": "replica"}
    assert "several servers" in resolution.errors[0]


rounds = st.lists(
    st.dictionaries(st.sampled_from([A, B, C]), st.tuples(st.sampled_from([P, R]), st.integers(1, 3))), max_size=12
)


@given(rounds)
def test_no_sequence_makes_a_lower_timeline_or_one_of_two_the_primary(
    sequence: list[dict[Address, tuple[Role, int]]],
) -> None:
    memory, highest = Memory(), 0
    for answers in sequence:
        topology, memory = round_of(memory, *((address, *said) for address, said in answers.items()))
        highest = max([highest, *(timeline for _, timeline in answers.values())])
        primary = topology.primary_member()
        claims = [a for a, (role, timeline) in answers.items() if role is P and timeline == highest]
        if primary is not None:
            assert primary.timeline == highest
            assert claims in ([], [primary.addresses[0]])
            assert answers.get(primary.addresses[0], (P, highest)) == (P, highest)
        for member in topology.members:
            assert member.role is not P or member.timeline == highest


class Scripted:
    """Answers what it is told to; a str is a failure."""

    def __init__(self, **answers: Observation | str) -> None:
        self.answers = answers

    async def probe(self, address: Address) -> Observation:
        answer = self.answers[address.host]
        if isinstance(answer, str):
            raise ConnectionFailure(answer)
        return answer


async def test_the_loop_tells_each_change_once_and_what_is_wrong() -> None:
    prober = Scripted(a=seen(A, P), b="connection refused")
    registry = StaticRegistry([A, B], prober, interval_s=0.001, service="db")
    assert registry.status().age_s is None
    async with asyncio.timeout(10), aclosing(registry.topologies()) as topologies:
        first = await anext(topologies)
        assert roles(first) == {"a": "primary"}
        assert registry.status().last_error == "b:5432: connection refused"
        assert await registry.stats() == (Stats("a", wal_lsn=1),)
        prober.answers = {"a": "gone", "b": "gone"}
        while (topology := await anext(topologies)).members:
            pass
        assert topology.revision > first.revision
        assert not registry.status().connected
        prober.answers = {"a": seen(A, R, 2), "b": seen(B, P, 2)}
        while len((topology := await anext(topologies)).members) < 2:
            pass
        assert topology.primary == PrimaryRecord("b", 2)
        assert registry.status().last_error is None
    await registry.close()


def test_a_server_that_is_late_once_stays() -> None:
    first, memory = round_of(Memory(), (A, P, 2), (B, R, 2))
    topology, memory = round_of(memory, (B, R, 2))
    assert topology == first
    topology, memory = round_of(memory, (B, R, 2))
    assert roles(topology) == {"b": "replica"}
    assert topology.primary_member() is None
    topology, _ = round_of(memory, (A, P, 2), (B, R, 2))
    assert topology == first


async def test_the_loop_asks_again_when_it_is_told_to() -> None:
    prober = Scripted(a=seen(A, P))
    registry = StaticRegistry([A], prober, interval_s=3600)
    async with asyncio.timeout(10), aclosing(registry.topologies()) as topologies:
        await anext(topologies)
        prober.answers = {"a": seen(A, P, 2)}
        registry.refresh()
        assert (await anext(topologies)).primary == PrimaryRecord("a", 2)
    await registry.close()


async def test_a_wrong_list_ends_the_loop_with_the_error() -> None:
    registry = StaticRegistry([A, B], Scripted(a=seen(A, P), b=seen(B, P, cluster="2")))
    async with asyncio.timeout(10), aclosing(registry.topologies()) as topologies:
        with pytest.raises(RegistryMismatch):
            await anext(topologies)
    await registry.close()
    with pytest.raises(ConfigError):
        StaticRegistry([], Scripted())


async def test_a_server_that_hangs_holds_up_nobody() -> None:
    class Hanging(Scripted):
        async def probe(self, address: Address) -> Observation:
            if address == B:
                await asyncio.Event().wait()
            return await super().probe(address)

    registry = StaticRegistry([A, B], Hanging(a=seen(A, P)), probe_timeout_s=0.01)
    async with asyncio.timeout(10), aclosing(registry.topologies()) as topologies:
        assert roles(await anext(topologies)) == {"a": "primary"}
    assert registry.status().last_error == "b:5432: no answer within 0.01 s"
    await registry.close()
