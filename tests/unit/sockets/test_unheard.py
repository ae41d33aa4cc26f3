"""What is not acknowledged, and for how long: the kernel's answers, one look after the other."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pgamb.sockets.unheard import Unheard


@dataclass(eq=False)
class Connection:
    answer: float = -1

    def unheard_s(self) -> float:
        return self.answer


@pytest.mark.parametrize(
    ("looks", "late_at"),
    [
        # (seconds, the kernel's answer)
        ([(0, -1), (100, -1)], None),
        # Sent after an hour of silence: what counts begins now.
        ([(0, 3600), (4, 3604), (9, 3609)], None),
        ([(0, 3600), (4, 3604), (10, 3610)], 10),
        # Something was acknowledged in between, and more is owed.
        ([(0, 5), (6, 1), (14, 9)], None),
        ([(0, 5), (6, 1), (15, 10)], 15),
        # All was acknowledged in between.
        ([(0, 5), (6, -1), (7, 13), (12, 18)], None),
    ],
)
def test_when_it_is_late(looks: list[tuple[float, float]], late_at: float | None) -> None:
    connection, unheard = Connection(), Unheard(10.0)
    late = []
    for now, answer in looks:
        connection.answer = answer
        if unheard.overdue([connection], now):
            late.append(now)
    assert late == ([] if late_at is None else [late_at])


def test_those_that_are_gone_are_forgotten() -> None:
    one, other, unheard = Connection(0.0), Connection(0.0), Unheard(10.0)
    unheard.overdue([one, other], 0.0)
    one.answer = other.answer = 11.0
    assert unheard.overdue([other], 11.0) == [other]
    # It is seen for the first time again.
    assert unheard.overdue([one], 11.0) == []
