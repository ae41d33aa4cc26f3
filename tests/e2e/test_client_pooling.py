"""Pools: who waits for whom, for how long, what is said then, and what PostgreSQL is never asked for."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack

import asyncpg
import psycopg
import pytest

from pgamb.demo.account import unprivileged_account
from pgamb.demo.binaries import find_postgres
from pgamb.demo.postgres import PostgresServer
from pgamb.session.backend_login import Credentials
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.application import Application
from tests.support.servers import running_postgres, server_folder
from tests.support.waiting import wait_for_async

SECONDS = os.environ.get("PGAMB_LONG", "1")


@pytest.fixture(scope="module")
def single(postgres: PostgresServer) -> Iterator[Ambassador]:
    with running_ambassador([postgres], "--pool-size", "1", "--pool-timeout", "1.5") as ambassador:
        yield ambassador


async def application(ambassador: Ambassador) -> Application:
    password = ambassador.servers[0].credentials.superuser
    return await Application.connect(ambassador.port, Credentials(password=password), user="postgres")


# What makes a transaction real, so that it has a backend.
HOLD = "SELECT pg_backend_pid() + 0"


async def test_who_waits_too_long_is_told_what_to_do(single: Ambassador) -> None:
    holder, waiter = await application(single), await application(single)
    assert (await holder.query("BEGIN")).status == b"T"
    await holder.query(HOLD)
    refused = [await waiter.query("SELECT 'simple'"), await waiter.run("SELECT 'extended'")]
    for answer in refused:
        assert answer.sqlstate == "53300", answer
        assert answer.status == b"I"
        error = answer.errors[0]
        assert error["M"] == "no backend became free within 1.5 s"
        assert "The pool of postgres@postgres on pg has 1 backends of 1 (--pool-size), all in use" in error["D"]
        assert holder.greeting is not None
        assert f"Longest held: by the session with pid {holder.greeting.pid}, for " in error["D"]
        assert "--pool-timeout" in error["H"]
    await holder.query("COMMIT")
    # The connection stays, and works.
    assert (await waiter.query("SELECT 'again'")).texts == ["again"]
    await holder.query("CREATE TEMP TABLE pin ()")
    answer = await waiter.query("SELECT 1")
    assert "pinned by temporary" in answer.errors[0]["D"]
    await holder.close()
    assert (await waiter.query("SELECT 'freed'")).texts == ["freed"]
    await waiter.close()


async def test_a_waiting_statement_is_cancelled_at_once(single: Ambassador) -> None:
    holder, waiter = await application(single), await application(single)
    await holder.query("BEGIN")
    await holder.query(HOLD)
    for request in (messages.query("SELECT 1"), messages.parse("", "SELECT 1") + messages.sync()):
        waiter.say(request)
        heard = asyncio.create_task(waiter.answer())
        while not heard.done():
            await waiter.cancel()
            await asyncio.wait([heard], timeout=0.05)
        assert heard.result().sqlstate == "57014"
    await holder.query("COMMIT")
    assert (await waiter.query("SELECT 'after'")).texts == ["after"]
    await holder.close()
    await waiter.close()


async def test_first_come_first_served(postgres: PostgresServer) -> None:
    with running_ambassador([postgres], "--pool-size", "1") as ambassador:
        holder = await application(ambassador)
        waiters = [await application(ambassador) for _ in range(12)]
        gone = waiters[5]
        postgres.query("DROP SEQUENCE IF EXISTS turn; ")
        postgres.query("CREATE SEQUENCE turn")
        await holder.query("BEGIN")
        await holder.query(HOLD)
        for waiter in waiters:
            waiter.say(messages.query("SELECT nextval('turn')"))
            # Arrived: a cancel request's end says that what was sent before it has been read.
            await holder.cancel()
        gone.vanish()
        await holder.query("ROLLBACK")
        holder.say(messages.query("SELECT nextval('turn')"))
        turns = [(await waiter.answer()).texts for waiter in waiters if waiter is not gone]
        last = (await holder.answer()).texts
        numbers = [int(texts[0]) for texts in [*turns, last]]
        assert numbers == sorted(numbers)
        for each in [holder, *waiters]:
            each.vanish()


async def test_session_mode(postgres: PostgresServer) -> None:
    with running_ambassador([postgres], "--pool-size", "2", "--pool-mode", "session") as ambassador:
        one, two, three = [await application(ambassador) for _ in range(3)]
        pid = (await one.query("SELECT pg_backend_pid() + 0")).texts
        other = (await two.query("SELECT pg_backend_pid() + 0")).texts
        await one.query("CREATE TEMP TABLE mine AS SELECT 'one'; SET work_mem = '7MB'; PREPARE p AS SELECT 'p'")
        await one.query("SET application_name = 'never asked for'")
        for _ in range(3):
            assert (await one.query("SELECT pg_backend_pid() + 0")).texts == pid != other
        assert (await one.query("EXECUTE p")).texts == ["p"]
        three.say(messages.query("SELECT pg_backend_pid() + 0, current_setting('work_mem'), to_regclass('mine')"))
        await one.close()
        (row,) = (await three.answer()).rows
        assert [None if field is None else field.decode() for field in row] == [pid[0], "4MB", None]
        assert (await three.query("EXECUTE p")).sqlstate == "26000"
        await two.close()
        await three.close()


async def test_max_connections_of_the_server_are_respected() -> None:
    settings = {"max_connections": "12", "superuser_reserved_connections": "3", "max_wal_senders": "2"}
    with running_postgres(settings=settings) as server:
        for number in range(4):
            server.query(f"CREATE DATABASE base{number}")
        with running_ambassador([server], "--pool-size", "20") as ambassador:
            async with AsyncExitStack() as stack:
                sessions = []
                for number in range(40):
                    session = await asyncpg.connect(ambassador.dsn(database=f"base{number % 4}"))
                    stack.push_async_callback(session.close)
                    sessions.append(session)
                for _ in range(3):
                    answers = await asyncio.gather(
                        *(each.fetchval("SELECT 1 FROM pg_sleep(0.02)") for each in sessions)
                    )
                    assert answers == [1] * 40
                rows = server.query("SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'")
                assert isinstance(rows[0][0], int)
                assert rows[0][0] <= 12


async def test_backends_are_closed_when_they_have_been_idle(postgres: PostgresServer) -> None:
    postgres.query("DROP DATABASE IF EXISTS idlers")
    postgres.query("CREATE DATABASE idlers")
    with running_ambassador([postgres], "--idle-timeout", "1") as ambassador:
        session = await asyncpg.connect(ambassador.dsn(database="idlers"))
        assert await session.fetchval("SELECT 1") == 1
        count = "SELECT count(*)::int FROM pg_stat_activity WHERE datname = 'idlers'"
        await wait_for_async(lambda: postgres.query(count) == [(0,)], 30, "the idle backend is closed")
        # The session has noticed nothing.
        assert await session.fetchval("SELECT 2") == 2
        await session.close()


@pytest.mark.parametrize("mode", ["simple", "extended", "prepared"])
@pytest.mark.parametrize("script", ["tpcb-like", "select-only"])
def test_pgbench(postgres: PostgresServer, benched: Ambassador, mode: str, script: str) -> None:
    run_pgbench(benched, "-n", "-M", mode, "-b", script, "-c", "64", "-j", "2", "-T", SECONDS)


@pytest.fixture(scope="module")
def benched(postgres: PostgresServer) -> Iterator[Ambassador]:
    with running_ambassador([postgres], "--pool-size", "10") as ambassador:
        run_pgbench(ambassador, "-i", "-q", "-s", "1")
        yield ambassador


def run_pgbench(ambassador: Ambassador, *options: str) -> None:
    with server_folder() as folder:
        program = find_postgres(unprivileged_account(), folder).tool("pgbench")
        done = subprocess.run(
            [program, *options, ambassador.dsn()], capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    for word in ("error", "FATAL", "aborted"):
        assert word not in done.stderr, done.stderr
    if "-T" in options:
        assert "number of failed transactions: 0" in done.stdout, done.stdout


def test_a_role_that_may_not_log_in_hears_so_at_once(single: Ambassador, postgres: PostgresServer) -> None:
    postgres.query("DROP ROLE IF EXISTS once")
    postgres.query("CREATE ROLE once LOGIN PASSWORD 'secret'")
    with psycopg.connect(single.dsn(user="once", password="secret"), autocommit=True) as session:
        assert session.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(single.dsn(user="once", password="wrong"))
