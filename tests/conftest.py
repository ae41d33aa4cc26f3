"""Fixtures that every kind of test may use. Real servers are started at their first use, and once a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgamb.demo.etcd import EtcdServer
from pgamb.demo.postgres import PostgresServer
from tests.support.servers import running_etcd, running_postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One plain PostgreSQL of the run. Tests share it: leave it running, and make objects of your own names."""
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    """One etcd of the run. Tests share it: leave it running, and use a service name of your own."""
    with running_etcd() as server:
        yield server
