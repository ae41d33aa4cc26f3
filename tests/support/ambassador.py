"""A `pgamb client` of a test's own, in front of servers that somebody else owns."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from pgamb.demo.ports import free_port
from pgamb.demo.postgres import HOST, SUPERUSER, Credentials, PostgresServer
from pgamb.demo.process import ChildProcess, clean_environment
from pgamb.demo.query import query
from pgamb.errors import ConnectionFailure
from tests.support.servers import server_folder

READY_DEADLINE_S = 60.0


class Server(Protocol):
    """A PostgreSQL that somebody else has started."""

    @property
    def port(self) -> int: ...

    @property
    def credentials(self) -> Credentials: ...

    def dsn(self, *, user: str = SUPERUSER, password: str | None = None, database: str = "postgres") -> str: ...


@dataclass(frozen=True, slots=True)
class Front:
    """A running `pgamb client`; `member` is one of those behind it, whose log-ins are everybody's."""

    process: ChildProcess
    port: int
    member: Server

    def dsn(self, *, user: str = SUPERUSER, password: str | None = None, database: str = "postgres") -> str:
        """Return a URL to it, which logs in as the member's own would."""
        dsn = self.member.dsn(user=user, password=password, database=database)
        return dsn.replace(f":{self.member.port}/", f":{self.port}/")

    @property
    def resident_bytes(self) -> int:
        """How much memory the process has in RAM now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGESIZE")

    @property
    def log(self) -> str:
        """Return all that it has logged."""
        assert self.process.log is not None
        return self.process.log.read_text()


@dataclass(frozen=True, slots=True)
class Ambassador(Front):
    """One before servers of ours; `servers` are the members behind it, the primary first."""

    servers: tuple[PostgresServer, ...]


@contextmanager
def running_ambassador(servers: Sequence[PostgresServer], *options: str) -> Iterator[Ambassador]:
    """Run `pgamb client` with `static://` and these options, as `running_front` does."""
    hosts = ",".join(f"{HOST}:{server.port}" for server in servers)
    with running_front(servers, f"static://{hosts}", *options) as front:
        yield Ambassador(front.process, front.port, front.member, tuple(servers))


@contextmanager
def running_front(servers: Sequence[Server], registry: str, *options: str) -> Iterator[Front]:
    """Run `pgamb client` with these options, from the first answered query to the end of the block.

    A defect that it logged (an exception nobody expected) fails the block.
    """
    hosts = ",".join(f"{HOST}:{server.port}" for server in servers)
    secret = quote(servers[0].credentials.superuser, "")
    port = free_port()
    with server_folder() as folder:
        argv = [sys.executable, "-m", "pgamb", "client", "--listen", f"127.0.0.1:{port}", "--auth", "scram"]
        process = ChildProcess(
            "pgamb client",
            [*argv, "--registry", registry, *options],
            log=folder / "client.log",
            env={**clean_environment(), "PGAMB_AUTH_DSN": f"postgresql://{SUPERUSER}:{secret}@{hosts}/postgres"},
            cwd=Path.cwd(),
        )
        front = Front(process, port, servers[0])
        process.start()
        try:
            process.wait_until(lambda: _answers(front), READY_DEADLINE_S, "while waiting for it to answer a query")
            yield front
            assert process.running, f"it ended with status {process.returncode}: {process.log_tail(40)}"
            assert "defect" not in front.log, process.log_tail(60)
            assert "Traceback" not in front.log, process.log_tail(60)
        finally:
            process.stop(grace_s=2.0)


def _answers(front: Front) -> bool:
    try:
        return query(front.dsn(), "SELECT 1") == [(1,)]
    except ConnectionFailure:
        return False
