"""What replicas are asked, when they may be read from, and who waits for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pgamb.relay.answers import Answers
from tests.support.scripted import Scene, scene
from tests.support.waiting import wait_for_async

if TYPE_CHECKING:
    from tests.support.watcher import Watcher

UNKNOWN = (1 << 64) - 1
REPLAY = "pg_last_wal_replay_lsn"
PAUSE = "pg_sleep"


# Replicas.


def test_a_replica_is_usable_when_it_has_answered() -> None:
    with scene() as made:
        replica = made.replicas[0]
        assert not replica.is_usable()
        assert replica.position.why_not == "not connected yet"
        made.use()
        replica.connect()
        assert not replica.is_usable()
        assert replica.position.why_not == "it has not told its position yet"
        replica.answer_position(0x1000)
        assert replica.is_usable()
        assert replica.position.why_not == ""
        epoch = replica.position.epoch
        replica.cut()
        assert not replica.is_usable()
        assert replica.position.epoch == epoch + 1
        assert replica.position.why_not == "the server closed the connection unexpectedly"
        replica.connect()
        assert not replica.is_usable()


def test_what_was_seen_on_a_replica_is_bounded_by_its_next_answer(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher, replica = watcher_type(settled.freshness), settled.replicas[0]
    watcher.ask_replica(replica.position)
    seen = watcher.moment_of(replica.position)
    watcher.ask_replica(replica.position)
    assert len(replica.questions()) == 1
    replica.answer_position(0x1000, 0x1100)
    assert replica.position.answered < seen
    watcher.ask_replica(replica.position)
    replica.answer_position(0x1200, 0x1300)
    assert replica.position.answered >= seen
    assert (replica.position.replay_lsn, replica.position.bound_lsn) == (0x1200, 0x1300)
    watcher.ask_replica(replica.position)
    replica.answer("0/1400", None)
    assert replica.position.bound_lsn == UNKNOWN


def test_a_server_that_is_no_replica_has_no_position(settled: Scene) -> None:
    replica = settled.replicas[0]
    settled.freshness.survey()
    replica.answer(None, None, "1")
    assert replica.refused
    assert "role" in replica.position.asker.trouble


def test_lag_in_bytes(watcher_type: type[Watcher]) -> None:
    with scene(max_lag_bytes=0x1000) as made:
        made.settle()
        position, watcher = made.replicas[0].position, watcher_type(made.freshness)
        watcher.committed()
        made.primary.answer_floor(0x2001)
        watcher.ask_replica(position)
        made.replicas[0].answer_position(0x1000)
        assert position.lag_bytes == 0x1001
        assert not made.replicas[0].is_usable()
        assert "--max-lag" in position.why_not
        watcher.ask_replica(position)
        made.replicas[0].answer_position(0x1001)
        assert made.replicas[0].is_usable()
        watcher.ask_replica(position)
        made.replicas[0].answer_position(0x3000)
        assert position.lag_bytes == 0


async def test_lag_in_seconds(watcher_type: type[Watcher]) -> None:
    with scene(max_lag_s=0.1) as made:
        made.settle()
        replica, watcher = made.replicas[0], watcher_type(made.freshness)
        watcher.committed()
        made.primary.answer_floor(0x2000)

        def lags() -> bool:
            watcher.ask_replica(replica.position)
            replica.answer_position(0x1000)
            return not replica.position.usable

        await wait_for_async(lags, 10, "it lags")
        assert 0.1 < replica.position.lag_s < 10
        assert watcher.behind(replica.position)
        watcher.ask_replica(replica.position)
        replica.answer_position(0x2000)
        assert replica.position.lag_s == 0
        assert replica.is_usable()
        assert not watcher.behind(replica.position)


def test_answers_reach_back_as_far_as_lag_is_told() -> None:
    # Of a busy primary the last hundred answers are a few milliseconds: no replica was ever called late.
    recent, spaced = Answers(), Answers(1.0)
    for number in range(1, 100_001):
        for ring in (recent, spaced):
            ring.push(number, number * 8, number * 0.001)
    assert recent.missing_since(50_000 * 8) == pytest.approx(99.873, abs=0.01)
    assert spaced.missing_since(50_000 * 8) == pytest.approx(50.001, abs=1.0)
    assert spaced.missing_since(100_000 * 8) == 0
    assert recent.floor_of(1) == (100_000 - 127) * 8
    assert recent.floor_of(99_990) == 99_990 * 8
    assert recent.floor_of(100_001) == 0


def test_answers_that_tell_the_same_take_one_place() -> None:
    ring = Answers()
    for number in range(1, 1001):
        ring.push(number, 0x1000, float(number))
    ring.push(1001, 0x2000, 1001.0)
    assert ring.count == 2
    assert ring.floor_of(1) == ring.floor_of(1000) == 0x1000
    assert ring.floor_of(1001) == 0x2000
    assert ring.missing_since(0xFFF) == 1.0
    assert ring.missing_since(0x1000) == 1001.0
    assert ring.missing_since(0x2000) == 0.0


# Waiting.


def test_while_somebody_waits_the_replica_is_asked_again(settled: Scene, watcher_type: type[Watcher]) -> None:
    watcher, replica = watcher_type(settled.freshness), settled.replicas[0]
    watcher.wait(replica.position)
    assert settled.freshness.waiting_count == 1
    question = replica.answer_position(0x1000)
    assert PAUSE not in question
    assert watcher.told == [False]
    assert PAUSE in replica.answer_position(0x1100)
    assert watcher.told == [False, False]
    watcher.react = lambda last: watcher.forget()
    replica.answer_position(0x1200)
    assert not replica.questions()
    assert settled.freshness.waiting_count == 0
    watcher.forget()


def test_who_comes_while_a_question_is_under_way_is_not_made_to_pause(
    settled: Scene, watcher_type: type[Watcher]
) -> None:
    replica = settled.replicas[0]
    first, second = watcher_type(settled.freshness), watcher_type(settled.freshness)
    first.wait(replica.position)
    replica.answer_position(0x1000)
    (question,) = replica.questions()
    assert PAUSE in question
    second.wait(replica.position)
    replica.answer_position(0x1000)
    (question,) = replica.questions()
    assert PAUSE not in question


def test_the_primarys_answer_is_told_to_all_who_wait(settled: Scene, watcher_type: type[Watcher]) -> None:
    one, other, third = (watcher_type(settled.freshness) for _ in range(3))
    one.wait(settled.replicas[0].position)
    other.wait(settled.replicas[1].position)
    third.wait(None)
    one.committed()
    settled.primary.answer_floor(0x2000)
    assert one.told == other.told == third.told == [False]
    settled.replicas[0].answer_position(0x2000)
    assert one.told == [False, False]
    assert other.told == third.told == [False]


async def test_a_wait_ends_after_its_time(watcher_type: type[Watcher]) -> None:
    with scene(replica_wait_s=0.05) as made:
        made.settle()
        watcher, loop = watcher_type(made.freshness), made.loop
        replica = made.replicas[0]
        watcher.wait(replica.position)
        replica.answer_position(0x1000)
        started = loop.time()
        # Who waits already keeps its deadline, whatever it waits for.
        loop.call_later(0.03, watcher.wait, made.replicas[1].position)
        late = watcher_type(made.freshness)
        loop.call_later(0.03, late.wait, replica.position)
        await asyncio.to_thread(loop.run_until_complete, asyncio.sleep(0.06))
        assert watcher.told == [False, True]
        assert late.told == []
        assert made.freshness.waiting_count == 1
        await asyncio.to_thread(loop.run_until_complete, asyncio.sleep(0.05))
        assert late.told == [True]
        assert loop.time() - started < 5
        assert made.freshness.waiting_count == 0
        assert (made.freshness.waits, made.freshness.waits_ended_by_timeout) == (2, 2)


def test_who_waits_for_a_replica_that_is_lost_waits_no_longer(settled: Scene, watcher_type: type[Watcher]) -> None:
    one, other = watcher_type(settled.freshness), watcher_type(settled.freshness)
    one.wait(settled.replicas[0].position)
    other.wait(settled.replicas[1].position)
    settled.replicas[0].cut()
    assert one.told == [True]
    assert other.told == []
    assert settled.freshness.waiting_count == 1
    # ... nor for one that is no replica any more.
    settled.freshness.use(settled.primary.asker, 1, [settled.replicas[0].asker])
    assert other.told == [True]
    assert settled.freshness.waits_ended_by_timeout == 0


def test_a_waiter_may_wait_again_when_it_is_told(settled: Scene, watcher_type: type[Watcher]) -> None:
    one, other = watcher_type(settled.freshness), watcher_type(settled.freshness)
    first, second = settled.replicas
    one.wait(first.position)
    other.wait(first.position)

    def change(last: bool) -> None:
        one.forget()
        other.forget()
        one.wait(second.position)

    one.react = change
    first.answer_position(0x1000)
    assert one.told == [False]
    assert other.told == []
    assert not first.questions()
    assert second.questions()
    one.react = None
    second.answer_position(0x1000)
    assert one.told == [False, False]


def test_a_defect_of_one_waiter_harms_no_other(settled: Scene, watcher_type: type[Watcher]) -> None:
    def fail(last: bool) -> None:
        raise RuntimeError("a defect")

    bad, good = watcher_type(settled.freshness), watcher_type(settled.freshness)
    bad.react = fail
    replica = settled.replicas[0]
    bad.wait(replica.position)
    good.wait(replica.position)
    replica.answer_position(0x1000)
    assert good.told == [False]
    assert replica.asker.connected
    assert [str(failure) for failure in settled.failures] == ["a defect"]
    settled.failures.clear()
    bad.react = None


def test_postgresql_19_waits_by_itself(watcher_type: type[Watcher]) -> None:
    # Only what is sent: there is no such server to be had yet.
    with scene() as made:
        replica = made.replicas[0]
        replica.version = 190000
        made.settle()
        one, other = watcher_type(made.freshness), watcher_type(made.freshness)
        one.wait(replica.position, 0x3000)
        wait, question = replica.questions()
        assert wait == "WAIT FOR LSN '0/3000' WITH (MODE 'standby_replay', TIMEOUT '20ms', NO_THROW)"
        assert REPLAY in question
        other.wait(replica.position, 0x2000)
        replica.answer("success")
        replica.answer_position(0x1800)
        assert one.told == other.told == [False]
        assert replica.questions()[0].startswith("WAIT FOR LSN '0/2000' ")
        # What it refuses does not keep the question from its answer.
        replica.refuse("42601", "syntax error")
        replica.answer_position(0x2000)
        assert replica.position.replay_lsn == 0x2000
        # The lowest has been reached, and somebody waits for something else: no busy loop.
        (question,) = replica.questions()
        assert PAUSE in question
