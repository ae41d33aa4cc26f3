"""PostgreSQL's `pg_regress`, and `pg_isolation_regress`, with what they need: which tests passed, and what differs."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pgamb.errors import PgambError
from tests.compat.outcome import Outcome
from tests.compat.place import Address, Place
from tests.support.waiting import wait_for

DEADLINE_S = 1800
REPLAY_DEADLINE_S = 60.0
# What pg_regress gives a database that it makes itself.
SETTINGS = {
    **dict.fromkeys(("lc_messages", "lc_monetary", "lc_numeric", "lc_time"), "C"),
    "bytea_output": "hex",
    "timezone_abbreviations": "Default",
}
_RESULT = re.compile(r"^(?:test )?\s*(\S+)\s+\.\.\. (ok|FAILED|failed)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a test may say otherwise through pgamb, and why.

    `lines` are regular expressions; each line that is lost or gained has to match one.
    """

    reason: str
    lines: Sequence[str]

    def explains(self, diff: str) -> bool:
        """Tell whether there is nothing else in a diff."""
        changed = [line[1:] for line in diff.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
        return bool(changed) and all(any(re.fullmatch(known, line) for known in self.lines) for line in changed)


@dataclass(frozen=True, slots=True)
class Suite:
    """One of the two: where its program is, its database, its files, and the arguments that choose its tests."""

    program: str
    database: str
    files: Path
    tests: Sequence[str]
    options: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def compare(place: Place, suite: Suite, differences: Mapping[str, Difference]) -> Outcome:
    """Run a suite direct and through pgamb."""
    sides: list[dict[str, bool]] = []
    for name, address in (("direct", place.direct), ("through", place.through)):
        _renew(place, suite.database)
        output = place.folder / f"{suite.database}-{name}"
        sides.append(_run(place, suite, address, output))
    reports = diffs(output / "regression.diffs")
    listed = {
        test: difference.reason
        for test, difference in differences.items()
        if sides[1].get(test, True) or difference.explains(reports.get(test, ""))
    }
    return Outcome(place.binaries.version, sides[0], sides[1], listed, reports)


def program(place: Place, kind: str, name: str) -> str:
    """Return the path of a test program that the distribution's server package brings along."""
    path = place.binaries.folder.parent / "lib/pgxs/src/test" / kind / name
    if not path.exists():
        raise PgambError(f"{path} is missing", hint=f"it is in Debian's package postgresql-{place.binaries.major}")
    return str(path)


def _run(place: Place, suite: Suite, address: Address, output: Path) -> dict[str, bool]:
    # The server, which may be another user, writes there, too.
    for folder in (output, output / "results"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        folder.chmod(0o777)
    words = [suite.program, "--use-existing", f"--dbname={suite.database}", f"--inputdir={suite.files}"]
    words += [f"--outputdir={output}", f"--bindir={place.binaries.folder}"]
    words += [f"--host={address.host}", f"--port={address.port}", f"--user={address.user}"]
    with (output / "log").open("w") as log:
        subprocess.run(
            [*words, *suite.options, *suite.tests],
            cwd=output,
            env={**address.environment, **suite.environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=DEADLINE_S,
        )
    said = (output / "log").read_text()
    results = {test: result == "ok" for test, result in _RESULT.findall(said)}
    if not results:
        raise RuntimeError(f"{Path(suite.program).name} ran no test: {said[-2000:]}")
    return results


def diffs(file: Path) -> dict[str, str]:
    """Return what differs from what is expected, by test."""
    if not file.exists():
        return {}
    parts = re.split(r"^diff .*/results/(\S+)\.out$\n", file.read_text(errors="replace"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _renew(place: Place, database: str) -> None:
    """Make the database anew, and take away what an earlier run left in the cluster."""
    primary = place.cluster.primary
    for name in (database, f"{database}_utf8"):
        primary.query(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    leftovers = {
        "TABLESPACE": "SELECT spcname FROM pg_tablespace WHERE spcname ~ '^regress'",
        "ROLE": "SELECT rolname FROM pg_roles WHERE rolname ~ '^regress'",
    }
    for kind, query in leftovers.items():
        for (leftover,) in primary.query(query):
            primary.query(f'DROP {kind} "{leftover}"')
    primary.query(f'CREATE DATABASE "{database}" TEMPLATE template0')
    for parameter, value in SETTINGS.items():
        primary.query(f"ALTER DATABASE \"{database}\" SET {parameter} TO '{value}'")
    ((end,),) = primary.query("SELECT pg_current_wal_lsn()::text")
    replayed = f"SELECT pg_last_wal_replay_lsn() >= '{end}'"
    wait_for(lambda: _all_say(place, replayed), REPLAY_DEADLINE_S, "the replicas have the database")


def _all_say(place: Place, question: str) -> bool:
    return all(replica.query(question) == [(True,)] for replica in place.cluster.replicas)
