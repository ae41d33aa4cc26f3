"""Readiness: what is believed, what is asked, and what a person is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from pgamb.client.member import UsedMember
from pgamb.client.monitor import Asker
from pgamb.client.opener import Opened, Opener
from pgamb.client.reach import KEEP_BAD_S, KEEP_GOOD_S, Reach, unlisted_members
from pgamb.errors import ConnectionFailure, PgambError, PostgresError
from pgamb.observe.snapshot import Readiness
from pgamb.registry.model import Address, Member, PrimaryRecord, Role, Topology
from pgamb.session.backend_login import Credentials

ASKER = Asker("postgres", "monitor", Credentials(password="secret"))


def member(node: str, role: Role = Role.REPLICA) -> Member:
    return Member(node, role, (Address(node, 5432),), 1, "7", 150000)


PG1, PG2, PG3 = member("pg1", Role.PRIMARY), member("pg2"), member("pg3")
WHOLE = Topology("db", (PG1, PG2, PG3), PrimaryRecord("pg1", 1))
HEADLESS = Topology("db", (PG2, PG3), None)


def refusal(sqlstate: str) -> PostgresError:
    return PostgresError({"S": "FATAL", "C": sqlstate, "M": f"refused with {sqlstate}"})


class FakeChannel:
    def close(self) -> None:
        """Nothing is open."""


class FakeOpener(Opener):
    """Members answer unless `errors` has something for their node; `asked` says who was asked, and how."""

    def __init__(self, **errors: PgambError) -> None:
        self.errors = errors
        self.asked: list[tuple[str, str]] = []

    async def _answer(self, how: str, node: str) -> None:
        self.asked.append((how, node))
        await asyncio.sleep(0)
        if node in self.errors:
            raise self.errors[node]

    async def open(
        self,
        member: Member,
        database: str,
        user: str,
        credentials: Credentials,
        parameters: Mapping[str, str] | None = None,
    ) -> Opened:
        await self._answer("log-in", member.node)
        return Opened(FakeChannel(), None, member.addresses[0], (0, ""))  # type: ignore[arg-type]

    async def touch(self, member: Member) -> None:
        await self._answer("touch", member.node)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def reach(
    opener: FakeOpener,
    *,
    asker: Asker | None = ASKER,
    used: Mapping[str, UsedMember] | None = None,
    verified: bool = False,
    unlisted: tuple[Member, ...] = (),
    clock: Clock | None = None,
) -> Reach:
    return Reach(
        opener, asker, dict(used or {}).get, verified=verified, unlisted=unlisted, clock=clock if clock else Clock()
    )


async def test_the_primary_is_asked_and_nobody_else() -> None:
    opener = FakeOpener()
    assert await reach(opener).readiness(WHOLE, None) == Readiness(True, "pg1, the primary, answers")
    assert opener.asked == [("log-in", "pg1")]


async def test_without_a_log_in_a_connection_has_to_do() -> None:
    opener = FakeOpener()
    assert (await reach(opener, asker=None).readiness(WHOLE, None)).ready
    assert opener.asked == [("touch", "pg1")]


async def test_a_replica_alone_is_ready_and_says_what_is_missing() -> None:
    told = await reach(FakeOpener(pg1=ConnectionFailure("pg1: no route"))).readiness(WHOLE, None)
    assert told == Readiness(True, "pg2 answers, but the primary pg1 does not: writes are held")
    told = await reach(FakeOpener()).readiness(HEADLESS, None)
    assert told == Readiness(True, "pg2 answers, but there is no primary: writes are held")


async def test_nobody_answers() -> None:
    opener = FakeOpener(pg1=ConnectionFailure("no route"), pg2=refusal("57P03"), pg3=refusal("53300"))
    told = await reach(opener).readiness(WHOLE, "the registry is away")
    assert told == Readiness(
        False, "no member answers: pg1: no route; pg2: refused with 57P03; pg3: refused with 53300"
    )


@pytest.mark.parametrize("sqlstate", ["28P01", "28000", "3D000"])
async def test_a_server_that_judges_log_ins_is_there(sqlstate: str) -> None:
    alone = Topology("db", (PG1,), PrimaryRecord("pg1", 1))
    assert (await reach(FakeOpener(pg1=refusal(sqlstate))).readiness(alone, None)).ready


async def test_a_member_that_is_marked_down_is_not_asked() -> None:
    opener = FakeOpener()
    down = UsedMember(PG1, down_since=1.0, last_error="Connection refused")
    told = await reach(opener, used={"pg1": down}).readiness(WHOLE, None)
    assert told.reason.startswith("pg2 answers")
    assert ("log-in", "pg1") not in opener.asked
    alone = Topology("db", (PG1,), PrimaryRecord("pg1", 1))
    told = await reach(opener, used={"pg1": down}, verified=True).readiness(alone, None)
    assert told == Readiness(False, "no member answers: pg1: Connection refused")


async def test_members_that_the_registry_has_asked_itself_are_believed() -> None:
    opener = FakeOpener(pg1=ConnectionFailure("no route"))
    assert (await reach(opener, verified=True).readiness(WHOLE, None)).ready
    assert opener.asked == []


async def test_answers_count_for_a_while_the_good_ones_longer() -> None:
    opener, clock = FakeOpener(), Clock()
    asking = reach(opener, clock=clock)
    alone = Topology("db", (PG1,), PrimaryRecord("pg1", 1))
    assert (await asking.readiness(alone, None)).ready
    opener.errors["pg1"] = ConnectionFailure("gone")
    clock.now += KEEP_GOOD_S - 0.1
    assert (await asking.readiness(alone, None)).ready
    clock.now += 0.1
    assert not (await asking.readiness(alone, None)).ready
    assert len(opener.asked) == 2
    opener.errors.clear()
    clock.now += KEEP_BAD_S - 0.1
    assert not (await asking.readiness(alone, None)).ready
    clock.now += 0.1
    assert (await asking.readiness(alone, None)).ready
    assert len(opener.asked) == 3


async def test_who_asks_at_the_same_time_shares_one_question() -> None:
    opener = FakeOpener()
    asking = reach(opener)
    told = await asyncio.gather(*(asking.readiness(WHOLE, None) for _ in range(20)))
    assert all(one.ready for one in told)
    assert opener.asked == [("log-in", "pg1")]


async def test_static_addresses_are_tried_where_nobody_could_ask_yet() -> None:
    unlisted = unlisted_members((Address("pg1", 5432), Address("pg2", 5432)))
    empty = Topology("db")
    opener = FakeOpener()
    told = await reach(opener, asker=None, verified=True, unlisted=unlisted).readiness(empty, "nobody has logged in")
    assert told.ready
    assert opener.asked == [("touch", "pg1:5432")]
    # With a log-in of our own they have been asked, and none has answered.
    told = await reach(FakeOpener(), verified=True, unlisted=unlisted).readiness(empty, "pg1: gone")
    assert told == Readiness(False, "the registry names no member to use: pg1: gone")


async def test_no_topology_and_a_conflict_are_told_apart() -> None:
    told = await reach(FakeOpener()).readiness(None, "10.0.0.9:2379: Connection refused")
    assert told == Readiness(False, "the registry has not answered yet: 10.0.0.9:2379: Connection refused")
    conflict = Topology("db", (PG1, member("pg9", Role.PRIMARY)), None, conflict=("pg1", "pg9"))
    told = await reach(FakeOpener()).readiness(conflict, None)
    assert told == Readiness(False, "pg1 and pg9 claim to be primary at the same time, and there is no replica")
