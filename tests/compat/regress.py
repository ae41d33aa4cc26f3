"""PostgreSQL's own regression suite: the parallel schedule, twenty sessions at a time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pgamb.errors import PgambError
from tests.compat.outcome import Outcome
from tests.compat.pg_regress import Difference, Suite, compare, program
from tests.compat.place import Place

NAME = "PostgreSQL regress"
NEEDS = ("gcc", "libc6-dev", "libpq-dev", "postgresql-{major}")

DIFFERENCES = {
    "guc": Difference(
        "which libraries a backend has loaded is its own: an earlier session has loaded PL/pgSQL in this one",
        (
            r'ERROR:  invalid configuration parameter name "plpgsql\.extra_foo_warnings"',
            r'DETAIL:  "plpgsql" is a reserved prefix\.',
            r'WARNING:  invalid configuration parameter name "plpgsql\.extra_foo_warnings", removing it',
            r'DETAIL:  "plpgsql" is now a reserved prefix\.',
        ),
    ),
    "temp": Difference(
        "a backend keeps its temporary schema for life: an earlier session may have made one there in ways that its "
        "statements did not show",
        ("ERROR:  cannot PREPARE a transaction that has operated on temporary objects",),
    ),
    "stats": Difference(
        "pg_stat_database counts backends, and a new session of an application's needs no new one", (" [tf]",)
    ),
}


def run(place: Place, *, short: bool) -> Outcome:
    """Run all of it: its tests stand on one another."""
    source = place.source(f"postgresql-{place.binaries.major}", place.release)
    # The server reads data there, and may be another user than us.
    files = place.folder / "regress"
    shutil.copytree(source / "src/test/regress", files)
    libraries = place.folder / "libraries"
    libraries.mkdir()
    _build(source, libraries / "regress.so", place.folder / "headers")
    for name in ("autoinc.so", "refint.so"):
        shutil.copy(place.binaries.folder.parent / "lib" / name, libraries)
    suite = Suite(
        program(place, "regress", "pg_regress"),
        "regression",
        files,
        [f"--schedule={files / 'parallel_schedule'}"],
        [f"--dlpath={libraries}", "--max-concurrent-tests=20"],
    )
    return compare(place, suite, DIFFERENCES)


def _build(source: Path, library: Path, headers: Path) -> None:
    """Compile the suite's functions in C with the headers of the source, and the installed `pg_config.h`."""
    (headers / "storage").mkdir(parents=True)
    # The only generated header that the sources do not have where it is included from.
    shutil.copy(source / "src/backend/storage/lmgr/lwlocknames.h", headers / "storage")
    folders = (headers, "/usr/include/postgresql", source / "src/include", source / "src/backend")
    words = ["gcc", "-O1", "-fPIC", "-shared", "-fno-strict-aliasing", "-fwrapv", "-D_GNU_SOURCE"]
    words += [*(f"-I{folder}" for folder in folders), "-o", str(library), "src/test/regress/regress.c"]
    built = subprocess.run(words, cwd=source, capture_output=True, text=True)
    if built.returncode:
        raise PgambError("regress.so could not be built", detail=built.stderr[-2000:])
