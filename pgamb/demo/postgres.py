"""One real PostgreSQL server as a process of ours: primary or streaming replica, and the way from one to the other.

The configuration file lies beside the data folder and not in it: `pg_rewind` and `pg_basebackup` copy everything that
is in the data folder, and would give a node the port and the name of another. The server is asked through its own
files (`postmaster.pid`, the control file) wherever these know the answer: that works whatever state it is in.
"""

from __future__ import annotations

import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from pgamb.demo.account import Account
from pgamb.demo.binaries import PostgresBinaries
from pgamb.demo.ports import free_port
from pgamb.demo.process import ChildProcess, clean_environment, run_to_end
from pgamb.demo.query import query
from pgamb.errors import ConfigError, ProcessFailed

HOST = "127.0.0.1"
START_DEADLINE_S = 60.0
# Every Linux has it, without a package of locales; elsewhere plain C has to do.
LOCALE = "C.UTF-8" if sys.platform == "linux" else "C"
STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

SETTINGS = {
    "listen_addresses": HOST,
    "max_connections": "200",
    # Data that need not survive a power cut; synchronous_commit stays on, or rows are lost at a promotion.
    "fsync": "off",
    "hot_standby": "on",
    "wal_log_hints": "on",  # for pg_rewind
    "wal_retrieve_retry_interval": "200ms",
    # Instead of slots: these would be lost, or in the way, at every promotion.
    "wal_keep_size": "256MB",
    "max_wal_size": "512MB",
    "max_prepared_transactions": "20",
    "password_encryption": "scram-sha-256",
    # Files in the data folder instead of /dev/shm: they vanish with it, also after SIGKILL.
    "dynamic_shared_memory_type": "mmap",
    "default_text_search_config": "pg_catalog.english",
    "log_line_prefix": "%m [%p] ",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The roles of a cluster, each with its password; `superuser` is `postgres`."""

    superuser: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    monitor: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    replication: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)


SUPERUSER, MONITOR, REPLICATION = "postgres", "pgamb_monitor", "pgamb_replication"


class PostgresServer:
    """One server; `name` is also its `cluster_name`. Give one of `initdb`, `clone` or `base_backup`, then `start`."""

    def __init__(
        self,
        name: str,
        *,
        binaries: PostgresBinaries,
        folder: Path,
        credentials: Credentials,
        account: Account | None = None,
        port: int | None = None,
        log: Path | None = None,
        socket_folder: Path | None = None,
        settings: Mapping[str, str] | None = None,
        hba: Sequence[str] = (),
    ) -> None:
        """`settings` go over those above; the lines of `hba` go before those that ask everybody for SCRAM."""
        self.name = name
        self.port = port or free_port(HOST)
        self.credentials = credentials
        self.socket_folder = socket_folder
        self.data = folder / "data"
        self._settings = {**SETTINGS, **(settings or {})}
        self._binaries = binaries
        self._account = account
        self._config = folder / "postgresql.conf"
        self._hba = folder / "pg_hba.conf"
        self._hba_lines = [*hba, "local all all scram-sha-256", "local replication all scram-sha-256"]
        for addresses in ("127.0.0.1/32", "::1/128"):
            self._hba_lines += [f"host {what} all {addresses} scram-sha-256" for what in ("all", "replication")]
        folder.mkdir(parents=True, exist_ok=True)
        if account and (blocked := account.blocked_at(folder)):
            raise ConfigError(
                f"the user {account.name}, whom PostgreSQL runs as, cannot enter {blocked}",
                hint="name a folder elsewhere",
            )
        self.process = ChildProcess(
            f"PostgreSQL {name}",
            [binaries.tool("postgres"), "-D", self.data, "-c", f"config_file={self._config}"],
            log=log or folder / "postgresql.log",
            account=account,
            env=clean_environment(),
        )

    def __repr__(self) -> str:
        return f"<{self.name} on port {self.port}, {self.process!r}>"

    # Addresses

    def dsn(self, *, user: str = SUPERUSER, password: str | None = None, database: str = "postgres") -> str:
        """Return a URL to this server; the password of our own roles is known."""
        passwords = {
            SUPERUSER: self.credentials.superuser,
            MONITOR: self.credentials.monitor,
            REPLICATION: self.credentials.replication,
        }
        secret = password if password is not None else passwords.get(user, "")
        return f"postgresql://{quote(user, '')}:{quote(secret, '')}@{HOST}:{self.port}/{quote(database, '')}"

    @property
    def address(self) -> str:
        """Where others reach it: `host:port`, or `/folder:port` when it listens on a unix socket."""
        return f"{self.socket_folder or HOST}:{self.port}"

    def query(self, sql: str, *arguments: object, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as superuser, on a connection of its own."""
        return query(self.dsn(database=database), sql, *arguments)

    # Data folders

    def initdb(self, template: Path | None = None) -> None:
        """Make a cluster with nothing in it but our roles: by `initdb`, or, in a tenth of the time, as a
        copy of an earlier one's data folder.

        A copy has the system identifier of its template: to pgamb, and to `pg_rewind`, it is the same cluster.
        """
        if template is not None:
            self._copy(template)
            return
        secret = self._write(self.data.with_name("password"), self.credentials.superuser + "\n")
        try:
            run_to_end(
                f"initdb for {self.name}",
                [
                    *(self._binaries.tool("initdb"), "-D", self.data, "-U", SUPERUSER, "--pwfile", secret),
                    *("-A", "scram-sha-256", "-E", "UTF8", "--locale", LOCALE, "--no-sync", "--wal-segsize", "1"),
                ],
                log=self.process.log or self.data.with_name("initdb.log"),
                account=self._account_with(self.data),
                env=clean_environment(),
            )
        finally:
            secret.unlink()
        # pg_rewind starts the server once by itself, after a crash, and that reads only the file in the data folder.
        # Its checkpoint must not remove the WAL that tells from where on the two differ.
        with (self.data / "postgresql.conf").open("a") as config:
            config.write(f"wal_log_hints = on\nwal_keep_size = {SETTINGS['wal_keep_size']}\n")
        self._create_roles()

    def clone(self, primary: PostgresServer) -> None:
        """Become a replica of a server that is stopped cleanly, or has not been started yet."""
        if primary.process.running:
            raise ProcessFailed(f"{primary.name} runs: take a base backup of it instead")
        self._copy(primary.data)
        self.follow(primary)

    def base_backup(self, primary: PostgresServer) -> None:
        """Become a replica of a running server, replacing whatever data this one had."""
        shutil.rmtree(self.data, ignore_errors=True)
        run_to_end(
            f"base backup of {primary.name} for {self.name}",
            [
                *(self._binaries.tool("pg_basebackup"), "-h", HOST, "-p", str(primary.port), "-U", REPLICATION),
                *("-D", self.data, "-X", "stream", "-c", "fast", "--no-sync"),
            ],
            log=self.process.log or self.data.with_name("pg_basebackup.log"),
            account=self._account_with(self.data),
            env={**clean_environment(), "PGPASSWORD": self.credentials.replication},
        )
        self.follow(primary)

    def follow(self, primary: PostgresServer) -> None:
        """Stream from this primary from now on; a running replica changes over without a restart."""
        conninfo = {
            "host": HOST,
            "port": str(primary.port),
            "user": REPLICATION,
            "password": primary.credentials.replication,
            "application_name": self.name,
        }
        self._settings["primary_conninfo"] = " ".join(f"{word}={_conninfo(value)}" for word, value in conninfo.items())
        self._write(self.data / "standby.signal", "")
        self._configure()
        self.reload()

    def rewind(self, primary: PostgresServer) -> None:
        """Give up what only this server has, and rejoin as a replica of `primary`. Stops it first, if it runs."""
        self.stop()
        # Until its first checkpoint a promoted server's control file still tells the old timeline (before 16).
        primary.query("CHECKPOINT")
        run_to_end(
            f"rewind of {self.name} to {primary.name}",
            [
                *(self._binaries.tool("pg_rewind"), "-D", self.data, "--no-sync", "--source-server"),
                f"host={HOST} port={primary.port} user={SUPERUSER} dbname=postgres",
            ],
            log=self.process.log or self.data.with_name("pg_rewind.log"),
            account=self._account,
            env={**clean_environment(), "PGPASSWORD": primary.credentials.superuser},
        )
        self.follow(primary)
        self.start()

    # Life

    def start(self, wait: bool = True) -> None:
        """Start it, and unless told otherwise wait until it takes connections. Raises ProcessFailed with its log."""
        self._configure()
        self.process.start()
        if wait:
            self.wait_ready()

    def wait_ready(self, deadline_s: float = START_DEADLINE_S) -> None:
        self.process.wait_until(self._accepts, deadline_s, "while waiting for it to take connections")

    def stop(self, mode: str = "fast") -> None:
        """Stop it as `pg_ctl stop -m` does; `immediate` leaves crash recovery to the next start."""
        self.process.stop(STOP_SIGNALS[mode])

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        self.process.send(signal.SIGHUP)

    def kill(self) -> None:
        """End it and its backends at once, as a power cut would."""
        self.process.kill()

    def pause(self) -> None:
        """Freeze it and its backends: connections stay, new ones are even accepted by the kernel, nothing answers."""
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def promote(self) -> None:
        """Make a replica the primary, and wait until it is."""
        run_to_end(
            f"promotion of {self.name}",
            [self._binaries.tool("pg_ctl"), "promote", "-D", self.data, "-w", "-t", str(int(START_DEADLINE_S))],
            log=self.process.log or self.data.with_name("pg_ctl.log"),
            account=self._account,
            env=clean_environment(),
        )

    @property
    def is_standby(self) -> bool:
        """Say whether it is, or would start as, a replica. A promotion removes the file."""
        return (self.data / "standby.signal").exists()

    @property
    def received_lsn(self) -> int:
        """How far a replica has the WAL, as a byte offset."""
        rows = self.query("SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn")
        return int(str(rows[0][0]))

    @property
    def control(self) -> dict[str, str]:
        """What `pg_controldata` says, by its own words; works whether the server runs or not."""
        answer = subprocess.run(
            [self._binaries.tool("pg_controldata"), "-D", self.data],
            capture_output=True,
            text=True,
            check=True,
            env={**clean_environment(), "LC_ALL": "C"},
        )
        pairs = (line.partition(":") for line in answer.stdout.splitlines())
        return {word.strip(): value.strip() for word, _, value in pairs}

    def _accepts(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except (OSError, UnicodeDecodeError):  # not yet there, or being written
            return False
        return len(lines) >= 8 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    # Files

    def _configure(self) -> None:
        settings = {
            **self._settings,
            "port": str(self.port),
            "cluster_name": self.name,
            "hba_file": str(self._hba),
            "unix_socket_directories": str(self.socket_folder or ""),
        }
        if self.socket_folder is not None and not self.socket_folder.exists():
            self.socket_folder.mkdir()
            self._give(self.socket_folder)
        self._write(self._hba, "".join(f"{line}\n" for line in self._hba_lines))
        self._write(self._config, "".join(f"{word} = {_quoted(value)}\n" for word, value in settings.items()))

    def _create_roles(self) -> None:
        """Make the roles before the first start, so that whoever waits for this server can log in at once.

        In single-user mode each line is one statement (reference page of `postgres`).
        """
        account = self._account
        answer = subprocess.run(
            [self._binaries.tool("postgres"), "--single", "-D", self.data, "postgres"],
            input=f"CREATE ROLE {MONITOR} LOGIN PASSWORD '{self.credentials.monitor}' IN ROLE pg_monitor\n"
            f"CREATE ROLE {REPLICATION} LOGIN PASSWORD '{self.credentials.replication}' REPLICATION\n",
            capture_output=True,
            text=True,
            cwd="/",
            env=clean_environment(),
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
        # It goes on after an error, and its status is 0 then too.
        if answer.returncode != 0 or "ERROR:" in answer.stderr:
            raise ProcessFailed(f"the roles of {self.name} could not be made", detail=answer.stderr)

    def _copy(self, data: Path) -> None:
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(data, self.data, symlinks=True)
        self._give(self.data)

    def _account_with(self, folder: Path) -> Account | None:
        """Make an empty folder that PostgreSQL's account owns: as that account one could not make it here."""
        folder.mkdir(mode=0o700)
        self._give(folder)
        return self._account

    def _write(self, path: Path, text: str) -> Path:
        path.touch(mode=0o600)
        path.write_text(text)
        self._give(path)
        return path

    def _give(self, path: Path) -> None:
        if self._account is not None:
            self._account.give(path)


def _conninfo(value: str) -> str:
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
