"""A whole cluster on this machine: PostgreSQL primary and replicas, etcd, an agent beside each, one ambassador."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from pgamb.demo.account import Account, unprivileged_account
from pgamb.demo.binaries import find_etcd, find_postgres
from pgamb.demo.etcd import EtcdCluster
from pgamb.demo.janitor import Janitor
from pgamb.demo.ports import free_port
from pgamb.demo.postgres import MONITOR, SUPERUSER, Credentials, PostgresServer
from pgamb.demo.process import ChildProcess, clean_environment
from pgamb.demo.query import query
from pgamb.errors import ConfigError, ConnectionFailure, ProcessFailed

# unix(7): 107 bytes, of which ".s.PGSQL.65535" and a slash take 15.
LONGEST_SOCKET_FOLDER = 92
# Two seconds on an idle machine; a busy one is no reason to give up.
READY_DEADLINE_S = 60.0
# Agents and ambassador are asked to go in order; who drains for longer than this is not waited for.
GRACE_S = 3.0


class Cluster:
    """Started and stopped as one. Everything is below `folder`, which goes with it unless it was given."""

    def __init__(
        self,
        *,
        directory: Path | None = None,
        replicas: int = 2,
        etcd: int | bool = 1,
        agents: bool = True,
        client: bool = True,
        client_port: int = 0,
        service: str = "db",
        unix_sockets: bool = False,
        settings: Mapping[str, str] | None = None,
        template: PostgresServer | None = None,
        server_options: Sequence[str] = (),
        client_options: Sequence[str] = (),
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        """`etcd` is the number of nodes; `client_port` 0 takes a free one; without etcd the ambassador gets `static://`.
        A `template` that was initialised and never started saves the time of initdb; its system identifier and
        passwords are then those of this cluster too.

        Raises ConfigError when the programs are missing, or the place will not do.
        """
        if agents and not etcd:
            raise ConfigError("agents need an etcd to register in", hint="start with etcd=1, or with agents=False")
        self.service = service
        self.credentials = template.credentials if template is not None else Credentials()
        self._template = template
        self.account = unprivileged_account()
        self.keep = directory is not None
        self._client_port = client_port
        self._options = {"server": tuple(server_options), "client": tuple(client_options)}
        self._environ = clean_environment(environ)
        self.folder = _make_folder(directory, self.account)
        self._janitor = Janitor(self.folder, keep=self.keep)
        try:
            self.logs = self.folder / "logs"
            self.logs.mkdir()
            self.binaries = find_postgres(self.account, self.folder, environ)
            self.servers = [
                PostgresServer(
                    f"pg{number}",
                    binaries=self.binaries,
                    folder=self.folder / f"pg{number}",
                    credentials=self.credentials,
                    account=self.account,
                    log=self.logs / f"pg{number}.log",
                    socket_folder=self._socket_folder() if unix_sockets else None,
                    settings=settings,
                )
                for number in range(1, replicas + 2)
            ]
            self.etcd: EtcdCluster | None = None
            if etcd:
                self.etcd = EtcdCluster(
                    binary=find_etcd(environ), folder=self.folder / "etcd", nodes=int(etcd), logs=self.logs
                )
            self.agents: dict[str, ChildProcess] = {s.name: self._agent(s) for s in self.servers} if agents else {}
            self.client: ChildProcess | None = None
            if client:
                self._client_port = client_port or free_port()
                self.client = self._ambassador()
        except BaseException:
            self._janitor.clean()
            raise

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # Addresses

    @property
    def primary(self) -> PostgresServer:
        """The running server that is no standby. Raises ProcessFailed when there is none."""
        for server in self.servers:
            if server.process.running and not server.is_standby:
                return server
        raise ProcessFailed("no primary is running")

    @property
    def replicas(self) -> list[PostgresServer]:
        """The running servers that are standbys."""
        return [server for server in self.servers if server.process.running and server.is_standby]

    def newest_replica(self) -> PostgresServer:
        """The running replica that has received most. Raises ProcessFailed when there is none."""
        replicas = self.replicas
        if not replicas:
            raise ProcessFailed("no replica is running")
        return max(replicas, key=lambda server: server.received_lsn)

    def server(self, name: str) -> PostgresServer:
        """Return the server of that name. Raises KeyError when there is none."""
        for server in self.servers:
            if server.name == name:
                return server
        raise KeyError(name)

    @property
    def registry_url(self) -> str:
        """What `--registry` of an ambassador wants."""
        if self.etcd is not None:
            return self.etcd.registry_url
        return "static://" + ",".join(server.address for server in self.servers)

    @property
    def client_port(self) -> int:
        """The port where the ambassador pretends to be PostgreSQL. Raises ProcessFailed when the cluster has none."""
        if self.client is None:
            raise ProcessFailed("this cluster was made without a client")
        return self._client_port

    def dsn(
        self, server: PostgresServer | str | None = None, *, user: str = SUPERUSER, database: str = "postgres"
    ) -> str:
        """Return a URL to that server itself; to the ambassador when none is named."""
        if isinstance(server, str):
            server = self.server(server)
        if server is None:
            url = self.servers[0].dsn(user=user, database=database)
            return url.replace(f":{self.servers[0].port}/", f":{self.client_port}/")
        return server.dsn(user=user, database=database)

    @property
    def members_dsn(self) -> str:
        """A URL that names every server: whichever answers will do."""
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        return f"postgresql://{SUPERUSER}:{quote(self.credentials.superuser, '')}@{hosts}/postgres"

    def query(self, sql: str, *arguments: object) -> list[tuple[object, ...]]:
        """Run one statement as superuser through the ambassador, on a connection of its own."""
        return query(self.dsn(), sql, *arguments)

    # Life

    def start(self) -> None:
        """Start everything and wait until a query through it is answered. Leaves nothing behind when that fails."""
        try:
            if self.etcd is not None:
                self.etcd.start(wait=False)
            # Both import a good deal, and wait for what is not there yet: they get ready while PostgreSQL does.
            for agent in self.agents.values():
                agent.start()
            if self.client is not None:
                self.client.start()
            self._start_postgres()
            if self.etcd is not None:
                self.etcd.wait_ready()
            self._wait_for_agents()
            if self.client is not None:
                self.client.wait_until(self._client_answers, READY_DEADLINE_S, "while waiting for it to answer a query")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything; the folder is removed unless it was given. Never fails because something is gone already."""
        ambassadors = [child for child in (self.client, *self.agents.values()) if child is not None and child.running]
        for child in ambassadors:
            child.resume()
            child.send(signal.SIGTERM)
        for child in ambassadors:
            child.stop(grace_s=GRACE_S)
        # A kept folder holds data that somebody wants: replicas last, so that they get all of the primary's WAL.
        number = signal.SIGINT if self.keep else signal.SIGQUIT
        for server in self.servers:
            server.resume()
            server.process.send(number)
        if self.etcd is not None:
            self.etcd.stop()
        for server in self.servers:
            server.process.stop(number)
        self._janitor.clean()

    def promote(self, name: str) -> PostgresServer:
        """Make a replica the primary and let the other running replicas follow it. Does not stop the old primary."""
        new = self.server(name)
        others = [server for server in self.replicas if server is not new]
        new.promote()
        for server in others:
            server.follow(new)
        return new

    def rejoin(self, name: str) -> PostgresServer:
        """Bring back a server that was primary once as a replica of today's primary."""
        old = self.server(name)
        primary = next(s for s in self.servers if s is not old and s.process.running and not s.is_standby)
        old.rewind(primary)
        return old

    # Parts

    def _start_postgres(self) -> None:
        first, *others = self.servers
        first.initdb(self._template.data if self._template is not None else None)
        for server in others:
            server.clone(first)
        for server in self.servers:
            server.start(wait=False)
        for server in self.servers:
            server.wait_ready()
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        first.process.wait_until(
            lambda: first.query(streaming) == [(len(others),)],
            READY_DEADLINE_S,
            f"while waiting for {len(others)} replicas to stream from it",
        )

    def _wait_for_agents(self) -> None:
        etcd = self.etcd
        for name, agent in self.agents.items():
            assert etcd is not None
            key = f"/pgamb/{self.service}/members/{name}"
            agent.wait_until(
                lambda key=key: key in etcd.get_prefix(key),  # type: ignore[misc]
                READY_DEADLINE_S,
                "while waiting for it to announce its server",
            )

    def _client_answers(self) -> bool:
        try:
            return query(self.dsn(), "SELECT 1") == [(1,)]
        except ConnectionFailure:
            return False
        except Exception as error:
            # What a PostgreSQL would say too while it starts; a refused log-in would not get better by waiting.
            if str(getattr(error, "sqlstate", "")).startswith(("57", "08", "53")):
                return False
            raise ProcessFailed(f"{self.name_of_client} refuses a plain query: {error}") from error

    @property
    def name_of_client(self) -> str:
        return self.client.name if self.client is not None else "no client"

    def _agent(self, server: PostgresServer) -> ChildProcess:
        argv = ["server", "--registry", self.registry_url, "--service", self.service]
        argv += ["--node", server.name, "--advertise", server.address, *self._options["server"]]
        return self._pgamb(f"{server.name}-agent", argv, {"PGAMB_DSN": server.dsn(user=MONITOR)})

    def _ambassador(self) -> ChildProcess:
        argv = ["client", "--listen", str(self._client_port), "--registry", self.registry_url]
        argv += ["--service", self.service, "--auth", "scram", *self._options["client"]]
        return self._pgamb("client", argv, {"PGAMB_AUTH_DSN": self.members_dsn})

    def _pgamb(self, name: str, argv: Sequence[str], secrets: Mapping[str, str]) -> ChildProcess:
        # Passwords go by the environment: a command line is seen by everyone who may list processes.
        return ChildProcess(
            f"pgamb {argv[0]} ({name})" if name != argv[0] else f"pgamb {argv[0]}",
            [sys.executable, "-m", "pgamb", *argv],
            log=self.logs / f"{name}.log",
            env={**self._environ, **secrets},
            cwd=Path.cwd(),
        )

    def _socket_folder(self) -> Path:
        folder = self.folder / "s"
        if len(str(folder)) > LONGEST_SOCKET_FOLDER:
            raise ConfigError(f"{folder} is too long for the name of a unix socket", hint="name a shorter folder")
        return folder


def _make_folder(directory: Path | None, account: Account | None) -> Path:
    """Make the folder of a cluster, or take one that is empty. Raises ConfigError, and then has made none."""
    folder = directory.absolute() if directory is not None else Path(tempfile.gettempdir())
    if account is not None and (blocked := account.blocked_at(folder)):
        raise ConfigError(
            f"the user {account.name}, whom PostgreSQL runs as, cannot enter {blocked}",
            hint="name a folder elsewhere" + (" with TMPDIR" if directory is None else ""),
        )
    try:
        if directory is None:
            folder = Path(tempfile.mkdtemp(prefix="pgamb-"))
        elif folder.exists():
            if any(folder.iterdir()):
                raise ConfigError(f"{folder} is not empty", hint="name a new folder, or remove what is in it first")
            return folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # the account that PostgreSQL runs as has to pass
    except OSError as error:
        raise ConfigError(f"{folder} cannot be used: {error.strerror}", hint="name another folder") from error
    return folder
