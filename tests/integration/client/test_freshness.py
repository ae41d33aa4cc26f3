"""What the primary is asked when, and what its answers are worth: members that answer when the test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.scripted import Scene, scene

if TYPE_CHECKING:
    from tests.support.watcher import Watcher

FLOOR = "pg_current_wal_insert_lsn"
TIMELINE = "received_tli"


def test_one_question_serves_all_commits_before_it(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher, freshness = watcher_type(settled.freshness), settled.freshness
    watcher.committed()
    first = freshness.required
    assert len(settled.primary.questions()) == 1
    # The question is on its way: it may have been answered before these.
    watcher.committed()
    watcher.committed()
    second = freshness.required
    assert second == first + 1
    assert len(settled.primary.questions()) == 1
    settled.primary.answer_floor(0x2000)
    assert watcher.known(first)
    assert watcher.floor_of(first) == 0x2000
    assert not watcher.known(second)
    assert len(settled.primary.questions()) == 1
    settled.primary.answer_floor(0x3000)
    assert watcher.floor_of(second) == freshness.floor_lsn == 0x3000
    assert watcher.floor_of(first) == 0x2000
    assert not settled.primary.questions()


def test_what_was_seen_is_covered_by_the_next_question(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher = watcher_type(settled.freshness)
    watcher.committed()
    seen = watcher.moment()
    watcher.ask(seen)
    settled.primary.answer_floor(0x2000)
    assert not watcher.known(seen)
    settled.primary.answer_floor(0x2800)
    assert watcher.floor_of(seen) == 0x2800
    watcher.ask(seen)
    assert not settled.primary.questions()


def test_nothing_is_required_before_the_first_commit(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher = watcher_type(settled.freshness)
    assert settled.freshness.required == 0
    assert watcher.known(0)
    assert watcher.floor_of(0) == settled.freshness.floor_lsn == 0


def test_a_page_header_is_taken_off(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher = watcher_type(settled.freshness)
    watcher.committed()
    settled.primary.answer_floor(0x1375C018)
    assert settled.freshness.floor_lsn == 0x1375C000


def test_a_question_that_was_lost_is_put_again(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher = watcher_type(settled.freshness)
    watcher.committed()
    required = settled.freshness.required
    settled.primary.cut()
    assert settled.primary.lost
    watcher.committed()
    assert not watcher.known(required)
    settled.primary.connect()
    (question,) = settled.primary.questions()
    assert FLOOR in question
    settled.primary.answer_floor(0x5000)
    assert watcher.floor_of(required) == settled.freshness.floor_lsn == 0x5000
    assert watcher.known(settled.freshness.required)


def test_a_question_that_was_refused_is_put_again_at_the_next_survey(
    settled: Scene, watcher_type: type[Watcher]
) -> None:
    watcher = watcher_type(settled.freshness)
    watcher.committed()
    required = settled.freshness.required
    settled.primary.refuse("55000", "recovery is in progress")
    assert settled.primary.refused == ["recovery is in progress"]
    assert not settled.primary.questions()
    assert not watcher.known(required)
    settled.freshness.survey()
    settled.primary.answer_floor(0x2000)
    assert watcher.floor_of(required) == 0x2000


def test_what_was_known_stays_known_while_the_primary_is_away(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher = watcher_type(settled.freshness)
    watcher.committed()
    settled.primary.answer_floor(0x2000)
    settled.primary.cut()
    assert watcher.known(settled.freshness.required)
    assert settled.freshness.floor_lsn == 0x2000
    # A server that crashed may have lost what lay behind its last flush: its first answer replaces the others.
    settled.primary.connect()
    settled.primary.answer_floor(0x1800)
    assert settled.freshness.floor_lsn == watcher.floor_of(settled.freshness.required) == 0x1800


def test_an_answer_that_is_no_position_ends_the_connection(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher_type(settled.freshness).committed()
    settled.primary.answer("everywhere")
    assert not settled.primary.asker.connected
    assert "no position" in settled.primary.lost[0].message


@pytest.mark.parametrize("consistency", ["session", "ambassador", "eventual"])
def test_who_does_not_ask_for_consistency_is_not_asked_for_it(consistency: str, watcher_type: type[Watcher]) -> None:
    with scene(consistency=consistency) as made:
        made.settle()
        watcher = watcher_type(made.freshness)
        watcher.committed()
        assert made.freshness.required == 2
        assert made.freshness.tracks == (consistency != "eventual") == bool(made.primary.questions())
        assert made.freshness.everyone == (consistency == "ambassador")


# Timelines.


def test_no_floor_survives_its_timeline(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher, freshness = watcher_type(settled.freshness), settled.freshness
    watcher.committed()
    old = freshness.required
    settled.primary.answer_floor(0x9000)
    watcher.committed()
    lost = freshness.required
    new, left = settled.replicas
    settled.use(2, new)
    assert freshness.timeline == 2
    assert not watcher.known(old)
    assert not watcher.known(lost)
    # The question to the old primary is answered after all.
    settled.primary.answer_floor(0xA000)
    assert not watcher.known(old)
    assert not watcher.known(lost)
    new.answer_floor(0x4000)
    assert watcher.floor_of(old) == watcher.floor_of(lost) == freshness.floor_lsn == 0x4000
    # A replica counts when it is known to be on the new timeline.
    left.answer_position(0x9000) if left.questions() else None
    freshness.survey()
    left.answer_position(0x9000, timeline=1)
    assert not left.is_usable()
    assert left.position.why_not == "on timeline 1, the primary is on 2"
    freshness.survey()
    left.answer_position(0x4000, timeline=2)
    assert left.is_usable()


def test_an_answer_from_before_the_change_counts_for_nothing_on_the_same_connection(
    settled: Scene, watcher_type: type[Watcher]
) -> None:
    watcher = watcher_type(settled.freshness)
    watcher.committed()
    settled.use(2)
    settled.primary.answer_floor(0x9000)
    assert not watcher.known(settled.freshness.required)
    settled.primary.answer_floor(0x4000)
    assert settled.freshness.floor_lsn == 0x4000


def test_the_registry_may_know_of_a_timeline_before_the_replica_tells(settled: Scene) -> None:
    replica = settled.replicas[0]
    settled.use(2)
    assert not replica.is_usable()
    replica.position.reached(2)
    assert replica.is_usable()
    replica.position.reached(1)
    assert replica.position.timeline == 2


def test_a_server_that_comes_back_tells_its_timeline_anew(settled: Scene) -> None:
    # Restored from an old backup it would be on the branch that the timeline left.
    replica = settled.replicas[0]
    settled.use(2)
    settled.freshness.survey()
    replica.answer_position(0x2000, timeline=2)
    assert replica.is_usable()
    replica.cut()
    replica.connect()
    replica.answer_position(0x9000, timeline=1)
    assert not replica.is_usable()


def test_a_replica_on_another_timeline_is_asked_for_it(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher, replica = watcher_type(settled.freshness), settled.replicas[0]
    watcher.ask_replica(replica.position)
    assert TIMELINE not in replica.answer_position(0x1000)
    settled.use(2)
    watcher.ask_replica(replica.position)
    assert TIMELINE in replica.answer_position(0x1000, timeline=2)
    assert replica.is_usable()


# The control plane's rounds.


def test_a_survey_asks_all(settled: Scene) -> None:
    settled.freshness.survey()
    assert [FLOOR in question for question in settled.primary.questions()] == [True]
    for replica in settled.replicas:
        assert [TIMELINE in question for question in replica.questions()] == [True]
    settled.freshness.survey()
    assert len(settled.primary.questions()) == 1
    assert settled.primary.asker.overdue(float("inf"))
    settled.primary.answer_floor(0x1000)
    assert not settled.primary.questions()
    assert not settled.primary.asker.overdue(float("inf"))


def test_commits_before_there_was_a_replica_count_when_there_is_one(watcher_type: type[Watcher]) -> None:
    with scene() as made:
        made.freshness.use(made.primary.asker, 1, [])
        made.primary.connect()
        made.primary.answer_floor(0x1000)
        watcher = watcher_type(made.freshness)
        watcher.committed()
        assert not made.freshness.tracks
        assert not made.primary.questions()
        made.use()
        made.primary.answer_floor(0x2000)
        assert made.freshness.floor_lsn == watcher.floor_of(made.freshness.required) == 0x2000


def test_a_member_is_told_goodbye(settled: Scene) -> None:
    replica = settled.replicas[0]
    replica.asker.close()
    assert replica.sock is not None
    assert replica.sock.recv(100) == b"X\0\0\0\4"
    assert not replica.lost
    assert not replica.is_usable()
