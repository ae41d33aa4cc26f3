"""`pgamb status` as a process, on a real etcd and a real PostgreSQL."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.etcd import EtcdServer
from pgamb.demo.postgres import PostgresServer
from pgamb.registry.model import Address, Member, PrimaryRecord, Role, Stats
from tests.support.etcd import etcdctl
from tests.support.servers import running_etcd

# For a command that is bounded itself: longer only where the machine is busy.
DEADLINE_S = 60


def pgamb(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PGAMB_", "PG"))}
    return subprocess.run(
        [sys.executable, "-m", "pgamb", *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=clean | environ,
        check=False,
    )


@dataclass(frozen=True, slots=True)
class Service:
    """A service whose keys the test writes itself, as agents would."""

    etcd: EtcdServer
    name: str

    @property
    def words(self) -> tuple[str, ...]:
        return "--registry", f"etcd://{self.etcd.endpoint.removeprefix('http://')}", "--service", self.name

    def put(self, key: str, value: object) -> None:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        etcdctl(self.etcd, "put", f"/pgamb/{self.name}/{key}", text)

    def member(self, node: str, role: Role, timeline: int) -> None:
        self.put(f"members/{node}", Member(node, role, (Address("10.0.0.1", 5432),), timeline, "77", 150004))


def service_name(request: pytest.FixtureRequest) -> str:
    """Give each test a service of its own in the etcd that all share."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name)[:60].strip("-")


@pytest.fixture
def service(etcd: EtcdServer, request: pytest.FixtureRequest) -> Iterator[Service]:
    made = Service(etcd, service_name(request))
    yield made
    etcdctl(etcd, "del", "--prefix", f"/pgamb/{made.name}/")


def test_a_sound_service(service: Service) -> None:
    service.put("cluster", "77")
    service.put("primary", PrimaryRecord("pg1", 3))
    service.member("pg1", Role.PRIMARY, 3)
    service.member("pg2", Role.REPLICA, 3)
    service.put("stats/pg2", Stats("pg2", replay_lsn=0x300_0000, lag_bytes=1_500_000, lag_s=2.0))
    shown = pgamb("status", *service.words)
    assert shown.returncode == 0, shown.stderr
    assert (
        "primary pg1  because pg1 says primary with timeline 3, and the registry's `primary` key names" in shown.stdout
    )
    assert "1.5 MB, 2.0 s" in shown.stdout
    assert "registry:" not in shown.stdout
    assert shown.stderr == ""
    seen = json.loads(pgamb("status", "--json", *service.words).stdout)
    assert seen["primary"] == "pg1"
    assert [(each["node"], each["role"], each["lag_bytes"]) for each in seen["members"]] == [
        ("pg1", "primary", None),
        ("pg2", "replica", 1_500_000),
    ]


def test_a_stale_primary_alone_is_no_primary(service: Service) -> None:
    service.put("primary", PrimaryRecord("pg1", 3))
    service.member("pg2", Role.STALE_PRIMARY, 2)
    shown = pgamb("status", *service.words)
    assert shown.returncode == 1
    assert "primary none  because the registry's `primary` key names pg1 with timeline 3" in shown.stdout
    assert "pg2: stale primary on timeline 2; pg1 is primary with 3" in shown.stdout


def test_a_service_that_nobody_is_in(service: Service) -> None:
    shown = pgamb("status", *service.words)
    assert shown.returncode == 1
    assert "no member is registered: start `pgamb server`" in shown.stdout


@pytest.mark.parametrize("is_frozen", [False, True], ids=["refuses", "accepts-and-is-silent"])
def test_a_registry_that_does_not_answer(is_frozen: bool) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if is_frozen:
            listening.listen()
        endpoint = f"127.0.0.1:{listening.getsockname()[1]}"
        started = time.monotonic()
        shown = pgamb("status", "--registry", f"etcd://root:hunter2@{endpoint}", "--timeout", "1s")
    assert shown.returncode == 3
    assert time.monotonic() - started < 20
    assert f"pgamb: error: the registry etcd://root:***@{endpoint} did not answer within 1 s" in shown.stderr
    assert "hint: " in shown.stderr
    assert "hunter2" not in shown.stderr
    assert "Traceback" not in shown.stderr


def test_the_servers_themselves(postgres: PostgresServer) -> None:
    words = ("status", "--registry", f"static://127.0.0.1:{postgres.port},127.0.0.1:1")
    shown = pgamb(*words, PGAMB_AUTH_DSN=postgres.dsn())
    assert shown.returncode == 0, shown.stderr
    assert "says primary, with timeline 1, and nobody says so with a higher one" in shown.stdout
    assert "registry: 127.0.0.1:1: " in shown.stdout
    refused = pgamb(*words, PGUSER="nobody", PGPASSWORD="wrong")
    assert refused.returncode == 1
    assert 'password authentication failed for user "nobody"' in refused.stdout


def test_watch_follows_a_change_and_outlives_the_registry() -> None:
    with running_etcd() as etcd:
        service = Service(etcd, "watched")
        service.member("pg1", Role.PRIMARY, 1)
        argv = [sys.executable, "-m", "pgamb", "status", "--watch", "--json", *service.words]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watching:
            # Ends the lines, and so the test, when what it waits for does not come.
            deadline = threading.Timer(DEADLINE_S, watching.kill)
            deadline.start()
            try:
                lines = (json.loads(line) for line in watching.stdout or ())
                assert next(lines)["primary"] is None
                service.put("primary", PrimaryRecord("pg1", 1))
                assert next(line for line in lines if line["primary"])["primary"] == "pg1"
                etcd.kill()
                lost = next(line for line in lines if not line["registry"]["connected"])
                assert lost["primary"] == "pg1"
                etcd.start()
                assert next(line for line in lines if line["registry"]["connected"])["primary"] == "pg1"
            finally:
                deadline.cancel()
                watching.terminate()


def test_a_real_cluster(cluster: Cluster) -> None:
    registry = cluster.registry_url
    seen = json.loads(pgamb("status", "--json", "--registry", registry).stdout)
    assert seen["primary"] == cluster.primary.name
    roles = {each["node"]: each["role"] for each in seen["members"]}
    assert roles == {server.name: "primary" if server is cluster.primary else "replica" for server in cluster.servers}
    checked = pgamb("check", "--registry", registry, "--listen", "0", PGAMB_AUTH_DSN=cluster.dsn(cluster.primary))
    assert checked.returncode == 0, checked.stdout
