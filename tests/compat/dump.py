"""pg_dump and pg_restore, in parallel too: what was dumped and restored through is what was there."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.compat.outcome import Outcome
from tests.compat.place import Address, Place

NAME = "pg_dump and pg_restore"
NEEDS = ("postgresql-client-{major}",)

DEADLINE_S = 120
FORMATS = {"custom": ("-Fc",), "directory": ("-Fd", "-j", "4")}
CONTENTS_SQL = """
CREATE TABLE parent (id serial PRIMARY KEY, t text, b bytea);
CREATE TABLE child (id int REFERENCES parent, v numeric);
INSERT INTO parent (t, b) SELECT repeat('ü' || g, 20), decode(md5(g::text), 'hex') FROM generate_series(1, 5000) g;
INSERT INTO child SELECT 1 + g % 5000, g / 7.0 FROM generate_series(1, 20000) g;
CREATE INDEX ON child (v);
CREATE VIEW sums AS SELECT id, sum(v) FROM child GROUP BY id;
CREATE FUNCTION twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
SELECT lo_from_bytea(n, decode(repeat(md5(n::text), 5000), 'hex')) FROM generate_series(90001, 90003) n;
"""


def run(place: Place, *, short: bool) -> Outcome:
    """Dump and restore in each format, on each side; there is no shorter version of it."""
    sides: list[dict[str, bool]] = [{}, {}]
    reports: dict[str, str] = {}
    for side, address in zip(sides, (place.direct, place.through), strict=True):
        for name, options in FORMATS.items():
            place.renew()
            problem = _there_and_back(place, address, options, place.folder / f"{name}-{address.port}")
            side[f"{name} format"] = not problem
            if problem:
                reports[f"{name} format"] = problem
    return Outcome(place.binaries.version, sides[0], sides[1], reports=reports)


def _there_and_back(place: Place, address: Address, options: tuple[str, ...], dump: Path) -> str:
    """Return what went wrong, nothing if the restored database is the one that was dumped."""
    steps = [
        ("psql", "-qX", "-v", "ON_ERROR_STOP=1", "-c", CONTENTS_SQL),
        ("pg_dump", *options, "-f", str(dump)),
    ]
    for step in steps:
        if problem := _run(place, address, *step)[1]:
            return problem
    before = _run(place, place.direct, "pg_dump")[0]
    place.renew()
    if problem := _run(place, address, "pg_restore", "-j", "4", "-d", address.database, str(dump))[1]:
        return problem
    after = _run(place, place.direct, "pg_dump")[0]
    return "" if before and before == after else "what was restored is not what was dumped"


def _run(place: Place, address: Address, program: str, *words: str) -> tuple[str, str]:
    """Return what it printed, and what it complained of if it failed."""
    done = subprocess.run(
        [place.program(program), *words],
        env=address.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return _comparable(done.stdout), f"{program}: {done.stderr or done.returncode}" if done.returncode else ""


def _comparable(text: str) -> str:
    # A dump is framed with a key that is another one each time (\restrict).
    return "\n".join(line for line in text.splitlines() if not line.startswith(("\\restrict", "\\unrestrict")))
