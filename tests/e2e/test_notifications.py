"""Notifications, and what PostgreSQL reports unasked, reach the application at any time, and say what it expects."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.session.conversation import Message
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.servers import running_postgres
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors

Heard = tuple[int, str, str]


@pytest.fixture(scope="module")
def through(postgres: PostgresServer) -> Iterator[Ambassador]:
    with running_ambassador([postgres], "--pool-size", "4") as ambassador:
        yield ambassador


def log_in(port: int, server: PostgresServer, **parameters: str) -> Wire:
    return Wire(port).log_in(server.credentials.superuser, parameters=parameters)


def heard(found: list[Message]) -> list[Heard]:
    """Return sender, channel and payload of each notification."""
    told = []
    for message in found:
        if message.type == ord("A"):
            channel, text = message.payload[4:-1].decode().split("\0")
            told.append((int.from_bytes(message.payload[:4], "big"), channel, text))
    return told


def more(wire: Wire, got: list[Heard], count: int) -> bool:
    """Ask for what has come meanwhile; tell whether it is all."""
    got += heard(wire.query("SELECT 1"))
    return len(got) >= count


def pid_of(wire: Wire) -> int:
    assert wire.greeting is not None
    return wire.greeting.pid


def test_who_has_notified(postgres: PostgresServer, through: Ambassador) -> None:
    with (
        log_in(through.port, postgres) as listener,
        log_in(through.port, postgres) as other,
        log_in(postgres.port, postgres) as stranger,
    ):
        listener.query("LISTEN who")
        # Its own: as with PostgreSQL, under the process id that its driver knows.
        assert heard(listener.query("NOTIFY who, 'self'")) == [(pid_of(listener), "who", "self")]
        other.query("NOTIFY who, 'other'")
        stranger.query("NOTIFY who, 'stranger'")
        got: list[Heard] = []
        wait_for(lambda: more(listener, got, 2), 20, "both are heard")
        assert got == [(pid_of(other), "who", "other"), (pid_of(stranger), "who", "stranger")]


def test_they_arrive_while_the_session_is_idle(postgres: PostgresServer, through: Ambassador) -> None:
    with log_in(through.port, postgres) as listener, log_in(through.port, postgres) as other:
        listener.query("LISTEN idle; LISTEN other")
        other.query("BEGIN")
        other.query("NOTIFY idle, '1'")
        other.query("COMMIT")
        message = listener.receive()
        assert message is not None
        assert heard([message]) == [(pid_of(other), "idle", "1")]
        listener.query("UNLISTEN idle")
        other.query("SELECT pg_notify('idle', '2'), pg_notify('other', '3')")
        message = listener.receive()
        assert message is not None
        assert [text for _, _, text in heard([message])] == ["3"]


def test_none_is_lost_whatever_goes_on(postgres: PostgresServer, through: Ambassador) -> None:
    # Those that came among the answers to what pgamb itself asks were dropped with these.
    total = 400
    with log_in(through.port, postgres) as listener, log_in(postgres.port, postgres) as other:
        listener.query("LISTEN flood; CREATE TEMP TABLE flood AS SELECT generate_series(1, 500) AS n")
        for number in range(total):
            other.send(messages.query(f"NOTIFY flood, '{number}'"))
        got: list[Heard] = []
        doings = [
            messages.query("SELECT set_config('work_mem', '5MB', false)"),
            messages.query("SET TimeZone = 'UTC'") + messages.query("SET TimeZone = 'Asia/Tokyo'"),
            messages.query("COPY flood TO STDOUT"),
            (messages.parse("", "SELECT pg_advisory_lock(5), pg_advisory_unlock(5)") + messages.bind("", "", []))
            + messages.execute("", 0)
            + messages.sync(),
            messages.query("DO 'BEGIN END'") + messages.query("SELECT n FROM flood"),
        ]
        for number in range(400):
            doing = doings[number % len(doings)]
            listener.send(doing)
            found = listener.until_ready(2 if doing.count(b"Q") > 1 and number % 5 in (1, 4) else 1)
            assert not errors(found)
            got += heard(found)
        other.until_ready(total)
        wait_for(lambda: more(listener, got, total), 20, "all are heard")
        assert [text for _, _, text in got] == [str(number) for number in range(total)]


@contextlib.contextmanager
def two_sessions(port: int, server: PostgresServer) -> Iterator[tuple[Wire, Wire]]:
    with log_in(port, server) as one, log_in(port, server, TimeZone="America/New_York") as two:
        yield one, two


def reported(found: list[Message]) -> dict[str, str]:
    return dict(messages.parse_parameter_status(m.payload) for m in found if m.type == ord("S"))


def test_every_session_hears_of_a_change_of_configuration() -> None:
    # Each backend says so once. The session that has it then was told, and nobody else.
    with running_postgres() as server, running_ambassador([server], "--pool-size", "2") as ambassador:
        for port in (server.port, ambassador.port):
            with two_sessions(port, server) as (one, own), two_sessions(port, server) as (three, pinned):
                pinned.query("LISTEN x")
                zones = dict.fromkeys((one, own, three, pinned), "")
                for wire in zones:
                    assert wire.greeting is not None
                    zones[wire] = wire.greeting.parameters["TimeZone"]
                for zone in ("Asia/Tokyo", "Europe/Vienna", "Asia/Tokyo"):
                    server.query(f"ALTER SYSTEM SET TimeZone = '{zone}'")
                    server.query("SELECT pg_reload_conf()")
                    wait_for(lambda zone=zone: server.query("SHOW TimeZone") == [(zone,)], 20, "it is reloaded")  # type: ignore[misc]
                    for wire in (one, own, three, pinned, three, one):
                        for sql in ("SELECT 1", "SHOW TimeZone"):
                            found = wire.query(sql)
                            zones[wire] = reported(found).get("TimeZone", zones[wire])
                        (shown,) = [messages.parse_data_row(m.payload)[0] for m in found if m.type == ord("D")]
                        assert shown == zones[wire].encode()
                    assert zones[one] == zones[three] == zone
                    assert zones[own] == zones[pinned] == "America/New_York"
            server.query("ALTER SYSTEM RESET TimeZone")
            server.query("SELECT pg_reload_conf()")
            wait_for(lambda: server.query("SHOW TimeZone") != [("Asia/Tokyo",)], 20, "it is reloaded")


def test_a_backend_with_other_defaults_says_so(postgres: PostgresServer) -> None:
    postgres.query("DROP ROLE IF EXISTS told")
    postgres.query("CREATE ROLE told LOGIN PASSWORD 'told'")
    with running_ambassador([postgres], "--pool-size", "2") as ambassador, Wire(ambassador.port) as wire:
        wire.log_in("told", user="told")
        assert wire.greeting is not None
        assert wire.greeting.parameters["DateStyle"] == "ISO, MDY"
        postgres.query("ALTER ROLE told SET DateStyle = 'German'")
        # The first backend of this user is opened now.
        found = wire.query("SELECT date '2000-12-31'")
        assert reported(found) == {"DateStyle": "German, DMY"}
        assert [messages.parse_data_row(m.payload) for m in found if m.type == ord("D")] == [[b"31.12.2000"]]
    postgres.query("DROP ROLE told")
