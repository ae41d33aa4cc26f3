"""PostgreSQL's own isolation tests: sessions that wait for one another, told apart by their process ids."""

from __future__ import annotations

from tests.compat.outcome import Outcome
from tests.compat.pg_regress import Suite, compare, program
from tests.compat.place import Place

NAME = "PostgreSQL isolation"
NEEDS = ("postgresql-{major}",)

# One step's patience; whoever waits for longer than this waits for ever.
STEP_S = "60"
# What locks, waits, deadlocks, notifies and times out, one of each kind, and nothing that takes seconds by itself.
SHORT = (
    "read-only-anomaly-2",
    "read-write-unique",
    "simple-write-skew",
    "total-cash",
    "referential-integrity",
    "two-ids",
    "deadlock-simple",
    "deadlock-hard",
    "deadlock-soft",
    "deadlock-parallel",
    "detach-partition-concurrently-1",
    "detach-partition-concurrently-3",
    "fk-contention",
    "fk-deadlock",
    "eval-plan-qual",
    "lock-update-delete",
    "inherit-temp",
    "temp-schema-cleanup",
    "insert-conflict-do-nothing",
    "insert-conflict-do-update",
    "insert-conflict-specconflict",
    "merge-update",
    "delete-abort-savept",
    "aborted-keyrevoke",
    "multixact-no-deadlock",
    "reindex-concurrently",
    "nowait",
    "skip-locked",
    "drop-index-concurrently-1",
    "alter-table-1",
    "alter-table-3",
    "create-trigger",
    "sequence-ddl",
    "async-notify",
    "timeouts",
    "vacuum-conflict",
    "stats",
    "horizons",
    "partition-drop-index-locking",
    "plpgsql-toast",
    "cluster-conflict",
    "truncate-conflict",
    "serializable-parallel",
)


def run(place: Place, *, short: bool) -> Outcome:
    """Run all of them, or (`short`) those that are named above."""
    source = place.source(f"postgresql-{place.binaries.major}", place.release)
    files = source / "src/test/isolation"
    suite = Suite(
        program(place, "isolation", "pg_isolation_regress"),
        "isolation_regression",
        files,
        SHORT if short else [f"--schedule={files / 'isolation_schedule'}"],
        environment={"PGISOLATIONTIMEOUT": STEP_S},
    )
    return compare(place, suite, {})
