"""`pgamb check` as a process: each thing that can be wrong, really wrong once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from pgamb.demo.etcd import EtcdServer
from pgamb.demo.postgres import PostgresServer
from pgamb.registry.model import Address, Member, PrimaryRecord, Role
from tests.e2e.test_status import Service, pgamb, service_name
from tests.support.etcd import etcdctl
from tests.support.servers import running_postgres


@pytest.fixture
def service(etcd: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Service]:
    made = Service(etcd, service_name(request))
    yield made
    etcdctl(etcd, "del", "--prefix", f"/pgamb/{made.name}/")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def secured(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL with TLS, whose certificate is for 127.0.0.1 and not for localhost."""
    issued = authority.issue_cert("127.0.0.1")
    with running_postgres("tls") as server:
        owner = server.data.stat()
        for name, content in (
            ("server.crt", b"".join(blob.bytes() for blob in issued.cert_chain_pems)),
            ("server.key", issued.private_key_pem.bytes()),
        ):
            file = server.data / name
            file.write_bytes(content)
            file.chmod(0o600)
            os.chown(file, owner.st_uid, owner.st_gid)
        with (server.data / "postgresql.auto.conf").open("a") as settings:
            settings.write("ssl = on\n")
        server.reload()
        yield server


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    return file


def announce(service: Service, postgres: PostgresServer, *, host: str = "127.0.0.1", role: Role = Role.PRIMARY) -> None:
    service.put("cluster", "77")
    service.put("primary", PrimaryRecord("pg1", 1))
    service.put("members/pg1", Member("pg1", role, (Address(host, postgres.port),), 1, "77", 150004))


def lines(output: str, state: str) -> list[str]:
    return [line.removeprefix(f"{state:7} ") for line in output.splitlines() if line.startswith(f"{state:7} ")]


def test_everything_works(service: Service, postgres: PostgresServer) -> None:
    announce(service, postgres)
    checked = pgamb("check", *service.words, "--listen", "0", "--listen", "/tmp:1", PGAMB_AUTH_DSN=postgres.dsn())
    assert checked.returncode == 0, checked.stdout + checked.stderr
    place = f"127.0.0.1:{postgres.port}"
    assert [line.split(": ")[0] for line in lines(checked.stdout, "ok")] == [
        "configuration",
        "--listen 0",
        "--listen /tmp:1",
        "registry",
        "service",
        "primary",
        f"member pg1 ({place})",
        f"member pg1 ({place}) log-in",
    ]
    assert checked.stderr == ""


def test_a_bad_configuration_is_a_finding() -> None:
    checked = pgamb("check", "--registry", "etcd://h", PGAMB_POOL_SIZE="0")
    assert checked.returncode == 1
    assert (
        checked.stdout
        == 'FAILED  configuration: PGAMB_POOL_SIZE: "0" is out of range -> give a whole number from 1 to 10000\n'
    )


def test_nobody_there(service: Service, postgres: PostgresServer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        checked = pgamb("check", *service.words, "--listen", str(port))
    assert checked.returncode == 1
    listen, nobody = lines(checked.stdout, "FAILED")
    assert listen.startswith(f"--listen {port}: 127.0.0.1:{port} is already in use -> ")
    assert nobody.startswith(f'service: "{service.name}" has no members -> ')


def test_no_registry() -> None:
    checked = pgamb("check", "--registry", "etcd://127.0.0.1:1", "--connect-timeout", "1", "--listen", "0")
    assert checked.returncode == 1
    (registry,) = lines(checked.stdout, "FAILED")
    assert registry.startswith("registry: the registry etcd://127.0.0.1:1 did not answer within 1 s (")
    assert lines(checked.stdout, "skipped") == ["members: the registry has to be reached first"]


def test_members_that_are_not_what_they_should_be(service: Service, postgres: PostgresServer) -> None:
    announce(service, postgres, role=Role.REPLICA)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for node, port in (("pg2", 1), ("pg3", silent.getsockname()[1])):
            service.put(f"members/{node}", Member(node, Role.REPLICA, (Address("127.0.0.1", port),), 1, "77", 150004))
        checked = pgamb(
            "check", *service.words, "--listen", "0", "--connect-timeout", "3", PGAMB_AUTH_DSN=postgres.dsn()
        )
    assert checked.returncode == 1
    primary, refused, mute = lines(checked.stdout, "FAILED")
    assert primary.startswith("primary: none -> the registry's `primary` key names pg1")
    assert refused.startswith("member pg2 (127.0.0.1:1): cannot be reached: ")
    assert "no answer within 3 s -> " in mute
    assert any("works, but it says primary and the registry replica" in line for line in lines(checked.stdout, "odd"))


def test_a_log_in_that_cannot_look_up(service: Service, postgres: PostgresServer) -> None:
    announce(service, postgres)
    postgres.query("CREATE ROLE check_weak LOGIN PASSWORD 'weak'")
    place = f"127.0.0.1:{postgres.port}"
    weak = pgamb(
        "check", *service.words, "--listen", "0", "--auth-dsn", f"postgresql://check_weak:weak@{place}/postgres"
    )
    assert weak.returncode == 1
    assert "may not read pg_authid" in lines(weak.stdout, "FAILED")[0]
    wrong = pgamb(
        "check", *service.words, "--listen", "0", "--auth-dsn", f"postgresql://check_weak:hunter2@{place}/postgres"
    )
    assert wrong.returncode == 1
    assert (
        'refused: password authentication failed for user "check_weak" (28P01) -> ' in lines(wrong.stdout, "FAILED")[0]
    )
    assert "hunter2" not in wrong.stdout


@pytest.mark.parametrize(
    ("mode", "host", "verdict"),
    [
        ("disable", "127.0.0.1", "reached, without TLS"),
        ("prefer", "127.0.0.1", "certificate not verified"),
        ("require", "127.0.0.1", "certificate not verified"),
        ("verify-ca", "localhost", "certificate verified"),
        ("verify-full", "127.0.0.1", "certificate verified"),
    ],
)
def test_tls(service: Service, secured: PostgresServer, ca_file: Path, mode: str, host: str, verdict: str) -> None:
    announce(service, secured, host=host)
    more = ("--server-ca", str(ca_file)) if mode.startswith("verify") else ()
    words = ("check", *service.words, "--listen", "0", "--server-tls", mode, *more)
    checked = pgamb(*words, PGAMB_AUTH_DSN=secured.dsn())
    assert checked.returncode == 0, checked.stdout
    assert any(verdict in line for line in lines(checked.stdout, "ok"))


def test_tls_that_is_refused(
    service: Service, secured: PostgresServer, postgres: PostgresServer, ca_file: Path, tmp_path: Path
) -> None:
    announce(service, secured, host="localhost")
    words = ("check", *service.words, "--listen", "0", "--server-tls")
    (name,) = lines(pgamb(*words, "verify-full", "--server-ca", str(ca_file)).stdout, "FAILED")
    assert "its certificate is refused: Hostname mismatch" in name
    stranger = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(stranger))
    (issuer,) = lines(pgamb(*words, "verify-ca", "--server-ca", str(stranger)).stdout, "FAILED")
    assert "its certificate is refused: " in issuer
    announce(service, postgres)
    (none,) = lines(pgamb(*words, "require").stdout, "FAILED")
    assert "offers no TLS, and --server-tls is require -> set ssl = on" in none


def test_an_address_of_static_that_does_not_answer(postgres: PostgresServer) -> None:
    registry = f"static://127.0.0.1:{postgres.port},127.0.0.1:1"
    checked = pgamb("check", "--registry", registry, "--listen", "0", PGAMB_AUTH_DSN=postgres.dsn())
    assert checked.returncode == 1
    (missing,) = lines(checked.stdout, "FAILED")
    assert missing.startswith("member at 127.0.0.1:1: cannot be reached: ")
