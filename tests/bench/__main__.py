"""`make bench`: pgamb beside PgBouncer, same PostgreSQL, same pool size, interleaved rounds, medians and ratios.

Prints a Markdown table and asserts nothing: the figures are this machine's, the ratios are what compares.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from pgamb.errors import PgambError
from tests.bench.accounting import threads
from tests.bench.awake import cores_awake
from tests.bench.database import Database, running_database
from tests.bench.idle import idle_client_bytes
from tests.bench.load import MODES, LoadFailed, login_cpu_us, measure
from tests.bench.proxies import (
    POOL_SIZE,
    VARIANTS,
    Proxy,
    find_pgbouncer,
    pgamb,
    pgbouncer_version,
    pools_prepared_statements,
)
from tests.bench.report import Results, table
from tests.bench.where import where

T = TypeVar("T")
UNITS = {"query": "queries", "transaction": "transactions"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and how long."""

    rounds: int
    seconds: float
    clients: Sequence[int]
    modes: Sequence[str]
    idle_clients: int
    logins: int


class Words(click.ParamType[tuple[str, ...]]):
    """Words between commas, each one of a few."""

    name = "words"

    def __init__(self, known: Sequence[str]) -> None:
        self.known = known

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        words = tuple(str(value).split(","))
        for word in words:
            if word not in self.known:
                self.fail(f"{word!r} is none of {', '.join(self.known)}", param, ctx)
        return words


class Numbers(click.ParamType[tuple[int, ...]]):
    """Positive whole numbers between commas."""

    name = "numbers"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        words = str(value).split(",")
        if not all(word.isdecimal() and int(word) for word in words):
            self.fail(f"{value!r} is not a list of whole numbers, like 1,8,32", param, ctx)
        return tuple(int(word) for word in words)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds, each with every target.")
@click.option("--seconds", type=click.FloatRange(0.5), default=5.0, show_default=True, help="Length of one run.")
@click.option("--clients", type=Numbers(), default="1,8,32", show_default=True, help="Connections of pgbench.")
@click.option(
    "--modes",
    type=Words(list(MODES)),
    default="simple,prepared,transaction,transaction-prepared",
    show_default=True,
    help=", ".join(MODES),
)
@click.option(
    "--only", type=Words(list(VARIANTS)), default=",".join(VARIANTS), show_default=True, help="Targets to measure."
)
@click.option("--idle", type=click.IntRange(0), default=2000, show_default=True, help="Idle clients; 0 leaves it out.")
@click.option("--logins", type=click.IntRange(0), default=1000, show_default=True, help="Log-ins; 0 leaves it out.")
@click.option(
    "--before",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Another checkout, compiled, to be measured too, with three members, as `before`.",
)
@click.option("--where", "explain", is_flag=True, help="Tell instead where the time goes (strace, perf).")
def main(
    rounds: int,
    seconds: float,
    clients: tuple[int, ...],
    modes: tuple[str, ...],
    only: tuple[str, ...],
    idle: int,
    logins: int,
    before: Path | None,
    explain: bool,
) -> None:
    """Compare pgamb with PgBouncer on this machine."""
    plan = Plan(rounds, seconds, clients, modes, idle, logins)
    starters = [VARIANTS[target] for target in only]
    if before is not None:
        starters.append(pgamb("before", members=3, root=before))
    with tempfile.TemporaryDirectory(prefix="pgamb-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL and PgBouncer run as another user where we are root
        click.echo("starting PostgreSQL, two replicas and the proxies", err=True)
        try:
            database = stack.enter_context(running_database(folder))
            proxies = [stack.enter_context(start(database, folder)) for start in starters]
        except PgambError as error:
            raise click.ClickException("\n".join(filter(None, (error.message, error.detail, error.hint)))) from None
        click.echo("\n".join(_about(database, proxies, plan)))
        if explain:
            for section in _explanations(database, proxies, plan, folder):
                click.echo(f"\n{section}")
            return
        results = Results([proxy.name for proxy in proxies])
        # Memory first: what a load has left free in the heap would be filled before anything grows.
        _idle(database, proxies, plan, results)
        _loads(database, proxies, plan, folder, results)
        _logins(database, proxies, plan, folder, results)
        click.echo(f"\n{table(results)}")


def _about(database: Database, proxies: Sequence[Proxy], plan: Plan) -> Iterator[str]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )
    cores = len(os.sched_getaffinity(0))
    yield f"* {cores} cores, {model}, Linux {platform.release()}, Python {platform.python_version()}"
    yield f"* PostgreSQL {database.binaries.version}: a primary and two streaming replicas on loopback"
    for proxy in proxies:
        if proxy.name == "pgbouncer":
            binary = find_pgbouncer()
            version = ".".join(map(str, pgbouncer_version(binary)))
            note = (
                "" if pools_prepared_statements(binary) else ", which cannot pool prepared statements per transaction"
            )
            yield f"* PgBouncer {version}{note}"
        if proxy.process is not None:
            yield f"* {proxy.name}: {len(proxy.pids)} process, {threads(proxy.pids)} threads"
    yield f"* transaction pooling, {POOL_SIZE} backends a pool, {plan.rounds} rounds of {plan.seconds:g} s"


def _rounds(plan: Plan, proxies: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the targets once a round, each time another one first."""
    for number in range(plan.rounds):
        shift = number % len(proxies)
        yield [*proxies[shift:], *proxies[:shift]]


def _loads(database: Database, proxies: Sequence[Proxy], plan: Plan, folder: Path, results: Results) -> None:
    for mode in plan.modes:
        for clients in plan.clients:
            case = f"{mode}, {clients} client{'s' if clients > 1 else ''}"
            click.echo(case, err=True)
            with cores_awake(clients == 1):
                for order in _rounds(plan, proxies):
                    for proxy in order:
                        _load(database, proxy, mode, clients, plan.seconds, folder, case, results)


def _load(
    database: Database,
    proxy: Proxy,
    mode: str,
    clients: int,
    seconds: float,
    folder: Path,
    case: str,
    results: Results,
) -> None:
    unit = MODES[mode].unit
    figures: dict[str, float | None] = dict.fromkeys(
        (f"{UNITS[unit]}/s", "p50 us", "p99 us", f"CPU us/{unit}", "... user", "... system")
    )
    try:
        load = measure(database, proxy, mode, clients, seconds, folder)
        cpu = (load.cpu_us, load.user_us, load.system_us) if proxy.process else (None, None, None)
        figures = dict(zip(figures, (load.tps, load.p50_us, load.p99_us, *cpu), strict=True))
    except (LoadFailed, OSError) as error:
        results.fail(case, proxy.name, str(error))
    for figure, value in figures.items():
        results.add(f"{case}: {figure}", proxy.name, value)


def _logins(database: Database, proxies: Sequence[Proxy], plan: Plan, folder: Path, results: Results) -> None:
    if not plan.logins:
        return
    figure = "CPU us per log-in (SCRAM), query and close"
    click.echo(figure, err=True)
    for order in _rounds(plan, [proxy for proxy in proxies if proxy.process]):
        for proxy in order:
            try:
                results.add(figure, proxy.name, login_cpu_us(database, proxy, plan.logins, folder))
            except (LoadFailed, OSError) as error:
                results.add(figure, proxy.name, None)
                results.fail(figure, proxy.name, str(error))


def _idle(database: Database, proxies: Sequence[Proxy], plan: Plan, results: Results) -> None:
    if not plan.idle_clients:
        return
    figure = f"bytes per idle client, {plan.idle_clients:,} of them"
    click.echo(figure, err=True)
    for proxy in proxies:
        if proxy.process is None:
            continue
        try:
            results.add(figure, proxy.name, idle_client_bytes(database, proxy, plan.idle_clients))
        except (PgambError, OSError) as error:
            results.add(figure, proxy.name, None)
            results.fail(figure, proxy.name, str(error))


def _explanations(database: Database, proxies: Sequence[Proxy], plan: Plan, folder: Path) -> Iterator[str]:
    for proxy in proxies:
        if proxy.process is None:
            continue
        for mode in plan.modes:
            for clients in plan.clients:
                try:
                    yield where(database, proxy, mode, clients, plan.seconds, folder)
                except (LoadFailed, OSError) as error:
                    yield f"### {proxy.name}, {mode}, {clients} clients\n\nCould not be measured: {error}"


if __name__ == "__main__":
    sys.exit(main())
