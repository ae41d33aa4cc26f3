"""The startup parameter `replication`, as ProcessStartupPacket reads it."""

from __future__ import annotations

import pytest

from pgamb.errors import InvalidParameterValue
from pgamb.session.replication import Replication, replication_of


@pytest.mark.parametrize("value", ["true", "TRUE", "t", "tru", "yes", "y", "on", "On", "1"])
def test_physical(value: str) -> None:
    assert replication_of(value) is Replication.PHYSICAL


def test_logical() -> None:
    assert replication_of("database") is Replication.LOGICAL


@pytest.mark.parametrize("value", [None, "false", "F", "no", "n", "off", "of", "0"])
def test_none(value: str | None) -> None:
    assert replication_of(value) is Replication.NONE


@pytest.mark.parametrize("value", ["", "o", "DATABASE", "truth", "yes!", "10", " on", "2"])
def test_anything_else_is_refused(value: str) -> None:
    with pytest.raises(InvalidParameterValue, match="invalid value for parameter"):
        replication_of(value)
