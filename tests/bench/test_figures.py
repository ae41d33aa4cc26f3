"""The arithmetic of the benchmark: what it reads from pgbench and strace, and the table it makes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.bench.accounting import CpuTime, cpu_time, memory_bytes
from tests.bench.load import ended_between, percentile
from tests.bench.proxies import pgbouncer_version, pools_prepared_statements
from tests.bench.report import Results, table
from tests.bench.where import parse_strace


def test_only_transactions_that_ended_in_the_window_count(tmp_path: Path) -> None:
    lines = ["0 1 100 0 10 999999", "0 2 200 0 11 0", "1 1 skipped 0 11 5", "0 3 300 0 11 999999", "0 4 400 0 12 0", ""]
    (tmp_path / "pgbench_log.77").write_text("\n".join(lines))
    assert list(ended_between(tmp_path, 11.0, 12.0)) == [200, 300]


@pytest.mark.parametrize(("part", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_occurred(part: float, value: int) -> None:
    assert percentile(range(1, 101), part) == value


def test_ratios_are_taken_round_by_round() -> None:
    results = Results(["direct", "pgbouncer", "pgamb"])
    for round_number, (theirs, ours) in enumerate([(10.0, 9.0), (100.0, 90.0), (20.0, 30.0)]):
        results.add("CPU us", "pgbouncer", theirs)
        results.add("CPU us", "pgamb", ours)
        results.add("CPU us", "direct", None if round_number else 1.0)
    assert results.ratio("CPU us", "pgamb", "pgbouncer") == pytest.approx(0.9)
    assert table(results).splitlines() == [
        "| figure | direct | pgbouncer | pgamb | pgamb / pgbouncer |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| CPU us | 1.0 | 20.0 | 30.0 | 0.90 |",
    ]


def test_a_round_that_failed_leaves_a_gap_and_its_reason() -> None:
    results = Results(["pgbouncer", "pgamb"])
    for theirs, ours in [(10.0, None), (20.0, 30.0)]:
        results.add("p50", "pgbouncer", theirs)
        results.add("p50", "pgamb", ours)
    results.fail("simple, 1 client", "pgamb", "line one\nline two")
    assert results.ratio("p50", "pgamb", "pgbouncer") == 1.5
    assert table(results).endswith("* pgamb, simple, 1 client: line one / line two")


def test_three_members_are_compared_with_one() -> None:
    results = Results(["pgbouncer", "pgamb", "pgamb-1"])
    for theirs, three, one in [(10.0, 30.0, 20.0), (10.0, 90.0, 30.0), (10.0, 20.0, 20.0)]:
        results.add("queries/s", "pgbouncer", theirs)
        results.add("queries/s", "pgamb", three)
        results.add("queries/s", "pgamb-1", one)
    assert table(results).splitlines() == [
        "| figure | pgbouncer | pgamb | pgamb-1 | pgamb / pgbouncer | pgamb-1 / pgbouncer | pgamb / pgamb-1 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| queries/s | 10.0 | 30.0 | 20.0 | 3.00 | 2.00 | 1.50 |",
    ]
    alone = Results(["pgamb", "pgamb-1"])
    alone.add("queries/s", "pgamb", 3.0)
    alone.add("queries/s", "pgamb-1", 2.0)
    assert table(alone).splitlines()[0] == "| figure | pgamb | pgamb-1 | pgamb / pgamb-1 |"


def test_what_nobody_could_measure_is_shown_as_such() -> None:
    results = Results(["pgbouncer", "pgamb"])
    results.add("p50", "pgbouncer", None)
    assert table(results).splitlines()[-1] == "| p50 | - | - | - |"


def test_system_calls_are_read_per_transaction() -> None:
    summary = """% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.600000          30     20000           sendto
 39.50    0.395000          20     30000      5000 recvfrom
  0.50    0.005000           5      1000           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    1.000000          19     51000      5000 total
"""
    calls = parse_strace(summary, 10000)
    assert calls.per_transaction == {"sendto": 2.0, "recvfrom": 3.0, "epoll_wait": 0.1}
    assert calls.errors_per_transaction["recvfrom"] == 0.5


def test_cpu_time_is_what_the_process_itself_knows() -> None:
    before, own = cpu_time([os.getpid()]), time.process_time()
    while time.process_time() - own < 0.1:
        pass
    spent = cpu_time([os.getpid()]) - before
    assert spent.total_s == pytest.approx(time.process_time() - own, abs=0.02)
    assert 0.0 <= spent.user_share <= 1.0
    assert CpuTime(1.0, 0.0, 0.0).user_share == 0.0
    assert memory_bytes([os.getpid()]) > 1_000_000


@pytest.mark.parametrize(
    ("version", "pools"), [("1.18.0", False), ("1.20.1", False), ("1.21.0", True), ("1.24.1", True)]
)
def test_an_old_pgbouncer_is_known_as_such(tmp_path: Path, version: str, pools: bool) -> None:
    binary = tmp_path / "pgbouncer"
    binary.write_text(f"#!/bin/sh\necho PgBouncer {version}\necho libevent 2.1.12-stable\n")
    binary.chmod(0o755)
    assert pgbouncer_version(binary) == tuple(int(word) for word in version.split("."))
    assert pools_prepared_statements(binary) is pools
