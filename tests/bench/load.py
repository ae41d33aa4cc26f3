"""One run of pgbench against one proxy: throughput, latencies, and what the proxy's CPU did meanwhile.

What is counted lies inside a window that opens when all clients are at work and closes before the first one ends, so
that log-ins and the opening of backends are no part of it: CPU time is read at both ends of the window, and pgbench's
log says which transactions ended in it.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.accounting import CpuTime, cpu_time
from tests.bench.database import SCALE, Database
from tests.bench.proxies import Proxy

WARM_UP_S = 0.5
# pgbench counts its time from before its clients log in; the window must end before it does.
SPARE_S = 0.3

# What an ORM makes of one read: `-S` between BEGIN and COMMIT.
_TRANSACTION = ("-f", str(Path(__file__).with_name("transaction.sql")), "-s", str(SCALE))


@dataclass(frozen=True, slots=True)
class Mode:
    """What pgbench is asked to do, and what one of its transactions is."""

    arguments: tuple[str, ...]
    unit: str


MODES: dict[str, Mode] = {
    "simple": Mode(("-S", "-M", "simple"), "query"),
    "extended": Mode(("-S", "-M", "extended"), "query"),
    "prepared": Mode(("-S", "-M", "prepared"), "query"),
    "transaction": Mode((*_TRANSACTION, "-M", "simple"), "transaction"),
    "transaction-prepared": Mode((*_TRANSACTION, "-M", "prepared"), "transaction"),
    "update": Mode(("-N", "-M", "simple"), "transaction"),
}


class LoadFailed(Exception):
    """pgbench could not do its work; the text is what it said last."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one run gave. Latencies in microseconds, CPU in microseconds per transaction of the proxy."""

    tps: float
    p50_us: float
    p99_us: float
    cpu_us: float
    user_us: float
    system_us: float


@dataclass(frozen=True, slots=True)
class Run:
    """A pgbench that is at work; `ended` counts, afterwards, the transactions that ended in a span of time."""

    process: subprocess.Popen[str]
    log_prefix: Path


def measure(database: Database, proxy: Proxy, mode: str, clients: int, seconds: float, folder: Path) -> Load:
    """Run pgbench for a window of `seconds`. Raises LoadFailed."""
    with pgbench(database, proxy, MODES[mode].arguments, clients, seconds + WARM_UP_S + SPARE_S, folder) as run:
        time.sleep(WARM_UP_S)
        opened, before = time.time(), cpu_time(proxy.pids)
        time.sleep(seconds)
        closed, after = time.time(), cpu_time(proxy.pids)
    latencies = sorted(ended_between(folder, opened, closed))
    if run.process.returncode != 0 or not latencies:
        raise LoadFailed(said(folder))
    return _load(latencies, closed - opened, after - before)


def _load(latencies_us: Sequence[int], span_s: float, cpu: CpuTime) -> Load:
    count = len(latencies_us)
    cpu_us = cpu.total_s * 1e6 / count
    return Load(
        tps=count / span_s,
        p50_us=percentile(latencies_us, 0.50),
        p99_us=percentile(latencies_us, 0.99),
        cpu_us=cpu_us,
        user_us=cpu_us * cpu.user_share,
        system_us=cpu_us * (1 - cpu.user_share),
    )


@contextmanager
def pgbench(
    database: Database, proxy: Proxy, script: Sequence[str], clients: int, seconds: float, folder: Path
) -> Iterator[Run]:
    """Have pgbench work while the block runs, and until its time is over; its log and words are in `folder`."""
    prefix = folder / "pgbench_log"
    for old in folder.glob("pgbench_log.*"):
        old.unlink()
    with (folder / "pgbench.txt").open("w") as output:
        process = subprocess.Popen(
            [
                *(str(database.binaries.tool("pgbench")), "--no-vacuum", *script, "-c", str(clients), "-j", "1"),
                *("-T", str(math.ceil(seconds)), "--log", "--log-prefix", str(prefix)),
            ],
            env=dict(database.environment(proxy.port)),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield Run(process, prefix)
            process.wait(timeout=seconds + 30)
        except subprocess.TimeoutExpired:
            raise LoadFailed(f"pgbench still runs {seconds + 30:g} s later; {said(folder)}") from None
        finally:
            process.kill()
            process.wait()


def said(folder: Path) -> str:
    """Return the last lines of what pgbench said."""
    lines = (folder / "pgbench.txt").read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-4:]) or "pgbench said nothing"


def ended_between(folder: Path, opened: float, closed: float) -> Iterator[int]:
    """Yield the latencies, in microseconds, of the transactions that ended in this span of wall-clock time."""
    for log in folder.glob("pgbench_log.*"):
        for line in log.read_text().splitlines():
            # client, transaction, latency, script, seconds, microseconds (manual: pgbench, Per-Transaction Logging)
            words = line.split()
            if len(words) < 6 or not words[2].isdigit():
                continue
            if opened <= int(words[4]) + int(words[5]) / 1e6 < closed:
                yield int(words[2])


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return the smallest value that `part` of the values do not exceed."""
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def login_cpu_us(database: Database, proxy: Proxy, logins: int, folder: Path) -> float:
    """Return the proxy's CPU microseconds per connect, SCRAM log-in, `SELECT 1` and close. Raises LoadFailed."""
    script = folder / "select1.sql"
    script.write_text("SELECT 1;\n")

    def connect(times: int) -> None:
        with (folder / "pgbench.txt").open("w") as output:
            answer = subprocess.run(
                [
                    *(str(database.binaries.tool("pgbench")), "--no-vacuum", "--connect", "-c", "1"),
                    *("-t", str(times), "-f", str(script)),
                ],
                env=dict(database.environment(proxy.port)),
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if answer.returncode != 0:
            raise LoadFailed(said(folder))

    connect(20)
    before = cpu_time(proxy.pids)
    connect(logins)
    return (cpu_time(proxy.pids) - before).total_s * 1e6 / logins
