"""Who may log in through the ambassador, and over what: TLS, passwords, verifiers, the user file.

The answers are PostgreSQL's wherever it is asked.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import trustme

from pgamb.demo.ports import free_port
from pgamb.demo.postgres import PostgresServer
from pgamb.demo.process import ChildProcess, clean_environment
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.servers import server_folder

Session = psycopg.Connection[tuple[object, ...]]
LARGE_BYTES = 3_000_000


@dataclass(frozen=True, slots=True)
class Certificate:
    ca: Path
    cert: Path
    key: Path

    @property
    def options(self) -> list[str]:
        return ["--tls-cert", str(self.cert), "--tls-key", str(self.key)]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    issued = ca.issue_cert("localhost", "127.0.0.1")
    made = Certificate(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
    ca.cert_pem.write_to_path(str(made.ca))
    issued.private_key_pem.write_to_path(str(made.key))
    made.cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    return made


@pytest.fixture(scope="module")
def people(postgres: PostgresServer) -> PostgresServer:
    """Roles whom PostgreSQL lets in, and some whom it does not."""
    for name, options in {
        "security_ok": "LOGIN PASSWORD 'right'",
        "security_expired": "LOGIN PASSWORD 'right' VALID UNTIL '2020-01-01'",
        "security_group": "NOLOGIN PASSWORD 'right'",
        "security_bare": "LOGIN",
    }.items():
        postgres.query(f"DROP ROLE IF EXISTS {name}")
        postgres.query(f"CREATE ROLE {name} {options}")
    return postgres


@pytest.fixture(scope="module")
def secured(people: PostgresServer, certificate: Certificate) -> Iterator[Ambassador]:
    with running_ambassador([people], *certificate.options) as ambassador:
        yield ambassador


@pytest.fixture(scope="module", params=["scram", "password"])
def by_method(request: pytest.FixtureRequest, people: PostgresServer) -> Iterator[Ambassador]:
    with running_ambassador([people], "--auth", request.param) as ambassador:
        yield ambassador


def connect(ambassador: Ambassador, user: str = "postgres", password: str | None = None, **options: str) -> Session:
    dsn = ambassador.dsn(user=user, password=password)
    return psycopg.connect(dsn, autocommit=True, **options)  # type: ignore[arg-type]


def test_everything_goes_over_tls(secured: Ambassador, certificate: Certificate) -> None:
    # The first application that used TLS ended the process: adding no bytes to an empty buffer passed for an
    # exception. Adding nothing does nothing now.
    with connect(secured, sslmode="verify-full", sslrootcert=str(certificate.ca)) as session:
        assert session.pgconn.ssl_in_use
        assert session.execute("SELECT length(%s)", ("x" * LARGE_BYTES,)).fetchone() == (LARGE_BYTES,)
        rows = session.execute("SELECT n, repeat('y', 100) FROM generate_series(1, 20000) AS n").fetchall()
        assert [row[0] for row in rows] == list(range(1, 20001))
        session.execute("CREATE TEMP TABLE lines (line text)")
        with session.cursor().copy("COPY lines FROM STDIN") as copy:
            for number in range(20000):
                copy.write(f"line {number}\n")
        assert session.execute("SELECT count(DISTINCT line) FROM lines").fetchone() == (20000,)
        with session.pipeline():
            answers = [session.execute("SELECT %s::int", (number,)) for number in range(500)]
        assert [answer.fetchone() for answer in answers] == [(number,) for number in range(500)]


def test_tls_without_asking_first(secured: Ambassador) -> None:
    if psycopg.pq.version() < 170000:
        pytest.skip("this libpq cannot connect so")
    with connect(secured, sslmode="require", sslnegotiation="direct") as session:
        assert session.pgconn.ssl_in_use
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_a_connection_without_tls_is_refused_where_tls_is_required(
    people: PostgresServer, certificate: Certificate
) -> None:
    # Connections of this machine were let in without TLS, against what --tls-required says. Only unix sockets are.
    with server_folder() as folder:
        port = free_port()
        listen = ["--listen", f"127.0.0.1:{port}", "--listen", f"{folder}:{port}", "--tls-required"]
        argv = ["client", *listen, "--registry", f"static://{people.address}", *certificate.options]
        process = ChildProcess(
            "pgamb client",
            [sys.executable, "-m", "pgamb", *argv],
            log=folder / "client.log",
            env={**clean_environment(), "PGAMB_AUTH_DSN": people.dsn()},
            cwd=Path.cwd(),
        )
        process.start()
        try:
            process.wait_until(lambda: "client.listening" in process.log_tail(5), 60, "while waiting for it to listen")
            dsn = people.dsn().replace(f":{people.port}/", f":{port}/")
            with pytest.raises(psycopg.OperationalError, match="accepts only TLS connections"):
                psycopg.connect(dsn, sslmode="disable")
            for way in ({"sslmode": "require"}, {"host": str(folder)}):
                with psycopg.connect(dsn, **way) as session:  # type: ignore[arg-type]
                    assert session.execute("SELECT 1").fetchone() == (1,)
        finally:
            process.stop(grace_s=2.0)


def test_channel_binding_is_not_offered(secured: Ambassador) -> None:
    with pytest.raises(psycopg.OperationalError, match="channel binding"):
        connect(secured, sslmode="require", channel_binding="require")


def test_whom_postgresql_lets_in(by_method: Ambassador) -> None:
    with connect(by_method, "security_ok", "right") as session:
        assert session.execute("SELECT current_user::text, session_user::text").fetchone() == ("security_ok",) * 2


@pytest.mark.parametrize(
    ("user", "password", "says"),
    [
        ("security_ok", "wrong", 'password authentication failed for user "security_ok"'),
        ("security_expired", "right", 'password authentication failed for user "security_expired"'),
        ("security_bare", "right", 'password authentication failed for user "security_bare"'),
        ("security_nobody", "right", 'password authentication failed for user "security_nobody"'),
        ("security_group", "right", 'role "security_group" is not permitted to log in'),
    ],
)
def test_whom_it_does_not(by_method: Ambassador, user: str, password: str, says: str) -> None:
    with pytest.raises(psycopg.OperationalError) as refused:
        connect(by_method, user, password)
    assert f"FATAL:  {says}" in str(refused.value)


def test_a_changed_password_counts_at_the_next_log_in(by_method: Ambassador) -> None:
    server = by_method.servers[0]
    with connect(by_method, "security_ok", "right") as before:
        server.query("ALTER ROLE security_ok PASSWORD 'changed'")
        try:
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                connect(by_method, "security_ok", "right")
            with connect(by_method, "security_ok", "changed") as after:
                assert after.execute("SELECT 1").fetchone() == (1,)
            # As in PostgreSQL, who is in stays in.
            assert before.execute("SELECT 1").fetchone() == (1,)
        finally:
            server.query("ALTER ROLE security_ok PASSWORD 'right'")


@pytest.mark.parametrize("secret", ["verifier", "password"])
def test_the_user_file(people: PostgresServer, tmp_path: Path, secret: str) -> None:
    held = "right"
    if secret == "verifier":
        held = str(people.query("SELECT rolpassword FROM pg_authid WHERE rolname = 'security_ok'")[0][0])
    users = tmp_path / "users.txt"
    users.write_text(f'"security_ok" "{held}"\n')
    with running_ambassador([people], "--auth-file", str(users)) as ambassador:
        with connect(ambassador, "security_ok", "right") as session:
            assert session.execute("SELECT current_user::text").fetchone() == ("security_ok",)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            connect(ambassador, "security_ok", "wrong")
