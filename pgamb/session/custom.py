"""Custom parameters (`tenant.id`), told from the SQL that sets them: PostgreSQL itself lists them nowhere.

A name too many does no harm (PostgreSQL is asked for it, and knows nothing); one too few would let the next session
see its value. So where a name may be there that the text does not show, that is said too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = rb'(?:[A-Za-z_\x80-\xff][\w$\x80-\xff]*|"[^"]*")'
_SET = re.compile(rb"\bset\s+(?:session\s+|local\s+)?(" + _PART + rb"(?:\s*\.\s*" + _PART + rb")+)", re.IGNORECASE)
_CALL = re.compile(rb'\bset_config"?\s*\(', re.IGNORECASE)
_LITERAL_NAME = re.compile(rb"\s*'([^'\\]*)'\s*,")
# set_config(..., true), whose value ends with the transaction; told only where its arguments are as plain as can be.
_LOCAL = re.compile(rb"\s*[^(),'\"]+,\s*(?:[^(),'\"]+|'[^'\\]*'),\s*(?:true|'t(?:rue)?')\s*\)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CustomParameters:
    """The custom parameters that a text may set; `hidden`: it may set some whose names it does not show."""

    names: frozenset[bytes]
    hidden: bool

    @classmethod
    def of(cls, sql: bytes, name: str | None = None) -> CustomParameters:
        """Find them in a text; `name` is what a single SET sets, as routing has understood it."""
        names = {_plain(match[1]) for match in _SET.finditer(sql)}
        if name is not None:
            names.add(name.encode("utf-8", "surrogateescape").lower())
        hidden = False
        for call in _CALL.finditer(sql):
            literal = _LITERAL_NAME.match(sql, call.end())
            if literal is not None:
                names.add(literal[1].lower())
            else:
                hidden = hidden or _LOCAL.match(sql, call.end()) is None
        return cls(frozenset(each for each in names if b"." in each), hidden)


def _plain(name: bytes) -> bytes:
    """Return a dotted name without its quotes; PostgreSQL finds parameters without regard to case."""
    return re.sub(rb"\s*\.\s*", b".", name).replace(b'"', b"").lower()
