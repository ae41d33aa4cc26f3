"""`make compat`: each suite direct and through pgamb, one table, and a failure's name in the last lines."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import click

import tests.compat
from pgamb.demo.binaries import find_postgres
from pgamb.errors import PgambError
from tests.compat.debian import ALWAYS_NEEDED, Debian, Missing, missing_packages
from tests.compat.outcome import Outcome, remarks, table
from tests.compat.place import running_place

# A suite takes one to four minutes: with `--short`, what begins within this ends within fifteen.
SHORT_S = 660.0
CACHE = Path(__file__).resolve().parents[2] / ".compat"


def suites() -> Mapping[str, ModuleType]:
    """Return the modules beside this one that are suites, by their names; those that take long come last."""
    found = {}
    for module in pkgutil.iter_modules(tests.compat.__path__):
        if module.name != "__main__":
            loaded = importlib.import_module(f"{tests.compat.__name__}.{module.name}")
            if hasattr(loaded, "NAME") and hasattr(loaded, "run"):
                found[module.name] = loaded
    return dict(sorted(found.items(), key=lambda item: hasattr(item[1], "TAKES_LONG")))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--suite", "names", multiple=True, type=click.Choice(sorted(suites())), help="Only this one; repeatable.")
@click.option("--short", is_flag=True, help="What CI runs: all suites together within 15 minutes.")
def main(names: tuple[str, ...], short: bool) -> None:
    """Run PostgreSQL's and drivers' own test suites direct to PostgreSQL and through pgamb, and compare.

    Exits with 1 when a test passes direct and fails through, and with 2 when this machine lacks something.
    """
    chosen = {name: suite for name, suite in suites().items() if not names or name in names}
    try:
        _check_machine(chosen)
        outcomes, broken, absent = _run(chosen, short, may_be_absent=not names)
    except PgambError as error:
        click.echo(f"compat: {_told(error)}", err=True)
        sys.exit(2)
    click.echo(f"\n{table(outcomes)}\n")
    for line in remarks(outcomes):
        click.echo(line)
    for name, why in absent.items():
        click.echo(f"not run: {name}: {why}")
    for name in broken:
        click.echo(f"FAILED {name}: it did not come to its end")
    sys.exit(1 if broken or any(outcome.failed for outcome in outcomes.values()) else 0)


def _check_machine(chosen: Mapping[str, ModuleType]) -> None:
    major = str(find_postgres().major)
    needed = [*ALWAYS_NEEDED, *(need for suite in chosen.values() for need in getattr(suite, "NEEDS", ()))]
    absent = missing_packages([need.format(major=major) for need in dict.fromkeys(needed)])
    if absent:
        raise Missing(
            f"missing on this machine: {' '.join(absent)}", hint=f"run:  apt-get install -y {' '.join(absent)}"
        )


def _told(error: PgambError) -> str:
    return "; ".join(filter(None, (error.message, error.detail, error.hint)))


def _run(
    chosen: Mapping[str, ModuleType], short: bool, *, may_be_absent: bool
) -> tuple[dict[str, Outcome], list[str], dict[str, str]]:
    """Return what came of each suite, which broke off, and which could not be had, with the reason.

    Raises Missing for the last, unless they may be absent: they are not, where they were asked for by name.
    """
    began = time.monotonic()
    outcomes: dict[str, Outcome] = {}
    broken = []
    absent: dict[str, str] = {}
    for suite in chosen.values():
        if short and time.monotonic() - began > SHORT_S:
            absent[suite.NAME] = f"{SHORT_S / 60:.0f} minutes had passed"
            continue
        click.echo(f"running {suite.NAME}", err=True)
        with tempfile.TemporaryDirectory(prefix="pgamb-compat-", ignore_cleanup_errors=True) as folder:
            Path(folder).chmod(0o755)  # PostgreSQL is another user where we are root
            try:
                with running_place(Debian(CACHE), Path(folder), getattr(suite, "SETTINGS", {})) as place:
                    outcomes[suite.NAME] = suite.run(place, short=short)
            except Missing as error:
                if not may_be_absent:
                    raise
                absent[suite.NAME] = _told(error)
            except Exception:
                # One that breaks must not hide what the others find.
                traceback.print_exc()
                broken.append(suite.NAME)
    return outcomes, broken, absent


if __name__ == "__main__":
    main()
