"""A real Patroni cluster from PyPI: each node is a Patroni with its PostgreSQL; all keep their keys in one etcd.

Patroni starts PostgreSQL so that it outlives Patroni, and us too. So it is ended here by its own file `postmaster.pid`,
and where we are killed, by a shell that waits at the other end of a pipe.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import asyncpg

from pgamb.demo.account import Account, unprivileged_account
from pgamb.demo.binaries import find_postgres
from pgamb.demo.etcd import EtcdServer
from pgamb.demo.ports import free_port
from pgamb.demo.postgres import HOST, LOCALE, REPLICATION, SETTINGS, SUPERUSER, Credentials
from pgamb.demo.process import ChildProcess, clean_environment, descendants
from pgamb.demo.query import query
from pgamb.errors import ConnectionFailure
from tests.support.servers import server_folder
from tests.support.waiting import wait_for

NAMESPACE, SCOPE = "service", "demo"
DEADLINE_S = 60.0
# Patroni takes no shorter TTL, and no other times than these go with it as short.
TTL_S, LOOP_WAIT_S, RETRY_TIMEOUT_S = 20, 1, 3
_GUARD = """
read -r _
for file in "$1"/*/data/postmaster.pid; do
    [ -f "$file" ] && kill -QUIT "$(head -n 1 "$file")" 2>/dev/null
done
"""
# Patroni sets these itself, or for all nodes alike.
_OWN = ("listen_addresses", "hot_standby", "wal_log_hints", "max_connections", "max_prepared_transactions")


class PatroniNode:
    """One member: a Patroni process, and the PostgreSQL that it has started."""

    def __init__(
        self,
        name: str,
        *,
        etcd: EtcdServer,
        folder: Path,
        programs: Path,
        credentials: Credentials,
        account: Account | None,
        tags: Mapping[str, object],
    ) -> None:
        self.name = name
        self.port = free_port()
        self._api_port = free_port()
        self._data = folder / "data"
        self.credentials = credentials
        folder.mkdir()
        config = folder / "patroni.json"
        # JSON is YAML.
        config.write_text(json.dumps(self._settings(etcd, folder, programs, tags), indent=1))
        if account is not None:
            account.give(folder)
        self.process = ChildProcess(
            f"Patroni {name}",
            [*_become(account), sys.executable, "-m", "patroni", config],
            log=folder / "patroni.log",
            env={name: value for name, value in clean_environment().items() if not name.startswith("PATRONI")},
        )

    def __repr__(self) -> str:
        return f"<{self.name} on port {self.port}, {self.process!r}>"

    def dsn(self, *, user: str = SUPERUSER, password: str | None = None, database: str = "postgres") -> str:
        """Return a URL to its PostgreSQL; the superuser's password is known."""
        secret = password if password is not None else self.credentials.superuser
        return f"postgresql://{quote(user, '')}:{quote(secret, '')}@{HOST}:{self.port}/{quote(database, '')}"

    @property
    def is_primary(self) -> bool:
        """Ask the PostgreSQL itself; one that does not answer is none."""
        return self._ask("SELECT pg_is_in_recovery()") == [(False,)]

    @property
    def streams(self) -> bool:
        """Tell whether its PostgreSQL is a replica that receives from a primary now."""
        return self._ask("SELECT status FROM pg_stat_wal_receiver") == [("streaming",)]

    def _ask(self, sql: str) -> list[tuple[object, ...]]:
        """Return the answer, none where it does not answer or not yet."""
        with suppress(ConnectionFailure, asyncpg.PostgresError):
            return query(self.dsn(), sql)
        return []

    def call(self, method: str, path: str, body: object = None, timeout_s: float = DEADLINE_S) -> tuple[int, str]:
        """Speak with Patroni's REST API; returns status and text."""
        connection = http.client.HTTPConnection(HOST, self._api_port, timeout=timeout_s)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def crash(self) -> None:
        """End Patroni and PostgreSQL at once, as a power cut would."""
        # Patroni first: it must not have the time to let go of the leader key.
        self.process.kill()
        pid = self._postmaster()
        for each in (pid, *descendants(pid)) if pid is not None else ():
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        wait_for(lambda: pid is None or _has_ended(pid), DEADLINE_S, f"the end of {self.name}")

    def _postmaster(self) -> int | None:
        try:
            return int((self._data / "postmaster.pid").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None

    def _settings(
        self, etcd: EtcdServer, folder: Path, programs: Path, tags: Mapping[str, object]
    ) -> dict[str, object]:
        parameters = {word: value for word, value in SETTINGS.items() if word not in _OWN}
        parameters["unix_socket_directories"] = ""
        return {
            "scope": SCOPE,
            "namespace": f"/{NAMESPACE}/",
            "name": self.name,
            "restapi": {"listen": f"{HOST}:{self._api_port}", "connect_address": f"{HOST}:{self._api_port}"},
            "etcd3": {"hosts": [etcd.endpoint]},
            "bootstrap": {
                "dcs": {
                    "ttl": TTL_S,
                    "loop_wait": LOOP_WAIT_S,
                    "retry_timeout": RETRY_TIMEOUT_S,
                    # No acknowledged write is lost with a server, and a primary outlives etcd.
                    "synchronous_mode": True,
                    "failsafe_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {"max_connections": 100}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": LOCALE}, {"wal-segsize": "1"}, "no-sync"],
            },
            "postgresql": {
                "listen": f"{HOST}:{self.port}",
                "connect_address": f"{HOST}:{self.port}",
                "data_dir": str(self._data),
                "bin_dir": str(programs),
                "pgpass": str(folder / "pgpass"),
                "authentication": {
                    "superuser": {"username": SUPERUSER, "password": self.credentials.superuser},
                    "replication": {"username": REPLICATION, "password": self.credentials.replication},
                },
                "basebackup": ["no-sync", {"checkpoint": "fast"}],
                "parameters": parameters,
                "pg_hba": [f"host {what} all 127.0.0.1/32 scram-sha-256" for what in ("all", "replication")],
            },
            "tags": dict(tags),
        }


def _has_ended(pid: int) -> bool:
    """Tell whether a process that is not our child is gone, or only waits for its parent to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def _become(account: Account | None) -> list[str]:
    """Return the words before a program that make it run as an account which need not be able to enter our folders.

    Python and its packages may be below a home folder of root's: the account may read there, and change nothing else
    than what belongs to it.
    """
    if account is None:
        return []
    words = ["setpriv", "--reuid", str(account.uid), "--regid", str(account.gid), "--clear-groups"]
    return [*words, "--inh-caps", "+dac_override", "--ambient-caps", "+dac_override", "--pdeathsig", "KILL"]


class PatroniCluster:
    """Nodes and their etcd; the first one becomes the leader."""

    def __init__(self, etcd: EtcdServer, nodes: list[PatroniNode]) -> None:
        self.etcd = etcd
        self.nodes = nodes

    @property
    def registry_url(self) -> str:
        return f"patroni+etcd://{self.etcd.endpoint}/{NAMESPACE}/{SCOPE}"

    def node(self, name: str) -> PatroniNode:
        return next(node for node in self.nodes if node.name == name)

    @property
    def leader(self) -> PatroniNode:
        """The node whose name is in the leader key; there must be one."""
        named = self.read().get("leader")
        assert named is not None, "nobody holds the leader key"
        return self.node(named.decode())

    @property
    def synchronous(self) -> str | None:
        """The standby that has every acknowledged write; None where there is none."""
        said = json.loads(self.read().get("sync", b"{}"))
        return said.get("sync_standby") if said.get("leader") == self.leader.name else None

    def read(self) -> dict[str, bytes]:
        prefix = f"/{NAMESPACE}/{SCOPE}/"
        return {key.removeprefix(prefix): value for key, value in self.etcd.get_prefix(prefix).items()}

    def settle(self) -> PatroniNode:
        """Wait until one node is the primary by its own word and by the key, and all others stream; return it."""
        wait_for(lambda: "leader" in self.read(), DEADLINE_S, "a leader key")
        wait_for(lambda: self.leader.is_primary, DEADLINE_S, "a primary")
        for node in self.nodes:
            if node is not self.leader:
                wait_for(lambda node=node: node.streams, DEADLINE_S, f"{node.name} streams")  # type: ignore[misc]
                wait_for(
                    lambda node=node: self.said(node).get("state") == "running",  # type: ignore[misc]
                    DEADLINE_S,
                    f"{node.name} says that it runs",
                )
        return self.leader

    def said(self, node: PatroniNode) -> dict[str, object]:
        """Return what a member's key says; nothing when it is not there."""
        value = self.read().get(f"members/{node.name}")
        return {} if value is None else dict(json.loads(value))


@contextmanager
def running_patroni(
    etcd: EtcdServer, names: tuple[str, ...] = ("pg1", "pg2", "pg3"), *, tags: Mapping[str, Mapping[str, object]]
) -> Iterator[PatroniCluster]:
    """Run a cluster until the end of the block; `tags` are those of the named nodes."""
    account = unprivileged_account()
    with server_folder() as folder:
        programs = find_postgres(account, folder).folder
        credentials = Credentials()
        nodes = [
            PatroniNode(
                name,
                etcd=etcd,
                folder=folder / name,
                programs=programs,
                credentials=credentials,
                account=account,
                tags=tags.get(name, {}),
            )
            for name in names
        ]
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(folder)], stdin=subprocess.PIPE, cwd="/", start_new_session=True
        )
        cluster = PatroniCluster(etcd, nodes)
        try:
            nodes[0].process.start()
            nodes[0].process.wait_until(
                lambda: "initialize" in cluster.read(), DEADLINE_S, "while waiting for it to make a cluster"
            )
            for node in nodes[1:]:
                node.process.start()
            cluster.settle()
            yield cluster
        finally:
            for node in nodes:
                node.crash()
            guard.communicate(b"\n")
