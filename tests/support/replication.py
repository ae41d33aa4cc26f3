"""PostgreSQL's own replication tools as processes, logged in wherever a test says."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pgamb.demo.account import unprivileged_account
from pgamb.demo.binaries import find_postgres
from pgamb.demo.postgres import HOST, REPLICATION, SUPERUSER, PostgresServer
from pgamb.demo.process import ChildProcess, clean_environment

DEADLINE_S = 60.0


class Tools:
    """Tools that connect to `port` with the passwords of `server`; what they write is in `folder`."""

    def __init__(self, server: PostgresServer, port: int, folder: Path) -> None:
        self.server = server
        self.port = port
        self.folder = folder
        self._binaries = find_postgres(unprivileged_account(), folder)

    def conninfo(self, user: str = SUPERUSER, **words: str) -> str:
        """Return a connection string to `port`."""
        given = {"host": HOST, "port": str(self.port), "user": user, "password": self._password(user), **words}
        return " ".join(f"{word}='{value}'" for word, value in given.items())

    def run(self, tool: str, *arguments: object, user: str = REPLICATION, status: int = 0) -> str:
        """Run a tool to its end and return what it said, both ways. Raises AssertionError for another exit status."""
        done = subprocess.run(
            self._argv(tool, arguments, user),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env=self._environment(user),
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{tool} ended with {done.returncode}: {said}"
        return said

    @contextmanager
    def running(self, tool: str, *arguments: object, user: str = REPLICATION) -> Iterator[ChildProcess]:
        """Run a tool until the end of the block."""
        process = ChildProcess(
            tool, self._argv(tool, arguments, user), log=self.folder / f"{tool}.log", env=self._environment(user)
        )
        process.start()
        try:
            yield process
        finally:
            process.stop(signal.SIGKILL)

    def _argv(self, tool: str, arguments: Sequence[object], user: str) -> list[str]:
        where = [] if tool == "pg_verifybackup" else ["-h", HOST, "-p", str(self.port), "-U", user]
        return [str(self._binaries.tool(tool)), *where, *map(str, arguments)]

    def _environment(self, user: str) -> dict[str, str]:
        return {**clean_environment(), "PGPASSWORD": self._password(user)}

    def _password(self, user: str) -> str:
        credentials = self.server.credentials
        return credentials.replication if user == REPLICATION else credentials.superuser
