"""systemd's sockets: listened at instead of binding; what is told to systemd; a restart that refuses nobody."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from pgamb.demo.etcd import EtcdServer
from pgamb.demo.postgres import PostgresServer
from pgamb.demo.process import descendants
from tests.support import free_port, wait_for
from tests.support.agent import AgentProcess
from tests.support.servers import server_folder
from tests.support.successors import Generation, Generations, generations

DEADLINE_S = 60.0


class Told:
    """What systemd would be told."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "notify")
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(self.path)
        self._sock.setblocking(False)
        self.lines: list[str] = []

    def has(self, *lines: str) -> bool:
        while True:
            try:
                self.lines += self._sock.recv(4096).decode().splitlines()
            except BlockingIOError:
                return set(lines) <= set(self.lines)

    def wait_for(self, *lines: str) -> None:
        wait_for(lambda: self.has(*lines), DEADLINE_S, f"systemd is told {lines}")

    def close(self) -> None:
        self._sock.close()


@contextmanager
def told(folder: Path) -> Iterator[Told]:
    listening = Told(folder)
    try:
        yield listening
    finally:
        listening.close()


def activated(processes: Generations, *sockets: str, options: tuple[str, ...] = (), notify: str = "") -> Generation:
    command = [sys.executable, "-m", "tests.support.activation", *sockets, "--"]
    return processes.start(*options, command=command, environ={"NOTIFY_SOCKET": notify}, wait=False)


def child_of(keeper: Generation) -> int:
    (pid,) = descendants(keeper.pid)
    return pid


def test_a_restart_by_the_same_sockets_refuses_nobody(postgres: PostgresServer) -> None:
    port, status = free_port(), free_port()
    with generations(postgres) as processes, told(processes.folder) as systemd:
        unix = f"{processes.folder}/.s.PGSQL.{port}"
        keeper = activated(
            processes, f"pgamb.socket={port}", f"pgamb.socket={unix}", f"status={status}", notify=systemd.path
        )
        keeper.wait_for_log("bound")
        dsn = processes.dsn(port)
        # Nobody serves yet, and nobody is refused.
        with psycopg.connect(dsn, autocommit=True) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)
        psycopg.connect(f"{dsn}?host={processes.folder}").close()
        assert urllib.request.urlopen(f"http://127.0.0.1:{status}/healthz", timeout=DEADLINE_S).status == 200
        first = child_of(keeper)
        systemd.wait_for("READY=1", f"MAINPID={first}")
        errors: list[psycopg.Error] = []
        served = 0
        ended = threading.Event()

        def call() -> None:
            nonlocal served
            while not ended.is_set():
                try:
                    psycopg.connect(dsn).close()
                    served += 1
                except psycopg.Error as error:
                    # One that was accepted, and had not said who it is when the process was told to stop.
                    if "shutting down" not in str(error):
                        errors.append(error)

        calling = threading.Thread(target=call)
        calling.start()
        wait_for(lambda: served > 20, DEADLINE_S, "it is served")
        os.kill(first, signal.SIGTERM)
        systemd.wait_for("STOPPING=1")
        wait_for(lambda: keeper.text.count("client.listening") == 2, DEADLINE_S, "it serves again")
        before = served
        wait_for(lambda: served > before + 20, DEADLINE_S, "it is served again")
        ended.set()
        calling.join(DEADLINE_S)
        assert errors == []
        assert Path(unix).exists()
        keeper.send(signal.SIGTERM)
        assert keeper.wait_for_end() == 0


@pytest.mark.parametrize(
    ("sockets", "options", "words"),
    [
        (("x=/{folder}/pg.sock",), (), "where no driver looks for PostgreSQL"),
        (("status={port}", "status={other}"), (), "one at most can be used"),
    ],
)
def test_what_cannot_be_listened_at_is_an_error(
    postgres: PostgresServer, sockets: tuple[str, ...], options: tuple[str, ...], words: str
) -> None:
    with generations(postgres) as processes:
        places = {"folder": str(processes.folder)[1:], "port": free_port(), "other": free_port()}
        keeper = activated(processes, *(text.format(**places) for text in sockets), options=options)
        assert keeper.wait_for_end() == 2
        assert words in keeper.text


def test_a_new_process_takes_over_and_says_whose_process_is_the_main_one(postgres: PostgresServer) -> None:
    port = free_port()
    with generations(postgres) as processes, told(processes.folder) as systemd:
        notify = {"NOTIFY_SOCKET": systemd.path}
        old = processes.start("--listen", f"127.0.0.1:{port}", environ=notify)
        systemd.wait_for("READY=1", f"MAINPID={old.pid}")
        new = processes.start("--takeover", "--listen", f"127.0.0.1:{port}", environ=notify)
        systemd.wait_for(f"MAINPID={new.pid}")
        assert old.wait_for_end() == 0
        # Nothing of that is an end of the service.
        assert not systemd.has("STOPPING=1")
        # One that nobody listens at, or that is no socket, is no reason not to serve.
        systemd.close()
        processes.start("--takeover", "--listen", f"127.0.0.1:{port}", environ=notify)
        assert new.wait_for_end() == 0


def test_an_agent_exposes_at_the_socket_given(postgres: PostgresServer, etcd: EtcdServer) -> None:
    port = free_port()
    with server_folder() as folder, told(folder) as systemd:
        agent = AgentProcess(
            postgres,
            f"etcd://{etcd.endpoint}",
            folder,
            service="activated",
            listen=False,
            environ={"NOTIFY_SOCKET": systemd.path},
        )
        agent.argv = [sys.executable, "-m", "tests.support.activation", f"x={port}", "--", *agent.argv]
        agent.start()
        try:
            agent.wait_for_log("server.port.relaying", DEADLINE_S)
            systemd.wait_for("READY=1")
            with psycopg.connect(postgres.dsn().replace(f":{postgres.port}/", f":{port}/")) as session:
                assert session.execute("SELECT 1").fetchone() == (1,)
            agent.send(signal.SIGTERM)
            systemd.wait_for("STOPPING=1")
            assert agent.wait(DEADLINE_S) == 0
        finally:
            agent.kill()
