"""What is measured: PostgreSQL itself, PgBouncer, and pgamb in its variants, each as processes of ours."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pgamb.demo.account import unprivileged_account
from pgamb.demo.ports import free_port
from pgamb.demo.postgres import HOST
from pgamb.demo.process import ChildProcess, descendants
from tests.bench.database import DATABASE, USER, Database

POOL_SIZE = 8
MAX_CLIENTS = 4000
START_DEADLINE_S = 20.0
OLDEST_PGBOUNCER_WITH_PREPARED = (1, 21)
ROOT = Path(__file__).resolve().parents[2]
BUILD_SCRIPT = Path(__file__).with_name("pgbouncer.sh")


@dataclass(frozen=True, slots=True)
class Proxy:
    """Something that listens on `port`; `process` is None for PostgreSQL itself, whose CPU is not what we ask for."""

    name: str
    port: int
    process: ChildProcess | None

    @property
    def pids(self) -> Sequence[int]:
        """The proxy's processes, workers and all."""
        return [] if self.process is None else [self.process.pid, *descendants(self.process.pid)]


Starter: TypeAlias = Callable[[Database, Path], AbstractContextManager[Proxy]]


@contextmanager
def direct(database: Database, folder: Path) -> Iterator[Proxy]:
    """No proxy: what the others are to be compared with."""
    yield Proxy("direct", database.members[0].port, None)


@contextmanager
def pgbouncer(database: Database, folder: Path) -> Iterator[Proxy]:
    """PgBouncer before the primary, in transaction mode, with the log-in and pool size that pgamb has."""
    port = free_port(HOST)
    config = folder / "pgbouncer.ini"
    users = _user_file(database, folder / "pgbouncer.users")
    binary = find_pgbouncer()
    prepared = "max_prepared_statements = 200" if pools_prepared_statements(binary) else ""
    config.write_text(
        f"""[databases]
{DATABASE} = host={HOST} port={database.members[0].port} dbname={DATABASE}

[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {POOL_SIZE}
max_client_conn = {MAX_CLIENTS}
{prepared}
log_connections = 0
log_disconnections = 0
log_stats = 0
server_tls_sslmode = disable
client_tls_sslmode = disable
"""
    )
    account = unprivileged_account()
    for path in (config, users):
        if account is not None:
            account.give(path)
    process = ChildProcess("PgBouncer", [binary, config], log=folder / "pgbouncer.log", account=account)
    with listening(process, port):
        yield Proxy("pgbouncer", port, process)


def pgamb(name: str, members: int, root: Path = ROOT) -> Starter:
    """Return what starts `pgamb client` before so many members (the primary first), asking the servers themselves;
    `root` is the checkout that it is of.
    """

    @contextmanager
    def start(database: Database, folder: Path) -> Iterator[Proxy]:
        port = free_port(HOST)
        users = _user_file(database, folder / f"{name}.users")
        arguments: list[str] = [
            *("client", "--listen", f"{HOST}:{port}", "--service", DATABASE, "--server-tls", "disable"),
            *("--registry", "static://" + ",".join(database.addresses[:members])),
            *("--auth", "scram", "--auth-file", str(users), "--pool-size", str(POOL_SIZE)),
            *("--max-connections", str(MAX_CLIENTS)),
        ]
        process = ChildProcess(name, [sys.executable, "-m", "pgamb", *arguments], log=folder / f"{name}.log", cwd=root)
        with listening(process, port):
            yield Proxy(name, port, process)

    return start


def find_pgbouncer() -> Path:
    """Return $PGBOUNCER, else a current PgBouncer, building it if need be. Raises SystemExit when there is none."""
    if named := os.environ.get("PGBOUNCER"):
        return Path(named)
    answer = subprocess.run([BUILD_SCRIPT], stdout=subprocess.PIPE, text=True, check=False)
    if answer.returncode != 0:
        raise SystemExit(2)
    return Path(answer.stdout.strip())


def pools_prepared_statements(binary: Path) -> bool:
    """Say whether this PgBouncer has `max_prepared_statements`."""
    return pgbouncer_version(binary) >= OLDEST_PGBOUNCER_WITH_PREPARED


def pgbouncer_version(binary: Path) -> tuple[int, ...]:
    answer = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)\.?(\d*)", answer)
    if found is None:
        raise SystemExit(f"{binary} --version says {answer!r}: name a PgBouncer with PGBOUNCER=/path")
    return tuple(int(number) for number in found.groups() if number)


@contextmanager
def listening(process: ChildProcess, port: int, stop: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """Run a proxy from its first accepted connection to the end of the block; `stop` asks it to end."""
    process.start()
    try:
        process.wait_until(lambda: _accepts(port), START_DEADLINE_S, f"while waiting for it to listen on {port}")
        yield
    finally:
        process.stop(stop, grace_s=5)


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def _user_file(database: Database, path: Path) -> Path:
    path.touch(mode=0o600)
    path.write_text(f'"{USER}" "{database.verifier}"\n')
    return path


VARIANTS: dict[str, Starter] = {
    "direct": direct,
    "pgbouncer": pgbouncer,
    "pgamb": pgamb("pgamb", members=3),
    "pgamb-1": pgamb("pgamb-1", members=1),
}
