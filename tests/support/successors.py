"""`pgamb client` processes that take over from one another: each with a log of its own, all with one runtime folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from pgamb.demo.postgres import HOST, SUPERUSER, PostgresServer
from pgamb.demo.process import ChildProcess, clean_environment
from tests.support.servers import server_folder
from tests.support.waiting import wait_for

DEADLINE_S = 60.0


class Generation(ChildProcess):
    """One of them."""

    @property
    def text(self) -> str:
        """All that it has logged."""
        return self.log.read_text() if self.log is not None and self.log.exists() else ""

    @property
    def port(self) -> int:
        """The TCP port at which it listens first, on 127.0.0.1."""
        return int(self.text.partition("at=127.0.0.1:")[2].split()[0])

    def wait_for_log(self, words: str, deadline_s: float = DEADLINE_S) -> None:
        self.wait_until(lambda: words in self.text, deadline_s, f"while waiting for {words!r}")

    def wait_for_end(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for its end and return its exit status; a defect that it logged fails the test."""
        status = self.wait(deadline_s)
        assert "Traceback" not in self.text, self.text
        assert "defect" not in self.text, self.text
        return status


class Generations:
    """Starts them, before `servers`, the primary first; `folder` has their logs and control sockets."""

    def __init__(self, servers: Sequence[PostgresServer], folder: Path) -> None:
        self._servers = tuple(servers)
        self.folder = folder
        self.runtime = folder / "run"
        self.started: list[Generation] = []

    def start(
        self, *options: str, wait: bool = True, environ: Mapping[str, str] | None = None, command: Sequence[str] = ()
    ) -> Generation:
        """Start the next one, with these options, and (`wait`) wait until it listens.

        `command` goes before the program; without `--registry` the members are named by `static://`.
        """
        hosts = ",".join(f"{HOST}:{server.port}" for server in self._servers)
        secret = quote(self._servers[0].credentials.superuser, "")
        words = [sys.executable, "-m", "pgamb", "client", "--runtime-folder", str(self.runtime), "--auth", "scram"]
        if "--registry" not in options:
            words += ["--registry", f"static://{hosts}"]
        generation = Generation(
            f"generation {len(self.started) + 1}",
            [*command, *words, *options],
            log=self.folder / f"client-{len(self.started) + 1}.log",
            env={
                **clean_environment(),
                "PGAMB_AUTH_DSN": f"postgresql://{SUPERUSER}:{secret}@{hosts}/postgres",
                **(environ or {}),
            },
            cwd=Path.cwd(),
        )
        self.started.append(generation)
        generation.start()
        if wait:
            generation.wait_for_log("client.listening")
        return generation

    def dsn(self, port: int) -> str:
        """Return a URL to a port at which one of them listens."""
        server = self._servers[0]
        return server.dsn().replace(f":{server.port}/", f":{port}/")

    def wait_for_control_sockets(self, count: int) -> None:
        wait_for(lambda: len(self.control_sockets) == count, DEADLINE_S, f"{count} processes can be succeeded")

    @property
    def control_sockets(self) -> list[Path]:
        return list(self.runtime.glob("*.control"))


@contextmanager
def generations(*servers: PostgresServer) -> Iterator[Generations]:
    """Give the means to start them; all are gone at the end of the block."""
    with server_folder() as folder:
        started = Generations(servers, folder)
        try:
            yield started
        finally:
            for generation in started.started:
                generation.kill()
