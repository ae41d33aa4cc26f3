"""pgbench in every mode: no transaction of it may fail through pgamb that does not fail direct."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.compat.outcome import Outcome
from tests.compat.place import Address, Place

NAME = "pgbench"
NEEDS = ("postgresql-{major}",)

DEADLINE_S = 120
MODES = ("simple", "extended", "prepared")
TRIES = ("--max-tries", "100")
PIPELINE = """\\set aid random(1, 100000)
\\startpipeline
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;
SELECT abalance FROM pgbench_accounts WHERE aid = :aid;
\\endpipeline
"""
GSET = """\\set aid random(1, 100000)
SELECT abalance AS found FROM pgbench_accounts WHERE aid = :aid \\gset
UPDATE pgbench_accounts SET abalance = :found + 1 WHERE aid = :aid;
"""
SERIALIZABLE = """BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = (SELECT 1 + min(bid) FROM pgbench_branches);
END;
"""


def run(place: Place, *, short: bool) -> Outcome:
    """Run each script in each mode; `short` has fewer transactions."""
    cases = _cases(place.folder)
    count = "50" if short else "500"
    sides: list[dict[str, bool]] = [{}, {}]
    reports: dict[str, str] = {}
    for side, address in zip(sides, (place.direct, place.through), strict=True):
        place.renew()
        side["initialise"] = not _run(place, address, "-i", "-q")
        for name, words in cases.items():
            problem = _run(place, address, "-n", "-c", "4", "-t", count, *words)
            side[name] = not problem
            if problem:
                reports[name] = problem
    return Outcome(place.binaries.version, sides[0], sides[1], reports=reports)


def _cases(folder: Path) -> Mapping[str, tuple[str, ...]]:
    scripts = {"pipeline": PIPELINE, "gset": GSET, "serializable": SERIALIZABLE}
    for name, text in scripts.items():
        (folder / f"{name}.sql").write_text(text)
    cases: dict[str, tuple[str, ...]] = {}
    for mode in MODES:
        for name in ("tpcb-like", "simple-update", "select-only"):
            cases[f"{name}, {mode}"] = ("-M", mode, "-b", name)
        cases[f"tpcb-like, {mode}, reconnecting"] = ("-M", mode, "-C")
        for name in scripts:
            # libpq has no pipeline of simple queries.
            if name != "pipeline" or mode != "simple":
                cases[f"{name}, {mode}"] = ("-M", mode, *TRIES, "-f", str(folder / f"{name}.sql"))
    return cases


def _run(place: Place, address: Address, *words: str) -> str:
    """Return what it complained of, nothing if every transaction was carried out."""
    done = subprocess.run(
        [place.program("pgbench"), *words], env=address.environment, capture_output=True, text=True, timeout=DEADLINE_S
    )
    failed = re.search(r"number of failed transactions: ([1-9]\d*)", done.stdout)
    return f"{failed[0] if failed else ''}\n{done.stderr}".strip() if done.returncode or failed else ""
