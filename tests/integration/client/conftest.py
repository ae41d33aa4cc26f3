"""An ambassador in front of one PostgreSQL, with a relay that can cut on either side; members that are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.cutting import Cut, CuttingRelay, running_relay
from tests.support.scripted import Scene, scene
from tests.support.wire import Wire


@dataclass(frozen=True, slots=True)
class Path:
    """Two ways to one PostgreSQL: straight, and through an ambassador between two relays."""

    server: PostgresServer
    ambassador: Ambassador
    before: CuttingRelay
    behind: CuttingRelay

    def direct(self, **options: object) -> Wire:
        return Wire(self.server.port).log_in(self.server.credentials.superuser, **options)  # type: ignore[arg-type]

    def through(self, **options: object) -> Wire:
        return Wire(self.ambassador.port).log_in(self.server.credentials.superuser, **options)  # type: ignore[arg-type]

    def through_relay(self) -> Wire:
        return Wire(self.before.port).log_in(self.server.credentials.superuser)

    def cut(self, cut: Cut) -> None:
        """Cut on both sides from now on."""
        self.before.cut = self.behind.cut = cut


@pytest.fixture(scope="session")
def path(postgres: PostgresServer) -> Iterator[Path]:
    with running_relay(postgres.port) as behind:
        options = ("--pool-size", "3", "--prepared-statements", "3", "--pool-timeout", "5")
        with (
            running_ambassador([postgres], *options, "--registry", f"static://127.0.0.1:{behind.port}") as ambassador,
            running_relay(ambassador.port) as before,
        ):
            yield Path(postgres, ambassador, before, behind)


@pytest.fixture
def settled() -> Iterator[Scene]:
    """All are connected, and at the same position, 0/1000 on timeline 1."""
    with scene() as made:
        made.settle()
        yield made
