"""`pgamb server drain`: nothing new goes to a member, what runs there ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import MONITOR
from tests.e2e.conftest import MakeCluster
from tests.support.agent import Registered
from tests.support.waiting import wait_for

DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def drained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of this module: each test takes its drain back."""
    with Cluster(replicas=1) as cluster:
        yield cluster


def drain(cluster: Cluster, *words: str, node: str = "pg1") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgamb", "server", "drain", "--registry", cluster.registry_url, *words],
        env={**os.environ, "PGAMB_DSN": cluster.server(node).dsn(user=MONITOR)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def status(cluster: Cluster) -> str:
    words = ["status", "--registry", cluster.registry_url]
    return subprocess.run(
        [sys.executable, "-m", "pgamb", *words], capture_output=True, text=True, timeout=60, check=False
    ).stdout


def connect(cluster: Cluster) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(cluster.dsn(), autocommit=True)


def test_what_runs_ends_and_what_is_new_waits(drained: Cluster) -> None:
    with connect(drained) as running, connect(drained) as waiting, connect(drained) as reading:
        running.execute("CREATE TABLE kept (n int)")
        waiting.execute("SET statement_timeout = '600ms'")
        running.execute("BEGIN")
        running.execute("INSERT INTO kept VALUES (1)")
        done = drain(drained, "--drain-timeout", "0.5")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "pg1 drains, and 1 sessions are still in a transaction" in done.stdout
        assert "idle in transaction" in done.stdout
        assert "pg1" in status(drained)
        assert "draining" in status(drained)
        # It goes on to its end there.
        running.execute("INSERT INTO kept VALUES (2)")
        running.execute("COMMIT")
        assert drain(drained).returncode == 0
        # Something new waits, and reads do not.
        with pytest.raises(psycopg.errors.QueryCanceled):
            waiting.execute("INSERT INTO kept VALUES (3)")
        assert reading.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg2",)
        undone = drain(drained, "--undo")
        assert undone.returncode == 0
        assert undone.stdout == "pg1 takes new work again.\n"
        waiting.execute("INSERT INTO kept VALUES (4)")
        assert waiting.execute("SELECT array_agg(n ORDER BY n) FROM kept").fetchone() == ([1, 2, 4],)
    assert drain(drained, "--undo").stdout == "pg1 was not draining.\n"


def test_a_replica_is_left_out(drained: Cluster) -> None:
    with connect(drained) as reading:
        wait_for(
            lambda: reading.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg2",),
            DEADLINE_S,
            "the replica answers",
        )
        assert drain(drained, node="pg2").returncode == 0
        assert reading.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg1",)
        assert drain(drained, "--undo", node="pg2").returncode == 0


def test_it_ends_by_itself(drained: Cluster) -> None:
    assert drain(drained, "--drain-hold", "1").returncode == 0
    with connect(drained) as writing:
        writing.execute("CREATE TABLE later (n int)")
    assert drained.etcd is not None
    assert "drain/pg1" not in Registered(drained.etcd, "db").stored()


def test_it_ends_when_the_server_is_something_else(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(replicas=1)
    assert drain(cluster).returncode == 0
    cluster.server("pg1").stop()
    cluster.promote("pg2")
    cluster.server("pg1").follow(cluster.server("pg2"))
    cluster.server("pg1").start()
    with connect(cluster) as working:
        working.execute("CREATE TABLE switched (n int)")
        wait_for(
            lambda: working.execute("SELECT current_setting('cluster_name')").fetchone() == ("pg1",),
            DEADLINE_S,
            "the former primary answers reads",
        )


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--node", "pg9"], 2, 'no member "pg9" is registered in service "db"'),
        (["--service", "other"], 2, 'no member "pg1" is registered in service "other"'),
        (["--registry", "static://127.0.0.1:1"], 2, "has no registry"),
        (["--registry", "etcd://127.0.0.1:1"], 3, ""),
        (["--drain-hold", "0"], 2, "--drain-hold"),
    ],
)
def test_bad_input_is_told(drained: Cluster, words: list[str], code: int, says: str) -> None:
    done = drain(drained, *words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert ("hint:" in done.stderr) == (code == 2)
    assert "Traceback" not in done.stderr
