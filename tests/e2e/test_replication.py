"""Replication connections: PostgreSQL's own tools, a subscription and a standby find a server behind pgamb."""

from __future__ import annotations

import signal
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pgamb.demo.ports import free_port
from pgamb.demo.postgres import REPLICATION, SUPERUSER, PostgresServer
from pgamb.demo.query import query
from pgamb.errors import PostgresError
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.replication import Tools
from tests.support.servers import running_postgres, server_folder
from tests.support.status_page import Page
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors, kinds

DEADLINE_S = 40.0
SETTINGS = {"wal_level": "logical", "max_wal_senders": "6"}
WALSENDERS = "SELECT application_name, state FROM pg_stat_replication ORDER BY 1"


@dataclass(frozen=True, slots=True)
class Place:
    """A PostgreSQL with all that replication needs, an ambassador before it, and tools that go through that one."""

    server: PostgresServer
    ambassador: Ambassador
    page: Page
    tools: Tools
    folder: Path

    def walsender(self, kind: str = "database", port: int = 0, **parameters: str) -> Wire:
        wire = Wire(port or self.ambassador.port)
        return wire.log_in(self.server.credentials.superuser, parameters={"replication": kind, **parameters})

    def walsenders(self) -> list[tuple[object, ...]]:
        return self.server.query(WALSENDERS)

    def drop_slot(self, name: str) -> None:
        self.server.query(f"SELECT pg_drop_replication_slot('{name}')")


@pytest.fixture(scope="module")
def place(template: PostgresServer) -> Iterator[Place]:
    with server_folder() as folder, running_postgres("source", settings=SETTINGS, template=template) as server:
        port = free_port()
        with running_ambassador([server], "--status-listen", str(port)) as ambassador:
            yield Place(server, ambassador, Page(port), Tools(server, ambassador.port, folder), folder)


# The tools


@pytest.mark.parametrize("form", ["plain", "tar"])
def test_a_base_backup_with_its_wal(place: Place, form: str) -> None:
    target = place.folder / f"backup_{form}"
    # The WAL comes over a second connection at the same time.
    place.tools.run("pg_basebackup", "-D", target, "-F", form, "-X", "stream", "-c", "fast", "--no-sync")
    if form == "plain":
        place.tools.run("pg_verifybackup", target)
        assert list((target / "pg_wal").glob("0000*"))
    else:
        with tarfile.open(target / "base.tar") as base, tarfile.open(target / "pg_wal.tar") as wal:
            assert "backup_label" in base.getnames()
            assert wal.getnames()


def test_wal_is_received_until_the_tool_is_told_to_stop(place: Place) -> None:
    target = place.folder / "received"
    target.mkdir()
    place.tools.run("pg_receivewal", "--create-slot", "--slot", "archive")
    with place.tools.running("pg_receivewal", "-D", target, "--slot", "archive", "--no-loop") as receiving:
        wait_for(lambda: ("pg_receivewal", "streaming") in place.walsenders(), DEADLINE_S, "it streams")
        place.server.query("CREATE TABLE received (n int)")
        (name,) = place.server.query("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")[0]
        place.server.query("SELECT pg_switch_wal()")
        wait_for((target / str(name)).exists, DEADLINE_S, "a whole segment has arrived")
        receiving.send(signal.SIGINT)
        assert receiving.wait(DEADLINE_S) == 0, receiving.log_tail()
    place.tools.run("pg_receivewal", "--drop-slot", "--slot", "archive")
    assert place.server.query("SELECT slot_name FROM pg_replication_slots") == []


def test_changes_are_decoded_until_the_tool_is_told_to_stop(place: Place) -> None:
    out = place.folder / "changes"
    slot = ("-d", "postgres", "--slot", "decoded")
    place.server.query("CREATE TABLE decoded (n int)")
    place.tools.run("pg_recvlogical", *slot, "--create-slot", "-P", "test_decoding")
    place.server.query("INSERT INTO decoded SELECT generate_series(1, 500)")
    (end,) = place.server.query("SELECT pg_current_wal_lsn()::text")[0]
    start = (*slot, "--start", "-f", out, "--no-loop")
    place.tools.run("pg_recvlogical", *start, "--endpos", end)
    assert out.read_text().count("INSERT") == 500
    # What was confirmed is not sent again.
    with place.tools.running("pg_recvlogical", *start) as receiving:
        place.server.query("INSERT INTO decoded VALUES (501)")
        wait_for(lambda: out.read_text().count("INSERT") == 501, DEADLINE_S, "what is new has arrived")
        receiving.send(signal.SIGINT)
        assert receiving.wait(DEADLINE_S) == 0, receiving.log_tail()
    place.tools.run("pg_recvlogical", *slot, "--drop-slot")
    assert place.server.query("SELECT slot_name FROM pg_replication_slots") == []


def test_a_subscription_follows_through_it(place: Place, template: PostgresServer) -> None:
    place.server.query("CREATE TABLE shared (n int PRIMARY KEY, t text)")
    place.server.query("INSERT INTO shared SELECT g, 'before' FROM generate_series(1, 1000) AS g")
    place.server.query("CREATE PUBLICATION shared FOR TABLE shared")
    with running_postgres("subscriber", template=template) as subscriber:
        subscriber.query("CREATE TABLE shared (n int PRIMARY KEY, t text)")
        conninfo = place.tools.conninfo(dbname="postgres").replace("'", "''")
        subscriber.query(f"CREATE SUBSCRIPTION shared CONNECTION '{conninfo}' PUBLICATION shared")
        count = "SELECT count(*) FROM shared"
        wait_for(lambda: subscriber.query(count) == [(1000,)], DEADLINE_S, "what there was is copied")
        query(place.ambassador.dsn(), "INSERT INTO shared SELECT g, 'after' FROM generate_series(1001, 1500) AS g")
        wait_for(lambda: subscriber.query(count) == [(1500,)], DEADLINE_S, "what is new follows")
        subscriber.query("DROP SUBSCRIPTION shared")
    assert place.server.query("SELECT slot_name FROM pg_replication_slots") == []


def test_a_standby_follows_through_it(place: Place, template: PostgresServer) -> None:
    through = cast(
        PostgresServer, SimpleNamespace(name="pgamb", port=place.ambassador.port, credentials=template.credentials)
    )
    with running_postgres("standby", template=template) as standby:
        standby.stop()
        standby.base_backup(through)
        standby.start()
        place.server.query("CREATE TABLE followed AS SELECT 1 AS n")
        wait_for(
            lambda: standby.query("SELECT to_regclass('followed')::text") == [("followed",)], DEADLINE_S, "it replays"
        )
        assert ("standby", "streaming") in place.walsenders()
        assert standby.query("SELECT pg_is_in_recovery()") == [(True,)]


def test_psql_asks_a_walsender(place: Place) -> None:
    for kind, asked in (("true", "SHOW server_version"), ("database", "SELECT current_database()")):
        conninfo = place.tools.conninfo(dbname="postgres", replication=kind)
        said = place.tools.run("psql", "-XAt", "-d", conninfo, "-c", "IDENTIFY_SYSTEM", "-c", asked, user=SUPERUSER)
        system, second = said.splitlines()[:2]
        assert system.split("|")[0] == place.server.control["Database system identifier"]
        assert second


# The protocol


def test_sql_runs_on_a_logical_walsender_in_both_protocols(place: Place) -> None:
    said = []
    for port in (place.server.port, place.ambassador.port):
        with place.walsender(port=port, application_name="sql") as wire:
            found = wire.query("SHOW application_name")
            found += wire.query("CREATE TEMP TABLE mine (n int); INSERT INTO mine VALUES (1); TABLE mine")
            wire.send(messages.parse("s", "SELECT n FROM mine WHERE n = $1") + messages.bind("", "s", [b"1"]))
            wire.send(messages.describe(b"P", "") + messages.execute("") + messages.sync())
            found += wire.until_ready()
            wire.send(messages.query("COPY mine FROM STDIN"))
            wire.send(b"d\0\0\0\6" + b"2\n" + b"c\0\0\0\4")
            found += wire.until_ready()
            found += wire.query("SELEC")
            wire.send(messages.terminate())
            assert wire.until_closed() == []
        said.append([(m.type, m.payload) for m in found if m.type not in b"T"])
    assert said[0] == said[1]


WORDS = ("true", "on", "YES", "1", "t", "y", "database", "false", "off", "No", "0", "f", "of", "o", "", "x", "DATABASE")


@pytest.mark.parametrize("word", WORDS)
def test_the_parameter_means_what_postgresql_means(place: Place, word: str) -> None:
    answers = []
    for port in (place.server.port, place.ambassador.port):
        with Wire(port) as wire:
            wire.send(messages.startup_message({"user": "postgres", "database": "postgres", "replication": word}))
            first = wire.receive()
            assert first is not None
            if first.type == ord("E"):
                answers.append(str(messages.parse_error_fields(first.payload)["M"]))
                continue
        with place.walsender(word, port) as wire:
            answers.append(kinds(wire.query("IDENTIFY_SYSTEM")) + kinds(wire.query("SELECT 1")))
    assert answers[0] == answers[1]


def test_who_may_not_replicate_is_told_so_by_postgresql(place: Place) -> None:
    place.server.query("CREATE ROLE mortal LOGIN PASSWORD 'mortal'")
    told = []
    for port in (place.server.port, place.ambassador.port):
        for kind, user, database in (
            ("true", "mortal", "postgres"),
            ("database", "mortal", "postgres"),
            ("database", "postgres", "nowhere"),
            ("database", "nobody", "postgres"),
        ):
            password = {"mortal": "mortal"}.get(user, place.server.credentials.superuser)
            with Wire(port) as wire, pytest.raises(PostgresError) as caught:
                wire.log_in(password, user=user, database=database, parameters={"replication": kind})
            told.append({letter: caught.value.fields.get(letter) for letter in "SVCMDH"})
    assert told[:4] == told[4:]
    # A physical walsender belongs to no database.
    with Wire(place.ambassador.port) as wire:
        wire.log_in(place.server.credentials.superuser, database="nowhere", parameters={"replication": "true"})
        assert kinds(wire.query("IDENTIFY_SYSTEM")) == "TDCZ"


def test_no_more_than_max_wal_senders(place: Place) -> None:
    wires = [place.walsender() for _ in range(int(SETTINGS["max_wal_senders"]))]
    told = []
    for port in (place.server.port, place.ambassador.port):
        with Wire(port) as wire, pytest.raises(PostgresError) as caught:
            wire.log_in(place.server.credentials.superuser, parameters={"replication": "database"})
        told.append(caught.value.fields)
    assert told[0] == told[1]
    # Applications do not notice: walsenders are not among max_connections.
    assert query(place.ambassador.dsn(), "SELECT 1") == [(1,)]
    snapshot = place.page.look()
    assert snapshot.sessions.pinned_by["replication"] == len(wires)
    assert snapshot.members[0].walsenders == len(wires)
    assert snapshot.sessions.by_state["pinned"] == len(wires)
    for wire in wires:
        wire.close()
    wait_for(lambda: place.page.look().sessions.pinned_by == {}, DEADLINE_S, "they are gone")
    wait_for(
        lambda: place.server.query("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'") == [(0,)],
        DEADLINE_S,
        "at the server, too",
    )


@pytest.mark.parametrize("kind", ["true", "database"])
def test_a_reader_that_is_slow_holds_up_the_server_and_fills_no_memory(place: Place, kind: str) -> None:
    with place.walsender(kind) as wire:
        before = place.ambassador.resident_bytes
        wire.send(messages.query("BASE_BACKUP (CHECKPOINT 'fast')"))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'ClientWrite'"
        wait_for(lambda: place.server.query(waits) == [(1,)], DEADLINE_S, "the server waits for us")
        assert place.ambassador.resident_bytes - before < 4 << 20
        found = wire.until_ready()
        assert errors(found) == []
        assert sum(len(message.payload) for message in found) > 20 << 20


def test_a_cancel_reaches_its_walsender(place: Place) -> None:
    with place.walsender() as wire, place.walsender() as other:
        assert wire.greeting is not None
        for one in (wire, other):
            one.send(messages.query("SELECT pg_sleep(1.5)"))
        sleeping = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_for(lambda: place.server.query(sleeping) == [(2,)], DEADLINE_S, "both sleep")
        with Wire(place.ambassador.port) as canceller:
            canceller.send(messages.cancel_request(wire.greeting.pid, b"\1\2\3\4"))
            assert canceller.until_closed() == []
        with Wire(place.ambassador.port) as canceller:
            canceller.send(messages.cancel_request(wire.greeting.pid, wire.greeting.secret))
            assert canceller.until_closed() == []
        assert [error[1] for error in errors(wire.until_ready())] == ["57014"]
        assert errors(other.until_ready()) == []
        # An idle one goes on.
        with Wire(place.ambassador.port) as canceller:
            canceller.send(messages.cancel_request(wire.greeting.pid, wire.greeting.secret))
            assert canceller.until_closed() == []
        assert wire.value("SELECT 'goes on'") == "goes on"


@pytest.mark.parametrize("auth", ["password", "trust"])
def test_however_applications_log_in(place: Place, auth: str, tmp_path: Path) -> None:
    users = tmp_path / "users"
    secrets = place.server.credentials
    users.write_text(f'"{REPLICATION}" "{secrets.replication}"\n"{SUPERUSER}" "{secrets.superuser}"\n')
    with running_ambassador([place.server], "--auth", auth, "--auth-file", str(users)) as ambassador:
        tools = Tools(place.server, ambassador.port, place.folder)
        said = tools.run("psql", "-XAt", "-d", tools.conninfo(REPLICATION, replication="true"), "-c", "IDENTIFY_SYSTEM")
        assert said.startswith(place.server.control["Database system identifier"])
