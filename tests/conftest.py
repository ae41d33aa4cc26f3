"""Fixtures that every kind of test may use. Real servers are started at their first use, and once a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from pgamb.demo.etcd import EtcdServer
from pgamb.demo.postgres import PostgresServer
from tests.support.compiling import compile_module
from tests.support.servers import newest_postgres, postgres_template, running_etcd, running_postgres

if TYPE_CHECKING:
    from tests.support.watcher import Watcher


@pytest.fixture(scope="session")
def template() -> Iterator[PostgresServer]:
    """An initialised server that is never started: copies of it save seconds, but share its system identifier."""
    with postgres_template() as server:
        yield server


@pytest.fixture(scope="session")
def postgres(template: PostgresServer) -> Iterator[PostgresServer]:
    """One plain PostgreSQL of the run. Tests share it: leave it running, and make objects of your own names."""
    with running_postgres(template=template) as server:
        yield server


@pytest.fixture(scope="session")
def newest() -> Iterator[PostgresServer]:
    """A plain PostgreSQL 18 or newer. Tests share it: leave it running, and make objects of your own names."""
    with newest_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def etcd() -> Iterator[EtcdServer]:
    """One etcd of the run. Tests share it: leave it running, and use a service name of your own."""
    with running_etcd() as server:
        yield server


@pytest.fixture(scope="session")
def watcher_type(tmp_path_factory: pytest.TempPathFactory) -> type[Watcher]:
    """A session of the data plane's that tests can drive; compiled at its first use, which takes some seconds."""
    source = Path(__file__).parent / "support" / "watcher.pyx"
    module = compile_module(source, tmp_path_factory.mktemp("watcher"))
    return cast("type[Watcher]", module.Watcher)
