"""Where the drivers' tests run: each on PostgreSQL itself and through the ambassador, with the same assertions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador


class Place(Protocol):
    """What a driver connects to."""

    def dsn(self, *, user: str = ..., password: str | None = ..., database: str = ...) -> str: ...


@dataclass(frozen=True, slots=True)
class Target:
    """One of the places, by name."""

    name: str
    place: Place

    @property
    def dsn(self) -> str:
        return self.place.dsn()


@pytest.fixture(scope="module")
def ambassador(postgres: PostgresServer) -> Iterator[Ambassador]:
    """An ambassador with a small pool, so that sessions get other backends than they had."""
    with running_ambassador([postgres], "--pool-size", "6") as running:
        yield running


@pytest.fixture(params=["direct", "through"])
def target(request: pytest.FixtureRequest, postgres: PostgresServer, ambassador: Ambassador) -> Target:
    return Target(request.param, postgres if request.param == "direct" else ambassador)
