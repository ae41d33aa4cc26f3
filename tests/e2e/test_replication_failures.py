"""Replication connections through failures: the primary stops, is killed, is replaced, or is not there; pgamb stops."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from pgamb.demo.account import unprivileged_account
from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import REPLICATION, PostgresServer
from pgamb.wire import messages
from tests.e2e.conftest import MakeCluster
from tests.support.agent import AgentProcess
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.replication import Tools
from tests.support.servers import running_postgres, server_folder
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors

DEADLINE_S = 60.0


def walsender(ambassador_port: int, password: str) -> Wire:
    return Wire(ambassador_port).log_in(password, parameters={"replication": "database"})


def streaming(port: int, server: PostgresServer) -> Wire:
    """Return a physical stream that has begun."""
    wire = Wire(port).log_in(server.credentials.superuser, parameters={"replication": "true"})
    (lsn,) = server.query("SELECT pg_current_wal_lsn()::text")[0]
    wire.send(messages.query(f"START_REPLICATION {lsn}"))
    message = wire.receive()
    assert message is not None
    assert message.type == ord("W")
    return wire


@pytest.fixture
def pair(template: PostgresServer) -> Iterator[Ambassador]:
    with (
        running_postgres(settings={"wal_level": "logical"}, template=template) as server,
        running_ambassador([server], "--hold-timeout", "20") as ambassador,
    ):
        yield ambassador


def test_a_server_that_stops_says_goodbye_itself(pair: Ambassador) -> None:
    (server,) = pair.servers
    told = []
    for port in (server.port, pair.port):
        with walsender(port, server.credentials.superuser) as wire:
            server.stop()
            told.append([(chr(m.type), messages.parse_error_fields(m.payload)["C"]) for m in wire.until_closed()])
        server.start()
    assert told[0] == told[1] == [("E", "57P01")]


def test_a_server_that_is_killed_is_told_like_one_that_stops(pair: Ambassador) -> None:
    (server,) = pair.servers
    with streaming(pair.port, server) as stream, walsender(pair.port, server.credentials.superuser) as idle:
        server.kill()
        for wire in (stream, idle):
            *_, last = wire.until_closed()
            fields = messages.parse_error_fields(last.payload)
            assert (fields["S"], fields["C"]) == ("FATAL", "57P01")


def test_a_log_in_is_held_until_there_is_a_primary(pair: Ambassador) -> None:
    (server,) = pair.servers
    server.stop()
    started = threading.Timer(1.5, server.start)
    started.start()
    with walsender(pair.port, server.credentials.superuser) as wire:
        assert wire.value("SELECT pg_is_in_recovery()") == "f"
    started.join()


def test_without_a_primary_a_log_in_ends_with_the_hold_timeout(template: PostgresServer) -> None:
    # No look-up: the password is what PostgreSQL says it is.
    with running_postgres(template=template) as server:
        options = ("--hold-timeout", "1", "--auth", "password")
        with running_ambassador([server], *options) as ambassador:
            server.stop()
            with Wire(ambassador.port) as wire:
                wire.send(messages.startup_message({"user": "postgres", "replication": "true"}))
                assert wire.receive() is not None
                wire.send(messages.password_message(server.credentials.superuser))
                assert [error[:2] for error in errors(wire.until_closed())] == [("FATAL", "57P03")]


def test_pgamb_that_stops_does_not_wait_for_streams(pair: Ambassador) -> None:
    (server,) = pair.servers
    with streaming(pair.port, server) as stream:
        pair.process.send(signal.SIGTERM)
        *_, last = stream.until_closed()
        assert messages.parse_error_fields(last.payload)["C"] == "57P01"
        wait_for(lambda: not pair.process.running, 5.0, "it has stopped")
    pair.process.start()


def test_a_stream_goes_on_with_the_next_primary(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(replicas=1)
    old, new = cluster.servers
    target = cluster.folder / "received"
    target.mkdir()
    tools = Tools(old, cluster.client_port, cluster.folder)
    with (
        tools.running("pg_receivewal", "-D", target, "--no-sync") as receiving,
        Wire(cluster.client_port) as idle,
    ):
        wait_for(lambda: _receivers(old) == 1, DEADLINE_S, "it streams from the first")
        idle.log_in(old.credentials.superuser, parameters={"replication": "database"})
        # The old primary goes on running: nothing but the registry says that it is not the primary any more.
        cluster.promote("pg2")
        assert [error[:2] for error in errors(idle.until_closed())] == [("FATAL", "57P01")]
        wait_for(lambda: _receivers(new) == 1, DEADLINE_S, "it streams from the second")
        assert _receivers(old) == 0
        new.query("CREATE TABLE afterwards (n int)")
        new.query("SELECT pg_switch_wal()")
        wait_for(lambda: list(target.glob("00000002????????????????")), DEADLINE_S, "WAL of the new timeline arrives")
        assert receiving.running


def _receivers(server: PostgresServer) -> object:
    return server.query("SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pg_receivewal'")[0][0]


def test_over_tls_on_both_sides(template: PostgresServer, tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    account = unprivileged_account()
    with server_folder() as folder:
        ca, cert, key = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
        authority.cert_pem.write_to_path(str(ca))
        cert.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        ours = tmp_path / "key.pem"
        ours.write_bytes(key.read_bytes())
        key.chmod(0o600)
        if account is not None:
            account.give(key)
        settings = {"ssl": "on", "ssl_cert_file": str(cert), "ssl_key_file": str(key), "wal_level": "logical"}
        options = (
            "--tls-cert",
            str(cert),
            "--tls-key",
            str(ours),
            "--server-tls",
            "verify-full",
            "--server-ca",
            str(ca),
        )
        with (
            running_postgres(settings=settings, template=template) as server,
            running_ambassador([server], *options) as ambassador,
        ):
            tools = Tools(server, ambassador.port, folder)
            secure = tools.conninfo(REPLICATION, sslmode="verify-full", sslrootcert=str(ca))
            target = folder / "backup"
            tools.run("pg_basebackup", "-d", secure, "-D", target, "-X", "stream", "-c", "fast", "--no-sync")
            tools.run("pg_verifybackup", target)
            received = folder / "received"
            received.mkdir()
            with tools.running("pg_receivewal", "-d", secure, "-D", received, "--no-sync") as receiving:
                wait_for(lambda: _receivers(server) == 1, DEADLINE_S, "it streams")
                ssl = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"
                assert server.query(ssl) == [(True,)]
                server.query("CREATE TABLE big AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)")
                server.query("SELECT pg_switch_wal()")
                wait_for(lambda: len(list(received.glob("0000*"))) > 3, DEADLINE_S, "WAL arrives")
                receiving.send(signal.SIGINT)
                assert receiving.wait(DEADLINE_S) == 0, receiving.log_tail()


def test_the_agent_s_port_carries_them_until_its_server_is_a_stale_primary(make_cluster: MakeCluster) -> None:
    cluster: Cluster = make_cluster(replicas=1, agents=False, client=False)
    old, new = cluster.servers
    with server_folder() as folder:
        options = ["--ttl", "2", "--probe-interval", "0.5"]
        agents = [
            AgentProcess(server, cluster.registry_url, folder, service="db", options=options)
            for server in cluster.servers
        ]
        try:
            for agent in agents:
                agent.start()
                agent.wait_for_log("server.port.relaying")
            # A replica replicates, too (cascading), whoever asks it.
            for agent, server in zip(agents, cluster.servers, strict=True):
                target = folder / f"backup_{server.name}"
                tools = Tools(server, agent.port, folder)
                tools.run("pg_basebackup", "-D", target, "-X", "stream", "-c", "fast", "--no-sync")
            with streaming(agents[0].port, old) as stream:
                new.promote()
                stream.until_closed()
                with Wire(agents[0].port) as wire:
                    wire.send(messages.startup_message({"user": "postgres", "replication": "true"}))
                    assert [error[1] for error in errors(wire.until_closed())] == ["57P03"]
        finally:
            for agent in agents:
                agent.stop()
