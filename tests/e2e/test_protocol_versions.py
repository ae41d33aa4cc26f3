"""Protocol 3.0 and 3.2 on either side, and what PostgreSQL says to first packets: 18 direct, and through pgamb."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
import trustme

from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.gates import GateRelay, running_gates
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors

DEADLINE_S = 30.0
SLEEP = "SELECT pg_sleep(20)"
SSL, GSS = messages.ssl_request(), messages.gssenc_request()


def start(code: int = 0x0003_0000, options: Mapping[str, str] | None = None, **parameters: str) -> bytes:
    given = {"user": "postgres", "database": "postgres", **(options or {}), **parameters}
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in given.items()) + b"\0"
    return struct.pack("!II", len(body) + 8, code) + body


@pytest.fixture(scope="module")
def newest_through(newest: PostgresServer) -> Iterator[tuple[GateRelay, Ambassador]]:
    with running_gates(newest.port) as gates:
        registry = ("--registry", f"static://127.0.0.1:{gates.port}")
        with running_ambassador([newest], *registry, "--pool-size", "2") as ambassador:
            yield gates, ambassador


@pytest.fixture(scope="module")
def older_through(postgres: PostgresServer) -> Iterator[tuple[GateRelay, Ambassador]]:
    with running_gates(postgres.port) as gates:
        registry = ("--registry", f"static://127.0.0.1:{gates.port}")
        with running_ambassador([postgres], *registry, "--pool-size", "2") as ambassador:
            yield gates, ambassador


# First packets


def answer(port: int, packets: tuple[bytes, ...]) -> list[bytes]:
    """Send each packet when the one before has got its byte; return these, and what comes behind the last one.

    Where there is an error, only its severity, state and text count: the rest is PostgreSQL's source.
    """
    with Wire(port) as wire:
        heard = []
        for packet in packets[:-1]:
            wire.send(packet)
            heard.append(wire.receive_bytes(1))
            if heard[-1] != b"N":
                return heard
        wire.send_all(packets[-1])
        try:
            data = wire.sock.recv(4096)
        except ConnectionResetError:
            data = b""
        if data[:1] == b"E" and data[1:2] == b"\0":
            fields = messages.parse_error_fields(data[5:])
            data = "/".join(fields.get(letter, "") for letter in "SVCM").encode()
        elif data[:1] == b"v":
            # What follows depends on the moment.
            data = data[: int.from_bytes(data[1:5], "big") + 1]
        return [*heard, data[:200]]


@pytest.mark.parametrize(
    "packets",
    [
        (start(),),
        (SSL, start()),
        (GSS, start()),
        (SSL, GSS, start()),
        (GSS, SSL, start()),
        (SSL, SSL),
        (GSS, GSS),
        (SSL, GSS, SSL),
        (GSS, SSL, GSS),
        (start(0x0001_0000),),
        (start(0x0002_0000),),
        (start(0x0004_0000),),
        (start(0x0003_0001),),
        (start(0x0003_0002),),
        (start(0x0003_0003),),
        (start(0x0003_270F),),
        (start(0x0003_0000, {"_pq_.x": "1"}),),
        (start(0x0003_0002, {"_pq_.x": "1", "_pq_.y": ""}),),
        (start(0x0003_270F, {"_pq_.test_protocol_negotiation": ""}),),
        (start(application_name="x" * 9900),),
        (start(application_name="x" * (10_004 - len(start()) - 18)),),
        (SSL, struct.pack("!IIII", 16, 80877102, 1, 1)),
        (struct.pack("!II", 4 + 260, 80877102) + b"x" * 256,),
    ],
    ids=lambda packets: f"{len(packets)}-{packets[-1][4:8].hex()}",
)
def test_a_first_packet_is_answered_as_by_postgresql_18(
    newest: PostgresServer, newest_through: tuple[GateRelay, Ambassador], packets: tuple[bytes, ...]
) -> None:
    assert answer(newest_through[1].port, packets) == answer(newest.port, packets)


@pytest.mark.parametrize("size", [10_005, 11_000, 1 << 20])
def test_a_start_that_is_too_long_gets_nowhere(older_through: tuple[GateRelay, Ambassador], size: int) -> None:
    # PostgreSQL says nothing at all to that; pgamb says what is wrong.
    packet = start(application_name="x" * size)
    for port in (older_through[1].servers[0].port, older_through[1].port):
        assert not any(data.startswith(b"R") for data in answer(port, (packet,)))


@pytest.mark.parametrize(
    "parameters",
    [
        {"no_such_parameter": "1"},
        {"work_mem": "much"},
        {"client_encoding": "klingon"},
        {"options": "-c no_such=1"},
        {"options": "-c work_mem"},
        {"options": "--work-mem=much"},
        {"DateStyle": "yesterday"},
        {"session_authorization": "nobody_at_all"},
        {"role": "nobody_at_all"},
        {"search_path": '"', "application_name": "odd"},
        {"shared_buffers": "1GB"},
    ],
)
def test_what_postgresql_refuses_of_a_start_is_refused_in_its_words(
    newest: PostgresServer,
    postgres: PostgresServer,
    newest_through: tuple[GateRelay, Ambassador],
    older_through: tuple[GateRelay, Ambassador],
    parameters: dict[str, str],
) -> None:
    for server, (_, ambassador) in ((newest, newest_through), (postgres, older_through)):
        told: list[dict[str, str]] = []
        for port in (server.port, ambassador.port):
            try:
                with Wire(port) as wire:
                    wire.log_in(server.credentials.superuser, parameters=parameters)
                told.append({})
            except Exception as error:
                told.append({k: v for k, v in error.fields.items() if k in "SVCMD"})  # type: ignore[attr-defined]
        assert told[0] == told[1]


# Keys


@pytest.mark.parametrize("minor", [0, 1, 2, 3, 9999])
@pytest.mark.parametrize("which", ["newest_through", "older_through"])
def test_a_key_of_either_length_cancels_at_a_server_of_either_version(
    request: pytest.FixtureRequest, which: str, minor: int
) -> None:
    gates, ambassador = request.getfixturevalue(which)
    (server,) = ambassador.servers
    with Wire(ambassador.port).log_in(server.credentials.superuser, minor=minor) as wire:
        assert wire.greeting is not None
        assert len(wire.greeting.secret) == (32 if minor >= 2 else 4)
        wire.send(messages.query(SLEEP))
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_for(lambda: server.query(asleep) == [(1,)], DEADLINE_S, "it sleeps")
        gates.cancel_sizes.clear()
        for secret in (wire.greeting.secret[:-1] + b"\0", wire.greeting.secret + b"\0", b"\0" * 256, b"1234"):
            send_cancel(ambassador.port, wire.greeting.pid, secret)
        # Nobody's key costs the server nothing.
        assert gates.cancel_sizes == []
        send_cancel(ambassador.port, wire.greeting.pid, wire.greeting.secret)
        assert [error[1] for error in errors(wire.until_ready())] == ["57014"]
        assert gates.cancel_sizes == [12 + (32 if which == "newest_through" else 4)]


def send_cancel(port: int, pid: int, secret: bytes) -> None:
    with Wire(port) as canceller:
        canceller.send(messages.cancel_request(pid, secret))
        assert canceller.until_closed() == []


@pytest.fixture(scope="module")
def secure(postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ambassador, Path]]:
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "both.pem"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    both = str(folder / "both.pem")
    with running_ambassador([postgres], "--tls-cert", both, "--tls-key", both) as ambassador:
        yield ambassador, folder / "ca.pem"


@pytest.mark.parametrize("negotiation", ["postgres", "direct"])
@pytest.mark.parametrize("version", ["3.0", "latest"])
def test_libpq_cancels_over_tls(secure: tuple[Ambassador, Path], negotiation: str, version: str) -> None:
    ambassador, ca = secure
    dsn = f"{ambassador.dsn()}?sslmode=verify-full&sslrootcert={ca}&sslnegotiation={negotiation}"
    with psycopg.connect(f"{dsn}&max_protocol_version={version}", autocommit=True) as session:
        assert session.pgconn.ssl_in_use
        session.pgconn.send_query(SLEEP.encode())
        asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_for(lambda: ambassador.servers[0].query(asleep) == [(1,)], DEADLINE_S, "it sleeps")
        # PQcancelStart: over TLS, and any other end than an orderly one is an error.
        session.cancel_safe(timeout=10)
        result = session.pgconn.get_result()
        assert result is not None
        assert result.error_field(psycopg.pq.DiagnosticField.SQLSTATE) == b"57014"
        while session.pgconn.get_result() is not None:
            pass
        session.cancel_safe(timeout=10)
        assert session.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("first", [SSL, GSS])
def test_under_tls_no_encryption_can_be_asked_for(secure: tuple[Ambassador, Path], first: bytes) -> None:
    ambassador, ca = secure
    context = ssl.create_default_context(cafile=str(ca))
    with Wire(ambassador.port) as wire:
        wire.send(GSS)
        assert wire.receive_bytes(1) == b"N"
        wire.send(SSL)
        assert wire.receive_bytes(1) == b"S"
        wire.start_tls(context)
        wire.send(first)
        assert [error[1] for error in errors(wire.until_closed())] == ["0A000"]


@pytest.mark.parametrize("behind", [GSS, start(), b"\x16\x03\x01"])
def test_what_stands_in_the_packet_of_a_request_for_tls_is_refused(
    secure: tuple[Ambassador, Path], behind: bytes
) -> None:
    ambassador, _ = secure
    with Wire(ambassador.port) as wire:
        wire.send(SSL + behind)
        wire.sock.shutdown(socket.SHUT_WR)
        assert [error[1] for error in errors(wire.until_closed())] == ["08P01"]
