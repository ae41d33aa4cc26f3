"""Probing a real PostgreSQL: what it says of itself, and the ways in which it may not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.errors import ConfigError
from pgamb.registry.model import Address
from pgamb.server.probe import APPLICATION_NAME, Prober
from pgamb.server.reading import Reading, Unreachable
from pgamb.server.target import Target, parse_target

DEADLINE_S = 5.0


@asynccontextmanager
async def probing(target: Target, **options: object) -> AsyncIterator[Prober]:
    prober = Prober(target, **options)  # type: ignore[arg-type]
    try:
        yield prober
    finally:
        prober.close()
        # asyncpg ends a transport in the next turn of the loop.
        await asyncio.sleep(0)


async def reading(prober: Prober) -> Reading:
    probe = await prober.probe()
    assert isinstance(probe, Reading), probe
    return probe


async def test_a_primary_tells_all(postgres: PostgresServer) -> None:
    async with probing(parse_target(postgres.dsn())) as prober:
        probe = await reading(prober)
    assert not probe.in_recovery
    assert probe.timeline == 1
    assert probe.system_identifier == postgres.control["Database system identifier"]
    assert probe.cluster_name == "pg"
    assert probe.max_connections == 200
    assert probe.connections is not None
    assert probe.connections >= 1
    assert probe.wal_lsn
    assert (probe.replay_lsn, probe.lag_bytes, probe.lag_s) == (None, None, None)
    assert probe.server_version == int(str(postgres.query("SHOW server_version_num")[0][0]))


async def test_a_unix_socket_and_a_role_without_any_rights_do(postgres: PostgresServer) -> None:
    assert postgres.socket_folder is not None
    postgres.query("DROP ROLE IF EXISTS probe_nobody")
    postgres.query("CREATE ROLE probe_nobody LOGIN PASSWORD 'x'")
    dsn = f"postgresql://probe_nobody:x@/postgres?host={postgres.socket_folder}&port={postgres.port}"
    target = parse_target(dsn)
    assert target.address == Address(str(postgres.socket_folder), postgres.port)
    async with probing(target) as prober:
        probe = await reading(prober)
    assert (probe.timeline, probe.in_recovery) == (1, False)
    assert probe.connections


async def test_objects_of_the_database_cannot_stand_in_for_the_catalogue(postgres: PostgresServer) -> None:
    for statement in (
        "CREATE DATABASE probe_hostile",
        "ALTER DATABASE probe_hostile SET search_path = public, pg_catalog",
    ):
        postgres.query(statement)
    try:
        for statement in (
            "CREATE FUNCTION public.pg_is_in_recovery() RETURNS bool LANGUAGE sql AS 'SELECT true'",
            "CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 'hostile' $$",
        ):
            postgres.query(statement, database="probe_hostile")
        async with probing(parse_target(postgres.dsn(database="probe_hostile"))) as prober:
            probe = await reading(prober)
        assert not probe.in_recovery
        assert probe.cluster_name == "pg"
    finally:
        postgres.query("DROP DATABASE probe_hostile WITH (FORCE)")


async def test_one_connection_is_kept_and_its_end_is_told(postgres: PostgresServer) -> None:
    lost = asyncio.Event()
    async with probing(parse_target(postgres.dsn()), on_lost=lost.set) as prober:
        await reading(prober)
        backends = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{APPLICATION_NAME}'"
        (kept,) = postgres.query(backends)
        await reading(prober)
        assert postgres.query(backends) == [kept]
        assert not lost.is_set()
        postgres.query("SELECT pg_terminate_backend($1)", *kept)
        await asyncio.wait_for(lost.wait(), DEADLINE_S)
        await reading(prober)
        assert postgres.query(backends) != [kept]


async def test_a_connection_that_ends_while_it_is_asked_is_replaced(postgres: PostgresServer) -> None:
    """A statement that crossed PostgreSQL's goodbye raised asyncpg's internal error, which ended the agent.

    Now any failure of the kept connection means asking over a new one.
    """
    backends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{APPLICATION_NAME}'"
    async with probing(parse_target(postgres.dsn())) as prober:
        for _ in range(10):
            await reading(prober)
            # This blocks the loop: the goodbye is in the socket when the next statement is sent.
            postgres.query(backends)
            await reading(prober)


async def test_nobody_listening_is_gone_and_silent() -> None:
    async with probing(Target(Address("127.0.0.1", 1), "postgresql://u@h/db")) as prober:
        probe = await prober.probe()
    assert isinstance(probe, Unreachable)
    assert (probe.is_gone, probe.is_silent) == (True, True)
    async with probing(Target(Address("localhost", 1), "postgresql://u@h/db")) as prober:
        assert await prober.probe() == Unreachable(probe_reason(await prober.probe()), is_gone=True, is_silent=True)
    async with probing(Target(Address("/nowhere", 1), "postgresql://u@h/db")) as prober:
        probe = await prober.probe()
        assert isinstance(probe, Unreachable)
        assert probe.is_gone


def probe_reason(probe: object) -> str:
    assert isinstance(probe, Unreachable)
    return probe.reason


async def test_a_wrong_password_is_neither_gone_nor_silent(postgres: PostgresServer) -> None:
    async with probing(parse_target(postgres.dsn(password="wrong"))) as prober:
        probe = await prober.probe()
    assert isinstance(probe, Unreachable)
    assert (probe.is_gone, probe.is_silent) == (False, False)
    assert "password authentication failed" in probe.reason


async def test_a_peer_that_accepts_and_says_nothing_is_silent_within_the_deadline() -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with probing(Target(Address("127.0.0.1", port), "postgresql://u@h/db"), timeout_s=0.3) as prober:
        started = time.monotonic()
        probe = await prober.probe()
        assert time.monotonic() - started < 2
    server.close()
    for writer in held:
        writer.transport.abort()
    assert probe == Unreachable("no answer within 0.3 s", is_gone=False, is_silent=True)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"N" * 100, b"E\xff\xff\xff\xff", b"R\0\0\0\x08\0\0\0\x09"]
)
async def test_a_peer_that_talks_nonsense_is_no_reading_and_no_crash(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with probing(
        Target(Address("127.0.0.1", port), "postgresql://u@h/db?sslmode=disable"), timeout_s=1.0
    ) as prober:
        assert isinstance(await prober.probe(), Unreachable)
    server.close()


async def test_a_dsn_that_asyncpg_refuses_is_an_error_and_no_waiting() -> None:
    async with probing(Target(Address("127.0.0.1", 1), "postgresql://u@h/db?sslmode=nonsense")) as prober:
        with pytest.raises(ConfigError, match="sslmode"):
            await prober.probe()
