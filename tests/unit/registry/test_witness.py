"""What is made of a registry's last word and of what members say: the cells of the rule, and the loop around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgamb.errors import ConnectionFailure
from pgamb.registry.latest import Latest
from pgamb.registry.model import Address, Member, MemberState, PrimaryRecord, RegistryStatus, Role, Stats, Topology
from pgamb.registry.static import Observation
from pgamb.registry.witness import Judgement, Memory, Witness, judge
from tests.support.waiting import wait_for_async

P, R, S = Role.PRIMARY, Role.REPLICA, Role.STALE_PRIMARY


def member(node: str, role: Role, timeline: int = 1) -> Member:
    return Member(node, role, (Address(node),), timeline, "1", 150000)


def topology(*members: Member, primary: PrimaryRecord | None = None) -> Topology:
    return Topology("db", members, primary, "1")


def answer(node: str, role: Role, timeline: int = 1, cluster: str = "1") -> Observation:
    return Observation(node, role, timeline, cluster, 150000)


SAID = topology(member("a", P), member("b", R), member("c", R), primary=PrimaryRecord("a", 1))


def given_answers(
    *answers: Observation,
    said: Topology = SAID,
    departed: tuple[Member, ...] = (),
    lost: bool = True,
    fenced: bool = False,
    memory: Memory | None = None,
) -> Judgement:
    heard = {each.node: each for each in answers}
    return judge(said, departed, heard, memory or Memory(), lost=lost, fenced=fenced)


def roles(judgement: Judgement) -> dict[str, Role]:
    return {each.node: each.role for each in judgement.topology.members}


def primary_of(judgement: Judgement) -> str | None:
    found = judgement.topology.primary_member()
    return None if found is None else found.node


def test_a_registry_that_answers_is_believed() -> None:
    judgement = given_answers(answer("b", P, 2), lost=False)
    assert judgement.topology == SAID
    assert judgement.memory == Memory(1)


def test_without_answers_everything_stays_as_it_was() -> None:
    assert given_answers().topology == SAID


def test_a_higher_primary_is_followed_while_the_registry_is_away() -> None:
    judgement = given_answers(answer("b", P, 2), answer("c", R, 1))
    assert primary_of(judgement) == "b"
    assert roles(judgement) == {"a": S, "b": P, "c": R}
    assert judgement.memory == Memory(2, PrimaryRecord("b", 2))


def test_the_lower_one_is_never_used_again() -> None:
    memory = Memory(2, PrimaryRecord("b", 2))
    for lost in (True, False):
        judgement = given_answers(answer("a", P, 1), lost=lost, memory=memory)
        assert primary_of(judgement) is None
        assert roles(judgement)["a"] is S
        assert judgement.memory == memory


def test_a_registry_that_has_caught_up_rules_again() -> None:
    said = topology(member("a", R, 3), member("b", R, 3), member("c", P, 3), primary=PrimaryRecord("c", 3))
    judgement = given_answers(said=said, lost=False, memory=Memory(2, PrimaryRecord("b", 2)))
    assert judgement.topology == said
    assert judgement.memory == Memory(3)


def test_a_registry_that_names_nobody_is_believed() -> None:
    said = topology(member("a", P), member("b", R))
    judgement = given_answers(answer("a", P, 1), said=said, lost=False, memory=Memory(1))
    assert judgement.topology == said
    # Also when it was that, the last thing that it said.
    assert primary_of(given_answers(answer("a", P, 1), said=said, memory=Memory(1))) is None
    assert primary_of(given_answers(answer("b", P, 2), said=said, memory=Memory(1))) == "b"


def test_two_new_primaries_are_none() -> None:
    judgement = given_answers(answer("b", P, 2), answer("c", P, 2))
    assert primary_of(judgement) is None
    assert judgement.topology.conflict == ("b", "c")
    assert "b and c are both primary on timeline 2" in judgement.problems[0]


def test_a_second_primary_on_the_same_timeline_is_not_used() -> None:
    judgement = given_answers(answer("a", P, 1), answer("b", P, 1))
    assert primary_of(judgement) == "a"
    assert "b" not in roles(judgement)
    assert "nobody names it" in judgement.problems[0]


def test_a_former_primary_that_answers_as_a_replica_is_one() -> None:
    judgement = given_answers(answer("a", R, 1))
    assert primary_of(judgement) is None
    assert roles(judgement)["a"] is R


def test_a_member_that_left_without_a_word_is_used_while_it_answers() -> None:
    said = topology(member("b", R), primary=PrimaryRecord("a", 1))
    departed = (member("a", P), member("c", R))
    for lost in (True, False):
        judgement = given_answers(answer("a", P, 1), answer("c", R, 1), said=said, departed=departed, lost=lost)
        assert roles(judgement) == {"a": P, "b": R, "c": R}
        assert primary_of(judgement) == "a"
        assert roles(given_answers(said=said, departed=departed, lost=lost)) == {"b": R}


def test_a_departed_primary_needs_to_be_named() -> None:
    departed = (member("a", P),)
    behind = topology(member("b", P, 2), primary=PrimaryRecord("b", 2))
    assert roles(given_answers(answer("a", P, 1), said=behind, departed=departed, lost=False)) == {"a": S, "b": P}
    ahead = given_answers(
        answer("a", P, 3), said=topology(member("b", R), primary=PrimaryRecord("b", 2)), departed=departed, lost=False
    )
    assert roles(ahead) == {"b": R}


def test_a_server_of_another_cluster_is_not_used() -> None:
    judgement = given_answers(answer("b", P, 9, cluster="2"))
    assert primary_of(judgement) == "a"
    assert "belongs to cluster 2" in judgement.problems[0]


def test_fenced_means_that_nothing_is_written() -> None:
    judgement = given_answers(lost=False, fenced=True)
    assert primary_of(judgement) is None
    assert roles(judgement) == roles(given_answers())


_ANSWERS = st.dictionaries(
    st.sampled_from("abc"), st.tuples(st.sampled_from([P, R]), st.integers(1, 4)), max_size=3
).map(lambda found: {node: answer(node, role, timeline) for node, (role, timeline) in found.items()})


@given(st.lists(st.tuples(_ANSWERS, st.booleans(), st.integers(1, 4)), max_size=12))
def test_the_timeline_of_the_primary_never_goes_down(rounds: list[tuple[dict[str, Observation], bool, int]]) -> None:
    memory = Memory()
    highest = 0
    for answers, lost, timeline in rounds:
        said = topology(member("a", P, timeline), member("b", R), member("c", R), primary=PrimaryRecord("a", timeline))
        judgement = judge(said, (), answers, memory, lost=lost, fenced=False)
        memory = judgement.memory
        found = judgement.topology.primary_member()
        if found is not None:
            assert found.timeline >= highest
            assert judgement.topology.conflict == ()
            assert sum(each.role is P for each in judgement.topology.members) == 1
            highest = found.timeline


class Scripted:
    """A registry and its members, as a test wants them."""

    def __init__(self) -> None:
        self.latest: Latest[Topology] = Latest()
        self.connected = True
        self.answers: dict[Address, Observation | Exception] = {}
        self.asked: list[Address] = []

    async def topologies(self) -> AsyncGenerator[Topology, None]:
        async for said in self.latest.values():
            yield said

    async def stats(self) -> tuple[Stats, ...]:
        return ()

    def refresh(self) -> None:
        return

    def status(self) -> RegistryStatus:
        return RegistryStatus("etcd://", None, self.connected, 0.0 if self.connected else 60.0, None)

    async def close(self) -> None:
        self.latest.end()

    async def probe(self, address: Address) -> Observation:
        self.asked.append(address)
        found = self.answers.get(address, ConnectionFailure("nobody there"))
        if isinstance(found, Exception):
            raise found
        return found


async def test_members_are_asked_only_when_there_is_a_reason_to() -> None:
    scripted = Scripted()
    scripted.latest.set(SAID)
    witness = Witness(scripted, scripted)
    async with asyncio.timeout(20), aclosing(witness.topologies()) as topologies:
        assert await anext(topologies) == SAID
        # The lease of a ended; nobody had to be asked before.
        assert scripted.asked == []
        scripted.answers[Address("a")] = answer("a", P, 1)
        scripted.latest.set(msgspec.structs.replace(SAID, members=SAID.members[1:], revision=2))
        await wait_for_async(lambda: scripted.asked, 10, "somebody is asked")
        assert scripted.asked == [Address("a")]
        kept = await anext(topologies)
        assert kept.primary_member() == SAID.primary_member()
        # Now it is gone, too.
        del scripted.answers[Address("a")]
        witness.refresh()
        gone = await anext(topologies)
        assert gone.member("a") is None
    await witness.close()


async def test_a_member_that_says_goodbye_is_not_looked_for() -> None:
    scripted = Scripted()
    scripted.answers[Address("c")] = answer("c", R, 1)
    leaving = msgspec.structs.replace(member("c", R), state=MemberState.LEAVING)
    scripted.latest.set(topology(member("a", P), leaving, primary=PrimaryRecord("a", 1)))
    witness = Witness(scripted, scripted)
    async with asyncio.timeout(20), aclosing(witness.topologies()) as topologies:
        await anext(topologies)
        scripted.latest.set(topology(member("a", P), primary=PrimaryRecord("a", 1)))
        assert (await anext(topologies)).member("c") is None
        assert scripted.asked == []
    await witness.close()


@pytest.mark.parametrize("on_loss", ["failsafe", "fence"])
async def test_a_registry_that_is_lost(on_loss: str) -> None:
    scripted = Scripted()
    scripted.latest.set(SAID)
    witness = Witness(scripted, scripted, on_loss=on_loss)  # type: ignore[arg-type]
    async with asyncio.timeout(20), aclosing(witness.topologies()) as topologies:
        await anext(topologies)
        scripted.answers = {Address("b"): answer("b", P, 2), Address("c"): answer("c", R, 2)}
        scripted.connected = False
        witness.refresh()
        found = (await anext(topologies)).primary_member()
        assert (None if found is None else found.node) == ("b" if on_loss == "failsafe" else None)
    await witness.close()
