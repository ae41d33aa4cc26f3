"""psycopg 3's own test suite, and that of its pool: their sources as released, with the wheel of the same version.

The sources on PyPI come without the tests. `PSYCOPG_SOURCE` may name a folder with psycopg's repository at a released
version; otherwise they are Debian's.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.compat.debian import Missing
from tests.compat.outcome import Outcome
from tests.compat.place import Place
from tests.compat.pytest_side import NEEDED, Side, environment, run_all

NAME = "psycopg 3"
TAKES_LONG = True
SOURCE_VARIABLE = "PSYCOPG_SOURCE"
# Debian's psycopg is the tag 3.2.6 here.
RELEASE = "trixie"
# The suite's own `test` extra, but for mypy, which asks no server; and gevent and numpy, without which it skips tests.
PACKAGES = (
    "anyio>=4",
    "gevent",
    "numpy",
    "pproxy>=2.7",
    "pytest>=6.2.5,<9",
    "pytest-cov>=3",
    "pytest-randomly>=3.5",
    NEEDED,
)
# The second is Python over ctypes, and needs a libpq of the system's own.
IMPLEMENTATIONS = ("binary", "python")
DIRECT_DATABASE = "psycopg_direct"
# mypy on examples, CockroachDB, and hosts that nobody has: PostgreSQL is not asked. And the driver's own garbage, in
# tests that take longer than all others together.
_NOT_NAMED = "not mypy and not test_connect_error_multi_hosts_each_message_preserved and not leak"
LEFT_OUT = ("--ignore", "tests/test_typing.py", "--ignore", "tests/crdb", "-k", _NOT_NAMED)
# The same data at random on both sides.
SEED = ("--randomly-seed=1", "--randomly-dont-reorganize")
# Those marked slow are mostly about a pool's patience.
SHORT = ("-m", "not slow", "--ignore", "tests/pool")

_BACKEND_STAYS = (
    "waits until the process that pg_stat_activity showed is gone, because its application is: pgamb rolls back and "
    "keeps the backend for the next"
)
DIFFERENCES: Mapping[str, str] = {
    "tests/test_concurrency.py::test_ctrl_c": _BACKEND_STAYS,
    "tests/test_concurrency_async.py::test_ctrl_c": _BACKEND_STAYS,
}


def run(place: Place, *, short: bool) -> Outcome:
    """Run the suite on both sides at once, with each implementation of the driver."""
    source = _copied(place)
    version = _version(source)
    packages = (f"psycopg[binary]=={version}", source / "psycopg_pool", *PACKAGES)
    python = environment(place.folder / "venv", packages)
    # Both sides run at once, and make the same tables.
    place.cluster.primary.query(f"CREATE DATABASE {DIRECT_DATABASE}")
    dsns = (("direct", replace(place.direct, database=DIRECT_DATABASE).dsn), ("through", place.through.dsn))
    direct: dict[str, bool] = {}
    through: dict[str, bool] = {}
    reports: dict[str, str] = {}
    for implementation in IMPLEMENTATIONS[:1] if short else IMPLEMENTATIONS:
        sides = {
            name: Side(
                python,
                source,
                place.folder / f"{implementation}-{name}",
                (f"--test-dsn={dsn}", *SEED, *LEFT_OUT),
                {"PSYCOPG_IMPL": implementation},
            )
            for name, dsn in dsns
        }
        run_all(list(sides.values()), SHORT if short else ())
        direct |= {f"{implementation}: {test}": passed for test, passed in sides["direct"].passed.items()}
        through |= {f"{implementation}: {test}": passed for test, passed in sides["through"].passed.items()}
        reports |= {f"{implementation}: {test}": report for test, report in sides["through"].reports.items()}
    differences = {
        f"{implementation}: {test}": why for implementation in IMPLEMENTATIONS for test, why in DIFFERENCES.items()
    }
    return Outcome(version, direct, through, differences, reports)


def _copied(place: Place) -> Path:
    """Return a copy of the sources that may be written to. Raises Missing when they cannot be had."""
    if named := os.environ.get(SOURCE_VARIABLE):
        source = Path(named)
        if not (source / "psycopg").is_dir() or not (source / "tests" / "fix_db.py").is_file():
            raise Missing(f"{named} ({SOURCE_VARIABLE}) is no checkout of psycopg 3's repository")
    else:
        try:
            source = place.source("psycopg3", RELEASE)
        except Missing as error:
            hint = f"set {SOURCE_VARIABLE} to a checkout of psycopg 3's repository at a released tag"
            raise Missing(error.message, detail=error.detail, hint=hint) from error
    copy = place.folder / "source"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    return copy


def _version(source: Path) -> str:
    """Return the driver's version: its wheel with the compiled implementation has to be of the same."""
    for name in ("pyproject.toml", "setup.cfg"):
        path = source / "psycopg" / name
        found = re.search(r'^version\s*=\s*"?([\w.]+)', path.read_text() if path.exists() else "", re.MULTILINE)
        if found:
            return found[1]
    raise Missing(f"{source} does not say of which version it is")
