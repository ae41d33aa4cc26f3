"""Whatever the order of commits, questions, answers, losses and promotions: nobody is sent where less is shown.

The world has a log of its own: what is committed, on which timeline, and what each replica has replayed. A session
remembers what it has seen and asks as the data plane would. It may be told that nothing is known, or be sent to the
primary; it must never be sent to a replica that does not show what it has seen.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.support.scripted import ScriptedMember, scene

if TYPE_CHECKING:
    from tests.support.watcher import Watcher

# A page of 8192 bytes has a header of 24. Everything below counts bytes of records, as the server itself does.
PAGE, HEADER = 8192, 24
USABLE = PAGE - HEADER
which = st.integers(0, 1)


def insert_position(position: int) -> int:
    """Return where the next record begins, as PostgreSQL tells it."""
    return position // USABLE * PAGE + HEADER + position % USABLE


def end_of_record(position: int) -> int:
    return insert_position(position) if position % USABLE else position // USABLE * PAGE


class World(RuleBasedStateMachine):
    """A primary, two replicas, and one ambassador that asks them."""

    watcher_type: type[Watcher]

    @initialize()
    def begin(self) -> None:
        self.stack = ExitStack()
        self.scene = self.stack.enter_context(scene())
        self.scene.use()
        self.watcher = self.watcher_type(self.scene.freshness)
        self.primary = self.scene.primary
        self.members = [self.primary, *self.scene.replicas]
        self.timeline = 1
        self.end = USABLE * 4
        # What each shows, and the timeline it is on. The primary shows all.
        self.replayed = dict.fromkeys(self.members, self.end)
        self.on = dict.fromkeys(self.members, 1)
        # What was sampled for a question, when the server dealt with it; the answer arrives later.
        self.sampled: dict[ScriptedMember, int] = {}
        # Moments with the end of the WAL that was seen by then, on the timeline of then.
        self.seen: list[tuple[int, int]] = []
        self.seen_on: dict[ScriptedMember, list[tuple[int, int, int]]] = {member: [] for member in self.members}
        for member in self.members:
            member.connect()
        self.all_answer(0)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @property
    def replicas(self) -> list[ScriptedMember]:
        return [member for member in self.members if member is not self.primary]

    @rule(size=st.sampled_from([8, 8, 16, 200, USABLE]))
    def commit(self, size: int) -> None:
        self.end += size
        self.watcher.committed()
        self.seen.append((self.scene.freshness.required, self.end))

    @rule()
    def read_on_the_primary(self) -> None:
        moment = self.watcher.moment()
        self.watcher.ask(moment)
        self.seen.append((moment, self.end))

    @rule(index=which)
    def read_on_a_replica(self, index: int) -> None:
        member = self.replicas[index]
        if member.position.usable:
            moment = self.watcher.moment_of(member.position)
            self.seen_on[member].append((member.position.epoch, moment, self.replayed[member]))

    @rule(index=which, size=st.sampled_from([8, 16, 200, 1 << 20]))
    def replay(self, index: int, size: int) -> None:
        member = self.replicas[index]
        if self.on[member] == self.timeline:
            self.replayed[member] = min(self.end, self.replayed[member] + size)

    @rule(index=which)
    def ask(self, index: int) -> None:
        self.watcher.ask_replica(self.replicas[index].position)

    @rule()
    def survey(self) -> None:
        self.scene.freshness.survey()

    @rule(index=st.integers(0, 2))
    def sample(self, index: int) -> None:
        """The server deals with the question: this is what it will have answered."""
        member = self.members[index]
        if member.sock is not None and member.questions() and member not in self.sampled:
            self.sampled[member] = self.end if member is self.primary else self.replayed[member]

    @rule(index=st.integers(0, 2), short=st.sampled_from([0, 0, 8]), receive=st.sampled_from([0, 8, 400, -16, None]))
    def answer(self, index: int, short: int, receive: int | None) -> None:
        """The answer arrives. A commit is shown an instant before it counts as replayed, but is received before."""
        member = self.members[index]
        lsn = self.sampled.pop(member, None)
        if lsn is None or member.sock is None:
            return
        (question, *_) = member.questions()
        if "insert_lsn" in question:
            member.answer_floor(insert_position(lsn))
        elif receive is None:
            timeline = [str(self.on[member])] if "received_tli" in question else []
            member.answer(f"0/{end_of_record(lsn - short):X}", None, *timeline)
        else:
            replayed, received = end_of_record(lsn - short), end_of_record(lsn + receive)
            member.answer_position(replayed, received, self.on[member])

    @rule(index=st.integers(0, 2), short=st.sampled_from([0, 8]))
    def ask_and_answer(self, index: int, short: int) -> None:
        member = self.members[index]
        if member is self.primary:
            self.watcher.ask(self.watcher.moment())
        else:
            self.watcher.ask_replica(member.position)
        self.sample(index)
        self.answer(index, short, 0)

    @rule(size=st.sampled_from([8, 16]), index=which)
    def see_something_while_all_are_asked(self, size: int, index: int) -> None:
        self.survey()
        for each in range(3):
            self.sample(each)
        self.replay(index, size)
        self.commit(size)
        self.read_on_a_replica(index)
        for each in range(3):
            self.answer(each, 0, 0)

    @rule(short=st.sampled_from([0, 8]))
    def all_answer(self, short: int) -> None:
        self.survey()
        for each in range(3):
            self.sample(each)
            self.answer(each, short, 0)

    @rule(index=st.integers(0, 2), back=st.sampled_from([0, 8, 80]))
    def lose(self, index: int, back: int) -> None:
        """A connection ends; a replica may have restarted, and show less than before."""
        member = self.members[index]
        if member.sock is not None:
            self.sampled.pop(member, None)
            member.cut()
            if member is not self.primary:
                self.replayed[member] -= back

    @rule(index=st.integers(0, 2))
    def find(self, index: int) -> None:
        member = self.members[index]
        if member.sock is None:
            member.connect()

    @precondition(lambda self: self.timeline < 4)
    @rule(index=which, lost=st.integers(0, 50).map(lambda n: n * 8), follows=st.booleans())
    def promote(self, index: int, lost: int, follows: bool) -> None:
        """A replica becomes primary with what it has, and what the others had beyond that is no more."""
        new, old = self.replicas[index], self.primary
        (left,) = [member for member in self.replicas if member is not new]
        self.timeline += 1
        switch = self.replayed[new]
        self.end = switch + 8
        # What was seen and is beyond the switch has been lost, whoever is asked: nothing can show it.
        self.seen = [(moment, min(lsn, switch)) for moment, lsn in self.seen]
        self.seen_on = {member: [] for member in self.members}
        self.on[new] = self.timeline
        self.primary = new
        self.replayed[old] = switch + lost + 8
        if follows and self.replayed[left] <= switch:
            self.on[left] = self.timeline
        self.scene.use(self.timeline, new)

    @rule()
    def rewind(self) -> None:
        """Whoever was left on an old branch is brought back, which takes a restart."""
        for member in self.replicas:
            if self.on[member] != self.timeline:
                if member.sock is not None:
                    self.sampled.pop(member, None)
                    member.cut()
                self.on[member] = self.timeline
                self.replayed[member] = self.end
                member.connect()

    @invariant()
    def nobody_is_sent_where_less_is_shown(self) -> None:
        if not hasattr(self, "scene"):
            return
        for member in self.replicas:
            position = member.position
            if not position.usable:
                continue
            assert self.on[member] == self.timeline
            assert end_of_record(self.replayed[member]) >= position.replay_lsn
            for moment, lsn in self.seen:
                if self.watcher.known(moment) and position.replay_lsn >= self.watcher.floor_of(moment):
                    assert self.replayed[member] >= lsn
            for other in self.replicas:
                for epoch, moment, lsn in self.seen_on[other]:
                    known = other.position.epoch == epoch and other.position.answered >= moment
                    if other is not member and known and position.replay_lsn >= other.position.bound_lsn:
                        assert self.replayed[member] >= lsn

    @invariant()
    def what_is_required_is_known_together_with_its_floor(self) -> None:
        if hasattr(self, "scene"):
            freshness = self.scene.freshness
            if self.watcher.known(freshness.required):
                assert freshness.floor_lsn == self.watcher.floor_of(freshness.required)


def test_nobody_is_sent_where_less_is_shown(watcher_type: type[Watcher]) -> None:
    World.watcher_type = watcher_type
    run_state_machine_as_test(
        World,
        settings=settings(
            max_examples=200, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


@pytest.mark.parametrize("kind", ["commit", "read"])
def test_the_world_can_tell(kind: str, watcher_type: type[Watcher]) -> None:
    """Of a quiet world in order, what was committed is known to be shown: the property is not empty."""
    World.watcher_type = watcher_type
    world = World()
    world.begin()
    assert world.replicas[0].position.usable
    world.commit(200) if kind == "commit" else world.read_on_the_primary()
    (moment, lsn) = world.seen[-1]
    world.sample(0)
    world.answer(0, 0, 0)
    world.replay(0, 1 << 20)
    world.ask(0)
    world.sample(1)
    world.answer(1, 0, 0)
    assert world.watcher.known(moment)
    assert world.replicas[0].position.replay_lsn >= world.watcher.floor_of(moment) >= end_of_record(lsn)
    world.nobody_is_sent_where_less_is_shown()
    world.teardown()
