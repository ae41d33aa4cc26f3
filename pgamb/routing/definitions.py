"""What a CREATE, ALTER or DROP does to the session besides, as its words show."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from pgamb.routing.intent import NO_NEED, NO_PIN, Intent, Need, Pin
from pgamb.routing.statement import Statement

_SEQUENCE_FUNCTIONS = frozenset((b"currval", b"lastval"))
# Not LANGUAGE 'c': a text's intent must not hang on its constants.
_IN_C = (b"language", b"c")


def intent_of_alter(statement: Statement) -> Intent:
    """Tell what an ALTER needs."""
    return Intent(need_of_definition(statement.words), NO_PIN, NO_PIN, "ALTER belongs on the primary")


def intent_of_drop(_statement: Statement) -> Intent:
    """Tell what a DROP needs; what it drops may be the last of what is temporary."""
    return Intent(NO_NEED, NO_PIN, Pin.TEMPORARY, "DROP belongs on the primary")


def need_of_definition(words: Sequence[bytes]) -> Need:
    """Notice a definition, say of a column's default, that asks what the session has got from a sequence."""
    asks = any(word.rpartition(b".")[2] in _SEQUENCE_FUNCTIONS for word in words)
    return Need.SEQUENCE if asks else NO_NEED


def pins_of_definition(words: Sequence[bytes]) -> Pin:
    """Notice a function in C: PostgreSQL loads its library, as LOAD does, to see whether it is there."""
    return Pin.LOAD if _IN_C in pairwise(words) else NO_PIN
