"""A real catalogue, read in the background and kept fresh."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from pgamb.client import catalogues as module
from pgamb.client.catalogue_reader import CatalogueReader, Reading
from pgamb.client.catalogues import Catalogues
from pgamb.client.monitor import Asker
from pgamb.client.opener import Opener
from pgamb.config import ClientOptions
from pgamb.demo.postgres import PostgresServer
from pgamb.registry.model import Address, Member, Role
from pgamb.routing.intent import Intent, Need
from pgamb.session.backend_login import Credentials
from tests.support.waiting import wait_for_async

DATABASE, READER = "catalogues", "catalogues_reader"
QUERY = "SELECT * FROM plain"
SCHEMA = """
CREATE TABLE plain (id int);
CREATE FUNCTION vol() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE VIEW vol_view AS SELECT vol();
"""


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A database of the test's own, and a role without any rights."""
    postgres.query(f"CREATE DATABASE {DATABASE}")
    postgres.query(f"CREATE ROLE {READER} LOGIN PASSWORD 'reader'")
    for statement in SCHEMA.strip().splitlines():
        postgres.query(statement, database=DATABASE)
    yield postgres
    # No connection stays behind: this would fail.
    postgres.query(f"DROP DATABASE {DATABASE}")
    postgres.query(f"DROP ROLE {READER}")


class CountingReader(CatalogueReader):
    """Counts what it reads, and when."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.readings: list[Reading] = []
        self.began_at: list[float] = []

    async def read(
        self, database: str, users: Sequence[str], members: Iterable[Member], known: str | None = None
    ) -> Reading:
        self.began_at.append(time.monotonic())
        reading = await super().read(database, users, members, known)
        self.readings.append(reading)
        return reading


class Rig:
    """Catalogues at work on one database that one application has logged in to."""

    def __init__(self, server: PostgresServer, asker: Asker | None) -> None:
        options = ClientOptions(registry="static://127.0.0.1:5432", server_tls="disable")
        self.reader = CountingReader(Opener(options), asker, {READER: Credentials(password="reader")})
        self.catalogues = Catalogues(self.reader)
        self.present = True
        address = Address("127.0.0.1", server.port)
        self.members: tuple[Member, ...] = (Member("pg", Role.PRIMARY, (address,), 1, "", 0),)
        self.plans = self.catalogues.statements(DATABASE, READER).plans

    def intent(self, sql: str = QUERY) -> Intent:
        intent: Intent = self.plans.plan(sql.encode()).intent
        return intent

    def is_read(self, sql: str = QUERY) -> bool:
        return bool(self.intent(sql).need & Need.READ)

    @property
    def state(self) -> str:
        state = self.catalogues.state(DATABASE)
        assert state is not None
        return state.text

    async def until(self, text: str) -> None:
        def reached() -> bool:
            return self.state == text if ":" not in text else self.state.startswith(text)

        await wait_for_async(reached, 20, f"the catalogue is {text}")

    async def until_looked(self) -> None:
        begun = len(self.reader.began_at)
        await wait_for_async(lambda: len(self.reader.readings) > begun, 20, "there was a look that began after this")

    async def until_no_read(self, sql: str, because: str) -> None:
        await wait_for_async(lambda: not self.is_read(sql), 20, f"{sql} is no read any more: {because}")


@asynccontextmanager
async def rig(server: PostgresServer, asker: Asker | None = None) -> AsyncIterator[Rig]:
    made = Rig(server, asker)
    task = asyncio.create_task(made.catalogues.keep_forever(lambda: made.members, lambda _: made.present))
    try:
        yield made
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_it_is_read_as_an_application_without_any_rights(database: PostgresServer) -> None:
    async with rig(database) as made:
        assert made.state == "reading"
        assert not made.is_read()
        assert made.intent().need & Need.NEUTRAL
        assert made.intent().reason == "the catalogue of this database has not been read yet"
        await made.until("read")
        assert made.is_read()
        assert made.intent("SELECT * FROM vol_view").reason == "view vol_view: function vol is declared volatile"
        age_s = made.catalogues.state(DATABASE)
        assert age_s is not None
        assert 0 <= age_s.age_s < 20
        assert made.catalogues.state("another") is None


async def test_it_is_read_with_the_log_in_of_our_own_first_and_the_application_s_else(database: PostgresServer) -> None:
    own = Asker("postgres", "postgres", Credentials(password=database.credentials.superuser))
    nobody = Asker("postgres", "nobody", Credentials(password="wrong"))
    for asker in (own, nobody):
        async with rig(database, asker) as made:
            await made.until("read")
            assert made.is_read()


async def test_without_permission_it_stays_conservative_and_says_so_once(
    database: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    database.query("REVOKE SELECT ON pg_catalog.pg_operator FROM PUBLIC", database=DATABASE)
    with caplog.at_level(logging.WARNING):
        async with rig(database) as made:
            await made.until("refused: permission denied for")
            await wait_for_async(lambda: len(made.reader.began_at) > 2, 20, "it is tried again")
            assert "cannot be read: permission denied" in made.intent().reason
            assert [record.message for record in caplog.records].count("catalogue.refused") == 1
            database.query("GRANT SELECT ON pg_catalog.pg_operator TO PUBLIC", database=DATABASE)
            await made.until("read")
            assert made.is_read()


async def test_the_search_path_of_the_application_is_not_used(database: PostgresServer) -> None:
    """CVE-2025-12819 was a name in a pooler's own query that a hostile search_path gave another meaning."""
    for statement in (
        "CREATE SCHEMA hostile",
        f"GRANT USAGE ON SCHEMA hostile TO {READER}",
        "CREATE FUNCTION hostile.never(oid, oid) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT false'",
        "CREATE OPERATOR hostile.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = hostile.never)",
        f"ALTER ROLE {READER} IN DATABASE {DATABASE} SET search_path = hostile, pg_catalog",
    ):
        database.query(statement, database=DATABASE)
    async with rig(database) as made:
        await made.until("read")
        assert "function vol is declared volatile" in made.intent("SELECT * FROM vol_view").reason


async def test_a_member_that_does_not_answer_gives_way_to_one_that_does(database: PostgresServer) -> None:
    async with rig(database) as made:
        gone = Member("gone", Role.PRIMARY, (Address("127.0.0.1", 1),), 1, "", 0)
        made.members = (gone, *made.members)
        await made.until("read")
        assert made.is_read()


async def test_ddl_makes_it_conservative_until_it_is_read_again(database: PostgresServer) -> None:
    async with rig(database) as made:
        await made.until("read")
        generation = made.plans.generation
        for tag in (b"SELECT 1", b"INSERT 0 1", b"CREATE INDEX", b"COMMIT", b"GRANT"):
            made.catalogues.changed(DATABASE, tag)
        made.catalogues.changed("another", b"CREATE VIEW")
        assert made.plans.generation == generation
        database.query("CREATE VIEW later AS SELECT vol()", database=DATABASE)
        assert made.is_read("SELECT * FROM later")
        made.catalogues.changed(DATABASE, b"CREATE VIEW")
        assert made.state == "changed"
        assert not made.is_read()
        assert "is being read again" in made.intent().reason
        await made.until("read")
        assert made.is_read()
        assert "view later" in made.intent("SELECT * FROM later").reason
        # Dropping something makes nothing worse.
        database.query("DROP VIEW later", database=DATABASE)
        made.catalogues.changed(DATABASE, b"DROP VIEW")
        assert made.is_read()
        await wait_for_async(lambda: made.is_read("SELECT * FROM later"), 20, "it is known that it is gone")


async def test_ddl_during_the_reading_is_not_lost(database: PostgresServer) -> None:
    async with rig(database) as made:
        await wait_for_async(lambda: made.reader.began_at, 20, "it is being read")
        made.catalogues.changed(DATABASE, b"CREATE FUNCTION")
        await wait_for_async(lambda: made.reader.readings, 20, "it has been read")
        await asyncio.sleep(0)
        assert made.state == "changed"
        assert not made.is_read()
        await made.until("read")
        assert len(made.reader.readings) == 2


async def test_much_ddl_does_not_make_much_reading(database: PostgresServer) -> None:
    async with rig(database) as made:
        await made.until("read")
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            made.catalogues.changed(DATABASE, b"CREATE TABLE")
            await asyncio.sleep(0.01)
        began = made.reader.began_at
        assert 2 <= len(began) <= 6
        assert min(after - before for before, after in pairwise(began)) >= module.LEAST_S
        await made.until("read")
        # Plain tables are nothing that a query could be more than a read for.
        assert all(reading.catalog is None for reading in made.reader.readings[1:])


async def test_what_others_change_is_found_and_what_they_do_not_costs_no_plan(
    database: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PERIOD_S", 0.05)
    monkeypatch.setattr(module, "LEAST_S", 0.05)
    async with rig(database) as made:
        await made.until("read")
        plan, generation = made.plans.plan(QUERY.encode()), made.plans.generation
        for harmless in (
            "CREATE TABLE another (id int)",
            "INSERT INTO another VALUES (1)",
            "ANALYZE",
            "DROP TABLE another",
        ):
            database.query(harmless, database=DATABASE)
        seen = len(made.reader.readings)
        await wait_for_async(lambda: len(made.reader.readings) > seen + 1, 20, "it is looked at again")
        assert made.plans.generation == generation
        assert made.plans.plan(QUERY.encode()) is plan
        for change, sql in CHANGES:
            database.query(change, database=DATABASE)
            await made.until_looked()
            if sql is not None:
                await made.until_no_read(sql, change)


CHANGES: list[tuple[str, str | None]] = [
    ("CREATE UNLOGGED TABLE odd (id int)", "SELECT * FROM odd"),
    ("ALTER TABLE plain SET UNLOGGED", QUERY),
    ("CREATE FUNCTION lower(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1'", None),
    ("CREATE OR REPLACE FUNCTION lower(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1'", "SELECT lower('A')"),
    ("CREATE VIEW viewed AS SELECT 1 AS vol", None),
    ("CREATE OR REPLACE VIEW viewed AS SELECT vol()", "SELECT * FROM viewed"),
    ("CREATE DOMAIN checked AS int", None),
    ("ALTER DOMAIN checked ADD CHECK (vol() = VALUE)", "SELECT 1::checked"),
    ("CREATE OPERATOR <=#> (RIGHTARG = int, FUNCTION = lower)", "SELECT <=#> 1"),
    ("CREATE TABLE parent (id int)", None),
    ("ALTER TABLE odd INHERIT parent", "SELECT * FROM parent"),
    ("CREATE TABLE guarded (id int)", None),
    ("CREATE POLICY p ON guarded USING (vol() = 1)", None),
    ("ALTER TABLE guarded ENABLE ROW LEVEL SECURITY", "SELECT * FROM guarded"),
    ("CREATE TABLE guarded_first (id int)", None),
    ("ALTER TABLE guarded_first ENABLE ROW LEVEL SECURITY", None),
    ("CREATE POLICY p ON guarded_first USING (vol() = 1)", "SELECT * FROM guarded_first"),
    ("CREATE SEQUENCE seq", "SELECT * FROM seq"),
    ("ALTER SCHEMA public RENAME TO renamed", "SELECT * FROM renamed.seq"),
]


async def test_a_database_that_nobody_uses_is_not_looked_after(
    database: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PERIOD_S", 0.05)
    async with rig(database) as made:
        await made.until("read")
        made.present = False
        await made.until("unused")
        assert not made.is_read()
        count = len(made.reader.began_at)
        await asyncio.sleep(module.LEAST_S + 0.2)
        assert len(made.reader.began_at) == count
        made.present = True
        made.catalogues.entered(DATABASE)
        await made.until("read")
        assert made.is_read()
        # Nothing had changed, so that nothing was read again.
        assert made.reader.readings[count].catalog is None


async def test_a_locked_view_is_not_waited_for(database: PostgresServer) -> None:
    """Who waits for a lock while it holds others can make a deadlock of an application's own business."""
    import asyncpg

    holder = await asyncpg.connect(database.dsn(database=DATABASE))
    try:
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("LOCK TABLE vol_view IN ACCESS EXCLUSIVE MODE")
        async with rig(database) as made:
            await made.until("refused: canceling statement due to lock timeout")
            await transaction.rollback()
            await made.until("read")
    finally:
        await holder.close()


async def test_a_large_catalogue_does_not_block_the_loop(database: PostgresServer) -> None:
    """Measured as time of this thread between two turns of the loop, so that other processes do not count."""
    columns = ", ".join(f"coalesce(t.id, {number}) + {number} AS column_{number}" for number in range(30))
    database.query(
        f"DO $$BEGIN FOR i IN 1..1500 LOOP EXECUTE format('CREATE VIEW view_%s AS SELECT {columns} FROM plain t', i);"
        " END LOOP; END$$",
        database=DATABASE,
    )
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.thread_time() - before)

    # What the test run has in memory is not collected on our time.
    gc.collect()
    gc.freeze()
    try:
        async with rig(database) as made:
            watching = asyncio.create_task(watch())
            await made.until("read")
            watching.cancel()
            assert made.is_read("SELECT * FROM view_7")
    finally:
        gc.unfreeze()
    assert longest_s < 0.02, longest_s
