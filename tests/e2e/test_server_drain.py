"""`pgamb server` after SIGTERM: exposed transactions end first, within bounds; a second one does not wait."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from pgamb.demo.etcd import EtcdServer
from pgamb.demo.postgres import PostgresServer
from tests.support.agent import AgentProcess
from tests.support.servers import server_folder
from tests.support.successors import generations

DEADLINE_S = 60.0


@contextmanager
def exposing(postgres: PostgresServer, etcd: EtcdServer, service: str, *options: str) -> Iterator[AgentProcess]:
    with server_folder() as folder:
        agent = AgentProcess(postgres, f"etcd://{etcd.endpoint}", folder, service=service, options=options)
        agent.start()
        try:
            agent.wait_for_log("server.port.relaying", DEADLINE_S)
            yield agent
        finally:
            agent.kill()


def test_a_transaction_of_a_client_ends_and_the_agent_does_not_wait_for_more(
    postgres: PostgresServer, etcd: EtcdServer
) -> None:
    # SIGTERM cut every exposed connection as soon as the registration was withdrawn, in the middle of transactions.
    registry = ["--registry", f"etcd://{etcd.endpoint}", "--service", "drained"]
    with (
        exposing(postgres, etcd, "drained", "--drain-timeout", "60") as agent,
        generations(postgres) as processes,
    ):
        client = processes.start("--listen", "127.0.0.1:0", *registry)
        with closing(psycopg.connect(processes.dsn(client.port))) as session:
            session.execute("CREATE TEMPORARY TABLE here (n int) ON COMMIT DROP")
            agent.send(signal.SIGTERM)
            agent.wait_for_log("server.draining", DEADLINE_S)
            session.execute("INSERT INTO here VALUES (1)")
            assert session.execute("SELECT count(*) FROM here").fetchone() == (1,)
            session.commit()
            # The client leaves by itself: the member is not in the registry any more.
            assert agent.wait(DEADLINE_S / 2) == 0


def test_others_have_until_the_deadline_and_can_be_cancelled(postgres: PostgresServer, etcd: EtcdServer) -> None:
    with (
        exposing(postgres, etcd, "bounded", "--drain-timeout", "4") as agent,
        closing(psycopg.connect(agent.dsn(), autocommit=True)) as session,
    ):
        session.execute("SELECT 1")
        agent.send(signal.SIGTERM)
        agent.wait_for_log("server.draining", DEADLINE_S)
        began = time.monotonic()
        # Nobody new is let in.
        with pytest.raises(psycopg.OperationalError, match="the agent is shutting down"):
            psycopg.connect(agent.dsn())
        session.pgconn.send_query(b"SELECT pg_sleep(300)")
        session.cancel()
        result = session.pgconn.get_result()
        assert result is not None
        assert b"canceling statement due to user request" in result.error_message
        assert agent.wait(DEADLINE_S) == 0
        assert 2 < time.monotonic() - began < 10


def test_a_second_signal_does_not_wait(postgres: PostgresServer, etcd: EtcdServer) -> None:
    with (
        exposing(postgres, etcd, "hurried", "--drain-timeout", "60") as agent,
        closing(psycopg.connect(agent.dsn())) as session,
    ):
        session.execute("SELECT 1")
        agent.send(signal.SIGTERM)
        agent.wait_for_log("server.draining", DEADLINE_S)
        assert session.execute("SELECT 2").fetchone() == (2,)
        agent.send(signal.SIGTERM)
        assert agent.wait(DEADLINE_S) == -signal.SIGTERM


def test_the_second_signal_ends_a_client_too(postgres: PostgresServer) -> None:
    with generations(postgres) as processes:
        client = processes.start("--listen", "127.0.0.1:0", "--drain-timeout", "60")
        with closing(psycopg.connect(processes.dsn(client.port))) as session:
            session.execute("CREATE TEMPORARY TABLE here (n int)")
            client.send(signal.SIGTERM)
            client.wait_for_log("client.draining")
            session.execute("INSERT INTO here VALUES (1)")
            client.send(signal.SIGTERM)
            assert client.wait_for_end() == 0
            with pytest.raises(psycopg.errors.AdminShutdown):
                session.execute("SELECT 1")


def test_a_clients_transactions_have_until_the_deadline(postgres: PostgresServer) -> None:
    with generations(postgres) as processes:
        client = processes.start("--listen", "127.0.0.1:0", "--drain-timeout", "2")
        with closing(psycopg.connect(processes.dsn(client.port))) as session:
            session.execute("CREATE TEMPORARY TABLE here (n int)")
            began = time.monotonic()
            client.send(signal.SIGTERM)
            assert client.wait_for_end() == 0
            assert 1.9 < time.monotonic() - began < 8
