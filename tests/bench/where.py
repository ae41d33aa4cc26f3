"""Where a proxy's time goes: system calls per transaction, user against system time, and the functions on top."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.database import Database
from tests.bench.load import MODES, WARM_UP_S, LoadFailed, ended_between, measure, pgbench, said
from tests.bench.proxies import Proxy

TOP_OBJECTS = 6
TOP_FUNCTIONS = 25
ATTACH_DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True)
class SystemCalls:
    """Calls and failed calls of each kind, per transaction of pgbench (with `-S`: per query)."""

    transactions: int
    per_transaction: dict[str, float]
    errors_per_transaction: dict[str, float]


def where(database: Database, proxy: Proxy, mode: str, clients: int, seconds: float, folder: Path) -> str:
    """Return a Markdown section about one proxy under one load. Raises LoadFailed."""
    load = measure(database, proxy, mode, clients, seconds, folder)
    unit = MODES[mode].unit
    lines = [
        f"### {proxy.name}, {mode}, {clients} clients",
        "",
        f"{load.cpu_us:.1f} us of CPU a {unit}: {load.user_us:.1f} user, {load.system_us:.1f} system "
        f"({load.tps:,.0f} a second).",
        "",
        *_system_calls(database, proxy, mode, clients, seconds, folder),
        "",
        *_functions(database, proxy, mode, clients, seconds, folder),
    ]
    return "\n".join(lines)


def _system_calls(
    database: Database, proxy: Proxy, mode: str, clients: int, seconds: float, folder: Path
) -> Sequence[str]:
    if shutil.which("strace") is None:
        return ["System calls: not counted, `apt-get install -y strace` is missing."]
    calls = count_system_calls(database, proxy, mode, clients, seconds, folder)
    rows = [
        f"| {name} | {count:.2f} | {calls.errors_per_transaction.get(name, 0):.2f} |"
        for name, count in sorted(calls.per_transaction.items(), key=lambda item: -item[1])
        if count >= 0.005
    ]
    total = sum(calls.per_transaction.values())
    return [
        f"| system call | per {MODES[mode].unit} | failed |",
        "| --- | ---: | ---: |",
        *rows,
        f"| all | {total:.2f} | |",
    ]


def count_system_calls(
    database: Database, proxy: Proxy, mode: str, clients: int, seconds: float, folder: Path
) -> SystemCalls:
    """Count with strace while pgbench runs. strace slows the proxy down; calls per transaction stay what they are."""
    output = folder / f"{proxy.name}.strace"
    attach = [word for pid in proxy.pids for word in ("-p", str(pid))]
    with pgbench(database, proxy, MODES[mode].arguments, clients, seconds + 2 * WARM_UP_S + 1, folder) as run:
        time.sleep(WARM_UP_S)
        tracer = subprocess.Popen(["strace", "-f", "-c", "-o", output, *attach], stderr=subprocess.DEVNULL)
        try:
            _wait_traced(proxy.pids, tracer)
            opened = time.time()
            time.sleep(seconds)
            closed = time.time()
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(timeout=30)
    transactions = sum(1 for _ in ended_between(folder, opened, closed))
    if run.process.returncode != 0 or not transactions:
        raise LoadFailed(said(folder))
    return parse_strace(output.read_text(), transactions)


def _wait_traced(pids: Sequence[int], tracer: subprocess.Popen[bytes]) -> None:
    """Wait until every thread is traced: from then on each of its calls is counted."""
    deadline = time.monotonic() + ATTACH_DEADLINE_S
    while not all(_is_traced(status) for pid in pids for status in Path(f"/proc/{pid}/task").glob("*/status")):
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise LoadFailed("strace could not attach: run this as root, or allow ptrace (kernel.yama.ptrace_scope=0)")
        time.sleep(0.005)


def _is_traced(status: Path) -> bool:
    return "\nTracerPid:\t0\n" not in status.read_text()


def parse_strace(summary: str, transactions: int) -> SystemCalls:
    """Read `strace -c`'s table: % time, seconds, usecs/call, calls, [errors], syscall."""
    calls, errors = {}, {}
    for line in summary.splitlines():
        found = re.fullmatch(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)(?:\s+(\d+))?\s+(\w+)", line)
        if found and found[3] != "total":
            calls[found[3]] = int(found[1]) / transactions
            errors[found[3]] = int(found[2] or 0) / transactions
    return SystemCalls(transactions, calls, errors)


def _functions(
    database: Database, proxy: Proxy, mode: str, clients: int, seconds: float, folder: Path
) -> Sequence[str]:
    if shutil.which("perf") is None:
        return ["Functions: not sampled, `apt-get install -y linux-perf` is missing."]
    data = folder / f"{proxy.name}.perf"
    with pgbench(database, proxy, MODES[mode].arguments, clients, seconds + WARM_UP_S + 1, folder):
        time.sleep(WARM_UP_S)
        recorded = subprocess.run(
            [
                *("perf", "record", "-q", "-F", "1999", "-o", str(data), "-p", ",".join(map(str, proxy.pids))),
                *("--", "sleep", str(seconds)),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if recorded.returncode != 0:
        return [f"Functions: perf could not record: {recorded.stderr.strip().splitlines()[-1:]}"]
    return [
        "```text",
        *_shares(data, "dso")[:TOP_OBJECTS],
        "",
        *_shares(data, "dso,symbol")[:TOP_FUNCTIONS],
        "```",
    ]


def _shares(data: Path, keys: str) -> list[str]:
    """Return perf's samples by these keys, most of them first."""
    report = subprocess.run(
        ["perf", "report", "-i", data, "--stdio", "--no-children", "-s", keys, "--percent-limit", "0.5"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return [line.rstrip(" -") for line in report.splitlines() if line.strip() and not line.startswith("#")]
