"""Custom parameters (`tenant.id`), told from the SQL that sets them: PostgreSQL itself lists them nowhere.

A name too many does no harm (PostgreSQL is asked for it, and knows nothing); one too few would let the next session
see its value. So where a name may be there that the text does not show, that is said too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_PART = rb'(?:[A-Za-z_\x80-\xff][\w$\x80-\xff]*|"[^"]*")'
_SET = re.compile(rb"\bset\s+(?:session\s+|local\s+)?(" + _PART + rb"(?:\s*\.\s*" + _PART + rb")+)", re.IGNORECASE)
_CALL = re.compile(rb'\bset_config"?\s*\(', re.IGNORECASE)
_BOUND_NAME = re.compile(rb"\s*\$([0-9]{1,5})\s*(?:::\s*(?:pg_catalog\s*\.\s*)?text\s*)?,", re.IGNORECASE)
_LITERAL_NAME = re.compile(rb"\s*'([^'\\]*)'\s*,")
# set_config(..., true), whose value ends with the transaction; told only where its arguments are as plain as can be.
_LOCAL = re.compile(rb"\s*[^(),'\"]+,\s*(?:[^(),'\"]+|'[^'\\]*'),\s*(?:true|'t(?:rue)?')\s*\)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CustomParameters:
    """The custom parameters that a text may set.

    `hidden`: it may set some whose names it does not show. `bound`: the positions, from 0 on, of the values in a Bind
    that are names.
    """

    names: frozenset[bytes]
    hidden: bool
    bound: tuple[int, ...] = ()

    @classmethod
    def of(cls, sql: bytes, name: str | None = None) -> CustomParameters:
        """Find them in a text; `name` is what a single SET sets, as routing has understood it."""
        names = {_plain(match[1]) for match in _SET.finditer(sql)}
        if name is not None:
            names.add(name.encode("utf-8", "surrogateescape").lower())
        hidden = False
        bound = set()
        for call in _CALL.finditer(sql):
            if literal := _LITERAL_NAME.match(sql, call.end()):
                names.add(literal[1].lower())
            elif _LOCAL.match(sql, call.end()) is not None:
                continue
            elif value := _BOUND_NAME.match(sql, call.end()):
                bound.add(max(int(value[1]), 1) - 1)
            else:
                hidden = True
        return cls(frozenset(each for each in names if b"." in each), hidden, tuple(sorted(bound)))


def bound_names(values: bytes, positions: tuple[int, ...]) -> frozenset[bytes]:
    """Find the names of custom parameters in what follows the two names of a Bind, which may be malformed."""
    at = 2 + 2 * int.from_bytes(values[:2], "big")
    count = int.from_bytes(values[at : at + 2], "big")
    at += 2
    names = set()
    for position in range(min(count, positions[-1] + 1)):
        length = int.from_bytes(values[at : at + 4], "big", signed=True)
        at += 4
        if length >= 0:
            # A text is the same in both formats.
            if position in positions:
                names.add(values[at : at + length].lower())
            at += length
    return frozenset(name for name in names if b"." in name)


def names_in_functions(fragments: Iterable[bytes]) -> frozenset[bytes]:
    """Find the custom parameters that functions may set, in those pieces of their bodies that look like it."""
    # Quotes are doubled in dynamic SQL, and PostgreSQL prints the type of a literal.
    plain = [fragment.replace(b"''", b"'").replace(b"::text", b"") for fragment in fragments]
    found = [CustomParameters.of(fragment + b" ") for fragment in plain]
    return frozenset(name for each in found for name in each.names)


def _plain(name: bytes) -> bytes:
    """Return a dotted name without its quotes; PostgreSQL finds parameters without regard to case."""
    return re.sub(rb"\s*\.\s*", b".", name).replace(b'"', b"").lower()
