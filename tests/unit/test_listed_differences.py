"""A listed difference of PostgreSQL's own suites excuses the lines that it names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.pg_regress import Difference, diffs

LISTED = Difference("why", (" [tf]", "ERROR:  no such thing"))
HEAD = "--- /a/expected/stats.out\t2026\n+++ /a/results/stats.out\t2026\n@@ -1,3 +1,3 @@\n"


@pytest.mark.parametrize(
    ("lines", "explained"),
    [
        ("- t\n+ f\n same\n", True),
        ("+ERROR:  no such thing\n", True),
        ("- t\n+ f\n+ERROR:  another\n", False),
        ("-ERROR:  no such thing at all\n", False),
        ("-\n", False),
        (" same\n", False),
        ("---- t\n", False),
    ],
)
def test_a_difference_explains_its_own_lines(lines: str, explained: bool) -> None:
    assert LISTED.explains(HEAD + lines) == explained


def test_the_diffs_of_each_test(tmp_path: Path) -> None:
    file = tmp_path / "regression.diffs"
    assert diffs(file) == {}
    file.write_text(
        f"diff -U3 /a/expected/one.out /a/results/one.out\n{HEAD}- t\n"
        f"diff -U3 /a/expected/two_1.out /a/results/two.out\n{HEAD}+ f\n"
    )
    assert diffs(file) == {"one": f"{HEAD}- t\n", "two": f"{HEAD}+ f\n"}
