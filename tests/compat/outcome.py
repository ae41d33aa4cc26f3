"""What came of one suite: which of its tests passed direct, which through pgamb, and what may differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outcome:
    """`direct` and `through`: test -> whether it passed. `differences`: test -> the reason why it may fail through.

    `reports`, where a suite has them: test -> what was said when it failed through.
    """

    version: str
    direct: Mapping[str, bool]
    through: Mapping[str, bool]
    differences: Mapping[str, str] = field(default_factory=dict)
    reports: Mapping[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, ...]:
        """The tests that pass direct, do not pass through (or do not run there), and are not listed: defects."""
        return tuple(test for test in self._lost if test not in self.differences)

    @property
    def differing(self) -> tuple[str, ...]:
        """The tests that pass direct and not through, as the list of differences allows."""
        return tuple(test for test in self._lost if test in self.differences)

    @property
    def outdated(self) -> tuple[str, ...]:
        """The listed differences that are none any more: they pass through too."""
        return tuple(test for test in sorted(self.differences) if self.through.get(test, False))

    @property
    def _lost(self) -> Iterator[str]:
        return (test for test in sorted(self.direct) if self.direct[test] and not self.through.get(test, False))


HEADER = ("suite", "version", "tests", "direct", "through", "differences")


def table(outcomes: Mapping[str, Outcome]) -> str:
    """Return a Markdown table, a row for each suite: tests, how many passed direct and through, and may differ."""
    rows: list[Sequence[str]] = [HEADER, ("---", "---", "---:", "---:", "---:", "---:")]
    for name, outcome in outcomes.items():
        figures = (len(outcome.direct), sum(outcome.direct.values()), sum(outcome.through.values()))
        rows.append((name, outcome.version, *map(str, figures), str(len(outcome.differing))))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def remarks(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """Yield what is to be said below the table: each difference with its reason, and last the names of what failed."""
    for name, outcome in outcomes.items():
        for test in outcome.differing:
            yield f"differs: {name}: {test}: {outcome.differences[test]}"
        for test in outcome.outdated:
            yield f"listed as a difference, and passes: {name}: {test}"
    for name, outcome in outcomes.items():
        for test in outcome.failed:
            if test in outcome.reports:
                yield f"--- {name}: {test}\n{outcome.reports[test]}"
    for name, outcome in outcomes.items():
        for test in outcome.failed:
            yield f"FAILED {name}: {test}"
