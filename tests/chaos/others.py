"""The same load through other proxies, for comparison: a current PgBouncer, and Debian's pgpool-II.

Each is set up the way its documentation recommends for a primary with streaming replicas. PgBouncer knows nothing of
replicas and failovers: whoever promotes a server rewrites its configuration and reloads it, at once. pgpool-II finds
the new primary itself.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

from pgamb.demo.ports import free_port
from pgamb.demo.postgres import HOST, PostgresServer
from pgamb.demo.process import ChildProcess
from pgamb.errors import ConfigError
from tests.bench.proxies import find_pgbouncer, listening
from tests.chaos.world import World
from tests.support.servers import server_folder

# As many as pgamb has to a member, and room for every application.
POOL_SIZE, CLIENTS = 20, 64


class Other:
    """A proxy that listens on `port`; `point` tells it of a new primary."""

    def __init__(self, process: ChildProcess, port: int, point: Callable[[PostgresServer], None]) -> None:
        self.process = process
        self.port = port
        self.point = point

    def dsn(self, server: PostgresServer) -> str:
        return server.dsn().replace(f":{server.port}/", f":{self.port}/")


@contextmanager
def pgbouncer(world: World) -> Iterator[Other]:
    """PgBouncer in transaction mode before the primary."""
    port = free_port(HOST)
    with server_folder() as folder:
        config, users = folder / "pgbouncer.ini", folder / "users"
        users.write_text(f'"postgres" "{world.cluster.credentials.superuser}"\n')

        def write(server: PostgresServer) -> None:
            config.write_text(
                f"[databases]\npostgres = host={HOST} port={server.port}\n\n[pgbouncer]\n"
                f"listen_addr = {HOST}\nlisten_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\n"
                f"auth_file = {users}\npool_mode = transaction\ndefault_pool_size = {POOL_SIZE}\n"
                f"max_client_conn = {CLIENTS}\nserver_login_retry = 1\nquery_wait_timeout = 30\n"
                f"max_prepared_statements = 200\n"
            )

        def point(server: PostgresServer) -> None:
            write(server)
            process.send(signal.SIGHUP)

        binary = find_pgbouncer()
        write(world.primary)
        account = world.cluster.account
        for path in (config, users):
            path.chmod(0o644)
        process = ChildProcess("PgBouncer", [binary, config], log=folder / "log", account=account)
        with listening(process, port, signal.SIGINT):
            yield Other(process, port, point)


@contextmanager
def pgpool(world: World) -> Iterator[Other]:
    """pgpool-II in streaming replication mode, with load balancing, health checks and automatic failback."""
    port = free_port(HOST)
    secret = world.cluster.credentials.superuser
    with server_folder() as folder:
        settings = {
            "backend_clustering_mode": "streaming_replication",
            "listen_addresses": HOST,
            "port": port,
            "pcp_port": free_port(HOST),
            "unix_socket_directories": folder,
            "pcp_socket_dir": folder,
            "pid_file_name": folder / "pgpool.pid",
            "logdir": folder,
            "enable_pool_hba": "on",
            "pool_passwd": folder / "pool_passwd",
            "num_init_children": CLIENTS,
            "max_pool": 1,
            "load_balance_mode": "on",
            "sr_check_period": 1,
            "sr_check_user": "postgres",
            "sr_check_password": secret,
            "sr_check_database": "postgres",
            "health_check_period": 1,
            "health_check_timeout": 2,
            "health_check_user": "postgres",
            "health_check_password": secret,
            "health_check_database": "postgres",
            "search_primary_node_timeout": 60,
            "auto_failback": "on",
            "auto_failback_interval": 1,
        }
        for number, server in enumerate(world.cluster.servers):
            settings |= {
                f"backend_hostname{number}": HOST,
                f"backend_port{number}": server.port,
                f"backend_weight{number}": 1,
                f"backend_data_directory{number}": server.data,
                f"backend_flag{number}": "ALLOW_TO_FAILOVER",
                f"backend_application_name{number}": server.name,
            }
        config = folder / "pgpool.conf"
        config.write_text("".join(f"{name} = '{value}'\n" for name, value in settings.items()))
        (folder / "pool_passwd").write_text(f"postgres:TEXT{secret}\n")
        (folder / "hba").write_text(f"host all all {HOST}/32 scram-sha-256\n")
        (folder / "pcp.conf").write_text("")
        process = ChildProcess(
            "pgpool-II",
            [_find_pgpool(), "-n", "-f", config, "-a", folder / "hba", "-F", folder / "pcp.conf"],
            log=folder / "log",
        )
        with listening(process, port, signal.SIGINT):
            yield Other(process, port, lambda server: None)


OTHERS = {"pgbouncer": pgbouncer, "pgpool": pgpool}


def _find_pgpool() -> Path:
    found = which("pgpool", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        raise ConfigError("pgpool is not installed", hint="apt-get install -y pgpool2")
    return Path(found)
