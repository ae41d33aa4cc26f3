"""asyncpg's own test suite."""

from __future__ import annotations

from collections.abc import Mapping

from tests.compat.outcome import Outcome
from tests.compat.place import Place
from tests.compat.sdist import Driver, compare

NAME = "asyncpg"
TAKES_LONG = True

DRIVER = Driver(
    "asyncpg",
    "0.31.0",
    "tests",
    packages=("uvloop>=0.22.1", "distro"),
    # Of its own source, which asks no server.
    options=("--import-mode=importlib", "--ignore=tests/test__sourcecode.py"),
    variables={
        "PGHOST": "{host}",
        "PGPORT": "{port}",
        "PGUSER": "{user}",
        "PGPASSWORD": "{password}",
        "PGDATABASE": "{database}",
    },
)
DIFFERENCES: Mapping[str, str] = {}


def run(place: Place, *, short: bool) -> Outcome:
    """Run all of it; there is no shorter version of it."""
    return compare(place, DRIVER, DIFFERENCES)
