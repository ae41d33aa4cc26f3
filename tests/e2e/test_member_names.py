"""Members named by host names: each connection asks anew where a name leads, and a resolver that fails passes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support import wait_for
from tests.support.silent import running_silent
from tests.support.successors import Generation, Generations, generations

DEADLINE_S = 60.0
RESOLVER = Path(__file__).parents[1] / "support" / "resolver"


class Named:
    """An ambassador whose member is `db.test`, as `hosts` says where that is."""

    def __init__(self, processes: Generations, postgres: PostgresServer, port: int) -> None:
        self._hosts = processes.folder / "hosts"
        self._processes = processes
        self._postgres = postgres
        self._port = port

    def leads_to(self, *addresses: str) -> None:
        # At once: it may be read at any time.
        new = self._hosts.with_suffix(".new")
        new.write_text(" ".join(("db.test", *addresses)) + "\n")
        os.replace(new, self._hosts)

    def start(self, *options: str) -> Generation:
        path = os.pathsep.join(filter(None, (str(RESOLVER), os.environ.get("PYTHONPATH"))))
        return self._processes.start(
            *("--listen", "127.0.0.1:0", "--registry", f"static://db.test:{self._port}", *options),
            environ={"PYTHONPATH": path, "TEST_HOSTS": str(self._hosts)},
        )

    def dsn(self, client: Generation) -> str:
        return self._processes.dsn(client.port)

    def end_backends(self) -> None:
        """End all connections of ambassadors, so that they need new ones."""
        with psycopg.connect(self._postgres.dsn(), autocommit=True) as session:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")


@contextmanager
def named(postgres: PostgresServer) -> Iterator[Named]:
    with generations(postgres) as processes:
        yield Named(processes, postgres, postgres.port)


@contextmanager
def dead_end(host: str, port: int) -> Iterator[None]:
    """Listen, and let nobody in: a connection attempt is neither taken nor refused."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(0)
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex((host, port))
        yield


def test_a_name_is_resolved_at_each_connection(postgres: PostgresServer) -> None:
    with named(postgres) as names, running_silent(postgres.port, ("127.0.0.2", postgres.port)) as elsewhere:
        names.leads_to("127.0.0.1")
        client = names.start()
        with psycopg.connect(names.dsn(client), autocommit=True) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
            names.leads_to("127.0.0.2")
            names.end_backends()
            assert session.execute("SELECT 2").fetchone() == (2,)
            elsewhere.wait_connected()


def test_a_name_that_cannot_be_resolved_is_said_and_comes_back(postgres: PostgresServer) -> None:
    with named(postgres) as names:
        names.leads_to("127.0.0.1")
        client = names.start("--hold-timeout", "500ms")
        with psycopg.connect(names.dsn(client), autocommit=True) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
            names.leads_to()
            names.end_backends()
            with pytest.raises(psycopg.errors.CannotConnectNow):
                session.execute("SELECT 2")
            client.wait_for_log("cannot resolve db.test: Name or service not known")
            names.leads_to("127.0.0.1")
            wait_for(lambda: _answers(session), DEADLINE_S, "it is found again")


def test_an_address_that_does_not_answer_leaves_time_for_the_next(postgres: PostgresServer) -> None:
    # One deadline for all that a name led to: where the first did not answer, no other was ever tried.
    with named(postgres) as names, dead_end("127.0.0.3", postgres.port):
        names.leads_to("127.0.0.3", "127.0.0.1")
        client = names.start("--connect-timeout", "1s")
        with psycopg.connect(names.dsn(client), autocommit=True) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)


def _answers(session: psycopg.Connection[tuple[object, ...]]) -> bool:
    try:
        return session.execute("SELECT 1").fetchone() == (1,)
    except psycopg.errors.CannotConnectNow:
        return False
