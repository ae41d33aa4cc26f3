"""Where a suite runs: a cluster with an ambassador before it, a folder, and Debian's source packages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pgamb.demo.binaries import PostgresBinaries
from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import HOST, SUPERUSER
from pgamb.demo.process import clean_environment
from tests.compat.debian import Debian
from tests.support.waiting import wait_for

DATABASE = "compat"
REPLAY_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a PostgreSQL answers, real or not, and who logs in there: a superuser."""

    host: str
    port: int
    user: str
    password: str
    database: str

    @property
    def dsn(self) -> str:
        """A URL with everything in it."""
        return f"postgresql://{quote(self.user, '')}:{quote(self.password, '')}@{self.host}:{self.port}/{self.database}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment with which libpq's programs connect there, and to nothing else that this machine may have."""
        return {
            **clean_environment(os.environ),
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
        }


@dataclass(frozen=True, slots=True)
class Place:
    """`direct` is the primary, `through` the ambassador before it and its two replicas; `folder` is scratch."""

    direct: Address
    through: Address
    folder: Path
    cluster: Cluster
    debian: Debian

    @property
    def binaries(self) -> PostgresBinaries:
        """The programs of the PostgreSQL that runs."""
        return self.cluster.binaries

    def program(self, name: str) -> str:
        """Return the path of one of PostgreSQL's programs, of the version that runs."""
        return str(self.cluster.binaries.tool(name))

    def source(self, package: str, release: str) -> Path:
        """Return an unpacked source package of a Debian release, patched. Another suite may have built in it."""
        return self.debian.source(package, release)

    @property
    def release(self) -> str:
        """The Debian release of this machine, whose source packages belong to what is installed."""
        return self.debian.release

    def renew(self) -> None:
        """Make the database of both addresses anew, empty: what runs next finds nothing of what ran before."""
        primary = self.cluster.primary
        primary.query(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        primary.query(f"CREATE DATABASE {DATABASE}")
        made = f"SELECT oid FROM pg_database WHERE datname = '{DATABASE}'"
        ours = primary.query(made)
        for replica in self.cluster.replicas:
            wait_for(lambda r=replica: r.query(made) == ours, REPLAY_DEADLINE_S, "it is replayed")  # type: ignore[misc]


@contextmanager
def running_place(debian: Debian, folder: Path, settings: Mapping[str, str]) -> Iterator[Place]:
    """Start primary, two replicas, etcd, agents and `pgamb client` for the length of the block."""
    with Cluster(settings=settings) as cluster:
        ports = (cluster.primary.port, cluster.client_port)
        password = cluster.credentials.superuser
        direct, through = (Address(HOST, port, SUPERUSER, password, DATABASE) for port in ports)
        place = Place(direct, through, folder, cluster, debian)
        place.renew()
        yield place
