"""What the applications of a run were told, and whether it is true.

A write is a row (worker, n); each is sent once. What a worker was told decides what has to be found in the end:
an acknowledged row once, a failed one never, one of unknown outcome at most once. A read of a worker's newest row must
not be older than what had been acknowledged when the read began, nor than what its connection has read before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    """What a worker was told of a write."""

    ACKNOWLEDGED = "acknowledged"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error that an application got: `what` was asked, `sqlstate` is empty where the connection just ended."""

    at_s: float
    what: str
    sqlstate: str
    message: str


@dataclass(slots=True)
class History:
    """All of a run. Times are monotonic seconds."""

    writes: dict[tuple[int, int], Outcome] = field(default_factory=dict)
    newest: dict[int, int] = field(default_factory=dict)
    acknowledged_at: list[float] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    refused: list[Failure] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    reads: int = 0
    dropped: int = 0
    longest_s: dict[str, float] = field(default_factory=dict)

    def told(self, worker: int, numbers: Iterable[int], outcome: Outcome, at_s: float) -> None:
        """Take in what a worker heard of the writes that it sent together."""
        for n in numbers:
            self.writes[worker, n] = outcome
            if outcome is Outcome.ACKNOWLEDGED:
                self.newest[worker] = n
                self.acknowledged_at.append(at_s)

    def took(self, what: str, seconds: float) -> None:
        self.longest_s[what] = max(self.longest_s.get(what, 0.0), seconds)

    def first_write_after(self, at_s: float) -> float | None:
        """Return when a write was acknowledged first after that."""
        return min((moment for moment in self.acknowledged_at if moment > at_s), default=None)

    def failures_between(self, begin_s: float, end_s: float) -> list[Failure]:
        return [failure for failure in self.failures if begin_s <= failure.at_s <= end_s]

    def sqlstates(self) -> Counter[str]:
        return Counter(failure.sqlstate or "connection ended" for failure in self.failures)

    def contradictions(self, rows: Iterable[tuple[int, int]]) -> list[str]:
        """Compare with the rows (worker, n) that there are, in the order in which they came; return what is wrong."""
        wrong = list(self.stale)
        found: Counter[tuple[int, int]] = Counter()
        last: dict[int, int] = {}
        for worker, n in rows:
            found[worker, n] += 1
            if n < last.get(worker, -1):
                wrong.append(f"worker {worker}: {n} was written behind {last[worker]}")
            last[worker] = n
        for write, count in found.items():
            outcome = self.writes.get(write)
            if count > 1:
                wrong.append(f"{write} is there {count} times")
            if outcome is Outcome.FAILED:
                wrong.append(f"{write} is there, and was said to have failed")
        for write, outcome in self.writes.items():
            if outcome is Outcome.ACKNOWLEDGED and write not in found:
                wrong.append(f"{write} was acknowledged, and is lost")
        return wrong
