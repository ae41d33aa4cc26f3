"""PostgreSQL's own test of libpq's pipeline mode, with the trace of every message.

A test passes when the program says so, when its trace is the one that PostgreSQL's source expects (where it has one),
and when what libpq sent and what it received are, each in its order, what they were direct.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgamb.errors import PgambError
from tests.compat.outcome import Outcome
from tests.compat.place import Address, Place

NAME = "libpq_pipeline"
NEEDS = ("gcc", "libc6-dev", "libpq-dev", "postgresql-{major}")

ROWS = "700"  # as PostgreSQL's own run of it
DEADLINE_S = 120
# Behind libpq's own, what `make` would have linked from libpgcommon and libpgport.
SOURCES = (
    "src/test/modules/libpq_pipeline/libpq_pipeline.c",
    "src/common/fe_memutils.c",
    "src/common/psprintf.c",
    "src/port/snprintf.c",
    "src/port/strerror.c",
)


@dataclass(frozen=True, slots=True)
class Run:
    """One test of the program: did it say that it passed, what it said, and its trace."""

    passed: bool
    said: str
    trace: str

    def lines(self, side: str) -> list[str]:
        """Return the messages of one side, `F` or `B`: how they interleave is a matter of the kernel's buffers."""
        return [line for line in self.trace.splitlines() if line.startswith(side)]


def run(place: Place, *, short: bool) -> Outcome:
    """Run all of its tests; there is no shorter version of them."""
    source = place.source(f"postgresql-{place.binaries.major}", place.release)
    program = _build(source, place.folder / "libpq_pipeline")
    expected = source / "src/test/modules/libpq_pipeline/traces"
    sides: list[dict[str, bool]] = [{}, {}]
    reports: dict[str, str] = {}
    for test in subprocess.run([program, "tests"], capture_output=True, text=True, check=True).stdout.split():
        runs = [_run(program, test, place.folder, address) for address in (place.direct, place.direct, place.through)]
        for side, ours in zip(sides, runs[1:], strict=True):
            for name, passed, report in _judge(test, ours, runs[0], expected / f"{test}.trace"):
                side[name] = passed
                if not passed and side is sides[1]:
                    reports[name] = report
    return Outcome(place.binaries.version, sides[0], sides[1], reports=reports)


def _judge(test: str, ours: Run, direct: Run, expected: Path) -> Iterator[tuple[str, bool, str]]:
    yield test, ours.passed, ours.said
    if expected.exists():
        yield f"{test}: trace as expected", ours.trace == expected.read_text(), ours.trace
    for side, what in (("F", "sent"), ("B", "received")):
        yield f"{test}: {what} as direct", ours.lines(side) == direct.lines(side), "\n".join(ours.lines(side))


def _build(source: Path, program: Path) -> Path:
    # Headers of the installed version where it has them: those in the source are not configured.
    headers = ["/usr/include/postgresql", "/usr/include/postgresql/internal"]
    headers += [str(source / "src/include"), str(source / "src/backend")]
    words = ["gcc", "-O1", "-D_GNU_SOURCE", "-DFRONTEND", *(f"-I{path}" for path in headers), "-o", str(program)]
    built = subprocess.run([*words, *SOURCES, "-lpq"], cwd=source, capture_output=True, text=True)
    if built.returncode:
        raise PgambError("libpq_pipeline could not be built", detail=built.stderr[-2000:])
    return program


def _run(program: Path, test: str, folder: Path, address: Address) -> Run:
    trace = folder / f"{test}.trace"
    trace.unlink(missing_ok=True)
    try:
        done = subprocess.run(
            [program, "-r", ROWS, "-t", trace, test],
            env=address.environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    except subprocess.TimeoutExpired:
        return Run(False, f"not done within {DEADLINE_S} s", _read(trace))
    return Run(done.returncode == 0, done.stderr, _read(trace))


def _read(trace: Path) -> str:
    return trace.read_text() if trace.exists() else ""
