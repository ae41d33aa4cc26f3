"""`pgamb server` against a real PostgreSQL and a real etcd: what it registers, waits for, and takes back."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.etcd import EtcdServer
from pgamb.demo.ports import free_port
from pgamb.demo.postgres import PostgresServer
from pgamb.demo.query import query
from pgamb.errors import ConnectionFailure
from tests.support.agent import DEADLINE_S, AgentProcess, Registered
from tests.support.servers import running_etcd, running_postgres
from tests.support.waiting import wait_for


class MakeAgent(Protocol):
    def __call__(self, server: PostgresServer, registry: str, **options: object) -> AgentProcess: ...


@pytest.fixture
def service(request: pytest.FixtureRequest) -> str:
    """A service of the test's own in the shared etcd."""
    return re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[:60].strip("-")


@pytest.fixture
def agent(tmp_path: Path, service: str) -> Iterator[MakeAgent]:
    """Start agents; all are gone at the end of the test."""
    started: list[AgentProcess] = []

    def make(server: PostgresServer, registry: str, **options: object) -> AgentProcess:
        process = AgentProcess(server, registry, tmp_path, service=service, **options)  # type: ignore[arg-type]
        started.append(process)
        process.start()
        return process

    yield make
    for process in started:
        process.kill()


def test_members_primary_cluster_and_statistics_are_registered(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, service: str
) -> None:
    registered = Registered(etcd, service)
    agents = [agent(bare_cluster.server(name), f"etcd://{etcd.endpoint}") for name in ("pg1", "pg2")]
    registered.wait_for_role("pg1", "primary")
    registered.wait_for_role("pg2", "replica")
    registered.wait_for_primary("pg1", 1)
    identifier = bare_cluster.primary.control["Database system identifier"]
    version = bare_cluster.primary.query("SELECT current_setting('server_version_num')::int4")[0][0]
    assert registered.stored()["cluster"] == identifier.encode()
    for process in agents:
        member = registered.read(f"members/{process.server.name}")
        assert member["addresses"] == [{"host": "127.0.0.1", "port": process.port}]
        assert (member["timeline"], member["system_identifier"]) == (1, identifier)
        assert member["server_version"] == version
        assert member["state"] == "running"
    statistics = wait_for(lambda: registered.read("stats/pg2"), DEADLINE_S, "statistics of pg2")
    assert isinstance(statistics["replay_lsn"], int)
    assert statistics["replay_lsn"] > 0
    assert isinstance(statistics["lag_bytes"], int)
    assert isinstance(registered.read("stats/pg1")["wal_lsn"], int)


def test_the_exposed_port_is_that_postgresql(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, service: str
) -> None:
    process = agent(bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}")
    process.wait_for_log("server.port.relaying")
    assert query(process.dsn(), "SELECT current_setting('cluster_name')") == [("pg2",)]
    rows = query(process.dsn(), "SELECT count(*), sum(length(repeat('x', n))) FROM generate_series(1, 5000) AS n")
    assert rows == [(5000, 12502500)]


def test_a_wrong_password_is_refused_by_postgresql_itself(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent
) -> None:
    process = agent(bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}")
    process.wait_for_log("server.port.relaying")
    with pytest.raises(asyncpg.InvalidPasswordError):
        query(process.server.dsn(password="wrong").replace(str(process.server.port), str(process.port)), "SELECT 1")


def test_the_member_of_a_killed_agent_ends_with_its_lease_and_primary_stays(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, service: str
) -> None:
    registered = Registered(etcd, service)
    process = agent(bare_cluster.server("pg1"), f"etcd://{etcd.endpoint}", options=["--ttl", "2"])
    registered.wait_for_primary("pg1", 1)
    process.kill()
    assert registered.role("pg1") == "primary"
    registered.wait_for_role("pg1", None)
    assert set(registered.stored()) == {"cluster", "primary"}
    again = agent(bare_cluster.server("pg1"), f"etcd://{etcd.endpoint}", options=["--ttl", "2"])
    registered.wait_for_role("pg1", "primary")
    again.wait_for_log("server.port.relaying")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_withdraws_first_and_then_ends_the_process(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, service: str, number: signal.Signals
) -> None:
    registered = Registered(etcd, service)
    process = agent(bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}", options=["--ttl", "60"])
    registered.wait_for_role("pg2", "replica")
    process.wait_for_log("server.port.relaying")
    process.send(number)
    assert process.wait(5) == 0
    assert registered.role("pg2") is None
    assert "server.withdrawn" in process.text()
    with pytest.raises(ConnectionFailure, match="ConnectionRefused"):
        query(process.dsn(), "SELECT 1")


def test_a_second_signal_ends_the_process_at_once(bare_cluster: Cluster, agent: MakeAgent, service: str) -> None:
    with running_etcd() as etcd:
        process = agent(bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}")
        process.wait_for_log("server.announced")
        etcd.pause()
        process.send(signal.SIGTERM)
        process.wait_for_log("server.stopping")
        started = time.monotonic()
        process.send(signal.SIGTERM)
        assert process.wait(5) == -signal.SIGTERM
        assert time.monotonic() - started < 1.0


def test_a_withdrawal_that_hangs_is_bounded(bare_cluster: Cluster, agent: MakeAgent) -> None:
    with running_etcd() as etcd:
        process = agent(bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}")
        process.wait_for_log("server.announced")
        etcd.pause()
        process.send(signal.SIGTERM)
        assert process.wait(10) == 0
        assert "server.not-withdrawn" in process.text()


def test_a_server_of_another_cluster_is_not_registered_and_the_log_says_why(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, service: str
) -> None:
    registered = Registered(etcd, service)
    agent(bare_cluster.server("pg1"), f"etcd://{etcd.endpoint}")
    registered.wait_for_primary("pg1", 1)
    # Not from the template that all other servers of the run are copies of: that would be the same cluster.
    with running_postgres("stranger") as server:
        stranger = agent(server, f"etcd://{etcd.endpoint}", user="postgres")
        identifier = server.control["Database system identifier"]
        stranger.wait_for_log(f"the server's system identifier is {identifier}")
        with pytest.raises(asyncpg.CannotConnectNowError, match="system identifier"):
            query(stranger.dsn(), "SELECT 1")
        assert registered.role("stranger") is None
        assert registered.primary() == ("pg1", 1)
        assert stranger.running


def test_a_second_agent_of_one_name_waits(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, service: str
) -> None:
    registered = Registered(etcd, service)
    first = agent(bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}")
    registered.wait_for_role("pg2", "replica")
    second = agent(bare_cluster.server("pg3"), f"etcd://{etcd.endpoint}", options=["--node", "pg2"])
    second.wait_for_log("another agent is registered as node")
    assert registered.read("members/pg2")["addresses"] == [{"host": "127.0.0.1", "port": first.port}]
    first.stop()
    wait_for(
        lambda: registered.read("members/pg2").get("addresses") == [{"host": "127.0.0.1", "port": second.port}],
        DEADLINE_S,
        "the second one takes the name",
    )


def test_it_waits_for_etcd_and_goes_on_by_itself(bare_cluster: Cluster, agent: MakeAgent, service: str) -> None:
    with running_etcd() as etcd:
        etcd.stop()
        process = agent(bare_cluster.server("pg1"), f"etcd://{etcd.endpoint}")
        process.wait_for_log("the registry was not reached yet")
        with pytest.raises(asyncpg.CannotConnectNowError, match="does not know yet whether it is the rightful one"):
            query(process.dsn(), "SELECT 1")
        time.sleep(0.5)  # several tries, and still one line
        assert process.text().count("the registry was not reached yet") == 1
        etcd.start()
        Registered(etcd, service).wait_for_primary("pg1", 1)
        process.wait_for_log("server.port.relaying")
        assert query(process.dsn(), "SELECT 1") == [(1,)]


def test_it_waits_for_postgresql_and_stops_when_told_so(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, service: str
) -> None:
    dead = f"postgresql://u:secret@127.0.0.1:{free_port()}/x"
    process = agent(bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}", options=["--dsn", dead])
    process.wait_for_log("server.postgres.waiting")
    with pytest.raises(asyncpg.CannotConnectNowError, match="cannot connect to PostgreSQL at"):
        query(process.dsn(), "SELECT 1")
    time.sleep(0.5)  # several tries, and still one line
    assert process.text().count("server.postgres.waiting") == 1
    process.send(signal.SIGTERM)
    assert process.wait(5) == 0
    assert Registered(etcd, service).stored() == {}
    assert "secret" not in process.text()


def test_without_listen_its_own_address_is_announced_and_advertise_overrides(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, service: str
) -> None:
    registered = Registered(etcd, service)
    server = bare_cluster.server("pg2")
    agent(server, f"etcd://{etcd.endpoint}", listen=False)
    agent(
        bare_cluster.server("pg3"),
        f"etcd://{etcd.endpoint}",
        listen=False,
        options=["--advertise", "db.example.org:6000"],
    )
    registered.wait_for_role("pg2", "replica")
    registered.wait_for_role("pg3", "replica")
    assert registered.read("members/pg2")["addresses"] == [{"host": "127.0.0.1", "port": server.port}]
    assert registered.read("members/pg3")["addresses"] == [{"host": "db.example.org", "port": 6000}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dsn", "postgresql://a@one,two/x"], "names several servers"),
        (["--dsn", "postgresql://a:secret@h:99999/x"], "not a port"),
        (["--dsn", "postgresql://a:secret@127.0.0.1:1/x?sslmode=nonsense"], "sslmode"),
        (["--registry", "static://127.0.0.1:5432"], "static"),
    ],
)
def test_what_waiting_does_not_mend_ends_it_with_a_clear_error(
    bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent, options: list[str], words: str
) -> None:
    process = agent(bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}", listen=False, options=options)
    assert process.wait(DEADLINE_S) in (1, 2)
    assert words in process.text()
    assert "secret" not in process.text()
    assert "Traceback" not in process.text()


def test_a_taken_port_ends_it_with_a_clear_error(bare_cluster: Cluster, etcd: EtcdServer, agent: MakeAgent) -> None:
    taken = bare_cluster.server("pg1").port
    process = agent(
        bare_cluster.server("pg2"), f"etcd://{etcd.endpoint}", listen=False, options=["--listen", f"127.0.0.1:{taken}"]
    )
    assert process.wait(DEADLINE_S) in (1, 2)
    assert f"127.0.0.1:{taken} is already in use" in process.text()
