"""psycopg 3's own test suite, and that of its pool: their sources as released, with the wheel of the same version.

The sources on PyPI come without the tests. `PSYCOPG_SOURCE` may name a folder with psycopg's repository at a released
version; otherwise they are Debian's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.compat.debian import Missing
from tests.compat.outcome import Outcome
from tests.compat.place import Place

NAME = "psycopg 3"
SOURCE_VARIABLE = "PSYCOPG_SOURCE"
# Debian's psycopg is the tag 3.2.6 here.
RELEASE = "trixie"
# The suite's own `test` extra, but for mypy, which asks no server; and what ends a test that hangs.
PACKAGES = (
    "anyio>=4",
    "pproxy>=2.7",
    "pytest>=6.2.5,<9",
    "pytest-cov>=3",
    "pytest-randomly>=3.5",
    "pytest-timeout>=2.3",
)
# The second is Python over ctypes, and needs a libpq of the system's own.
IMPLEMENTATIONS = ("binary", "python")
DIRECT_DATABASE = "psycopg_direct"
TEST_TIMEOUT_S = 60
# Many tests are about time, and the machine is busy with two suites: what fails is run again, alone.
REPEATS = 2
# mypy on examples, and CockroachDB; and the driver's own garbage, in tests that take longer than all others together.
LEFT_OUT = ("--ignore", "tests/test_typing.py", "--ignore", "tests/crdb", "-k", "not leak")
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
    python = _environment(place.folder / "venv", source, version)
    # Both sides run at once, and make the same tables.
    place.cluster.primary.query(f"CREATE DATABASE {DIRECT_DATABASE}")
    dsns = (("direct", replace(place.direct, database=DIRECT_DATABASE).dsn), ("through", place.through.dsn))
    direct: dict[str, bool] = {}
    through: dict[str, bool] = {}
    reports: dict[str, str] = {}
    for implementation in IMPLEMENTATIONS[:1] if short else IMPLEMENTATIONS:
        sides = {
            name: _Side(python, source, dsn, place.folder / f"{implementation}-{name}", implementation)
            for name, dsn in dsns
        }
        _run_all(list(sides.values()), SHORT if short else ())
        direct |= {f"{implementation}: {test}": passed for test, passed in sides["direct"].passed.items()}
        through |= {f"{implementation}: {test}": passed for test, passed in sides["through"].passed.items()}
        reports |= {f"{implementation}: {test}": report for test, report in sides["through"].reports.items()}
    differences = {
        f"{implementation}: {test}": why for implementation in IMPLEMENTATIONS for test, why in DIFFERENCES.items()
    }
    return Outcome(version, direct, through, differences, reports)


class _Side:
    """The suite on one side: how it is run, and what it has found."""

    def __init__(self, python: Path, source: Path, dsn: str, folder: Path, implementation: str) -> None:
        """`passed` has a test that was neither skipped nor expected to fail; `reports` what one that failed said."""
        folder.mkdir(parents=True)
        self._source = source
        self._report = folder / "report.xml"
        self._log = folder / "log.txt"
        self.passed: dict[str, bool] = {}
        self.reports: dict[str, str] = {}
        self._command: tuple[str | Path, ...] = (
            *(python, "-m", "pytest", "-q", "--tb=short", f"--junitxml={self._report}", f"--test-dsn={dsn}"),
            *("-o", f"cache_dir={folder / 'cache'}", "-o", "junit_family=xunit1", f"--timeout={TEST_TIMEOUT_S}"),
            # The same data at random on both sides.
            *("--randomly-seed=1", "--randomly-dont-reorganize"),
            *LEFT_OUT,
        )
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PSYCOPG", "PYTHON"))}
        # The suite finds the programs of its environment (pproxy) by PATH.
        path = f"{python.parent}{os.pathsep}{clean.get('PATH', os.defpath)}"
        self._environment = {**clean, "PATH": path, "PSYCOPG_IMPL": implementation}

    def start(self, options: Sequence[str]) -> subprocess.Popen[bytes]:
        """Begin a run."""
        self._report.unlink(missing_ok=True)
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*self._command, *options],
                cwd=self._source,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def collect(self) -> None:
        """Take note of what the last run has found."""
        if not self._report.exists():
            raise RuntimeError(f"the suite broke off:\n{self._log.read_text(errors='replace')[-3000:]}")
        found: dict[str, list[str]] = {}
        for case in ElementTree.parse(self._report).getroot().iter("testcase"):
            if case.find("skipped") is None:
                # Twice there is one that fails, and once more when it is taken down.
                said = found.setdefault(f"{case.get('file')}::{case.get('name')}", [])
                said += [part.text or "" for kind in ("failure", "error") for part in case.iter(kind)]
        for test, said in found.items():
            self.passed[test] = not said
            self.reports.pop(test, None)
            if said:
                self.reports[test] = "\n".join(said)[-2000:]


def _run_all(sides: Sequence[_Side], options: Sequence[str]) -> None:
    for process in [side.start(options) for side in sides]:
        process.wait()
    for side in sides:
        side.collect()
        for _ in range(REPEATS):
            if side.reports:
                side.start(["--last-failed", "--last-failed-no-failures=none", *options]).wait()
                side.collect()


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


def _environment(folder: Path, source: Path, version: str) -> Path:
    """Make a virtual environment with the driver, its pool and what their tests need; return its Python."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages: list[str | Path] = [f"psycopg[binary]=={version}", source / "psycopg_pool", *PACKAGES]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True)
    return python
