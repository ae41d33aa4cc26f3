"""`pgamb client` before a real Patroni cluster: pg1 to pg3 with one etcd, in which pg3 has the tag noloadbalance.

The tests share the cluster, and each begins by waiting until it is whole. Whoever was the leader may have changed.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import psycopg
import pytest

from pgamb.demo.process import clean_environment
from tests.support.ambassador import Front, running_front
from tests.support.etcd import etcdctl
from tests.support.load import running_load
from tests.support.patroni import NAMESPACE, SCOPE, PatroniCluster, PatroniNode, running_patroni
from tests.support.servers import running_etcd
from tests.support.waiting import wait_for

log = logging.getLogger(__name__)

DEADLINE_S = 40.0
# What an application may hear of a statement that was under way when the leader crashed.
IN_FLIGHT = {"08007", "40001"}


@pytest.fixture(scope="module")
def patroni() -> Iterator[PatroniCluster]:
    tags = {"pg3": {"noloadbalance": True, "nofailover": True, "nosync": True}}
    with running_etcd() as etcd, running_patroni(etcd, tags=tags) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def ambassador(patroni: PatroniCluster) -> Iterator[Front]:
    options = ["--hold-timeout", "60"]
    with running_front(patroni.nodes, patroni.registry_url, *options) as running:
        yield running


@pytest.fixture
def leader(patroni: PatroniCluster, ambassador: Front) -> PatroniNode:
    """Wait until the cluster is whole, and the ambassador knows it; return the leader."""
    leader = patroni.settle()
    # Before that Patroni promotes nobody: it would lose writes.
    standby = other(patroni, leader)
    wait_for(lambda: patroni.synchronous == standby.name, DEADLINE_S, "the synchronous standby is known")
    wait_for(lambda: port_of_writes(ambassador) == leader.port, DEADLINE_S, "writes go to the leader")
    return leader


def port_of_writes(ambassador: Front) -> int:
    with closing(psycopg.connect(ambassador.dsn(), autocommit=True)) as connection:
        row = connection.execute("SELECT inet_server_port()").fetchone()
        assert row is not None
        return int(row[0])


def served_by(connection: psycopg.Connection) -> str:
    """Return the member that the last statement of a session went to."""
    row = connection.execute("SHOW pgamb.last_route").fetchone()
    assert row is not None
    return str(row[0]).split(" ")[0]


def many_reads(ambassador: Front) -> list[str]:
    with closing(psycopg.connect(ambassador.dsn(), autocommit=True)) as connection:
        served = []
        for _ in range(25):
            connection.execute("SELECT count(*) FROM routed")
            served.append(served_by(connection))
        return served


def other(patroni: PatroniCluster, leader: PatroniNode) -> PatroniNode:
    """Return the replica that may be read from and may take over."""
    return patroni.node("pg2" if leader.name == "pg1" else "pg1")


def pgamb(patroni: PatroniCluster, *words: str) -> tuple[int, str]:
    argv = [sys.executable, "-m", "pgamb", *words, "--registry", patroni.registry_url]
    secret = patroni.nodes[0].dsn()
    environment = {**clean_environment(), "PGAMB_AUTH_DSN": secret}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, env=environment, check=False)
    return done.returncode, done.stdout + done.stderr


def status(patroni: PatroniCluster) -> dict[str, object]:
    code, text = pgamb(patroni, "status", "--json")
    assert code in (0, 1), text
    seen = json.loads(text)
    assert isinstance(seen, dict)
    return seen


def test_writes_go_to_the_leader_and_reads_to_replicas_that_may_be_read_from(
    patroni: PatroniCluster, ambassador: Front, leader: PatroniNode
) -> None:
    replica = other(patroni, leader)
    served: list[str] = []

    def count(connection: psycopg.Connection) -> int:
        row = connection.execute("SELECT count(*) FROM routed").fetchone()
        served.append(served_by(connection))
        assert row is not None
        return int(row[0])

    with closing(psycopg.connect(ambassador.dsn(), autocommit=True)) as connection:
        connection.execute("CREATE TABLE routed (n int)")
        for n in range(50):
            connection.execute("INSERT INTO routed VALUES (%s)", [n])
            assert count(connection) == n + 1, "you read what you wrote"
        wait_for(lambda: count(connection) and served[-1] == replica.name, DEADLINE_S, "the replica serves reads")
        # Many at once: one replica alone has always the least outstanding otherwise.
        with ThreadPoolExecutor(8) as pool:
            for told in pool.map(lambda _: many_reads(ambassador), range(8)):
                served += told
    assert replica.name in served
    assert set(served) <= {leader.name, replica.name}, "pg3 has noloadbalance"


def test_status_and_check_speak_of_it(patroni: PatroniCluster, leader: PatroniNode) -> None:
    seen = status(patroni)
    assert seen["primary"] == leader.name
    assert (
        seen["why"]
        == f"{leader.name} says primary with timeline {timeline(patroni, leader)}, and holds Patroni's leader key"
    )
    code, text = pgamb(patroni, "status")
    assert code == 0, text
    assert "pg3: of weight 0 (Patroni's tag noloadbalance): gets no reads" in text
    code, text = pgamb(patroni, "check", "--listen", "127.0.0.1:0")
    assert code == 0, text
    for node in patroni.nodes:
        assert node.name in text


def timeline(patroni: PatroniCluster, node: PatroniNode) -> object:
    return patroni.said(node)["timeline"]


def test_pause_is_told_and_changes_nothing(patroni: PatroniCluster, ambassador: Front, leader: PatroniNode) -> None:
    assert leader.call("PATCH", "/config", {"pause": True})[0] == 200
    try:
        wait_for(lambda: "Patroni is paused" in pgamb(patroni, "status")[1], DEADLINE_S, "the pause in the status")
        wait_for(lambda: "Patroni is paused" in ambassador.log, DEADLINE_S, "the pause in the log")
        assert port_of_writes(ambassador) == leader.port
    finally:
        assert leader.call("PATCH", "/config", {"pause": None})[0] == 200
    wait_for(lambda: "Patroni is paused" not in pgamb(patroni, "status")[1], DEADLINE_S, "the end of the pause")


def test_a_switchover_costs_no_error(patroni: PatroniCluster, ambassador: Front, leader: PatroniNode) -> None:
    candidate = other(patroni, leader)
    with running_load(ambassador.dsn(), "switched") as load:
        wait_for(lambda: len(load.acknowledged) > 50, DEADLINE_S, "the load runs")
        code, said = leader.call("POST", "/switchover", {"leader": leader.name, "candidate": candidate.name})
        assert code == 200, said
        sofar = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > sofar + 50, DEADLINE_S, "the load goes on")
    log.info("switchover: %s", load.summary)
    load.check()
    assert load.errors == [], load.summary
    assert port_of_writes(ambassador) == candidate.port


@contextmanager
def crashed(node: PatroniNode) -> Iterator[None]:
    """Start a node that crashed in this block again, at its end."""
    try:
        yield
    finally:
        if not node.process.running:
            node.process.start()


@contextmanager
def reader_of(patroni: PatroniCluster) -> Iterator[psycopg.Connection]:
    """Give a session that no write in flight makes wait: what that has written is known to nobody but its primary."""
    options = ["--consistency", "eventual"]
    with (
        running_front(patroni.nodes, patroni.registry_url, *options) as ambassador,
        closing(psycopg.connect(ambassador.dsn(), autocommit=True)) as connection,
    ):
        yield connection


def test_the_crash_of_a_leader_costs_no_connection(
    patroni: PatroniCluster, ambassador: Front, leader: PatroniNode
) -> None:
    candidate = other(patroni, leader)
    lease = json.loads(etcdctl(patroni.etcd, "get", f"/{NAMESPACE}/{SCOPE}/leader", "--write-out", "json"))["kvs"][0][
        "lease"
    ]
    with crashed(leader), reader_of(patroni) as reader, running_load(ambassador.dsn(), "crashed") as load:
        wait_for(lambda: len(load.acknowledged) > 50, DEADLINE_S, "the load runs")
        leader.crash()
        reader.execute("SELECT count(*) FROM pg_catalog.pg_class")
        assert served_by(reader) == candidate.name, "reads go on"
        reads = load.reads
        # As if the TTL of 20 s were over: that is Patroni's time, not ours.
        etcdctl(patroni.etcd, "lease", "revoke", f"{lease:x}")
        wait_for(lambda: candidate.is_primary, DEADLINE_S, "the promotion")
        sofar = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > sofar, DEADLINE_S, "the first write")
        wait_for(lambda: len(load.acknowledged) > sofar + 50 and load.reads > reads, DEADLINE_S, "the load goes on")
    log.info("crash: %s", load.summary)
    load.check()
    assert {error.sqlstate for error in load.errors} <= IN_FLIGHT, load.summary
    assert port_of_writes(ambassador) == candidate.port


# Wiped first: an etcd that has the same identity and fewer elections behind it is a stale one to Patroni.
@pytest.mark.parametrize("wiped", [True, False])
def test_a_restart_of_etcd_costs_nothing(
    patroni: PatroniCluster, ambassador: Front, leader: PatroniNode, wiped: bool
) -> None:
    losses = ambassador.log.count("registry.lost")
    with running_load(ambassador.dsn(), "wiped" if wiped else "restarted") as load:
        wait_for(lambda: len(load.acknowledged) > 50, DEADLINE_S, "the load runs")
        patroni.etcd.stop()
        wait_for(lambda: ambassador.log.count("registry.lost") > losses, DEADLINE_S, "the loss in the log")
        sofar = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > sofar + 100, DEADLINE_S, "the load goes on without etcd")
        connections = ambassador.log.count("registry.connected")
        if wiped:
            patroni.etcd.wipe()
        patroni.etcd.start()
        wait_for(lambda: ambassador.log.count("registry.connected") > connections, DEADLINE_S, "the return in the log")
        wait_for(lambda: "leader" in patroni.read(), DEADLINE_S, "the leader key")
        sofar = len(load.acknowledged)
        wait_for(lambda: len(load.acknowledged) > sofar + 100, DEADLINE_S, "the load goes on with etcd")
    log.info("etcd: %s", load.summary)
    load.check()
    assert load.errors == [], load.summary
    assert patroni.settle() is leader
