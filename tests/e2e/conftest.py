"""The whole thing as processes: PostgreSQL with replicas, etcd, agents, ambassador."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from tests.support.twins import Twins, running_twins


class MakeCluster(Protocol):
    """Start a cluster of the test's own; the arguments are those of `Cluster`.

    `template=None` gives it a system identifier of its own.
    """

    def __call__(self, **options: object) -> Cluster: ...


@pytest.fixture(scope="session")
def cluster(template: PostgresServer) -> Iterator[Cluster]:
    """The cluster of the run: pg1 to pg3, etcd, agents, ambassador. Tests share it: stop and promote nothing in it."""
    with Cluster(template=template) as started:
        yield started


@pytest.fixture(scope="session")
def bare_cluster(template: PostgresServer) -> Iterator[Cluster]:
    """PostgreSQL with two replicas and etcd, nothing of pgamb. Tests share it: stop and promote nothing in it."""
    with Cluster(agents=False, client=False, template=template) as started:
        yield started


@pytest.fixture(scope="session")
def twins(bare_cluster: Cluster) -> Iterator[Twins]:
    """The bare cluster, and an ambassador before it: conversations are held with both and compared."""
    with running_twins(bare_cluster) as running:
        yield running


@pytest.fixture
def make_cluster(template: PostgresServer) -> Iterator[MakeCluster]:
    """Start clusters that the test may break as it likes; all are stopped at its end."""
    with ExitStack() as stack:

        def make(**options: object) -> Cluster:
            return stack.enter_context(Cluster(**{"template": template, **options}))  # type: ignore[arg-type]

        yield make
