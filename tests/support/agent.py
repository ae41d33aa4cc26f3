"""`pgamb server` as a process of the test's own, and what the registry says of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pgamb.demo.ports import free_port
from pgamb.demo.postgres import MONITOR, PostgresServer
from pgamb.demo.process import ChildProcess
from tests.support.waiting import wait_for

DEADLINE_S = 15.0


class AgentProcess(ChildProcess):
    """An agent beside `server`, with an exposed port unless `listen` is false."""

    def __init__(
        self,
        server: PostgresServer,
        registry: str,
        folder: Path,
        *,
        service: str,
        listen: bool = True,
        user: str = MONITOR,
        options: Sequence[str] = (),
        environ: dict[str, str] | None = None,
    ) -> None:
        self.port = free_port() if listen else 0
        argv = ["server", "--dsn", server.dsn(user=user), "--registry", registry, "--service", service]
        argv += ["--listen", f"127.0.0.1:{self.port}"] if listen else []
        super().__init__(
            f"agent of {server.name}",
            [sys.executable, "-m", "pgamb", *argv, *options],
            log=folder / f"agent-{server.name}-{service}.log",
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environ or {})},
            cwd=Path.cwd(),
        )
        self.server = server

    def dsn(self, user: str = "postgres") -> str:
        """Return a URL to the exposed port."""
        return self.server.dsn(user=user).replace(f":{self.server.port}/", f":{self.port}/")

    def text(self) -> str:
        """Return all that it has logged."""
        return self.log.read_text() if self.log is not None and self.log.exists() else ""

    def wait_for_log(self, words: str, deadline_s: float = DEADLINE_S, *, count: int = 1) -> None:
        """Wait until it has logged `words` at least `count` times."""
        try:
            wait_for(lambda: self.text().count(words) >= count, deadline_s, f"{self.name} says {words!r}")
        except AssertionError as error:
            error.add_note(self.text())
            raise


class Registered:
    """Reads the keys of one service; `source` is an EtcdServer or an EtcdCluster."""

    def __init__(self, source: object, service: str) -> None:
        self._get_prefix = source.get_prefix  # type: ignore[attr-defined]
        self._root = f"/pgamb/{service}/"

    def stored(self) -> dict[str, bytes]:
        """Return all keys of the service, without what they have in common."""
        found: dict[str, bytes] = self._get_prefix(self._root)
        return {key.removeprefix(self._root): value for key, value in found.items()}

    def read(self, key: str) -> dict[str, object]:
        """Return the JSON of a key; empty when it is absent."""
        value = self.stored().get(key)
        answer: dict[str, object] = json.loads(value) if value else {}
        return answer

    def role(self, node: str) -> object:
        return self.read(f"members/{node}").get("role")

    def primary(self) -> tuple[object, object]:
        record = self.read("primary")
        return record.get("node"), record.get("timeline")

    def wait_for_role(self, node: str, role: str | None, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the member has that role; None until it is not registered."""
        wait_for(lambda: self.role(node) == role, deadline_s, f"{node} is {role}, not {self.role(node)}")

    def wait_for_primary(self, node: str, timeline: int, deadline_s: float = DEADLINE_S) -> None:
        wait_for(lambda: self.primary() == (node, timeline), deadline_s, f"primary is {node} on {timeline}")
