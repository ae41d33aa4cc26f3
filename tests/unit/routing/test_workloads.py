"""No needless fear: which of the statements that applications send may run on a replica, and why the others not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgamb.routing.classify import classify
from pgamb.routing.intent import Need
from tests.support.workloads import NAMES, workload
from tests.unit.routing import corpus

PAGE = Path(__file__).resolve().parents[3] / "docs" / "routing.md"
# How many of their queries go to replicas. A query is what begins with one of these and changes nothing.
QUERY = re.compile(r"\s*(select|with|values|table|show|explain|declare)\b", re.IGNORECASE)
EXPECTED = {"pgbench": (4, 4), "tpch": (22, 22), "django": (52, 55), "sqlalchemy": (60, 65)}


@pytest.mark.parametrize("name", NAMES)
def test_what_may_run_on_a_replica_does(name: str) -> None:
    found = workload(name)
    feared = {sql: intent.reason for sql in found.reads if not (intent := classify(sql.encode())).need & Need.READ}
    assert feared == {}


@pytest.mark.parametrize("name", NAMES)
def test_what_belongs_on_the_primary_goes_there_for_its_reason(name: str) -> None:
    for sql, reason in workload(name).others.items():
        intent = classify(sql.encode())
        assert not intent.need & Need.READ
        assert intent.reason == reason


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_has_the_share_and_the_reasons(name: str) -> None:
    found = workload(name)
    kept = [reason for sql, reason in found.others.items() if QUERY.match(sql)]
    assert (len(found.reads), len(found.reads) + len(kept)) == EXPECTED[name]
    row = next(line for line in PAGE.read_text().splitlines() if line.lower().replace("-", "").startswith(f"| {name}"))
    assert f"| {len(found.reads)} of {len(found.reads) + len(kept)} |" in row
    assert all(reason in row for reason in kept), row


def test_only_transaction_time_keeps_a_recorded_read_out_of_a_virtual_transaction() -> None:
    looking = [
        sql for name in NAMES for sql in workload(name).reads if classify(sql.encode()).need & Need.TRANSACTION_TIME
    ]
    assert looking == ["SELECT now() AS now_1, CURRENT_TIMESTAMP AS current_timestamp_1"]


def test_the_reads_of_the_corpus_are_reads() -> None:
    row = next(line for line in PAGE.read_text().splitlines() if line.startswith("| the corpus"))
    assert f"| {len(corpus.READ_LINES)} of {len(corpus.READ_LINES)} |" in row
