"""You read what you wrote, and never older than you have read, though reads go to replicas that are late.

In every run some 1,500 rounds a case; `PGAMB_LONG=1` makes it 10,000.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.application import Application
from tests.support.freshness import SHAPES, Shape, connect, late, make_counters, wait_replayed, write_and_read
from tests.support.rising import watch_from_many_sessions
from tests.support.waiting import wait_for_async

LONG = bool(os.environ.get("PGAMB_LONG"))
ROUNDS = 10_000 if LONG else 1_500
EPOCHS = 20 if LONG else 4
SESSIONS = 400 if LONG else 48
DELAY_MS = 300
REPLICAS = ("pg2", "pg3")
SEPARATE = tuple(shape for shape in SHAPES if not shape.pipelined)


@pytest.fixture(scope="module")
def lagging(template: PostgresServer) -> Iterator[Cluster]:
    """A primary and two replicas of this module's own, which its tests delay as they like."""
    with Cluster(agents=False, client=False, etcd=False, template=template) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=["session", "ambassador"])
def promising(request: pytest.FixtureRequest, lagging: Cluster) -> Iterator[tuple[str, Ambassador]]:
    """An ambassador that promises something, and the word for what it promises."""
    with running_ambassador(lagging.servers, "--consistency", request.param, "--pool-size", "8") as ambassador:
        yield request.param, ambassador


@pytest.fixture(scope="module")
def eventual(lagging: Cluster) -> Iterator[Ambassador]:
    with running_ambassador(lagging.servers, "--consistency", "eventual", "--pool-size", "8") as ambassador:
        yield ambassador


@pytest.fixture
def servers(lagging: Cluster) -> list[PostgresServer]:
    """The servers, the primary first, with every counter at 0 everywhere."""
    primary, *replicas = lagging.servers
    make_counters(primary, replicas)
    return lagging.servers


async def members_answer(ambassador: Ambassador) -> None:
    """Wait until both replicas answer reads, each those of other sessions: one session keeps to one of them."""
    found: set[str] = set()

    async def both() -> bool:
        application = await connect(ambassador.port, ambassador.servers[0])
        try:
            found.update((await application.query("SELECT current_setting('cluster_name')")).texts)
        finally:
            application.vanish()
        return found >= set(REPLICAS)

    await wait_for_async(both, 30, "reads are answered by both replicas")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
async def test_no_read_is_older_than_what_was_acknowledged_before_it(
    promising: tuple[str, Ambassador], servers: list[PostgresServer], shape: Shape
) -> None:
    consistency, ambassador = promising
    with late(dict.fromkeys(servers[1:], DELAY_MS)):
        own = consistency == "session"
        evidence = await write_and_read(ambassador, shape, ROUNDS, own=own, epochs=EPOCHS, replicas=REPLICAS)
    assert not evidence.stale, str(evidence)
    assert not evidence.avoided, f"no replica has answered connections {evidence.avoided} again"
    assert len(evidence.reads) >= ROUNDS


@pytest.mark.parametrize("own", [True, False], ids=["own", "anyones"])
@pytest.mark.parametrize("shape", [Shape(), Shape(transaction=True, extended=True)], ids=str)
async def test_without_a_promise_reads_are_stale(
    eventual: Ambassador, servers: list[PostgresServer], shape: Shape, own: bool
) -> None:
    """The control: a loop that finds nothing here would prove nothing above."""
    await members_answer(eventual)
    with late(dict.fromkeys(servers[1:], DELAY_MS)):
        evidence = await write_and_read(eventual, shape, 400, own=own, epochs=1)
    assert len(evidence.stale) > len(evidence.reads) / 4, str(evidence)
    assert {found.member for found in evidence.stale} == set(REPLICAS)


@pytest.mark.parametrize("shape", SEPARATE, ids=str)
async def test_replicas_that_keep_up_answer_the_reads(
    promising: tuple[str, Ambassador], servers: list[PostgresServer], shape: Shape
) -> None:
    consistency, ambassador = promising
    await members_answer(ambassador)
    evidence = await write_and_read(ambassador, shape, ROUNDS, own=consistency == "session", epochs=1)
    assert not evidence.stale, str(evidence)
    assert evidence.share(REPLICAS) >= 0.95, str(evidence)
    assert min(evidence.members[replica] for replica in REPLICAS) > 0, str(evidence)


@pytest.mark.parametrize("transactions", [False, True], ids=["autocommit", "transactions"])
async def test_what_somebody_else_raises_never_falls(
    promising: tuple[str, Ambassador], servers: list[PostgresServer], transactions: bool
) -> None:
    _, ambassador = promising
    await members_answer(ambassador)
    primary, pg2, pg3 = servers
    with late({pg2: 50, pg3: 500}):
        watched = await watch_from_many_sessions(ambassador, primary, transactions=transactions, sessions=SESSIONS)
    assert not watched.falls, str(watched)
    assert not watched.mixed, f"reads of one transaction by several members: {watched.mixed[:5]}"
    assert min(watched.members[replica] for replica in REPLICAS) >= SESSIONS, str(watched)


async def test_without_a_promise_a_counter_falls(eventual: Ambassador, servers: list[PostgresServer]) -> None:
    """The control of the one above."""
    await members_answer(eventual)
    primary, pg2, pg3 = servers
    with late({pg2: 50, pg3: 500}):
        watched = await watch_from_many_sessions(eventual, primary, transactions=False, sessions=12)
    assert watched.falls, str(watched)


async def test_a_floor_is_carried_to_another_process(lagging: Cluster, servers: list[PostgresServer]) -> None:
    """Who is told of a position by another ambassador's session reads nothing older than that."""
    primary, *replicas = servers
    with (
        running_ambassador(servers, "--consistency", "session") as one,
        running_ambassador(servers, "--consistency", "session") as other,
    ):
        await members_answer(other)
        with late(dict.fromkeys(replicas, DELAY_MS)):
            writer = await connect(one.port, primary)
            reader = await connect(other.port, primary)
            try:
                for value in range(1, 6):
                    assert await _value(reader) == value - 1, "nobody has told it"
                    await writer.query("UPDATE counter SET value = value + 1 WHERE key = 0")
                    [position] = (await writer.query("SHOW pgamb.lsn")).texts
                    told = await reader.query(f"SET pgamb.min_lsn = '{position}'")
                    assert told.tags == ["SET"], told.errors
                    assert await _value(reader) == value
                    wait_replayed(primary, replicas)
            finally:
                writer.vanish()
                reader.vanish()


async def _value(application: Application) -> int:
    answer = await application.query("SELECT value FROM counter WHERE key = 0")
    assert not answer.errors, answer.errors
    return int(answer.texts[0])
