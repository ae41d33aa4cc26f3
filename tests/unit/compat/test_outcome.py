"""The arithmetic of `make compat`: what counts as a failure, what as a difference, and where it is said."""

from __future__ import annotations

import pytest

from tests.compat.outcome import Outcome, remarks, table


@pytest.mark.parametrize(
    ("direct", "through", "differences", "failed", "differing", "outdated"),
    [
        (True, True, {}, (), (), ()),
        (True, False, {}, ("t",), (), ()),
        (False, False, {}, (), (), ()),
        (False, True, {}, (), (), ()),
        (True, None, {}, ("t",), (), ()),  # what did not even run through pgamb has failed there
        (True, False, {"t": "a pid"}, (), ("t",), ()),
        (True, True, {"t": "a pid"}, (), (), ("t",)),
        (True, False, {"another": "a pid"}, ("t",), (), ()),
    ],
)
def test_what_passes_direct_has_to_pass_through(
    direct: bool,
    through: bool | None,
    differences: dict[str, str],
    failed: tuple[str, ...],
    differing: tuple[str, ...],
    outdated: tuple[str, ...],
) -> None:
    outcome = Outcome("1", {"t": direct}, {} if through is None else {"t": through}, differences)
    assert (outcome.failed, outcome.differing, outcome.outdated) == (failed, differing, outdated)


def test_a_table_has_a_row_for_each_suite() -> None:
    outcomes = {
        "one": Outcome("15.1", {"a": True, "b": False, "c": True}, {"a": True, "b": False, "c": False}, {"c": "why"}),
        "two": Outcome("3", {"a": True}, {"a": True}),
    }
    assert table(outcomes).splitlines()[2:] == ["| one | 15.1 | 3 | 2 | 1 | 1 |", "| two | 3 | 1 | 1 | 1 | 0 |"]


def test_what_failed_is_said_last() -> None:
    outcome = Outcome(
        "1", {"a": True, "b": True, "c": True}, {"c": True}, {"b": "a pid", "c": "a key"}, {"a": "what it said"}
    )
    assert list(remarks({"suite": outcome})) == [
        "differs: suite: b: a pid",
        "listed as a difference, and passes: suite: c",
        "--- suite: a\nwhat it said",
        "FAILED suite: a",
    ]
