"""Figures of several rounds, and the table made of them: medians, and ratios taken round by round."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

BASELINE = "pgbouncer"
# Reads over three members beside one member, and the code as it is beside an earlier one.
PAIRS = (("pgamb", "pgamb-1"), ("pgamb", "before"))


@dataclass(slots=True)
class Results:
    """What was measured: figure -> target -> one value a round. A failure leaves a gap and its reason."""

    targets: Sequence[str]
    values: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, figure: str, target: str, value: float | None) -> None:
        """Record one round's value; None where it could not be had."""
        self.values.setdefault(figure, {}).setdefault(target, []).append(value)

    def fail(self, what: str, target: str, reason: str) -> None:
        self.failures.append(f"{target}, {what}: {reason}")

    def median(self, figure: str, target: str) -> float | None:
        known = [value for value in self.values[figure].get(target, []) if value is not None]
        return statistics.median(known) if known else None

    def ratio(self, figure: str, target: str, baseline: str) -> float | None:
        """Return the median of the rounds' ratios: a machine that slows down meanwhile slows both."""
        pairs = zip(self.values[figure].get(target, []), self.values[figure].get(baseline, []), strict=False)
        known = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
        return statistics.median(known) if known else None


def table(results: Results) -> str:
    """Return the results as a Markdown table: a row for each figure, a column for each target and each ratio."""
    compared = [target for target in results.targets if target not in (BASELINE, "direct")]
    pairs = [*((target, BASELINE) for target in compared), *PAIRS]
    ratios = [pair for pair in pairs if set(pair) <= set(results.targets)]
    header = ["figure", *results.targets, *(f"{target} / {baseline}" for target, baseline in ratios)]
    rows = [header, ["---", *("---:" for _ in header[1:])]]
    for figure in results.values:
        row = [figure, *(_number(results.median(figure, target)) for target in results.targets)]
        row += [_ratio(results.ratio(figure, target, baseline)) for target, baseline in ratios]
        rows.append(row)
    return "\n".join([*(f"| {' | '.join(row)} |" for row in rows), *_failed(results)])


def _failed(results: Results) -> Iterator[str]:
    if results.failures:
        yield ""
        yield "Could not be measured:"
        yield ""
        yield from (f"* {failure.replace(chr(10), ' / ')}" for failure in dict.fromkeys(results.failures))


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
