"""Drivers whose released source, as PyPI has it, comes with its tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.compat.debian import Missing
from tests.compat.outcome import Outcome
from tests.compat.place import Address, Place
from tests.compat.pytest_side import NEEDED, Side, environment, run_all


@dataclass(frozen=True, slots=True)
class Driver:
    """A driver at a version, the folder of its tests, and how they are run.

    `variables`: names in the environment -> a template that an address fills.
    """

    package: str
    version: str
    tests: str
    packages: Sequence[str] = ()
    options: Sequence[str] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def compare(place: Place, driver: Driver, differences: Mapping[str, str]) -> Outcome:
    """Run a driver's tests direct and through, one after the other: they make roles, which a cluster has once."""
    source = _source(place, driver)
    python = environment(
        place.folder / "venv", [f"{driver.package}=={driver.version}", *driver.packages, NEEDED, "pytest<9"]
    )
    sides = []
    for name, address in (("direct", place.direct), ("through", place.through)):
        place.renew()
        side = Side(python, source, place.folder / name, driver.options, _variables(driver, address))
        run_all([side])
        sides.append(side)
    return Outcome(driver.version, sides[0].passed, sides[1].passed, differences, sides[1].reports)


def _variables(driver: Driver, address: Address) -> Mapping[str, str]:
    known = {
        "host": address.host,
        "port": str(address.port),
        "user": address.user,
        "password": address.password,
        "database": address.database,
    }
    return {name: template.format_map(known) for name, template in driver.variables.items()}


def _source(place: Place, driver: Driver) -> Path:
    """Return a folder with the tests and nothing else: what is tested is what is installed. Raises Missing."""
    cache = place.debian.cache / "sdist"
    archive = cache / f"{driver.package}-{driver.version}.tar.gz"
    if not archive.exists():
        words = ["download", "--quiet", "--no-deps", "--no-binary", driver.package, "--dest", str(cache)]
        words.append(f"{driver.package}=={driver.version}")
        done = subprocess.run(
            [sys.executable, "-m", "pip", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            raise Missing(f"pip could not download {words[-1]}", detail=done.stderr.strip()[-2000:])
    unpacked = place.folder / "sdist"
    with tarfile.open(archive) as tar:
        tar.extractall(unpacked, filter="data")
    source = place.folder / "source"
    shutil.copytree(unpacked / f"{driver.package}-{driver.version}" / driver.tests, source / driver.tests)
    return source
