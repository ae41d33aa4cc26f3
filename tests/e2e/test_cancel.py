"""A cancel request meets what its session runs when it is sent, wherever that stands by then; and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.gates import CANCEL, GateRelay, running_gates
from tests.support.servers import running_postgres
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors, kinds

DEADLINE_S = 30.0
# Long beside any test, so that who waits for its end has not been cancelled.
SLEEP = "SELECT pg_sleep(20)"
AT_ONCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Place:
    """An ambassador with very few backends, and gates before its server."""

    server: PostgresServer
    gates: GateRelay
    ambassador: Ambassador

    def session(self, **parameters: str) -> Wire:
        return Wire(self.ambassador.port).log_in(self.server.credentials.superuser, parameters=parameters)

    def sleepers(self) -> int:
        (count,) = self.server.query("SELECT count(*)::int FROM pg_stat_activity WHERE wait_event = 'PgSleep'")[0]
        assert isinstance(count, int)
        return count

    def wait_asleep(self, count: int = 1) -> None:
        wait_for(lambda: self.sleepers() == count, DEADLINE_S, f"{count} sleep")


@contextmanager
def gated(server: PostgresServer, *options: str) -> Iterator[Place]:
    with running_gates(server.port) as gates:
        registry = ("--registry", f"static://127.0.0.1:{gates.port}")
        with running_ambassador([server], *registry, *options) as ambassador:
            yield Place(server, gates, ambassador)


@pytest.fixture(scope="module")
def place(postgres: PostgresServer) -> Iterator[Place]:
    """One backend, so that everybody meets everybody."""
    postgres.query("CREATE TABLE IF NOT EXISTS canceled (n int)")
    with gated(postgres, "--pool-size", "1") as made:
        yield made


def cancel(wire: Wire, port: int) -> threading.Thread:
    """Send a cancel request; the thread ends when pgamb has closed its connection."""
    greeting = wire.greeting
    assert greeting is not None
    canceller = Wire(port)
    canceller.send(messages.cancel_request(greeting.pid, greeting.secret))

    def wait() -> None:
        with canceller:
            assert canceller.until_closed() == []

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def cancel_and_wait(wire: Wire, port: int) -> None:
    thread = cancel(wire, port)
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def assert_canceled(wire: Wire, status: bytes = b"I") -> None:
    began = time.monotonic()
    found = wire.until_ready()
    assert [error[1] for error in errors(found)] == ["57014"]
    assert found[-1].payload == status
    assert time.monotonic() - began < AT_ONCE_S


def test_while_it_waits_for_a_backend(place: Place) -> None:
    with place.session() as holder, place.session() as waiter:
        holder.query("BEGIN")
        holder.query("INSERT INTO canceled VALUES (1)")
        waiter.send(messages.query("SELECT 1"))
        wait_for(lambda: _waiting(place), DEADLINE_S, "it waits")
        cancel_and_wait(waiter, place.ambassador.port)
        assert_canceled(waiter)
        assert kinds(holder.query("ROLLBACK")) == "CZ"
        assert waiter.value("SELECT 'goes on'") == "goes on"


def _waiting(place: Place) -> bool:
    """Give what was sent time to be put in line: whoever logs in has been served after it."""
    with place.session():
        return True


def test_what_it_has_waited_for_in_a_transaction_that_is_not_real(place: Place) -> None:
    with place.session() as holder, place.session() as waiter:
        holder.query("BEGIN")
        holder.query("INSERT INTO canceled VALUES (1)")
        waiter.query("BEGIN")
        waiter.send(messages.query("SELECT count(*) FROM canceled"))
        _waiting(place)
        cancel_and_wait(waiter, place.ambassador.port)
        assert_canceled(waiter, b"E")
        holder.query("ROLLBACK")
        assert [error[1] for error in errors(waiter.query("SELECT 1"))] == ["25P02"]
        assert kinds(waiter.query("ROLLBACK")) == "CZ"


@pytest.mark.parametrize("sql", [SLEEP, "INSERT INTO canceled SELECT 1 FROM pg_sleep(20)"])
@pytest.mark.parametrize("extended", [False, True])
def test_in_a_transaction(place: Place, sql: str, extended: bool) -> None:
    with place.session() as wire:
        wire.query("BEGIN")
        wire.send(
            messages.parse("", sql) + messages.bind("", "", []) + messages.execute("") + messages.sync()
            if extended
            else messages.query(sql)
        )
        place.wait_asleep()
        cancel_and_wait(wire, place.ambassador.port)
        assert_canceled(wire, b"E")
        assert kinds(wire.query("ROLLBACK")) == "CZ"
        assert wire.value("SELECT count(*) FROM canceled") == "0"


def test_while_its_transaction_is_being_opened(place: Place) -> None:
    # A cancel request that met the BEGIN would let the statement behind it run in no transaction at all.
    with place.session() as wire, place.gates.gate(b"20.25") as gate:
        wire.query("BEGIN")
        wire.send(messages.query("INSERT INTO canceled SELECT 1 FROM pg_sleep(20.25)"))
        gate.wait_reached()
        before = place.gates.cancels
        thread = cancel(wire, place.ambassador.port)
        _waiting(place)
        assert place.gates.cancels == before
        gate.open()
        assert_canceled(wire, b"E")
        thread.join(DEADLINE_S)
        assert kinds(wire.query("ROLLBACK")) == "CZ"
        assert wire.value("SELECT count(*) FROM canceled") == "0"


def test_while_it_settles_parameters(place: Place) -> None:
    with place.session() as wire, place.session() as other:
        wire.query("SET work_mem = '5MB'")
        assert other.value("SHOW work_mem") != "5MB"
        with place.gates.gate(b"set_config") as gate:
            wire.send(messages.query(SLEEP))
            gate.wait_reached()
            thread = cancel(wire, place.ambassador.port)
            _waiting(place)
            gate.open()
            assert_canceled(wire)
            thread.join(DEADLINE_S)
        assert wire.value("SHOW work_mem") == "5MB"
        assert other.value("SHOW work_mem") != "5MB"


def test_while_it_is_asked_for_its_parameters(place: Place) -> None:
    with place.session() as wire:
        with place.gates.gate(b"pg_catalog.pg_settings") as gate:
            wire.query("SET work_mem = '6MB'")
            gate.wait_reached()
            # For all that the application knows, this runs.
            wire.send(messages.query(SLEEP))
            thread = cancel(wire, place.ambassador.port)
            _waiting(place)
            gate.open()
            assert_canceled(wire)
            thread.join(DEADLINE_S)
        assert wire.value("SHOW work_mem") == "6MB"


def test_while_it_is_asked_and_has_said_nothing_more(place: Place) -> None:
    with place.session() as wire:
        with place.gates.gate(b"pg_catalog.pg_settings") as gate:
            wire.query("SET work_mem = '7MB'")
            gate.wait_reached()
            cancel_and_wait(wire, place.ambassador.port)
            wire.send(messages.query("SELECT 'not asked', pg_sleep(0.2)"))
            gate.open()
            assert errors(wire.until_ready()) == []
        assert wire.value("SHOW work_mem") == "7MB"


def test_an_idle_session_goes_on(place: Place) -> None:
    with place.session() as wire:
        for sql in ("SELECT 1", "LISTEN here", "BEGIN", "INSERT INTO canceled VALUES (1)", "ROLLBACK"):
            wire.query(sql)
            cancel_and_wait(wire, place.ambassador.port)
        assert wire.value("SELECT 'goes on', pg_sleep(0.2)") is not None


def test_what_is_sent_next_waits_until_the_request_has_been_dealt_with(place: Place) -> None:
    for begin in ("BEGIN; INSERT INTO canceled VALUES (1)", "LISTEN here"):
        with place.session() as wire, place.gates.gate(CANCEL) as gate:
            wire.query(begin)
            wire.send(messages.query("SELECT pg_sleep(0.3)"))
            place.wait_asleep()
            thread = cancel(wire, place.ambassador.port)
            gate.wait_reached()
            # It was too late.
            assert errors(wire.until_ready()) == []
            wire.send(messages.query("SELECT 'not asked', pg_sleep(0.3)"))
            _waiting(place)
            assert place.sleepers() == 0
            gate.open()
            assert errors(wire.until_ready()) == []
            thread.join(DEADLINE_S)
            wire.query("ROLLBACK")


def test_a_backend_that_a_request_is_on_its_way_to_is_nobody_s(place: Place) -> None:
    with place.session() as wire, place.session() as other, place.gates.gate(CANCEL) as gate:
        wire.send(messages.query("SET work_mem = '8MB'; SELECT pg_sleep(0.3)"))
        place.wait_asleep()
        thread = cancel(wire, place.ambassador.port)
        gate.wait_reached()
        assert errors(wire.until_ready()) == []
        other.send(messages.query("SELECT 'not asked', pg_sleep(0.3)"))
        _waiting(place)
        assert place.sleepers() == 0
        gate.open()
        assert errors(other.until_ready()) == []
        thread.join(DEADLINE_S)
        assert wire.value("SHOW work_mem") == "8MB"


def backend_of(place: Place, wire: Wire) -> object:
    """Return the process that runs a session's statements now."""
    wire.query("SELECT 1 AS who_runs_this")
    return place.server.query("SELECT pid FROM pg_stat_activity WHERE query = $1", "SELECT 1 AS who_runs_this")[0][0]


def test_a_backend_is_not_used_again_if_the_request_may_still_arrive(postgres: PostgresServer) -> None:
    with gated(postgres, "--pool-size", "1", "--connect-timeout", "1") as place, place.session() as wire:
        first = backend_of(place, wire)
        with place.gates.gate(CANCEL) as gate:
            wire.send(messages.query("SELECT pg_sleep(0.3)"))
            place.wait_asleep()
            # It ends when pgamb has given up.
            cancel_and_wait(wire, place.ambassador.port)
            assert errors(wire.until_ready()) == []
            assert backend_of(place, wire) != first
            gate.open()
        assert errors(wire.query("SELECT pg_sleep(0.3)")) == []


def test_a_copy_in_both_directions(place: Place) -> None:
    with place.session() as wire:
        wire.send(messages.query("COPY (SELECT g, pg_sleep(0.01) FROM generate_series(1, 100000) AS g) TO STDOUT"))
        place.wait_asleep()
        cancel_and_wait(wire, place.ambassador.port)
        assert_canceled(wire)
        wire.send(messages.query("COPY canceled FROM STDIN"))
        assert kinds([m for m in [wire.receive()] if m is not None]) == "G"
        wire.send(b"d\0\0\0\6" + b"1\n")
        cancel_and_wait(wire, place.ambassador.port)
        # PostgreSQL looks for it when the next data comes.
        wire.send(b"d\0\0\0\6" + b"2\n" + b"c\0\0\0\4")
        assert_canceled(wire)
        assert wire.value("SELECT count(*) FROM canceled") == "0"


def test_while_it_is_held_for_a_primary(template: PostgresServer) -> None:
    with running_postgres(template=template) as server, gated(server) as place, place.session() as wire:
        assert wire.value("SELECT 1") == "1"
        server.stop()
        wire.send(messages.query("CREATE TABLE held ()"))
        wait_for(lambda: "member.down" in place.ambassador.log, DEADLINE_S, "it is known to be down")
        cancel_and_wait(wire, place.ambassador.port)
        assert_canceled(wire)
        server.start()


@pytest.fixture
def split(bare_cluster: Cluster) -> Iterator[Place]:
    """A primary, and one replica behind gates."""
    primary, replica = bare_cluster.primary, bare_cluster.replicas[0]
    primary.query("CREATE TABLE IF NOT EXISTS parked (n int)")
    with running_gates(replica.port) as gates:
        url = f"static://127.0.0.1:{primary.port},127.0.0.1:{gates.port}"
        options = ("--registry", url, "--replica-wait", "25", "--consistency", "ambassador")
        with running_ambassador([primary, replica], *options) as ambassador:
            yield Place(replica, gates, ambassador)


def test_while_its_read_waits_for_a_replica(split: Place) -> None:
    with split.session() as wire:
        wait_for(lambda: _reads_there(wire, split), DEADLINE_S, "it reads from the replica")
        with split.gates.gate(b"pg_last_wal_replay_lsn") as gate:
            wire.query("INSERT INTO parked VALUES (1)")
            wire.send(messages.query("SELECT count(*) FROM pg_class"))
            # Nobody knows how far the replica is.
            gate.wait_reached()
            _waiting(split)
            cancel_and_wait(wire, split.ambassador.port)
            assert_canceled(wire)


def test_while_its_read_moves_to_another_member(split: Place) -> None:
    # Such a request was lost: it was on its way to a member that the read had left by then.
    with split.session() as wire:
        wait_for(lambda: _reads_there(wire, split), DEADLINE_S, "it reads from the replica")
        with split.gates.gate(CANCEL) as gate:
            wire.send(messages.query("SELECT pg_sleep(20) FROM (SELECT count(*) FROM parked) AS p"))
            split.wait_asleep()
            thread = cancel(wire, split.ambassador.port)
            gate.wait_reached()
            split.gates.cut()
            assert_canceled(wire)
            gate.open()
            thread.join(DEADLINE_S)
        assert wire.value("SELECT 'goes on'") == "goes on"


def _reads_there(wire: Wire, place: Place) -> bool:
    wire.query("SELECT count(*) FROM pg_class")
    return "(replica)" in (wire.value("SHOW pgamb.last_route") or "")
