"""Many connections over few backends: each answer carries its own connection's token, whatever the others do.

`PGAMB_LONG=1` makes it 500 connections and tens of thousands of statements.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import asyncpg
import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.session.backend_login import Credentials
from pgamb.wire import constants as c
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.application import Answer, Application, Gone
from tests.support.waiting import wait_for_async

LONG = bool(os.environ.get("PGAMB_LONG"))
CONNECTIONS, STEPS = (500, 120) if LONG else (40, 30)
POOL = 10
USER, PASSWORD = "crowd", "many"
# What a round may leave behind in the process: its allocator keeps some of what was used.
GROWTH_BYTES = 12 << 20


@pytest.fixture(scope="module")
def crowded(postgres: PostgresServer) -> Iterator[Ambassador]:
    for sql in (
        f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_read_all_stats",
        "CREATE TABLE mixup (token text, number int)",
        f"GRANT ALL ON mixup TO {USER}",
    ):
        postgres.query(sql)
    with running_ambassador([postgres], "--pool-size", str(POOL), "--prepared-statements", "20") as ambassador:
        yield ambassador


class Member:
    """One of the crowd: it reconnects when it has left, and checks every answer for its own token."""

    def __init__(self, ambassador: Ambassador, number: int, seed: int) -> None:
        self.chance = random.Random(seed * 1_000_003 + number)
        self.token = f"token-{number}-{self.chance.getrandbits(40):x}"
        self.steps = 0
        self.left = 0
        self._ambassador = ambassador
        self._credentials = Credentials(password=PASSWORD)
        self._application: Application | None = None
        self._prepared: set[str] = set()
        self._custom = False
        # What it does, and how often.
        self._deeds: list[tuple[int, Callable[[Application], Awaitable[None]]]] = [
            (8, self.select),
            (8, self.bound),
            (8, self.named),
            (4, self.named_anew),
            (5, self.transaction),
            (3, self.copy_out),
            (3, self.copy_in),
            (3, self.broken_copy),
            (4, self.error),
            (3, self.failed_batch),
            (2, self.cancelled),
            (2, self.late_cancel),
            (4, self.pipeline),
            (3, self.parameter),
            (2, self.pinned),
            (3, self.leave),
        ]

    async def live(self, steps: int) -> None:
        deeds = [deed for _, deed in self._deeds]
        weights = [weight for weight, _ in self._deeds]
        try:
            for _ in range(steps):
                await self.chance.choices(deeds, weights)[0](await self.application())
                self.steps += 1
            if self._application is not None:
                await self._application.close()
                self._application = None
        finally:
            if self._application is not None:
                self._application.vanish()

    async def application(self) -> Application:
        if self._application is None:
            self._application = await Application.connect(
                self._ambassador.port, self._credentials, user=USER, application_name=self.token
            )
            greeting = self._application.greeting
            assert greeting is not None
            self._credentials = Credentials(scram_keys=greeting.scram_keys)
            self._prepared.clear()
            self._custom = False
        return self._application

    def mine(self, answer: Answer, count: int = 1) -> None:
        assert not answer.errors, (self.token, answer)
        assert answer.texts == [self.token] * count, (self.token, answer)

    async def select(self, application: Application) -> None:
        count = self.chance.choice([1, 1, 1, 300])
        answer = await application.query(f"SELECT '{self.token}' FROM generate_series(1, {count})")
        self.mine(answer, count)

    async def bound(self, application: Application) -> None:
        self.mine(await application.run("SELECT $1::text", [self.token.encode()]))

    async def named(self, application: Application) -> None:
        # Everybody uses the same names, each for a text of its own, and some texts are everybody's.
        name = self.chance.choice(["s", "t", "u", "v"])
        sql = "SELECT $1::text" if name == "v" else f"SELECT $1::text WHERE '{self.token}{name}' <> ''"
        known = name in self._prepared
        self._prepared.add(name)
        self.mine(await application.run("" if known else sql, [self.token.encode()], name=name))

    async def named_anew(self, application: Application) -> None:
        name = self.chance.choice(["s", "t", "u", "v"])
        known = name in self._prepared
        if known and self.chance.random() < 0.3:
            answer = await application.query(f"DEALLOCATE {name}")
            assert not answer.errors
        elif known:
            application.say(messages.close(c.STATEMENT, name), messages.sync())
            assert (await application.answer()).kinds == b"3Z"
        else:
            answer = await application.run("", [b"x"], name=name)
            assert answer.sqlstate == "26000", answer
        self._prepared.discard(name)

    async def transaction(self, application: Application) -> None:
        number = self.chance.getrandbits(30)
        assert (await application.query("BEGIN")).status == b"T"
        answer = await application.query(f"INSERT INTO mixup VALUES ('{self.token}', {number}) RETURNING token")
        self.mine(answer)
        self.mine(await application.run("SELECT token FROM mixup WHERE number = $1::int", [str(number).encode()]))
        end = self.chance.choice(["COMMIT", "ROLLBACK"])
        assert (await application.query(end)).tags == [end]
        answer = await application.query(f"SELECT token FROM mixup WHERE number = {number} AND token = '{self.token}'")
        self.mine(answer, 1 if end == "COMMIT" else 0)

    async def copy_out(self, application: Application) -> None:
        answer = await application.query(f"COPY (SELECT '{self.token}' FROM generate_series(1, 500)) TO STDOUT")
        assert answer.copied == [self.token.encode() + b"\n"] * 500, self.token
        assert answer.tags == ["COPY 500"]

    async def copy_in(self, application: Application) -> None:
        number = self.chance.getrandbits(30)
        application.say(messages.query("COPY mixup FROM STDIN"))
        assert (await application.answer(b"GZ")).kinds == b"G"
        lines = [copy_data(f"{self.token}\t{number}\n".encode()) for _ in range(50)]
        application.say(*lines, b"c\0\0\0\4")
        assert (await application.answer()).tags == ["COPY 50"]
        self.mine(await application.query(f"DELETE FROM mixup WHERE number = {number} RETURNING token"), 50)

    async def broken_copy(self, application: Application) -> None:
        application.say(messages.query("COPY mixup FROM STDIN"))
        await application.answer(b"GZ")
        if self.chance.random() < 0.5:
            application.say(copy_data(f"{self.token}\t1\n".encode()), messages.copy_fail(self.token))
            answer = await application.answer()
            assert answer.sqlstate == "57014", answer
            assert self.token in answer.errors[0]["M"]
        else:
            # PostgreSQL gives up at once; what is still sent is for nobody.
            lines = [copy_data(f"{self.token}\tno number\n".encode()) for _ in range(50)]
            application.say(*lines, b"c\0\0\0\4")
            answer = await application.answer()
            assert answer.sqlstate == "22P02", answer
            assert self.token in answer.errors[0]["W"] or "no number" in answer.errors[0]["M"]
        self.mine(await application.query(f"SELECT '{self.token}'"))

    async def error(self, application: Application) -> None:
        answer = await application.query(f"SELECT '{self.token}'::int")
        assert answer.sqlstate == "22P02"
        assert self.token in answer.errors[0]["M"]
        await application.query("BEGIN")
        assert (await application.query("SELECT 1/0")).status == b"E"
        assert (await application.query("SELECT 1")).sqlstate == "25P02"
        assert (await application.query("COMMIT")).tags == ["ROLLBACK"]

    async def failed_batch(self, application: Application) -> None:
        application.say(
            messages.parse("", f"SELECT '{self.token}'::int"),
            messages.bind("", ""),
            messages.execute(""),
            messages.parse("never", "SELECT 1"),
            messages.bind("", "never"),
            messages.execute(""),
            messages.sync(),
        )
        answer = await application.answer()
        assert answer.sqlstate == "22P02"
        assert self.token in answer.errors[0]["M"]
        assert (await application.run("", [], name="never")).sqlstate == "26000"

    async def cancelled(self, application: Application) -> None:
        application.say(messages.query(f"SELECT pg_sleep(60), '{self.token}'"))
        waiting = asyncio.create_task(application.answer())
        while not waiting.done():
            await application.cancel()
            await asyncio.wait([waiting], timeout=0.1)
        assert waiting.result().sqlstate == "57014", waiting.result()

    async def late_cancel(self, application: Application) -> None:
        # What it was meant for has been answered: it may hit nobody, least of all the next one at that backend.
        self.mine(await application.query(f"SELECT '{self.token}'"))
        await application.cancel()
        self.mine(await application.query(f"SELECT '{self.token}'"))

    async def pipeline(self, application: Application) -> None:
        count = self.chance.randint(2, 12)
        bad = self.chance.randrange(count * 2)
        for index in range(count):
            sql = "SELECT 1/0" if index == bad else f"SELECT '{self.token}'"
            application.say(messages.parse("", sql), messages.bind("", ""), messages.execute(""), messages.sync())
        for index in range(count):
            answer = await application.answer()
            if index == bad:
                assert answer.sqlstate == "22012"
            else:
                self.mine(answer)

    async def parameter(self, application: Application) -> None:
        name = self.chance.choice(["application_name", "tenant.id"])
        if name == "application_name" or self._custom:
            self.mine(await application.query(f"SELECT current_setting('{name}')"))
        assert not (await application.query(f"SET {name} = '{self.token}'")).errors
        self._custom = self._custom or name == "tenant.id"
        self.mine(await application.run(f"SELECT current_setting('{name}')"))

    async def pinned(self, application: Application) -> None:
        answer = await application.query(f"CREATE TEMP TABLE own AS SELECT '{self.token}' AS token")
        assert not answer.errors, answer
        self.mine(await application.query("SELECT token FROM own"))
        answer = await application.query("SELECT pg_advisory_lock(hashtext(current_setting('application_name')))")
        assert not answer.errors, answer
        if self.chance.random() < 0.5:
            assert (await application.query("DISCARD ALL")).tags == ["DISCARD ALL"]
            self._prepared.clear()
            self._custom = False
        else:
            self.vanish(application)

    async def leave(self, application: Application) -> None:
        where = self.chance.randrange(7)
        if where == 0:
            application.say(messages.query(f"SELECT '{self.token}', repeat('x', 1000) FROM generate_series(1, 50000)"))
            await application.hear()
        elif where == 1:
            await application.query("BEGIN")
            await application.query(f"INSERT INTO mixup VALUES ('{self.token}', -1)")
        elif where == 2:
            application.say(messages.query("COPY mixup FROM STDIN"))
            await application.answer(b"GZ")
            application.say(copy_data(f"{self.token}\t-1\n".encode())[: self.chance.randint(1, 20)])
        elif where == 3:
            application.say(messages.query(f"SELECT '{self.token}'")[: self.chance.randint(1, 20)])
        elif where == 4:
            application.say(messages.parse("half", f"SELECT '{self.token}'"), messages.bind("", "half"))
        elif where == 5:
            application.say(messages.query(f"SELECT pg_sleep(60), '{self.token}'"))
        else:
            application.say(messages.query(f"SET tenant.id = '{self.token}'"))
        if self.chance.random() < 0.5:
            await asyncio.sleep(0)
        self.vanish(application)

    def vanish(self, application: Application) -> None:
        application.vanish()
        self._application = None
        self.left += 1


def copy_data(data: bytes) -> bytes:
    return b"d" + (len(data) + 4).to_bytes(4, "big") + data


async def crowd(ambassador: Ambassador, connections: int, steps: int, seed: int) -> list[Member]:
    members = [Member(ambassador, number, seed) for number in range(connections)]

    async def live(member: Member) -> None:
        try:
            await member.live(steps)
        except Gone:
            raise AssertionError(f"{member.token} was thrown out after {member.steps} steps") from None

    async with asyncio.TaskGroup() as group:
        for member in members:
            group.create_task(live(member))
    return members


async def all_idle(postgres: PostgresServer) -> None:
    """Wait until PostgreSQL says that nobody of the crowd does anything, or holds anything."""
    busy = (
        f"SELECT pid, state, query FROM pg_stat_activity WHERE usename = '{USER}'"
        " AND (state <> 'idle' OR backend_xid IS NOT NULL OR backend_xmin IS NOT NULL)"
    )
    await wait_for_async(lambda: postgres.query(busy) == [], 30, "every backend is idle")
    locks = f"SELECT l.* FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.usename = '{USER}'"
    assert postgres.query(locks) == []


async def all_clean(ambassador: Ambassador) -> None:
    """Ask each pooled backend, all checked out at once, for what somebody may have left there."""
    async with AsyncExitStack() as stack:
        pids = set()
        for _ in range(POOL):
            dsn = ambassador.dsn(user=USER, password=PASSWORD)
            session = await asyncpg.connect(dsn, statement_cache_size=0)
            stack.push_async_callback(session.close)
            await session.execute("BEGIN")
            pids.add(await session.fetchval("SELECT pg_backend_pid() + 0"))
            # Who asks openly is shown its own statements only.
            held = "SELECT count(*) AS held FROM pg_prepared_statements"
            told = await session.fetchval("SELECT query_to_xml($1, false, true, '')::text", held)
            assert int(re.findall(r"<held>(\d+)</held>", told)[0]) <= 21
            left = await session.fetch(
                """
                SELECT 'statement ' || name FROM pg_prepared_statements WHERE name !~ '^(pgamb_.*)?$'
                UNION ALL SELECT 'cursor ' || name FROM pg_cursors WHERE statement !~ 'pg_cursors'
                UNION ALL SELECT 'channel ' || c FROM pg_listening_channels() AS c
                UNION ALL SELECT 'lock ' || objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
                UNION ALL SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()
                UNION ALL SELECT 'setting ' || name || ' ' || setting FROM pg_settings
                    WHERE source = 'session' AND name <> 'client_encoding'
                UNION ALL SELECT 'custom ' || v FROM current_setting('tenant.id', true) AS v WHERE v <> ''
                """
            )
            assert left == []
            assert await session.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
        assert len(pids) == POOL


async def test_no_answer_goes_astray(crowded: Ambassador, postgres: PostgresServer) -> None:
    await crowd(crowded, CONNECTIONS, STEPS // 2, seed=1)
    await all_idle(postgres)
    before = crowded.resident_bytes
    members = await crowd(crowded, CONNECTIONS, STEPS, seed=2)
    await all_idle(postgres)
    assert sum(member.steps for member in members) == CONNECTIONS * STEPS
    assert sum(member.left for member in members) > CONNECTIONS // 2
    count = postgres.query(f"SELECT count(*)::int FROM pg_stat_activity WHERE usename = '{USER}'")[0][0]
    assert isinstance(count, int)
    assert count <= POOL
    await all_clean(crowded)
    grown = crowded.resident_bytes - before
    assert grown < GROWTH_BYTES, f"the process grew by {grown >> 20} MB"
