"""Batches of the extended protocol without a Sync: PostgreSQL carries out what has come, and speaks when it must."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.wire import Wire, errors, kinds

# Much more than PostgreSQL gathers before it sends (8 kB); the end of it waits for what follows.
LONG = "SELECT repeat('x', 20000)"


def run(sql: str) -> bytes:
    return messages.parse("", sql) + messages.bind("", "") + messages.execute("")


@pytest.fixture(scope="module")
def ambassador(bare_cluster: Cluster) -> Iterator[Ambassador]:
    bare_cluster.primary.query("CREATE TABLE IF NOT EXISTS unfinished (id int PRIMARY KEY)")
    with running_ambassador(bare_cluster.servers, "--pool-size", "2") as running:
        yield running


@pytest.fixture(params=["direct", "through"])
def wire(request: pytest.FixtureRequest, bare_cluster: Cluster, ambassador: Ambassador) -> Iterator[Wire]:
    server: PostgresServer = bare_cluster.primary
    port = server.port if request.param == "direct" else ambassador.port
    with Wire(port).log_in(server.credentials.superuser) as wire:
        wire.query("TRUNCATE unfinished")
        yield wire


def heard(wire: Wire, ending: str) -> str:
    """Return the types of messages up to the first of that type."""
    found = ""
    while ending not in found:
        message = wire.receive()
        assert message is not None
        found += chr(message.type)
    return found


def test_an_error_is_told_without_a_sync(wire: Wire) -> None:
    # libpq's pipelines may end without one; the batch was held back until its end, and nobody heard anything.
    for begin in ("", "BEGIN"):
        wire.query(begin)
        wire.send(run("INSERT INTO unfinished VALUES (1)") + run("INSERT INTO unfinished VALUES (1)"))
        assert heard(wire, "E") == "12C12E"
        # Up to its Sync PostgreSQL takes no notice of anything else.
        wire.send(run("SELECT 1") + messages.sync())
        assert kinds(wire.until_ready()) == "Z"
        wire.query("ROLLBACK")
        assert wire.value("SELECT count(*) FROM unfinished") == "0"


def test_an_error_in_reads_alone_is_told_without_a_sync(wire: Wire) -> None:
    wire.send(run("SELECT 1") + run("SELECT 1 / 0"))
    found = [message for _ in range(6) if (message := wire.receive()) is not None]
    assert kinds(found) == "12DC1E"
    assert errors(found) == [("ERROR", "22012", "division by zero")]
    wire.send(messages.sync())
    assert kinds(wire.until_ready()) == "Z"


@pytest.mark.parametrize("before", ["", "BEGIN", "BEGIN; DELETE FROM unfinished", "LISTEN unfinished"])
def test_a_long_answer_begins_without_a_sync(wire: Wire, before: str) -> None:
    wire.query(before)
    wire.send(run(LONG) + run(LONG))
    assert heard(wire, "D") == "12D"
    wire.send(messages.sync())
    assert kinds(wire.until_ready()) == "C12DCZ"
    assert wire.value("SELECT 1") == "1"


def test_it_goes_on_for_as_long_as_it_likes(wire: Wire) -> None:
    # In one transaction, on one backend, whatever comes in which piece, and whatever had been prepared before.
    wire.send(messages.parse("held", "SELECT count(*) FROM unfinished") + messages.sync())
    assert kinds(wire.until_ready()) == "1Z"
    for number in range(5):
        wire.send(run(f"INSERT INTO unfinished VALUES ({number})") + run(LONG) + run(LONG))
        assert heard(wire, "D").endswith("12D")
        wire.send(messages.bind("", "held") + messages.execute("") + messages.flush())
        assert heard(wire, "2") + heard(wire, "2") == "C12DC2"
        assert heard(wire, "C") == "DC"
    wire.send(run("SELECT 1 / 0") + messages.sync())
    assert kinds(wire.until_ready()) == "1EZ"
    assert wire.value("SELECT count(*) FROM unfinished") == "0"


def test_names_that_an_unfinished_batch_takes_away(wire: Wire) -> None:
    # Sent in pieces, DEALLOCATE ALL was not waited for, and an error spoke of a name of pgamb's.
    for turn in range(5):
        wire.send(messages.parse("gone", f"SELECT {turn}") + messages.sync())
        assert kinds(wire.until_ready()) == "1Z"
        wire.send(run("DEALLOCATE ALL"))
        time.sleep(0.05)
        wire.send(messages.sync() + messages.bind("", "gone") + messages.execute("") + messages.sync())
        assert kinds(wire.until_ready()) == "12CZ"
        found = wire.until_ready()
        assert errors(found) == [("ERROR", "26000", 'prepared statement "gone" does not exist')]


def test_who_leaves_without_a_sync_commits_nothing(wire: Wire, bare_cluster: Cluster) -> None:
    wire.send(run("INSERT INTO unfinished VALUES (1)") + run(LONG) + run(LONG))
    assert heard(wire, "D") == "12C12D"
    wire.send(messages.terminate())
    wire.until_closed()
    assert bare_cluster.primary.query("SELECT count(*) FROM unfinished") == [(0,)]
