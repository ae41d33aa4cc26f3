"""One statement to one server, for code that is not asynchronous itself."""

from __future__ import annotations

import asyncio
import threading

import asyncpg

from pgamb.errors import ConnectionFailure

TIMEOUT_S = 10.0


def query(dsn: str, sql: str, *arguments: object, timeout_s: float = TIMEOUT_S) -> list[tuple[object, ...]]:
    """Run one statement on a connection of its own and return its rows.

    Works from any thread, also one with a running event loop (which waits). Raises ConnectionFailure when the
    server cannot be reached in time, and asyncpg's own exceptions for what PostgreSQL says.
    """
    rows: list[tuple[object, ...]] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            rows.extend(asyncio.run(_query(dsn, sql, arguments, timeout_s)))
        except BaseException as error:  # handed to the caller's thread below
            failure.append(error)

    thread = threading.Thread(target=work, name="query", daemon=True)
    thread.start()
    thread.join()
    if failure:
        if isinstance(failure[0], OSError | TimeoutError | asyncpg.InterfaceError):
            raise ConnectionFailure(f"the server did not answer {sql!r}: {failure[0]!r}") from failure[0]
        raise failure[0]
    return rows


async def _query(dsn: str, sql: str, arguments: tuple[object, ...], timeout_s: float) -> list[tuple[object, ...]]:
    async with asyncio.timeout(timeout_s):
        # ssl: what PGSSLMODE says is meant for other servers.
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn, timeout=timeout_s, ssl=False)
        try:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]
        finally:
            connection.terminate()
