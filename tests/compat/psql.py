"""Scripts for psql, direct and through: every line that it prints has to be the same, and its exit status.

They are in `programs/psql`. A script's first lines may say `-- needs 16`, psql's version, and `-- options: -1`.
"""

from __future__ import annotations

import difflib
import re
import subprocess
from pathlib import Path

from tests.compat.outcome import Outcome
from tests.compat.place import Address, Place

NAME = "psql scripts"
NEEDS = ("postgresql-client-{major}",)

SCRIPTS = Path(__file__).parent / "programs" / "psql"
DEADLINE_S = 120
# What is another one on every run: process ids, oids, when a \watch was printed, and the two addresses' ports.
_CHANGING = (
    (re.compile(r"(process with PID )\d+"), r"\1PID"),
    (re.compile(r"^(lo_import|lo_unlink) \d+$", re.MULTILINE), r"\1 OID"),
    (re.compile(r"^.*(\(every [0-9.]+s\))$", re.MULTILINE), r"\1"),
    (re.compile(r"(port )\d+"), r"\1PORT"),
)


def run(place: Place, *, short: bool) -> Outcome:
    """Run every script on both sides, each in a new database; there is no shorter version of them."""
    sides: list[dict[str, bool]] = [{}, {}]
    reports: dict[str, str] = {}
    for script in sorted(SCRIPTS.glob("*.sql")):
        needed = re.search(r"^-- needs (\d+)$", script.read_text(), re.MULTILINE)
        if needed and place.binaries.major < int(needed[1]):
            continue
        expected, *said = (_run(place, script, at) for at in (place.direct, place.direct, place.through))
        for side, found in zip(sides, said, strict=True):
            side[script.stem] = found == expected
        if not sides[1][script.stem]:
            reports[script.stem] = "\n".join(difflib.unified_diff(expected, said[1], "direct", "through", lineterm=""))
    return Outcome(place.binaries.version, sides[0], sides[1], reports=reports)


def _run(place: Place, script: Path, address: Address) -> list[str]:
    """Return what psql prints, both outputs in one, and its exit status."""
    place.renew()
    folder = place.folder / f"{script.stem}-{address.port}"
    folder.mkdir(exist_ok=True)
    options = re.search(r"^-- options: (.*)$", script.read_text(), re.MULTILINE)
    words = ["-X", "-a", *(options[1].split() if options else ()), "-f", str(script)]
    try:
        done = subprocess.run(
            [place.program("psql"), *words],
            cwd=folder,
            env=address.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE_S,
        )
    except subprocess.TimeoutExpired as late:
        return [*_comparable(late.stdout or b""), f"not done within {DEADLINE_S} s"]
    return [*_comparable(done.stdout), f"exit status {done.returncode}"]


def _comparable(output: bytes) -> list[str]:
    text = output.decode(errors="backslashreplace")
    for pattern, instead in _CHANGING:
        text = pattern.sub(instead, text)
    return text.splitlines()
