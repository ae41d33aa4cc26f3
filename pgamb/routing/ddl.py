"""Which commands may change what a catalogue says, told by their command tags."""

from __future__ import annotations

import enum
import re


class Change(enum.Enum):
    """What is to be done about a catalogue after a command."""

    NONE = enum.auto()
    """Nothing: the command changes nothing of interest."""
    PERHAPS = enum.auto()
    """Look before long: it runs code that may have changed something."""
    LOOSENED = enum.auto()
    """Look at once. Until then what is known is only too careful: something was dropped."""
    AT_ONCE = enum.auto()
    """What is known counts no more: look at once."""


# Objects that no query can be more than a read for. TABLE and the like stay, because their names do.
_HARMLESS_OBJECTS = (
    b"ACCESS METHOD",
    b"COLLATION",
    b"CONVERSION",
    b"DATABASE",
    b"DEFAULT PRIVILEGES",
    b"EVENT TRIGGER",
    b"FOREIGN DATA WRAPPER",
    b"INDEX",
    b"LARGE OBJECT",
    b"OPERATOR CLASS",
    b"OPERATOR FAMILY",
    b"PROCEDURE",
    b"PUBLICATION",
    b"ROLE",
    b"SERVER",
    b"STATISTICS",
    b"SUBSCRIPTION",
    b"SYSTEM",
    b"TABLESPACE",
    b"TEXT SEARCH",
    b"TRIGGER",
    b"USER",
)


def change_of(tag: bytes) -> Change:
    """Tell what a command of this tag may have changed. A tag of an object that is not known here counts in full."""
    verb, _, target = tag.rstrip(b"\0").partition(b" ")
    match verb:
        case b"CREATE" | b"ALTER":
            return Change.NONE if target.startswith(_HARMLESS_OBJECTS) else Change.AT_ONCE
        case b"IMPORT":
            return Change.AT_ONCE
        case b"DROP":
            return Change.NONE if target.startswith(_HARMLESS_OBJECTS) else Change.LOOSENED
        case b"DO" | b"CALL":
            return Change.PERHAPS
    return Change.NONE


_PLAIN_TABLE = re.compile(rb"\s*create\s+table\b", re.IGNORECASE)
_NOT_PLAIN = re.compile(rb"\b(?:as|of|inherits|partition|select)\b|/\*|--|;\s*\S|\"", re.IGNORECASE)


def makes_plain_table(sql: bytes) -> bool:
    """Tell a CREATE TABLE after which every query is what it was: a new table, of its own, that is logged."""
    return _PLAIN_TABLE.match(sql) is not None and _NOT_PLAIN.search(sql) is None
