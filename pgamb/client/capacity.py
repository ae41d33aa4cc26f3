"""How many connections a server leaves to applications."""

from __future__ import annotations

import asyncio

from pgamb.client.opener import Opened
from pgamb.errors import ConnectionFailure
from pgamb.session.query import simple_query

# A server that has just let us in answers this at once, or hangs.
ASK_TIMEOUT_S = 5.0

# What a server may be asked for beside its superusers' share; reserved_connections came with PostgreSQL 16.
_QUERY = (
    "SELECT pg_catalog.current_setting('max_connections')::int"
    " - pg_catalog.current_setting('superuser_reserved_connections')::int"
    " - coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int"
)


async def ask_capacity(opened: Opened) -> int:
    """Ask a new connection's server; raises ConnectionFailure or PostgresError, and then has closed the connection."""
    try:
        async with asyncio.timeout(ASK_TIMEOUT_S):
            rows = await opened.channel.converse(simple_query(_QUERY))
    except TimeoutError:
        opened.channel.close()
        raise ConnectionFailure(
            f"{opened.address} let us in, and then did not answer within {ASK_TIMEOUT_S:g} s"
        ) from None
    except BaseException:
        opened.channel.close()
        raise
    return max(1, int(rows[0][0] or 1))
