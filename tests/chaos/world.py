"""What is broken: three PostgreSQL servers with synchronous replication, etcd, an agent beside each, an ambassador."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path

import psycopg

from pgamb.demo.cluster import Cluster
from pgamb.demo.etcd import EtcdServer
from pgamb.demo.postgres import PostgresServer
from tests.chaos.history import History
from tests.chaos.load import SCHEMA, Load
from tests.support.agent import AgentProcess, Registered
from tests.support.waiting import wait_for

DEADLINE_S = 60.0
# Any one replica has each commit, so that the newest of them has all.
SYNCHRONOUS = "ANY 1 (*)"
SETTINGS = {"synchronous_standby_names": SYNCHRONOUS, "wal_retrieve_retry_interval": "50ms", "max_connections": "100"}


class Kind(Enum):
    """How a world is built: agents that relay, agents that announce the server's own address, and three etcd nodes."""

    EXPOSED = "agents that relay"
    DIRECT = "servers reached directly"
    THREE_ETCD = "three etcd nodes"


class World:
    """A running cluster, with what a scenario needs to break it and to mend it again."""

    def __init__(self, cluster: Cluster, folder: Path, kind: Kind) -> None:
        assert cluster.etcd is not None
        self.cluster = cluster
        self.etcd = cluster.etcd
        self.registered = Registered(cluster.etcd, cluster.service)
        self.agents = {
            server.name: AgentProcess(
                server,
                cluster.registry_url,
                folder,
                service=cluster.service,
                listen=kind is not Kind.DIRECT,
                options=["--node", server.name],
            )
            for server in cluster.servers
        }
        # The cluster starts and stops them as it would its own.
        cluster.agents = dict(self.agents)
        self._turn = 0
        # Where applications connect, and who has to be told of a new primary.
        self.dsn = cluster.dsn
        self.on_promoted: Callable[[PostgresServer], None] = lambda server: None

    @property
    def primary(self) -> PostgresServer:
        return self.cluster.primary

    def next_replica(self) -> PostgresServer:
        """Return each replica in turn."""
        self._turn += 1
        replicas = self.cluster.replicas
        return replicas[self._turn % len(replicas)]

    def etcd_leader(self) -> EtcdServer:
        """Return the etcd node that leads."""
        return next(server for server in self.etcd.servers if server.leads())

    def client_log(self) -> str:
        assert self.cluster.client is not None
        assert self.cluster.client.log is not None
        return self.cluster.client.log.read_text()

    def wait_whole(self) -> None:
        """Wait until every server streams from the primary, which waits for one of them at each commit."""
        primary = self.primary
        others = len(self.cluster.servers) - 1
        streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        wait_for(lambda: primary.query(streaming) == [(others,)], DEADLINE_S, "all replicas stream")
        primary.query("ALTER SYSTEM RESET synchronous_standby_names")
        primary.query("SELECT pg_reload_conf()")
        wait_for(
            lambda: primary.query("SHOW synchronous_standby_names") == [(SYNCHRONOUS,)], DEADLINE_S, "commits wait"
        )
        for server in self.cluster.servers:
            role = "replica" if server is not primary else "primary"
            self.registered.wait_for_role(server.name, role, DEADLINE_S)

    def promote(self, server: PostgresServer) -> float:
        """Make a replica the primary, as a failover manager does; return when it began to take writes (monotonic)."""
        # Nobody follows it yet, and its commits are not to wait for that.
        server.query("ALTER SYSTEM SET synchronous_standby_names = ''")
        server.query("SELECT pg_reload_conf()")
        with _promotion_seen(server) as seen:
            self.cluster.promote(server.name)
            self.on_promoted(server)
        return seen[0]

    def rejoin(self, old: PostgresServer) -> None:
        """Bring back a former primary as a replica of today's."""
        self.cluster.rejoin(old.name)
        self.wait_whole()


@contextmanager
def _promotion_seen(server: PostgresServer) -> Iterator[list[float]]:
    """Note when a replica began to take writes; the list has the moment at the end of the block."""
    seen: list[float] = []
    connection = psycopg.connect(server.dsn(), autocommit=True)

    def look() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
            if row == (False,):
                seen.append(time.monotonic())
                return
            time.sleep(0.002)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
        thread.join()
    finally:
        with suppress(psycopg.Error):
            connection.close()


@contextmanager
def running_world(folder: Path, kind: Kind = Kind.EXPOSED) -> Iterator[World]:
    """Start all of it, with the table of the load."""
    cluster = Cluster(agents=False, etcd=3 if kind is Kind.THREE_ETCD else 1, settings=SETTINGS)
    world = World(cluster, folder, kind)
    with cluster:
        for statement in SCHEMA.split(";"):
            world.primary.query(statement)
        world.wait_whole()
        yield world


@contextmanager
def running_load(world: World) -> Iterator[Load]:
    """Run the applications during the block, from their first acknowledged writes on."""
    load = Load(world.dsn())
    load.start()
    try:
        wait_for(lambda: len(load.history.newest) == load.writers, DEADLINE_S, "every writer has written")
        yield load
    finally:
        load.stop()


def contradictions(world: World, history: History) -> list[str]:
    """Compare what the applications were told with what the primary has, at the end."""
    rows = world.primary.query("SELECT worker, n FROM history ORDER BY id")
    return history.contradictions((int(str(worker)), int(str(n))) for worker, n in rows)
