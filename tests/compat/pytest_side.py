"""A suite that pytest runs, on one side: in an environment of its own, and what it has found.

Drivers' tests are about time in places, and the machine is busy: what fails is run again, alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.compat.debian import Missing

TEST_TIMEOUT_S = 60
REPEATS = 2
# What ends a test that hangs; `--timeout` is its option.
NEEDED = "pytest-timeout>=2.3"
# What would tell a driver where else to connect, or Python what else to import.
_FOREIGN = ("PG", "PSYCOPG", "PYTHON")


class Side:
    """`passed` has a test that was neither skipped nor expected to fail; `reports` what one that failed said."""

    def __init__(
        self, python: Path, source: Path, folder: Path, options: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """The suite is in the folder `source`; `folder` takes its report and log, `environment` is besides ours."""
        folder.mkdir(parents=True)
        self._source = source
        self._report = folder / "report.xml"
        self._log = folder / "log.txt"
        self.passed: dict[str, bool] = {}
        self.reports: dict[str, str] = {}
        self._command: tuple[str | Path, ...] = (
            # A shell has what it starts in the background ignore Ctrl-C, and tests send that to their own children.
            *("env", "--default-signal=INT"),
            *(python, "-m", "pytest", "-q", "--tb=short", f"--junitxml={self._report}", f"--timeout={TEST_TIMEOUT_S}"),
            *("-o", f"cache_dir={folder / 'cache'}", "-o", "junit_family=xunit1"),
            *options,
        )
        clean = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        # A suite finds the programs of its environment by PATH.
        path = f"{python.parent}{os.pathsep}{clean.get('PATH', os.defpath)}"
        self._environment = {**clean, "PATH": path, **environment}

    def start(self, options: Sequence[str] = ()) -> subprocess.Popen[bytes]:
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
        """Take note of what the last run has found. Raises RuntimeError if it has not come to its end."""
        if not self._report.exists():
            raise RuntimeError(f"the suite broke off:\n{self._log.read_text(errors='replace')[-3000:]}")
        for test, said in read_report(self._report).items():
            self.passed[test] = not said
            self.reports.pop(test, None)
            if said:
                self.reports[test] = "\n".join(said)[-2000:]


def run_all(sides: Sequence[Side], options: Sequence[str] = ()) -> None:
    """Run a suite on these sides at once, and what fails again on each."""
    for process in [side.start(options) for side in sides]:
        process.wait()
    for side in sides:
        side.collect()
        for _ in range(REPEATS):
            if side.reports:
                side.start(["--last-failed", "--last-failed-no-failures=none", *options]).wait()
                side.collect()


def environment(folder: Path, packages: Sequence[str | Path]) -> Path:
    """Make a virtual environment with these packages; return its Python. Raises Missing when pip cannot have them."""
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise Missing("pip could not install what the suite needs", detail=done.stderr.strip()[-2000:])
    return python


def read_report(file: Path) -> dict[str, list[str]]:
    """Return what each test said that was not skipped: nothing if it passed."""
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(file).getroot().iter("testcase"):
        if case.find("skipped") is None:
            # Twice there is one that fails, and once more when it is taken down.
            found.setdefault(_name(case), []).extend(_said(case))
    return found


def _name(case: ElementTree.Element) -> str:
    """Return what pytest calls the test: FILE::CLASS::FUNCTION."""
    file = case.get("file") or ""
    module = file.removesuffix(".py").replace("/", ".")
    classes = (case.get("classname") or "").removeprefix(module).strip(".")
    return "::".join(filter(None, (file, *classes.split("."), case.get("name") or "")))


def _said(case: ElementTree.Element) -> Iterator[str]:
    for kind in ("failure", "error"):
        for part in case.iter(kind):
            yield part.text or kind
