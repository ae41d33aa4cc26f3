"""psycopg2's own test suite, with the driver built from the same source."""

from __future__ import annotations

from collections.abc import Mapping

from tests.compat.outcome import Outcome
from tests.compat.place import Place
from tests.compat.sdist import Driver, compare

NAME = "psycopg2"
TAKES_LONG = True
NEEDS = ("gcc", "libc6-dev", "libpq-dev", "python3-dev")
SETTINGS = {"wal_level": "logical", "max_prepared_transactions": "20"}

DRIVER = Driver(
    "psycopg2",
    "2.9.10",
    "tests",
    variables={
        "PSYCOPG2_TESTDB": "{database}",
        "PSYCOPG2_TESTDB_HOST": "{host}",
        "PSYCOPG2_TESTDB_PORT": "{port}",
        "PSYCOPG2_TESTDB_USER": "{user}",
        "PSYCOPG2_TESTDB_PASSWORD": "{password}",
        # Empty: its tests of replication use the same.
        "PSYCOPG2_TEST_REPL_DSN": "",
    },
)
DIFFERENCES: Mapping[str, str] = {}


def run(place: Place, *, short: bool) -> Outcome:
    """Run all of it; there is no shorter version of it."""
    return compare(place, DRIVER, DIFFERENCES)
