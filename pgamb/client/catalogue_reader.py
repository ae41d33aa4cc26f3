"""Reads the catalogue of a database, a little at a time, so that nobody waits for it.

It logs in as `--auth-dsn` says, else as an application that has logged in to that database; any user may read what it
asks for. No connection is kept: an open one would be in the way of DROP DATABASE.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from pgamb.client.channel import Channel
from pgamb.client.monitor import Asker
from pgamb.client.opener import Opened, Opener
from pgamb.errors import ConnectionFailure, PgambError, PostgresError
from pgamb.registry.model import Member
from pgamb.routing import catalog_queries as queries
from pgamb.routing.assembly import assemble
from pgamb.routing.catalog_rows import CatalogRows
from pgamb.routing.server_catalog import ServerCatalog
from pgamb.session.backend_login import Credentials
from pgamb.session.custom import names_in_functions
from pgamb.session.query import simple_query
from pgamb.wire.messages import encode_text

# The longest time for which others may be kept waiting, as far as that is ours to choose.
SLICE_S = 0.003
# Rows that are taken at once; a row may be as long as a view's definition.
FETCH_ROWS = 50
READ_TIMEOUT_S = 120.0
# Applications whose log-ins are tried.
MOST_USERS = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found: `state` changes when the catalogue does; without `catalog`, it has not.

    `asks_sequences`: there are columns whose default is what the session got from a sequence before.
    `parameters` are the custom parameters that functions may set.
    """

    state: str
    catalog: ServerCatalog | None
    member: Member
    asks_sequences: bool = False
    parameters: frozenset[bytes] = frozenset()


class CatalogueReader:
    """Reads catalogues as somebody who may."""

    def __init__(self, opener: Opener, asker: Asker | None, credentials: Mapping[str, Credentials]) -> None:
        self._opener = opener
        self._asker = asker
        self._credentials = credentials

    async def read(
        self, database: str, users: Sequence[str], members: Iterable[Member], known: str | None = None
    ) -> Reading:
        """Read the catalogue unless its state is `known`; from the first member that answers.

        `users` are applications that have logged in to the database. Raises PgambError.
        """
        async with self._session(database, users, members) as (channel, member):
            rows = await _ask(channel, queries.BEGIN + queries.STATE)
            version, name, state = rows[0]
            found = await _read_rows(channel, int(version or 0), name or database) if state != known else None
            asks_sequences = found is not None and await _ask(channel, queries.ASKS_SEQUENCES) == [["t"]]
            # PostgreSQL logs who leaves in the middle of a transaction.
            await _ask(channel, "COMMIT")
        if found is None:
            return Reading(state or "", None, member)
        names = names_in_functions(map(encode_text, found.parameters))
        return Reading(state or "", await _assembled(found), member, asks_sequences, names)

    @asynccontextmanager
    async def _session(
        self, database: str, users: Sequence[str], members: Iterable[Member]
    ) -> AsyncIterator[tuple[Channel, Member]]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                opened, member = await self._open(database, users, members)
                try:
                    yield opened.channel, member
                finally:
                    opened.channel.close()
        except TimeoutError:
            raise ConnectionFailure(f"reading took longer than {READ_TIMEOUT_S:g} s") from None

    async def _open(self, database: str, users: Sequence[str], members: Iterable[Member]) -> tuple[Opened, Member]:
        failure: PgambError = ConnectionFailure("no member is known")
        for member in members:
            for user, credentials in self._logins(users):
                try:
                    opened = await self._opener.open(
                        member, database, user, credentials, {"application_name": "pgamb_catalogue"}
                    )
                    return opened, member
                except PostgresError as error:
                    # Somebody else may be let in.
                    failure = error
                except PgambError as error:
                    failure = error
                    break
        raise failure

    def _logins(self, users: Sequence[str]) -> Iterable[tuple[str, Credentials]]:
        if self._asker is not None:
            yield self._asker.user, self._asker.credentials
        for user in users[-MOST_USERS:]:
            yield user, self._credentials.get(user, Credentials())


async def _ask(channel: Channel, sql: str) -> list[list[str | None]]:
    # A character may be four bytes long, and in a row there are two texts at most.
    return await channel.converse(simple_query(sql, limit_bytes=1 << 20))


async def _fetched(channel: Channel, sql: str, made: Callable[[queries.Row], T]) -> tuple[T, ...]:
    """Fetch all rows of a query, and give way in between."""
    found: list[T] = []
    await _ask(channel, f"DECLARE pgamb_rows NO SCROLL CURSOR FOR {sql}")
    while True:
        rows = await _ask(channel, f"FETCH {FETCH_ROWS} FROM pgamb_rows")
        found.extend(made(row) for row in rows)
        if len(rows) < FETCH_ROWS:
            break
        await asyncio.sleep(0)
    await _ask(channel, "CLOSE pgamb_rows")
    return tuple(found)


async def _read_rows(channel: Channel, version: int, database: str) -> CatalogRows:
    return CatalogRows(
        server_version=version,
        database=database,
        functions=await _fetched(channel, queries.functions(version), queries.function_row),
        operators=await _fetched(channel, queries.OPERATORS, queries.use_row),
        relations=await _fetched(channel, queries.RELATIONS, queries.relation_row),
        domains=await _fetched(channel, queries.DOMAINS, queries.domain_row),
        casts=await _fetched(channel, queries.CASTS, queries.use_row),
        parameters=await _fetched(channel, queries.parameters(version), lambda row: row[0] or ""),
    )


async def _assembled(rows: CatalogRows) -> ServerCatalog:
    loop = asyncio.get_running_loop()
    steps = assemble(rows)
    began = loop.time()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            catalog: ServerCatalog = end.value
            return catalog
        if loop.time() - began > SLICE_S:
            await asyncio.sleep(0)
            began = loop.time()
