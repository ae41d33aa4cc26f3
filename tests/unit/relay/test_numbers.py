"""The data plane spells routing's numbers in C: they must be routing's."""

from __future__ import annotations

import enum
import re
from pathlib import Path

import pytest

import pgamb.relay
from pgamb.routing.control import Control, Isolation
from pgamb.routing.hints import Wish
from pgamb.routing.intent import Need, Pin

TEXT = (Path(pgamb.relay.__file__).parent / "numbers.pxd").read_text()
OWN_PINS = {"PIN_BACKEND_PID", "PIN_SEQUENCES", "PIN_SESSION_MODE"}


@pytest.mark.parametrize("numbers", [Need, Pin, Control, Isolation, Wish])
def test_each_member_has_its_number(numbers: type[enum.IntEnum] | type[enum.IntFlag]) -> None:
    prefix = numbers.__name__.upper()
    spelled = {name: int(number) for name, number in re.findall(rf"^    ({prefix}_\w+) = (\d+)$", TEXT, re.MULTILINE)}
    assert spelled == {f"{prefix}_{member.name}": int(member) for member in numbers}


def test_pins_of_the_data_plane_are_nobody_elses() -> None:
    own = {name: 1 << int(bit) for name, bit in re.findall(r"^    (PIN_\w+) = 1 << (\d+)$", TEXT, re.MULTILINE)}
    assert set(own) == OWN_PINS
    assert not any(pin & number for number in own.values() for pin in Pin)
