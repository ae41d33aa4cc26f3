"""The whole thing as processes: PostgreSQL with replicas, etcd, agents, ambassador."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from pgamb.demo.cluster import Cluster


class MakeCluster(Protocol):
    """Start a cluster of the test's own; the arguments are those of `Cluster`."""

    def __call__(self, **options: object) -> Cluster: ...


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of the run: pg1 to pg3, etcd, agents, ambassador. Tests share it: stop and promote nothing in it."""
    with Cluster() as started:
        yield started


@pytest.fixture(scope="session")
def bare_cluster() -> Iterator[Cluster]:
    """PostgreSQL with two replicas and etcd, nothing of pgamb. Tests share it: stop and promote nothing in it."""
    with Cluster(agents=False, client=False) as started:
        yield started


@pytest.fixture
def make_cluster() -> Iterator[MakeCluster]:
    """Start clusters that the test may break as it likes; all are stopped at its end."""
    with ExitStack() as stack:

        def make(**options: object) -> Cluster:
            return stack.enter_context(Cluster(**options))  # type: ignore[arg-type]

        yield make
