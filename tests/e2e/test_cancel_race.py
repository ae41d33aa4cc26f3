"""Many sessions over few backends cancel at random moments, also too late: only what was asked for is canceled.

`PGAMB_LONG=1` makes it ten times as long.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.session.backend_login import Credentials
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.application import Answer, Application

SESSIONS, STEPS, POOL = 24, 40, 3
LONG = 10 if os.environ.get("PGAMB_LONG") else 1
CANCELED = "57014"


@pytest.fixture(scope="module")
def crowded(postgres: PostgresServer) -> Iterator[Ambassador]:
    postgres.query("CREATE TABLE IF NOT EXISTS race (n int)")
    with running_ambassador([postgres], "--pool-size", str(POOL)) as ambassador:
        yield ambassador


@pytest.fixture(scope="module")
def split(bare_cluster: Cluster) -> Iterator[Ambassador]:
    bare_cluster.primary.query("CREATE TABLE IF NOT EXISTS race (n int)")
    with running_ambassador(bare_cluster.servers, "--pool-size", str(POOL)) as ambassador:
        yield ambassador


@dataclass(slots=True)
class Session:
    """One of the crowd. A request to cancel is under way from its first byte until pgamb has closed its connection."""

    chance: random.Random
    application: Application
    asked: int = 0
    met: int = 0
    wrong: list[str] = field(default_factory=list)

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            deed = self.chance.choice([self.plain, self.plain, self.bound, self.block, self.parameter, self.pipeline])
            await deed()

    async def plain(self) -> None:
        await self.run(messages.query(self.sql()))

    async def bound(self) -> None:
        await self.run(self.extended(self.sql()))

    async def pipeline(self) -> None:
        """Two batches at once; the request may meet either."""
        await self.run(self.extended(self.sql()) + self.extended(self.sql()), answers=2)

    async def parameter(self) -> None:
        await self.run(messages.query(f"SET work_mem = '{self.chance.randint(1, 9)}MB'"))

    async def block(self) -> None:
        await self.run(messages.query("BEGIN"), hurry=True)
        for _ in range(self.chance.randint(1, 3)):
            await self.run(messages.query(self.sql()))
        answer = await self.run(messages.query("ROLLBACK"), hurry=True)
        if answer.status != b"I":
            # The request has met the ROLLBACK itself.
            await self.settle("ROLLBACK")

    async def settle(self, sql: str) -> None:
        answer = await self.application.query(sql)
        if answer.sqlstate or answer.status != b"I":
            self.wrong.append(f"{sql}: {answer.errors} {answer.status!r}")

    def sql(self) -> str:
        nap = self.chance.choice(["0", "0.0005", "0.002", "0.01"])
        return self.chance.choice(
            [
                f"SELECT pg_sleep({nap})",
                f"INSERT INTO race SELECT 1 FROM pg_sleep({nap})",
                "SELECT 1",
                f"SELECT 1; SELECT pg_sleep({nap})",
            ]
        )

    def extended(self, sql: str) -> bytes:
        name = self.chance.choice(["", "s"])
        sql = sql.rpartition("; ")[2]
        close = messages.close(b"S", "s") if name else b""
        return close + messages.parse(name, sql) + messages.bind("", name, []) + messages.execute("") + messages.sync()

    async def run(self, said: bytes, *, answers: int = 1, hurry: bool = False) -> Answer:
        """Say it, perhaps with a request to cancel it, which may come when it has been answered."""
        self.application.say(said)
        request: asyncio.Task[None] | None = None
        if self.chance.random() < 0.5:
            request = asyncio.create_task(self.request(0 if hurry else self.chance.choice([0, 0.0005, 0.002, 0.01])))
        answer = Answer()
        for _ in range(answers):
            answer = await self.application.answer()
            if answer.sqlstate == CANCELED:
                self.met += 1
                if request is None:
                    self.wrong.append(f"{said!r} was canceled, and nobody had asked for it")
            elif answer.sqlstate not in ("", "25P02"):
                self.wrong.append(f"{said!r}: {answer.errors}")
        if request is not None:
            # From here on nothing may be met by it.
            await request
        return answer

    async def request(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        self.asked += 1
        await self.application.cancel()


async def crowd(ambassador: Ambassador, seed: int) -> list[Session]:
    credentials = Credentials(password=ambassador.servers[0].credentials.superuser)
    sessions = [
        Session(
            random.Random(seed * 1000 + n), await Application.connect(ambassador.port, credentials, user="postgres")
        )
        for n in range(SESSIONS)
    ]
    async with asyncio.TaskGroup() as group:
        for session in sessions:
            group.create_task(session.live(STEPS * LONG))
    for session in sessions:
        await session.application.close()
    return sessions


async def test_nothing_is_canceled_that_nobody_asked_for(crowded: Ambassador) -> None:
    sessions = await crowd(crowded, 1)
    assert [wrong for session in sessions for wrong in session.wrong] == []
    # It is a race: neither side always wins it.
    asked, met = sum(session.asked for session in sessions), sum(session.met for session in sessions)
    assert 0.02 * asked < met < 0.98 * asked, (asked, met)


async def test_nor_where_reads_move_between_members(split: Ambassador) -> None:
    sessions = await crowd(split, 2)
    assert [wrong for session in sessions for wrong in session.wrong] == []


async def test_what_certainly_runs_is_always_canceled(crowded: Ambassador) -> None:
    credentials = Credentials(password=crowded.servers[0].credentials.superuser)
    applications = [await Application.connect(crowded.port, credentials, user="postgres") for _ in range(SESSIONS)]

    async def certain(application: Application, number: int) -> None:
        for turn in range(4 * LONG):
            # Most of them wait for one of the few backends.
            application.say(messages.query("SELECT pg_sleep(30)" if (number + turn) % 2 else "SELECT pg_sleep(30), 1"))
            await asyncio.sleep(0.005)
            await application.cancel()
            answer = await application.answer()
            assert answer.sqlstate == CANCELED, answer.errors
            answer = await application.query("SET work_mem = '3MB'")
            assert answer.sqlstate == ""

    async with asyncio.TaskGroup() as group:
        for number, application in enumerate(applications):
            group.create_task(certain(application, number))
    for application in applications:
        await application.close()
