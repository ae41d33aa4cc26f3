"""The PostgreSQL that everything is measured against: a primary and two streaming replicas with pgbench's tables."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgamb.demo.account import unprivileged_account
from pgamb.demo.binaries import PostgresBinaries, find_postgres
from pgamb.demo.postgres import HOST, Credentials, PostgresServer

USER = "bench"
DATABASE = "bench"
SCALE = 5
SETTINGS = {
    "shared_buffers": "256MB",
    "autovacuum": "off",
    "max_connections": "300",
    "checkpoint_timeout": "1h",
    # Counting statistics once a second in every backend would be noise.
    "track_activities": "off",
}


@dataclass(frozen=True, slots=True)
class Database:
    """A running cluster; `members[0]` is the primary. `verifier` is what PostgreSQL holds of `USER`'s password."""

    members: tuple[PostgresServer, ...]
    binaries: PostgresBinaries
    password: str
    verifier: str

    @property
    def addresses(self) -> list[str]:
        return [f"{HOST}:{member.port}" for member in self.members]

    def environment(self, port: int) -> Mapping[str, str]:
        """Return the environment with which libpq's programs connect to `port`, without TLS or GSSAPI tried first."""
        return {
            **os.environ,
            "PGHOST": HOST,
            "PGPORT": str(port),
            "PGUSER": USER,
            "PGPASSWORD": self.password,
            "PGDATABASE": DATABASE,
            "PGSSLMODE": "disable",
            "PGGSSENCMODE": "disable",
        }


@contextmanager
def running_database(folder: Path, replicas: int = 2) -> Iterator[Database]:
    """Start the cluster in `folder`, fill pgbench's tables, and stop it all at the end."""
    account = unprivileged_account()
    binaries = find_postgres(account, readable=folder)
    credentials = Credentials()
    names = ["primary", *(f"replica{number}" for number in range(1, replicas + 1))]
    members = tuple(
        PostgresServer(
            name,
            binaries=binaries,
            folder=folder / name,
            credentials=credentials,
            account=account,
            settings=SETTINGS,
        )
        for name in names
    )
    primary, *others = members
    password = secrets.token_hex(8)
    try:
        primary.initdb()
        primary.start()
        primary.query(f"CREATE ROLE {USER} LOGIN PASSWORD '{password}'")
        primary.query(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        [(verifier,)] = primary.query("SELECT rolpassword FROM pg_authid WHERE rolname = $1", USER)
        database = Database(members, binaries, password, str(verifier))
        _fill(database)
        primary.stop()
        for replica in others:
            replica.clone(primary)
        for member in members:
            member.start(wait=False)
        for member in members:
            member.wait_ready()
        yield database
    finally:
        for member in reversed(members):
            member.stop("immediate")


def _fill(database: Database) -> None:
    subprocess.run(
        [database.binaries.tool("pgbench"), "--initialize", "--quiet", "--scale", str(SCALE)],
        env=database.environment(database.members[0].port),
        check=True,
        capture_output=True,
    )
