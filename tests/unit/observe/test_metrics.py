"""The metrics: what a scrape says, that Prometheus can read it, and that the documentation lists it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pgamb.observe.metrics import METRICS, Exposition, Metric
from tests.unit.observe.sample import EVIL, member, pool, snapshot

OPERATIONS = Path(__file__).resolve().parents[3] / "docs" / "operations.md"

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(text: bytes) -> Series:
    """Read an exposition as a Prometheus would; a series that occurs twice is an error, as it is there."""
    found: Series = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, f"{key} occurs twice"
            found[key] = sample.value
    return found


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def test_what_a_scrape_says() -> None:
    series = scrape(Exposition().render(snapshot()))
    of_pg1 = {"member": "pg1", "role": "primary", "database": "shop", "user": "app"}
    assert value(series, "pgamb_pool_backends", **of_pg1, state="active") == 3
    assert value(series, "pgamb_pool_backends", **of_pg1, state="idle") == 1
    assert value(series, "pgamb_pool_backends", **of_pg1, state="opening") == 2
    assert value(series, "pgamb_pool_longest_wait_seconds", **of_pg1) == 1.5
    assert value(series, "pgamb_pool_units_total", **of_pg1) == 1200
    assert value(series, "pgamb_member_up", member="pg1") == 1
    assert value(series, "pgamb_member_up", member="pg2") == 0
    assert value(series, "pgamb_routes_total", role="replica") == 900
    assert value(series, "pgamb_routes_by_reason_total", reason="read") == 890
    assert value(series, "pgamb_reads_repeated_total", reason="conflict") == 2
    assert value(series, "pgamb_sessions", state="waiting") == 4
    assert value(series, "pgamb_sessions_pinned", reason="listen") == 2
    assert value(series, "pgamb_logins_refused_total", reason="28P01") == 4
    assert value(series, "pgamb_gave_up_total", reason="53300") == 11
    assert value(series, "pgamb_held_sessions", database="shop", user="app") == 3
    assert value(series, "pgamb_topology_age_seconds") == 0.25
    assert value(series, "pgamb_ready") == 1
    assert value(series, "pgamb_process_resident_memory_bytes") > 1e6


def test_what_is_not_known_is_left_out() -> None:
    registry = snapshot().registry
    silent = type(registry)(registry.source, None, False, None, "no answer")
    series = scrape(Exposition().render(snapshot(registry=silent, primary=None)))
    names = {name for name, _ in series}
    assert "pgamb_topology_age_seconds" not in names
    assert value(series, "pgamb_registry_connected") == 0
    assert value(series, "pgamb_primary_known") == 0
    assert ("pgamb_member_backends_limit", (("member", "pg2"),)) not in series
    assert value(series, "pgamb_member_backends_limit", member="pg1") == 97


def test_a_scrape_shows_the_newest_snapshot() -> None:
    exposition = Exposition()
    exposition.render(snapshot())
    series = scrape(exposition.render(snapshot(draining=True, pools=())))
    assert value(series, "pgamb_draining") == 1
    assert not [name for name, _ in series if name.startswith("pgamb_pool_")]


def test_pools_with_the_same_labels_are_added_up() -> None:
    # A member that changed its address: its old pool lives until the last transaction in it has ended.
    both = (pool("pg1"), pool("pg1", active=1, retired=True, units=100))
    series = scrape(Exposition().render(snapshot(pools=both)))
    of_pg1 = {"member": "pg1", "role": "primary", "database": "shop", "user": "app"}
    assert value(series, "pgamb_pool_backends", **of_pg1, state="active") == 4
    assert value(series, "pgamb_pool_units_total", **of_pg1) == 1300


def test_any_name_can_be_a_label() -> None:
    odd = 'back\\slash "quoted"\nline täglich'
    series = scrape(Exposition().render(snapshot(members=(member(odd),), pools=(pool("pg1", database=EVIL),))))
    assert value(series, "pgamb_member_up", member=odd) == 1
    assert EVIL in {dict(labels).get("database") for _, labels in series}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_and_helps_keep_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"pgamb_[a-z_]+", metric.name)
    assert not re.search(r"_(ms|s|mb|kb|percent)(_total)?$", metric.name), "base units, spelled out"
    assert metric.help.endswith(".")
    assert set(metric.labels) <= {"member", "role", "database", "user", "state", "reason", "version", "service"}
    for labels, _ in metric.read(snapshot()):
        assert len(labels) == len(metric.labels)


def test_every_name_is_given_once() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)


def test_the_documentation_lists_them() -> None:
    rows = re.findall(r"^\| `(pgamb_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", OPERATIONS.read_text(), re.MULTILINE)
    assert rows == [
        (metric.name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in METRICS
    ]


def test_the_alerts_in_the_documentation_use_metrics_that_exist() -> None:
    text = OPERATIONS.read_text()
    named = set(re.findall(r"\bpgamb_[a-z_]+", text)) - {"pgamb_monitor"}
    known = {metric.name for metric in METRICS}
    assert {name for name in named if not name.startswith("pgamb_process_")} <= known
