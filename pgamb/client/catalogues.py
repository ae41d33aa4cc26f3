"""What is known of each database: the SQL texts that its sessions use, and the catalogue that they are judged by.

A database's catalogue is read when its first session is there, and again when DDL has been seen, or has happened
elsewhere: a cheap question tells, once a minute. Until it has been read, and from DDL on until it is read again, a
query that names a relation goes to the primary. A database that nobody is connected to any more is not looked after,
and starts anew with the next session.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from pgamb.client.catalogue_reader import CatalogueReader, Reading
from pgamb.errors import PgambError
from pgamb.registry.model import Member, Role
from pgamb.relay.statement import Plans, Statements
from pgamb.routing.catalog import Catalog, Unread
from pgamb.routing.classify import classify
from pgamb.routing.ddl import Change, change_of
from pgamb.routing.server_catalog import ServerCatalog

log = logging.getLogger(__name__)

# How often others are reckoned with to have changed something.
PERIOD_S = 60.0
# What a DO or CALL may have changed is looked for this soon.
SOON_S = 2.0
# A database's catalogue is read at most this often, and not again before reading has rested this many times as long.
LEAST_S = 0.5
REST = 4
NO_MEMBER_S = 0.1
RETRY_FIRST_S = 0.5
RETRY_LAST_S = 30.0
# Databases whose catalogues are read at a time: each takes a connection.
READERS = 4
# Custom parameters set by functions that are looked after.
MOST_PARAMETERS = 64


@dataclass(frozen=True, slots=True)
class CatalogueState:
    """How it stands: `read`, `reading`, `changed`, `unused` or `refused: ...`, and for how long (seconds)."""

    text: str
    age_s: float


class _Database:
    """One database, and what is known of it. `suspended`: nobody uses it, so that nobody looks after it."""

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.in_force: Catalog = Unread()
        self.statements = Statements(Plans(partial(classify, catalog=self.in_force)))
        self.users: dict[str, None] = {}
        self.known: Reading | None = None
        self.catalog: ServerCatalog | None = None
        self.dirty = False
        self.suspended = False
        self.due = 0.0
        self.woken = asyncio.Event()
        self.failing = ""
        self.retry_s = RETRY_FIRST_S
        self.text = "reading"
        self.since = now

    def enforce(self, catalog: Catalog) -> None:
        """Judge by this catalogue from now on; what is judged by it already stays as it is."""
        if catalog is not self.in_force:
            self.in_force = catalog
            self.statements.plans.renew(partial(classify, catalog=catalog))

    def is_conservative(self) -> bool:
        return isinstance(self.in_force, Unread)


class Catalogues:
    """Knows the databases of a process, each from the first session that uses it on."""

    def __init__(self, reader: CatalogueReader) -> None:
        self._reader = reader
        self._databases: dict[str, _Database] = {}
        self._new: asyncio.Queue[_Database] = asyncio.Queue()
        self._turns = asyncio.Semaphore(READERS)
        self._loop = asyncio.get_running_loop()

    def statements(self, database: str, user: str) -> Statements:
        """Return the statements of a database that `user` has logged in to."""
        known = self._databases.get(database)
        if known is None:
            known = self._databases[database] = _Database(database, self._loop.time())
            self._new.put_nowait(known)
        known.users.pop(user, None)
        known.users[user] = None
        if known.failing:
            # This one may be let in where the others were not.
            known.due = 0.0
            known.woken.set()
        return known.statements

    def state(self, database: str) -> CatalogueState | None:
        """Tell how the catalogue of a database stands, None if nobody has used it."""
        known = self._databases.get(database)
        return CatalogueState(known.text, self._loop.time() - known.since) if known is not None else None

    def changed(self, database: str, tag: bytes) -> None:
        """Something was done in a database that may have changed its catalogue; `tag` is its command tag.

        To be called when others can see it: once the transaction is over that it was done in. Cheap for harmless tags.
        """
        change = change_of(tag)
        known = self._databases.get(database) if change is not Change.NONE else None
        if known is None:
            return
        if change is Change.AT_ONCE:
            known.enforce(Unread("the catalogue of this database has changed, and is being read again"))
            self._set(known, "changed")
        known.dirty |= change is not Change.PERHAPS
        known.due = min(known.due, self._loop.time() + (SOON_S if change is Change.PERHAPS else 0.0))
        known.woken.set()

    def entered(self, database: str) -> None:
        """A database has sessions again."""
        known = self._databases.get(database)
        if known is not None and known.suspended:
            known.suspended = False
            known.due = 0.0
            known.woken.set()

    async def keep_forever(self, members: Callable[[], Iterable[Member]], is_present: Callable[[str], bool]) -> None:
        """Read and keep fresh the catalogues of all databases in use; `members` are to be asked in their order."""
        async with asyncio.TaskGroup() as group:
            while True:
                database = await self._new.get()
                group.create_task(self._keep(database, members, is_present))

    async def _keep(
        self, known: _Database, members: Callable[[], Iterable[Member]], is_present: Callable[[str], bool]
    ) -> None:
        while True:
            await self._until_due(known)
            if not is_present(known.name):
                self._suspend(known)
                continue
            asked = tuple(members())
            if not asked:
                # Who has just logged in is why the topology is being asked for.
                known.due = self._loop.time() + NO_MEMBER_S
                continue
            async with self._turns:
                began = self._loop.time()
                known.due = began + PERIOD_S
                await self._attempt(known, asked)
            await asyncio.sleep(min(max(LEAST_S, REST * (self._loop.time() - began)), RETRY_LAST_S))

    async def _attempt(self, known: _Database, members: Iterable[Member]) -> None:
        try:
            await self._look(known, members)
        except PgambError as error:
            self._failed(known, error.message)
        except Exception as error:
            log.exception("catalogue.defect", extra={"kv": {"database": known.name}})
            self._failed(known, f"internal error of pgamb: {error!r}")

    async def _until_due(self, known: _Database) -> None:
        while True:
            known.woken.clear()
            left = known.due - self._loop.time()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(None if left == math.inf else left):
                    await known.woken.wait()
            except TimeoutError:
                return

    def _suspend(self, known: _Database) -> None:
        """Nobody uses it: who comes next is not to be judged by what may be old by then."""
        known.suspended = True
        known.due = math.inf
        known.enforce(Unread())
        self._set(known, "unused")

    async def _look(self, known: _Database, members: Iterable[Member]) -> None:
        """Look whether anything has changed, and read what has."""
        known.dirty = False
        if known.is_conservative() and not known.failing:
            self._set(known, "reading")
        began = self._loop.time()
        reading = await self._reader.read(
            known.name, list(known.users), members, known.known.state if known.known is not None else None
        )
        if reading.member.role is not Role.PRIMARY:
            # It may be behind, and the primary is asked as soon as there is one.
            known.due = min(known.due, began + SOON_S)
        if reading.asks_sequences:
            known.statements.asks_sequences = True
        if reading.catalog is not None and reading.catalog != known.catalog:
            known.catalog = reading.catalog
            took_ms = round((self._loop.time() - began) * 1000)
            log.info(
                "catalogue.read",
                extra={"kv": {"database": known.name, "member": reading.member.node, "took_ms": took_ms}},
            )
        if reading.catalog is not None:
            # So many names are no convention, and would make each question long.
            named = reading.parameters if len(reading.parameters) <= MOST_PARAMETERS else frozenset()
            known.statements.customs = named or None
        known.known = reading
        known.failing = ""
        known.retry_s = RETRY_FIRST_S
        if known.dirty:
            # DDL was seen meanwhile, and may have come too late for this reading.
            return
        assert known.catalog is not None
        known.enforce(known.catalog)
        self._set(known, "read")

    def _failed(self, known: _Database, why: str) -> None:
        if why != known.failing:
            log.warning("catalogue.refused", extra={"kv": {"database": known.name, "error": why}})
            if known.is_conservative():
                known.enforce(Unread(f"the catalogue of this database cannot be read: {why}"))
        known.failing = why
        self._set(known, f"refused: {why}")
        known.due = self._loop.time() + known.retry_s
        known.retry_s = min(known.retry_s * 2, RETRY_LAST_S)

    def _set(self, known: _Database, text: str) -> None:
        if text != known.text:
            known.text = text
            known.since = self._loop.time()
