"""`pgamb demo`: a real cluster on this machine, to look at, or to run a command against."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType

import click

from pgamb.demo.cluster import Cluster
from pgamb.demo.control import Control, ask
from pgamb.demo.failures import ACTIONS
from pgamb.demo.orphans import adopt_orphans, end_orphans
from pgamb.demo.place import check_disk, check_port
from pgamb.demo.postgres import SUPERUSER
from pgamb.demo.process import ChildProcess
from pgamb.errors import ProcessFailed

DATABASE = "postgres"
DEFAULT_PORT = 5432
NOT_FOUND = 127
# What a command may take to end in order once it has been asked to.
COMMAND_GRACE_S = 10.0
# What libpq would put above PGHOST and the others, or what asks for something that a loopback demo does not have.
MISLEADING = (
    *("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGTARGETSESSIONATTRS"),
    *("PGSSLMODE", "PGSSLNEGOTIATION", "PGCHANNELBINDING", "PGREQUIREAUTH"),
)
WATCH_S = 0.5
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

HELP = """Start a real cluster on this machine: a PostgreSQL primary and streaming replicas, etcd, a `pgamb server`
beside each PostgreSQL, and one `pgamb client` that an application connects to. Needs neither root nor Docker.

Without COMMAND it runs until Ctrl-C. With COMMAND it runs that, against the cluster, and exits with its status:
PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE point at the `pgamb client`, as a superuser. PGAMB_DEMO_PRIMARY and
PGAMB_DEMO_REPLICAS (comma separated) are URLs of the servers themselves, PGAMB_DEMO_ETCD is what --registry wants.

While it runs, it can be broken from another terminal (--port names it, where several run), for anyone to watch their
own application survive: `pgamb demo kill-replica`, `kill-primary` (a replica is promoted a second later), `switchover`,
`stop-etcd`, `start-etcd`, and `mend`, which starts again whatever is down.

\b
    pgamb demo
    pgamb demo kill-primary
    pgamb demo --port 0 -- pytest tests/
    pgamb demo -- sh -c 'pgbench -i && pgbench -c 8 -T 10'
"""


class Interrupted(BaseException):
    """A signal asked us to stop; not an error, so that nothing on the way takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@click.command("demo", help=HELP)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=None,
    help="Where the application connects, on this machine only; 0 takes a free port.  [default: 5432]",
)
@click.option("--replicas", type=click.IntRange(0, 8), default=2, show_default=True, help="How many replicas.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Keep data and logs here (a new or empty folder); without it they are in a temporary one, and go.",
)
@click.argument("command_line", metavar="[-- COMMAND [ARGS]...]", nargs=-1, type=click.UNPROCESSED)
def command(port: int | None, replicas: int, directory: Path | None, command_line: tuple[str, ...]) -> None:
    if len(command_line) == 1 and command_line[0] in ACTIONS:
        ask(command_line[0], port, click.echo)
        return
    port = DEFAULT_PORT if port is None else port
    if port:
        check_port(port)
    check_disk(directory.absolute() if directory else Path(tempfile.gettempdir()))
    adopt_orphans()
    sys.exit(_run(port, replicas, directory, command_line))


def _run(port: int, replicas: int, directory: Path | None, command_line: Sequence[str]) -> int:
    """Start, serve, stop. Returns the exit status."""
    cluster: Cluster | None = None
    control: Control | None = None
    with _interruptible():
        try:
            began = time.monotonic()
            cluster = Cluster(directory=directory, replicas=replicas, client_port=port)
            if command_line and shutil.which(command_line[0], path=_search_path(cluster)) is None:
                click.echo(f"pgamb: error: {command_line[0]}: command not found", err=True)
                return NOT_FOUND
            _say_what_starts(cluster)
            cluster.start()
            control = Control(cluster)
            control.start()
            took_s = time.monotonic() - began
            if command_line:
                return _run_command(cluster, command_line)
            for line in announcement(cluster, took_s):
                click.echo(line)
            return _wait(cluster)
        except ProcessFailed as error:
            if directory is None:
                error.hint = error.hint or "start again with --directory DIR: that keeps the logs"
            raise
        except Interrupted as interruption:
            return 128 + interruption.number
        finally:
            # From here on a further Ctrl-C would only leave something behind.
            for number in STOPPING:
                signal.signal(number, signal.SIG_IGN)
            if control is not None:
                control.close()
            if cluster is not None:
                cluster.stop()
            end_orphans()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first signal that asks us to stop into `Interrupted`, wherever we are. `nohup` stays in force."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for other in STOPPING:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
    before = {number: signal.signal(number, interrupt) for number in STOPPING if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say_what_starts(cluster: Cluster) -> None:
    replicas = len(cluster.servers) - 1
    account = f"; PostgreSQL runs as user {cluster.account.name}, for it refuses root" if cluster.account else ""
    click.echo(
        f"Starting PostgreSQL {cluster.binaries.version} ({_count(1, 'primary', 'primaries')},"
        f" {_count(replicas, 'replica', 'replicas')}), etcd and pgamb{account} ...",
        err=True,
    )


def announcement(cluster: Cluster, took_s: float) -> list[str]:
    """Say in at most nine lines where everything is."""
    # The line is to be copied to another terminal, whose PATH is like ours.
    psql = "psql" if shutil.which("psql") else cluster.binaries.tool("psql")
    members = ", ".join(f"{server.name} {server.address}" for server in cluster.servers)
    return [
        f"Ready after {took_s:.1f} s.",
        "",
        f"  application   {psql} {cluster.dsn(database=DATABASE)}",
        f"  members       {members}",
        f"  registry      {cluster.registry_url}   (pgamb status --registry {cluster.registry_url})",
        f"  files, logs   {cluster.folder}, {cluster.logs}",
        "",
        "Ctrl-C stops everything" + (f" and keeps {cluster.folder}." if cluster.keep else " and removes its files."),
        "",
    ]


# Until somebody stops it


def _wait(cluster: Cluster) -> int:
    """Show the picture, where there is a terminal, until a signal comes. To be stopped is how this ends well."""
    asyncio.run(_watch(cluster))
    return 0


async def _watch(cluster: Cluster) -> None:
    # Imported late: a command to run needs no picture.
    from rich.console import Console

    from pgamb.demo.picture import ended, show

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    # Not loop.add_signal_handler: when its loop closes, a second Ctrl-C would for a moment be deadly.
    _on_stop(lambda number: loop.call_soon_threadsafe(stopped.set))
    if sys.stdout.isatty():
        await show(cluster, stopped, Console())
        return
    told: set[str] = set()
    while not stopped.is_set():
        for trouble in ended(cluster):
            if trouble not in told:
                told.add(trouble)
                click.echo(trouble, err=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), WATCH_S)


def _on_stop(act: Callable[[int], object]) -> None:
    """From now on, call `act` for the signals that ask us to stop."""

    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has just been closed: we are stopping already
            act(number)

    for number in STOPPING:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handle)


# Until a command has ended


def command_environment(cluster: Cluster) -> dict[str, str]:
    """Return the variables that tell a command where the cluster is."""
    primary = cluster.primary
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(cluster.client_port),
        "PGUSER": SUPERUSER,
        "PGPASSWORD": cluster.credentials.superuser,
        "PGDATABASE": DATABASE,
        "PGAMB_DEMO_PRIMARY": primary.dsn(database=DATABASE),
        "PGAMB_DEMO_REPLICAS": ",".join(server.dsn(database=DATABASE) for server in cluster.replicas),
        "PGAMB_DEMO_ETCD": cluster.registry_url,
    }


def _search_path(cluster: Cluster) -> str:
    """Our PATH, and behind it the programs of the PostgreSQL that runs: psql and pgbench are there in any case."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), str(cluster.binaries.folder)])


def _run_command(cluster: Cluster, command_line: Sequence[str]) -> int:
    inherited = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    child = ChildProcess(
        command_line[0],
        command_line,
        log=None,
        env={**inherited, **command_environment(cluster), "PATH": _search_path(cluster)},
        cwd=Path.cwd(),
    )
    child.start()
    asked_s: list[float] = []

    def pass_on(number: int) -> None:
        # Ctrl-C at a terminal goes to both of us, and what it means is the command's affair (psql: cancel the query).
        if number == signal.SIGINT and _in_foreground():
            return
        asked_s.append(time.monotonic())
        child.send(signal.Signals(number))

    _on_stop(pass_on)
    while child.running:
        if asked_s and time.monotonic() > asked_s[0] + COMMAND_GRACE_S:
            child.kill()
        with contextlib.suppress(ProcessFailed):
            child.wait(WATCH_S)
    status = child.wait()
    return 128 - status if status < 0 else status


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _count(number: int, one: str, many: str) -> str:
    return f"{number or 'no'} {one if number == 1 else many}"
