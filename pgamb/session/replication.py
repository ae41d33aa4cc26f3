"""The startup parameter `replication`: whether a walsender is wanted, and of which kind."""

from __future__ import annotations

from enum import Enum

from pgamb.errors import InvalidParameterValue


class Replication(Enum):
    """What is wanted. A logical walsender belongs to a database, and runs SQL, too; a physical one to none."""

    NONE = "false"
    PHYSICAL = "true"
    LOGICAL = "database"


# As parse_bool(): any beginning that means but one of them. "o" could be both.
_WORDS = (
    ("true", True),
    ("yes", True),
    ("on", True),
    ("1", True),
    ("false", False),
    ("no", False),
    ("off", False),
    ("0", False),
)


def replication_of(value: str | None) -> Replication:
    """Read the parameter as ProcessStartupPacket does; raises InvalidParameterValue, in its words."""
    if value is None:
        return Replication.NONE
    if value == "database":
        return Replication.LOGICAL
    word = value.lower()
    if word and word != "o":
        for name, wanted in _WORDS:
            if name.startswith(word):
                return Replication.PHYSICAL if wanted else Replication.NONE
    raise InvalidParameterValue(
        f'invalid value for parameter "replication": "{value}"',
        hint='Valid values are: "false", 0, "true", 1, "database".',
    )
