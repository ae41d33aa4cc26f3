"""`pgamb client --status-listen`: what it says about real members, real sessions and real trouble."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.demo.process import ChildProcess, clean_environment
from pgamb.observe.http import MOST_CONNECTIONS
from pgamb.observe.metrics import METRICS
from tests.support import free_port, wait_for
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.servers import running_postgres, server_folder
from tests.support.status_page import Page

DEADLINE_S = 30.0
# BEGIN alone needs no backend yet.
REAL_TRANSACTION = "BEGIN; LOCK TABLE pg_class IN ACCESS SHARE MODE"


@dataclass(frozen=True, slots=True)
class Watched:
    ambassador: Ambassador
    page: Page

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(self.ambassador.dsn(), autocommit=True)


@contextmanager
def watched_ambassador(server: PostgresServer, *options: str) -> Iterator[Watched]:
    port = free_port()
    with running_ambassador([server], "--status-listen", f"127.0.0.1:{port}", *options) as ambassador:
        yield Watched(ambassador, Page(port))


@contextmanager
def client_process(*words: str, **environment: str) -> Iterator[ChildProcess]:
    """Run `pgamb client`, which need not be of any use yet."""
    with server_folder() as folder:
        process = ChildProcess(
            "pgamb client",
            [sys.executable, "-m", "pgamb", "client", *words],
            log=folder / "client.log",
            env={**clean_environment(), **environment},
            cwd=Path.cwd(),
        )
        process.start()
        try:
            yield process
            assert "Traceback" not in process.log_tail(100), process.log_tail(100)
        finally:
            process.stop(grace_s=2.0)


@pytest.fixture(scope="module")
def watched(postgres: PostgresServer) -> Iterator[Watched]:
    with watched_ambassador(postgres, "--pool-size", "3") as started:
        yield started


def pool_series(name: str, server: PostgresServer, **more: str) -> str:
    labels = {"member": server.name, "role": "primary", "database": "postgres", "user": "postgres", **more}
    return name + "{" + ",".join(f'{key}="{value}"' for key, value in sorted(labels.items())) + "}"


def test_every_path_answers(watched: Watched, postgres: PostgresServer) -> None:
    page = watched.page
    assert page.get("/healthz") == (200, "ok\n")
    assert page.get("/readyz") == (200, f"ready: {postgres.name}, the primary, answers\n")
    status, headers, text = page.request("/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert f"<td>{postgres.name}</td>" in text
    status, headers, _ = page.request("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert page.request("/status.json")[1]["Content-Type"].startswith("application/json")
    status, headers, text = page.request("/metrics", "HEAD")
    assert (status, text) == (200, "")


def test_other_requests_hear_what_there_is(watched: Watched) -> None:
    status, text = watched.page.get("/favicon.ico")
    assert status == 404
    assert "/status.json" in text
    status, headers, text = watched.page.request("/metrics", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert "use GET" in text
    with socket.create_connection(("127.0.0.1", int(watched.page.where)), timeout=DEADLINE_S) as garbage:
        garbage.sendall(b"\x16\x03\x01 not HTTP\r\n\r\n")
        assert garbage.recv(100).startswith(b"HTTP/1.")
    assert watched.page.serves()


def test_silent_connections_take_no_more_than_their_share(watched: Watched) -> None:
    with ExitStack() as stack:
        port = int(watched.page.where)
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S))
            for _ in range(MOST_CONNECTIONS + 10)
        ]
        # The last are closed, and applications notice nothing.
        assert silent[-1].recv(1) == b""
        assert silent[-10].recv(1) == b""
        with watched.connect() as session:
            session.execute("SELECT 1")
    wait_for(watched.page.serves, DEADLINE_S, "the page is there again")


def test_every_metric_that_has_a_value_now_is_there(watched: Watched) -> None:
    with watched.connect() as session:
        session.execute("SELECT 1")
    shown = {re.sub(r"\{.*", "", series) for series in watched.page.metrics()}
    # These have series only while somebody is held, pinned, refused, or has given up, or where there are replicas.
    rare = {
        "pgamb_replica_usable",
        "pgamb_replica_lag_seconds",
        "pgamb_replica_lag_bytes",
        "pgamb_held_sessions",
        "pgamb_held_longest_seconds",
        "pgamb_gave_up_total",
        "pgamb_sessions_pinned",
        "pgamb_logins_refused_total",
    }
    assert {metric.name for metric in METRICS} - shown <= rare


def test_sessions_by_what_they_do(watched: Watched, postgres: PostgresServer) -> None:
    page = watched.page
    wait_for(lambda: page.look().sessions.open == 0, DEADLINE_S, "the sessions of other tests have ended")
    with ExitStack() as stack:
        idle, lazy, busy, pinned, other = [stack.enter_context(watched.connect()) for _ in range(5)]
        idle.execute("SELECT 1")
        lazy.execute("BEGIN")
        busy.execute(REAL_TRANSACTION)
        pinned.execute("LISTEN news")
        with watched.connect() as queued, ThreadPoolExecutor() as threads:
            # The third backend of three, and one session more.
            asleep = threads.submit(other.execute, "SELECT pg_sleep(60)")
            try:
                wait_for(lambda: page.look().sessions.by_state["running"] == 1, DEADLINE_S, "one session runs")
                waits = threads.submit(queued.execute, "SELECT 1")
                wait_for(lambda: page.look().sessions.by_state["waiting"] == 1, DEADLINE_S, "one session waits")
                seen = page.look()
                series = page.metrics()
                text = page.get("/")[1]
            finally:
                other.cancel_safe()
            with pytest.raises(psycopg.errors.QueryCanceled):
                asleep.result(DEADLINE_S)
            waits.result(DEADLINE_S)
        assert seen.sessions.by_state == {
            "idle": 1,
            "virtual": 1,
            "running": 1,
            "in_transaction": 1,
            "pinned": 1,
            "waiting": 1,
            "preparing": 0,
        }
        assert (seen.sessions.open, seen.sessions.pinned, seen.sessions.pinned_by) == (6, 1, {"listen": 1})
        (pool,) = seen.pools
        assert (pool.member, pool.role, pool.limit) == (postgres.name, "primary", 3)
        assert (pool.open, pool.active, pool.idle, pool.waiting) == (3, 3, 0, 1)
        assert pool.longest_wait_s > 0
        # The transaction began first.
        assert pool.longest_held_pid == busy.info.backend_pid
        assert pool.longest_held_s > pool.longest_wait_s
        assert seen.members[0].backends == 3
        assert seen.members[0].backends_limit is not None
        assert series[pool_series("pgamb_pool_waiting", postgres)] == 1
        assert series[pool_series("pgamb_pool_backends", postgres, state="active")] == 3
        assert series['pgamb_sessions{state="in_transaction"}'] == 1
        assert series['pgamb_sessions_pinned{reason="listen"}'] == 1
        assert f"by session {busy.info.backend_pid}" in text
    wait_for(
        lambda: (seen := page.look()).sessions.open == 0 and seen.pools[0].active == 0, DEADLINE_S, "all have left"
    )
    after = page.look()
    assert after.sessions.pinned_by == {}
    assert after.pools[0].longest_held_pid is None


def test_what_was_done_is_counted(watched: Watched, postgres: PostgresServer) -> None:
    page = watched.page
    before = page.metrics()
    units, received = (
        pool_series(name, postgres) for name in ("pgamb_pool_units_total", "pgamb_pool_received_bytes_total")
    )
    with watched.connect() as session:
        for _ in range(10):
            session.execute("SELECT repeat('x', 1000)", prepare=False)
        after = page.metrics()
        # A total outlives the backend that did the work.
        with postgres_session(postgres) as direct:
            direct.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name = ''"
            )
        lost = f'pgamb_backends_lost_total{{member="{postgres.name}"}}'
        wait_for(lambda: page.metrics()[lost] > before[lost], DEADLINE_S, "a lost backend is counted")
        assert page.metrics()[units] >= after[units]
        session.cancel_safe()
    assert after[units] - before[units] == 10
    assert after[received] - before[received] > 10_000
    assert after["pgamb_logins_accepted_total"] - before["pgamb_logins_accepted_total"] == 1
    refused = 'pgamb_logins_refused_total{reason="28P01"}'
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(watched.ambassador.dsn(password="wrong"))
    socket.create_connection(("127.0.0.1", watched.ambassador.port)).close()
    wait_for(
        lambda: page.metrics()["pgamb_logins_left_total"] > before["pgamb_logins_left_total"],
        DEADLINE_S,
        "who left is counted",
    )
    last = page.metrics()
    assert last[refused] - before.get(refused, 0) == 1
    assert last["pgamb_cancel_requests_total"] - before["pgamb_cancel_requests_total"] == 1


def postgres_session(server: PostgresServer) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(server.dsn(), autocommit=True, application_name="direct")


def test_trouble_is_told_and_ends(template: PostgresServer) -> None:
    with running_postgres("lonely", template=template) as server:
        options = ("--pool-size", "1", "--pool-timeout", "200ms", "--hold-timeout", "1s")
        with watched_ambassador(server, *options) as watched:
            page = watched.page
            with watched.connect() as holder, watched.connect() as second:
                holder.execute(REAL_TRANSACTION)
                with pytest.raises(psycopg.errors.TooManyConnections):
                    second.execute("SELECT 1")
                assert page.look().gave_up == {"53300": 1}
                server.stop("immediate")
                assert "not ready: " in page.wait_ready(False)
                assert page.serves()
                # There is nobody to run it: it is held, and then given up.
                with pytest.raises(psycopg.errors.CannotConnectNow):
                    second.execute("SELECT 1")
                assert page.look().gave_up["57P03"] >= 1
                assert page.metrics()["pgamb_ready"] == 0
                server.start()
                assert page.wait_ready(True) == "ready: lonely, the primary, answers\n"
                wait_for(lambda: page.look().primary == "lonely", DEADLINE_S, "the primary is known again")
                with pytest.raises(psycopg.errors.SerializationFailure):
                    holder.execute("SELECT 1")
                holder.rollback()


def test_nobody_to_serve(tmp_path: Path) -> None:
    # Over a unix socket, before any log-in, with a member that is not there.
    words = ["--registry", f"static://127.0.0.1:{free_port()}", "--listen", str(free_port())]
    with client_process(*words, "--status-listen", f"{tmp_path}:8432"):
        page = Page(f"{tmp_path}/.s.PGSQL.8432")
        wait_for(page.serves, DEADLINE_S, "the page is there")
        status, text = page.get("/readyz")
        assert status == 503
        assert re.fullmatch(r"not ready: no member answers: 127\.0\.0\.1:\d+: cannot connect to .+\n", text), text
        seen = page.look()
        assert (seen.registry.connected, seen.registry.age_s, seen.members, seen.primary) == (False, None, (), None)
    assert not Path(f"{tmp_path}/.s.PGSQL.8432").exists()


def test_ready_before_anybody_has_logged_in_and_not_while_draining(postgres: PostgresServer) -> None:
    port, status_port = free_port(), free_port()
    words = ["--registry", f"static://127.0.0.1:{postgres.port}", "--listen", f"127.0.0.1:{port}"]
    with client_process(*words, "--auth", "password", "--status-listen", f"127.0.0.1:{status_port}") as process:
        page = Page(status_port)
        wait_for(page.serves, DEADLINE_S, "the page is there")
        # Nobody's password is known, so that no member can be asked what it is: a connection has to do.
        assert page.wait_ready(True) == f"ready: 127.0.0.1:{postgres.port} answers, but there is no primary: " + (
            "writes are held\n"
        )
        with psycopg.connect(postgres.dsn().replace(f":{postgres.port}/", f":{port}/")) as session:
            session.execute("SELECT 1")
            process.send(signal.SIGTERM)
            assert page.wait_ready(False) == "not ready: shutting down: no new application is let in\n"
            assert page.look().draining
            session.commit()
            assert process.wait(DEADLINE_S) == 0


def test_full_is_not_ready(postgres: PostgresServer) -> None:
    with watched_ambassador(postgres, "--max-connections", "1") as watched:
        wait_for(lambda: watched.page.look().sessions.open == 0, DEADLINE_S, "who tried has left")
        with watched.connect():
            assert "all 1 connections are in use" in watched.page.wait_ready(False)
        watched.page.wait_ready(True)


def test_a_taken_port_says_which_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        words = ["--registry", "static://127.0.0.1:1", "--listen", str(free_port()), "--status-listen"]
        result = run_client([*words, f"127.0.0.1:{port}"])
    assert result.returncode == 2
    assert f"--status-listen: 127.0.0.1:{port} is already in use" in result.stderr
    assert "choose another address with --status-listen" in result.stderr
    assert "Traceback" not in result.stderr


def run_client(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgamb", "client", *words],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_a_real_cluster(cluster: Cluster) -> None:
    port, status_port = free_port(), free_port()
    words = ["--registry", cluster.registry_url, "--service", cluster.service, "--listen", f"127.0.0.1:{port}"]
    words += ["--status-listen", f"127.0.0.1:{status_port}"]
    with client_process(*words, PGAMB_AUTH_DSN=cluster.members_dsn):
        page = Page(status_port)
        wait_for(page.serves, DEADLINE_S, "the page is there")
        # Nobody has used it: it asks the primary itself.
        assert page.wait_ready(True) == f"ready: {cluster.primary.name}, the primary, answers\n"
        assert page.look().pools == ()
        with psycopg.connect(
            cluster.dsn().replace(f":{cluster.client_port}/", f":{port}/"), autocommit=True
        ) as session:
            for _ in range(4):
                session.execute("SELECT count(*) FROM pg_catalog.pg_class")
            session.execute("CREATE TEMPORARY TABLE kept (n int)")
            seen = page.look()
        assert seen.primary == cluster.primary.name
        assert {member.node: member.role for member in seen.members} == {
            server.name: "primary" if server is cluster.primary else "replica" for server in cluster.servers
        }
        assert seen.registry.connected
        assert seen.registry.age_s is not None
        assert seen.routes.to_replica >= 4
        assert seen.routes.to_primary >= 1
        assert seen.sessions.pinned_by == {"temporary": 1}
        assert {pool.role for pool in seen.pools if pool.checkouts} == {"primary", "replica"}
        assert page.metrics()["pgamb_primary_known"] == 1
