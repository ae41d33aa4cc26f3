"""What comes before a log-in, and should not: a clear refusal to whom it concerns, and nobody else harmed."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path as FilePath

import pytest
import trustme

from pgamb.errors import PostgresError
from pgamb.session.conversation import Message
from pgamb.wire import messages
from pgamb.wire.messages import startup_message
from tests.integration.client.conftest import Path
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors, kinds

START = startup_message({"user": "postgres", "database": "postgres", "application_name": "start"})
IMPOSSIBLE = (-1, 0, 3, 7, 10_005, 2**31 - 1, -(2**31))
LOGIN_TIMEOUT_S = 6
SLEEPING = "SELECT 1 FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND wait_event = 'PgSleep'"


@pytest.fixture
def neighbour(path: Path) -> Iterator[Wire]:
    """A session in a transaction, which must never notice anything."""
    with path.through() as wire:
        wire.query("BEGIN")
        assert wire.value("SELECT 'before'") == "before"
        yield wire
        assert wire.value("SELECT 'after'") == "after"
        assert kinds(wire.query("COMMIT")) == "CZ"


@pytest.fixture(scope="module")
def encrypted(path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ambassador, ssl.SSLContext]]:
    """An ambassador with a certificate, and the context to trust it with."""
    folder: FilePath = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = ("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem"))
    with running_ambassador([path.server], *options, "--login-timeout", str(LOGIN_TIMEOUT_S)) as ambassador:
        yield ambassador, context


def refusal(port: int, data: bytes) -> list[Message]:
    """Send `data` on a new connection, say no more, and return all that is answered."""
    with Wire(port) as wire:
        wire.send_all(data)
        with contextlib.suppress(OSError):
            wire.sock.shutdown(socket.SHUT_WR)
        return wire.until_closed()


@pytest.mark.parametrize("length", IMPOSSIBLE)
def test_a_startup_packet_of_impossible_length_is_refused(path: Path, neighbour: Wire, length: int) -> None:
    found = refusal(path.ambassador.port, struct.pack("!i", length) + START[4:])
    assert errors(found) == [("FATAL", "08P01", "invalid length of startup packet")]


def test_another_protocol_is_told_what_this_port_speaks(path: Path, neighbour: Wire) -> None:
    (error,) = refusal(path.ambassador.port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert "PostgreSQL" in messages.parse_error_fields(error.payload)["H"]


def test_every_truncation_of_a_start_is_harmless(path: Path, neighbour: Wire) -> None:
    for end in range(len(START)):
        assert refusal(path.ambassador.port, START[:end]) == []


def test_random_bytes_are_harmless(path: Path, neighbour: Wire) -> None:
    chance = random.Random(7)
    for _ in range(100):
        data = chance.randbytes(chance.randint(1, 300))
        assert set(kinds(refusal(path.ambassador.port, data))) <= {"E"}
        behind = struct.pack("!I", len(data) + 8) + struct.pack("!I", 196608) + data
        assert set(kinds(refusal(path.ambassador.port, behind))) <= {"E", "R"}


@pytest.mark.parametrize("minor", [0, 1, 2, 3, 9999])
def test_a_newer_protocol_is_negotiated(path: Path, minor: int) -> None:
    with Wire(path.ambassador.port) as wire:
        wire.send(startup_message({"user": "postgres"}, minor))
        first = wire.receive()
        assert first is not None
        assert chr(first.type) == ("v" if minor > 2 else "R")
        if minor > 2:
            assert messages.parse_negotiate_protocol_version(first.payload) == (3, 2, ())
    with Wire(path.ambassador.port).log_in(path.server.credentials.superuser, minor=minor) as wire:
        assert wire.greeting is not None
        assert len(wire.greeting.secret) == (32 if minor >= 2 else 4)
        assert wire.value("SELECT 1") == "1"


def test_an_unknown_protocol_option_is_named(path: Path) -> None:
    with Wire(path.ambassador.port) as wire:
        wire.send(startup_message({"user": "postgres", "_pq_.flying": "on", "_pq_.swimming": "on"}))
        first = wire.receive()
        assert first is not None
        assert chr(first.type) == "v"
        assert messages.parse_negotiate_protocol_version(first.payload)[2] == ("_pq_.flying", "_pq_.swimming")


@pytest.mark.parametrize("code", [0x0004_0000, 0x00FF_0003])
def test_another_major_version_is_refused(path: Path, code: int) -> None:
    packet = struct.pack("!II", len(START), code) + START[8:]
    major, minor = code >> 16, code & 0xFFFF
    text = f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"
    assert errors(refusal(path.ambassador.port, packet)) == [("FATAL", "0A000", text)]


@pytest.mark.parametrize(
    "body",
    [b"", b"\0", b"user\0", b"user\0\0\0", b"user\0postgres", b"user\0postgres\0", b"database\0postgres\0\0", b"user"],
)
def test_a_malformed_startup_packet_is_refused_as_postgresql_does(path: Path, neighbour: Wire, body: bytes) -> None:
    packet = struct.pack("!II", len(body) + 8, 0x0003_0000) + body
    assert errors(refusal(path.ambassador.port, packet)) == errors(refusal(path.server.port, packet)) != []


@pytest.mark.parametrize(
    ("user", "password", "database"),
    [
        ("postgres", "wrong", "postgres"),
        ("nobody at all", "wrong", "postgres"),
        ("nobody at all", "wrong", "nowhere"),
        ("postgres", None, "nowhere"),
        ("postgres", None, "template0"),
    ],
)
def test_a_refused_log_in_reads_as_postgresql_s(
    path: Path, neighbour: Wire, user: str, password: str | None, database: str
) -> None:
    told = []
    for port in (path.server.port, path.ambassador.port):
        with pytest.raises(PostgresError) as caught, Wire(port) as wire:
            wire.log_in(password or path.server.credentials.superuser, user=user, database=database)
        told.append({k: v for k, v in caught.value.fields.items() if k in "SVCMDH"})
    assert told[0] == told[1]


@pytest.mark.parametrize("length", [-1, 0, 3, 2**31 - 1])
def test_a_password_message_of_impossible_length_is_refused(path: Path, neighbour: Wire, length: int) -> None:
    with Wire(path.ambassador.port) as wire:
        wire.send(START)
        assert wire.receive() is not None
        wire.send_all(b"p" + struct.pack("!i", length) + b"SCRAM-SHA-256\0")
        assert [error[:2] for error in errors(wire.until_closed())] == [("FATAL", "08P01")]


@pytest.mark.parametrize("data", [messages.query("SELECT 1"), b"p\0\0\0\4", b"p\0\0\0\5\0", b"X\0\0\0\4"])
def test_anything_but_a_password_is_refused(path: Path, neighbour: Wire, data: bytes) -> None:
    with Wire(path.ambassador.port) as wire:
        wire.send(START)
        assert wire.receive() is not None
        wire.send_all(data)
        assert [error[:2] for error in errors(wire.until_closed())] == [("FATAL", "08P01")]


def test_encryption_is_declined_without_a_certificate(path: Path) -> None:
    with Wire(path.ambassador.port) as wire:
        for request in (messages.gssenc_request(), messages.ssl_request()):
            wire.send(request)
            assert wire.receive_bytes(1) == b"N"
        wire.log_in(path.server.credentials.superuser)
        assert wire.value("SELECT 1") == "1"


def test_a_second_request_for_encryption_is_refused(path: Path) -> None:
    with Wire(path.ambassador.port) as wire:
        wire.send(messages.ssl_request())
        assert wire.receive_bytes(1) == b"N"
        wire.send(messages.ssl_request())
        ((*_, text),) = errors(wire.until_closed())
        assert text == "unsupported frontend protocol 1234.5679: server supports 3.0 to 3.2"


def test_many_who_connect_and_leave_cost_nothing(path: Path, neighbour: Wire) -> None:
    def connect_and_leave(count: int) -> None:
        for number in range(count):
            sock = socket.create_connection(("127.0.0.1", path.ambassador.port))
            if number % 3 == 1:
                sock.send(START[: number % len(START)])
            if number % 3 == 2:
                # The close is a reset.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    descriptors = FilePath(f"/proc/{path.ambassador.process.pid}/fd")
    connect_and_leave(500)
    wait_for(lambda: len(list(descriptors.iterdir())) < 60, 20, "descriptors are given back")
    before = path.ambassador.resident_bytes
    connect_and_leave(100_000 if os.environ.get("PGAMB_TEST_LONG") else 2000)
    wait_for(lambda: len(list(descriptors.iterdir())) < 60, 20, "descriptors are given back")
    assert path.ambassador.resident_bytes - before < 4 << 20


def test_a_log_in_that_never_ends_is_ended(encrypted: tuple[Ambassador, ssl.SSLContext]) -> None:
    ambassador, _ = encrypted
    slow = [Wire(ambassador.port) for _ in range(4)]
    slow[1].send(START[:9])
    slow[2].send(START)
    slow[3].send(messages.ssl_request())
    with Wire(ambassador.port).log_in(ambassador.servers[0].credentials.superuser) as quick:
        assert quick.value("SELECT 1") == "1"
        for wire in slow:
            wire.until_closed() if wire is not slow[3] else wire.receive_bytes(2)
            wire.close()
        assert quick.value("SELECT 2") == "2"


def test_tls_by_request_and_at_once(encrypted: tuple[Ambassador, ssl.SSLContext]) -> None:
    ambassador, context = encrypted
    password = ambassador.servers[0].credentials.superuser
    with Wire(ambassador.port) as wire:
        wire.send(messages.ssl_request())
        assert wire.receive_bytes(1) == b"S"
        wire.start_tls(context)
        wire.log_in(password)
        assert wire.value("SELECT repeat('x', 100000)") == "x" * 100_000
    context.set_alpn_protocols(["postgresql"])
    with Wire(ambassador.port) as wire:
        wire.start_tls(context)
        wire.log_in(password)
        assert wire.value("SELECT 1") == "1"


@pytest.mark.parametrize("protocols", [[], ["http/1.1"]])
def test_direct_tls_for_another_service_is_refused(
    encrypted: tuple[Ambassador, ssl.SSLContext], protocols: list[str]
) -> None:
    ambassador, context = encrypted
    context.set_alpn_protocols(protocols)
    with Wire(ambassador.port) as wire:
        try:
            wire.start_tls(context)
        except ssl.SSLError:
            return
        wire.send_all(START)
        assert "R" not in kinds(wire.until_closed())


def test_direct_tls_without_a_certificate_is_closed(path: Path, neighbour: Wire) -> None:
    with Wire(path.ambassador.port) as wire, pytest.raises((ssl.SSLError, ConnectionError)):
        wire.start_tls(ssl.create_default_context())


def test_what_comes_with_the_request_for_tls_is_refused(encrypted: tuple[Ambassador, ssl.SSLContext]) -> None:
    # Bytes that nothing protects must not pass for what TLS protects: CVE-2021-23214.
    ambassador, _ = encrypted
    with Wire(ambassador.port) as wire:
        wire.send(messages.ssl_request() + START)
        assert errors(wire.until_closed()) == [("FATAL", "08P01", "received unencrypted data after SSL request")]


def test_a_cancel_over_tls_cancels(encrypted: tuple[Ambassador, ssl.SSLContext]) -> None:
    ambassador, context = encrypted
    context.set_alpn_protocols(["postgresql"])
    with Wire(ambassador.port).log_in(ambassador.servers[0].credentials.superuser, minor=2) as wire:
        assert wire.greeting is not None
        wire.send(messages.query("SELECT pg_sleep(60)"))
        _wait_until_it_sleeps(ambassador)
        with Wire(ambassador.port) as canceller:
            canceller.start_tls(context)
            canceller.send(messages.cancel_request(wire.greeting.pid, wire.greeting.secret))
            assert canceller.until_closed() == []
        assert [error[1] for error in errors(wire.until_ready())] == ["57014"]


def test_a_cancel_with_a_wrong_key_is_ignored(path: Path) -> None:
    with path.through() as wire:
        assert wire.greeting is not None
        pid, secret = wire.greeting.pid, wire.greeting.secret
        wire.send(messages.query("SELECT pg_sleep(60)"))
        _wait_until_it_sleeps(path.ambassador)
        wrong = bytes([secret[0] ^ 1]) + secret[1:]
        for key in ((pid, wrong), (pid + 1, secret), (pid, secret + b"x"), (0, secret), (2**32 - 1, b"\0" * 256)):
            assert refusal(path.ambassador.port, messages.cancel_request(*key)) == []
        for size in (0, 3, 257):
            assert errors(refusal(path.ambassador.port, messages.cancel_request(pid, b"x" * size)))[0][1] == "08P01"
        assert len(path.server.query(SLEEPING)) == 1
        assert refusal(path.ambassador.port, messages.cancel_request(pid, secret)) == []
        assert [error[1] for error in errors(wire.until_ready())] == ["57014"]
        assert wire.value("SELECT 1") == "1"


def _wait_until_it_sleeps(ambassador: Ambassador) -> None:
    wait_for(lambda: ambassador.servers[0].query(SLEEPING), 20, "a backend sleeps")
