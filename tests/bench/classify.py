"""`python -m tests.bench.classify`: what a cache miss costs, in CPU time, for each kind of text.

Prints a Markdown table and asserts nothing. The best of several rounds counts: what is slower was disturbed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from pgamb.routing.classify import classify
from tests.support.workloads import NAMES, workload

ROUNDS = 5
SECONDS = 0.005
SIZES = ((50, 100), (100, 250), (250, 500), (500, 1000), (1000, 2500))


def cost_us(sql: bytes) -> float:
    """Measure one classification of a text, in microseconds of CPU time."""
    calls = 20
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(calls):
            classify(sql)
        spent = time.process_time() - start
        best = min(best, spent / calls)
        calls = max(calls, int(SECONDS / best))
    return best * 1e6


def row(name: str, texts: Sequence[bytes]) -> str:
    """Measure texts together: the median and the worst per 100 bytes, and the median of one classification."""
    costs = sorted((cost / len(sql) * 100, cost) for sql in texts for cost in [cost_us(sql)])
    middle = len(costs) // 2
    whole = sorted(cost for _, cost in costs)[middle]
    return f"| {name} | {len(texts)} | {whole:.1f} | {costs[middle][0]:.1f} | {costs[-1][0]:.1f} |"


def main() -> None:
    texts = {
        name: [sql.encode() for sql in workload(name).reads if SIZES[0][0] <= len(sql) <= SIZES[-1][1]]
        for name in NAMES
    }
    print("| texts | how many | us | us per 100 bytes | the worst |")  # noqa: T201
    print("| --- | ---: | ---: | ---: | ---: |")  # noqa: T201
    for name in NAMES:
        print(row(name, texts[name]))  # noqa: T201
    every = [sql for name in NAMES for sql in texts[name]]
    for least, most in SIZES:
        print(row(f"{least} to {most} bytes", [sql for sql in every if least <= len(sql) < most]))  # noqa: T201


if __name__ == "__main__":
    main()
