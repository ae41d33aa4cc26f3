"""The live picture, drawn from samples."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from pgamb.demo.binaries import PostgresBinaries
from pgamb.demo.picture import Sample, Watch, amount, render
from pgamb.demo.postgres import Credentials, PostgresServer


def watch(folder: Path, name: str, now: Sample | None, before: Sample | None = None) -> Watch:
    binaries = PostgresBinaries(folder, "15.1", "test")
    server = PostgresServer(name, binaries=binaries, folder=folder, credentials=Credentials(), port=len(name) + 7000)
    made = Watch(server)
    made.now, made.before = now, before
    return made


def sample(at_s: float, *, replica: bool, position: int, transactions: int) -> Sample:
    return Sample(at_s, replica, position, transactions, connections=4)


def test_one_line_a_member(tmp_path: Path) -> None:
    watches = [
        watch(
            tmp_path,
            "pg1",
            sample(12.0, replica=False, position=90_000, transactions=7_000),
            sample(10.0, replica=False, position=10, transactions=4_000),
        ),
        watch(tmp_path, "pg2", sample(12.0, replica=True, position=40_000, transactions=5)),
        watch(tmp_path, "pg3", None),
    ]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(render(watches, ["etcd ended with status -9: see /x/etcd.log"]))
    lines = [line.split() for line in capture.get().splitlines()]
    assert lines == [
        ["member", "role", "address", "lag", "connections", "queries/s"],
        ["pg1", "primary", "127.0.0.1:7003", "4", "1,500"],
        ["pg2", "replica", "127.0.0.1:7003", "49", "kB", "4", "…"],
        ["pg3", "down", "127.0.0.1:7003"],
        ["etcd", "ended", "with", "status", "-9:", "see", "/x/etcd.log"],
    ]


def test_a_restarted_server_counts_from_zero_again(tmp_path: Path) -> None:
    before = sample(1.0, replica=False, position=1, transactions=1_000)
    after = sample(2.0, replica=False, position=1, transactions=3)
    assert watch(tmp_path, "pg1", after, before).rate == 0


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (10_239, "10239 B"), (10_240, "10 kB"), (20 * 1024 * 1024, "20 MB")]
)
def test_amounts(count: int, text: str) -> None:
    assert amount(count) == text
