"""What applications do with drivers that Debian packages: pgjdbc, node-postgres, DBD::Pg.

Each has a program in `programs/`, which says `ok NAME` or `not ok NAME: why` for each of its cases. The packages are
downloaded and unpacked, not installed; a driver whose language this machine has not is left out.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.compat.debian import Missing
from tests.compat.outcome import Outcome
from tests.compat.place import Address, Place

NAME = "drivers"

PROGRAMS = Path(__file__).with_name("programs")
DEADLINE_S = 180


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver: the program of its language, the packages that it comes in, its file in `programs/`.

    `{root}` in `words` and `environment` is where the packages were unpacked.
    """

    name: str
    language: str
    packages: Sequence[str]
    program: str
    words: Sequence[str] = ()
    environment: Mapping[str, str] | None = None


DRIVERS = (
    Driver(
        "pgjdbc",
        "java",
        ("libpostgresql-jdbc-java",),
        "Jdbc.java",
        words=("-cp", "{root}/usr/share/java/postgresql.jar"),
    ),
    Driver(
        "node-postgres",
        "node",
        (
            *("node-pg", "node-split2", "node-readable-stream", "node-xtend", "node-inherits"),
            *("node-util-deprecate", "node-string-decoder", "node-safe-buffer"),
        ),
        "node_pg.js",
        environment={"NODE_PATH": "{root}/usr/share/nodejs"},
    ),
    Driver(
        "DBD::Pg",
        "perl",
        ("libdbd-pg-perl", "libdbi-perl"),
        "dbd_pg.pl",
        # Perl looks below each of these for its own version.
        environment={"PERL5LIB": "{arch}"},
    ),
)


def run(place: Place, *, short: bool) -> Outcome:
    """Run every driver's program on both sides; there is no shorter version of them."""
    versions: list[str] = []
    direct: dict[str, bool] = {}
    through: dict[str, bool] = {}
    reports: dict[str, str] = {}
    for driver in DRIVERS:
        if shutil.which(driver.language) is None:
            continue
        root = place.folder / driver.program
        versions.append(f"{driver.name} {_unpack(driver.packages, root)}")
        for address, results in ((place.direct, direct), (place.through, through)):
            for line in _run(driver, root, address):
                passed, name, why = _judged(line)
                results[f"{driver.name}: {name}"] = passed
                if not passed and results is through:
                    reports[f"{driver.name}: {name}"] = why
    if not versions:
        raise Missing("none of java, node and perl is on this machine")
    return Outcome(", ".join(versions), direct, through, reports=reports)


def _unpack(packages: Sequence[str], root: Path) -> str:
    """Download packages and unpack them; return the version of the first. Raises Missing."""
    root.mkdir()
    for package in packages:
        # As root, apt would fetch as another user, who may not write here.
        words = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", package]
        done = subprocess.run(words, cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"`apt-get download {package}` failed", detail=done.stderr.strip(), hint="apt-get update")
    for archive in root.glob("*.deb"):
        subprocess.run(["dpkg", "-x", archive, root], check=True)
    first = next(root.glob(f"{packages[0]}_*.deb"))
    return first.name.split("_")[1].replace("%3a", ":").rpartition(":")[2].partition("-")[0]


def _run(driver: Driver, root: Path, address: Address) -> list[str]:
    """Run a driver's program and return its lines; one that breaks off has a last line that says so."""
    arch = next(iter(sorted(root.glob("usr/lib/*/perl5/*"))), root)
    environment = {name: text.format(root=root, arch=arch) for name, text in (driver.environment or {}).items()}
    words = [driver.language, *(word.format(root=root) for word in driver.words), str(PROGRAMS / driver.program)]
    try:
        done = subprocess.run(
            [*words, address.host, str(address.port), address.user, address.password, address.database],
            env={**address.environment, **environment},
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    except subprocess.TimeoutExpired:
        return [f"not ok the end: not within {DEADLINE_S} s"]
    lines = [line for line in done.stdout.splitlines() if line.startswith(("ok ", "not ok "))]
    passed = "ok the end" if done.returncode == 0 else f"not ok the end: {done.stderr[-2000:]}"
    return [*lines, passed]


def _judged(line: str) -> tuple[bool, str, str]:
    """Take a line apart: did it pass, what it was, and why not. Names have no colon."""
    if line.startswith("ok "):
        return True, line.removeprefix("ok "), ""
    name, _, why = line.removeprefix("not ok ").partition(": ")
    return False, name, why
