"""asyncpg at its ordinary work: the same on PostgreSQL itself and through the ambassador."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import asyncpg
import pytest

from tests.e2e.drivers import Target, ambassador, target
from tests.support.waiting import wait_for_async

__all__ = ["ambassador", "target"]

Session: TypeAlias = "asyncpg.Connection[Any]"
LONG = bool(os.environ.get("PGAMB_LONG"))
LARGE_BYTES = 100 << 20 if LONG else 24 << 20
BIND_BYTES = LARGE_BYTES // 2


@pytest.fixture
async def session(target: Target) -> AsyncIterator[Session]:
    connection = await asyncpg.connect(target.dsn)
    try:
        await connection.execute("DROP TABLE IF EXISTS usual; CREATE TABLE usual (id int PRIMARY KEY, name text)")
        yield connection
    finally:
        await connection.close()


async def test_transactions_and_savepoints(session: Session) -> None:
    async with session.transaction():
        await session.execute("INSERT INTO usual VALUES ($1, $2)", 1, "one")
        with pytest.raises(asyncpg.UniqueViolationError):
            async with session.transaction():
                await session.execute("INSERT INTO usual VALUES ($1, $2)", 1, "again")
    started = session.transaction(isolation="serializable", readonly=True, deferrable=True)
    await started.start()
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await session.execute("INSERT INTO usual VALUES (2, 'two')")
    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await session.fetch("SELECT 1")
    await started.rollback()
    assert await session.fetch("SELECT id FROM usual") == [(1,)]


async def test_statement_cache(target: Target) -> None:
    one = await asyncpg.connect(target.dsn, statement_cache_size=4)
    two = await asyncpg.connect(target.dsn, statement_cache_size=100)
    try:
        for turn in range(60):
            number = turn * 5 % 13
            assert await one.fetchval(f"SELECT $1::int + {number}", turn) == turn + number
            assert await two.fetchval(f"SELECT $1::text || '{number}'", "x") == f"x{number}"
        statement = await one.prepare("SELECT $1::int AS a, $2::text AS b")
        assert [each.name for each in statement.get_parameters()] == ["int4", "text"]
        assert [each.name for each in statement.get_attributes()] == ["a", "b"]
        assert [tuple(row) for row in await statement.fetch(1, "x")] == [(1, "x")]
    finally:
        await one.close()
        await two.close()


async def test_ddl_under_a_cached_statement(session: Session, target: Target) -> None:
    await session.execute("INSERT INTO usual VALUES (1, 'one')")
    assert await session.fetch("SELECT * FROM usual WHERE id = $1", 1) == [(1, "one")]
    other = await asyncpg.connect(target.dsn)
    await other.execute("ALTER TABLE usual ADD COLUMN more int")
    await other.close()
    # asyncpg hears of it, forgets its cache, and prepares the same text anew.
    assert await session.fetch("SELECT * FROM usual WHERE id = $1", 1) == [(1, "one", None)]


async def test_types_that_it_asks_the_server_about(session: Session) -> None:
    await session.execute("DROP TYPE IF EXISTS mood CASCADE")
    await session.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    assert await session.fetchval("SELECT $1::mood", "happy") == "happy"
    assert await session.fetchval("SELECT $1::mood[]", ["sad", "happy"]) == ["sad", "happy"]
    assert await session.fetchval("SELECT ROW(1, 'x')::usual") == (1, "x")


async def test_copy_both_ways(session: Session) -> None:
    records = [(number, f"name {number}") for number in range(20000)]
    assert await session.copy_records_to_table("usual", records=records) == "COPY 20000"
    into = io.BytesIO()
    assert await session.copy_from_query("SELECT * FROM usual WHERE id < $1 ORDER BY id", 3, output=into) == "COPY 3"
    assert into.getvalue() == b"0\tname 0\n1\tname 1\n2\tname 2\n"
    with pytest.raises(asyncpg.UniqueViolationError):
        await session.copy_records_to_table("usual", records=records)
    bad = io.BytesIO(b"".join(b"%d\tx\n" % n for n in range(50000, 51000)) + b"no number\tx\n" * 1000)
    with pytest.raises(asyncpg.DataError):
        await session.copy_to_table("usual", source=bad)

    async def broken() -> AsyncIterator[bytes]:
        yield b"60000\tx\n"
        raise KeyError

    with pytest.raises(KeyError):
        await session.copy_to_table("usual", source=broken())
    assert await session.fetchval("SELECT count(*) FROM usual") == 20000


async def test_cursors(session: Session) -> None:
    async with session.transaction():
        seen = [row[0] async for row in session.cursor("SELECT generate_series(1, $1::int)", 500, prefetch=7)]
        assert seen == list(range(1, 501))
        cursor = await session.cursor("SELECT generate_series(1, 100)")
        assert await cursor.fetchrow() == (1,)
        assert await cursor.forward(10) == 10
        assert await session.fetchval("SELECT 'between'") == "between"
        assert await cursor.fetch(2) == [(12,), (13,)]


async def test_a_timeout_cancels(session: Session) -> None:
    with pytest.raises(TimeoutError):
        await session.fetch("SELECT pg_sleep(60)", timeout=0.3)
    assert await session.fetchval("SELECT 1") == 1
    task = asyncio.create_task(session.fetch("SELECT pg_sleep(60)"))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await session.fetchval("SELECT 2") == 2
    async with session.transaction():
        with pytest.raises(TimeoutError):
            async with session.transaction():
                await session.execute("SELECT pg_sleep(60)", timeout=0.2)
        assert await session.fetchval("SELECT 3") == 3


async def test_large_results_and_parameters(session: Session) -> None:
    assert len(await session.fetchval("SELECT repeat('x', $1)", LARGE_BYTES)) == LARGE_BYTES
    rows = await session.fetch("SELECT repeat('y', 100000) FROM generate_series(1, 200)")
    assert sum(len(row[0]) for row in rows) == 20_000_000
    bound = b"z" * BIND_BYTES
    assert await session.fetchval("SELECT length($1::bytea)", bound) == BIND_BYTES
    assert await session.fetchval("SELECT $1::bytea", bound) == bound
    assert await session.fetchval("SELECT 1") == 1


async def test_executemany(session: Session) -> None:
    await session.executemany("INSERT INTO usual VALUES ($1, $2)", [(n, "x" * 100) for n in range(3000)])
    assert await session.fetchval("SELECT count(*) FROM usual") == 3000
    with pytest.raises(asyncpg.UniqueViolationError):
        await session.executemany("INSERT INTO usual VALUES ($1, $2)", [(n, "y") for n in range(2990, 3200)])
    assert await session.fetchval("SELECT count(*) FROM usual") == 3000


async def test_listen_and_notify(session: Session, target: Target) -> None:
    heard: list[object] = []
    await session.add_listener("news", lambda *event: heard.append(event[-1]))
    other = await asyncpg.connect(target.dsn)
    await other.execute("SELECT pg_notify('news', 'while idle')")
    await wait_for_async(lambda: heard == ["while idle"], 20, "the notification")
    await session.execute("NOTIFY news, 'own'")
    await wait_for_async(lambda: heard == ["while idle", "own"], 20, "our own notification")
    await session.reset()
    await other.execute("SELECT pg_notify('news', 'unheard')")
    assert await session.fetchval("SELECT 1") == 1
    assert len(heard) == 2
    await other.close()


async def test_notices_and_settings(session: Session) -> None:
    logged: list[str] = []
    session.add_log_listener(lambda _, message: logged.append(message.message))
    await session.execute("DO $$ BEGIN RAISE NOTICE 'one'; END $$")
    await session.execute("SET application_name = 'renamed'")
    assert session.get_settings().application_name == "renamed"
    await session.execute("RESET ALL")
    await wait_for_async(lambda: logged == ["one"], 20, "the notice")


async def test_a_pool_of_the_drivers_own(target: Target) -> None:
    settings = {"application_name": "pooled", "search_path": "public", "work_mem": "5MB"}
    async with asyncpg.create_pool(target.dsn, min_size=2, max_size=12, server_settings=settings) as pool:

        async def work(number: int) -> None:
            async with pool.acquire() as session, session.transaction():
                assert await session.fetchval("SELECT $1::int", number) == number
                await session.execute("SET LOCAL work_mem = '6MB'")
                assert await session.fetchval("SHOW work_mem") == "6MB"

        await asyncio.gather(*(work(number) for number in range(60)))
        assert await pool.fetchval("SHOW work_mem") == "5MB"
