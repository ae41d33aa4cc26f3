"""pg8000's own test suite."""

from __future__ import annotations

from collections.abc import Mapping

from tests.compat.outcome import Outcome
from tests.compat.place import Place
from tests.compat.sdist import Driver, compare

NAME = "pg8000"
TAKES_LONG = True

DRIVER = Driver(
    "pg8000",
    "1.31.5",
    "test",
    packages=("pytest-mock", "pytest-benchmark", "pytz"),
    # What asks for lines in pg_hba.conf, and a README on port 5432.
    options=("--ignore-glob=test/*/auth", "--ignore=test/test_readme.py", "--benchmark-disable"),
    variables={"PGHOST": "{host}", "PGPORT": "{port}", "PGPASSWORD": "{password}"},
)
DIFFERENCES: Mapping[str, str] = {}


def run(place: Place, *, short: bool) -> Outcome:
    """Run all of it; there is no shorter version of it."""
    return compare(place, DRIVER, DIFFERENCES)
