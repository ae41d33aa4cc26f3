"""How a name of the catalogue may stand in SQL, as the lexer gives it in lower case."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pgamb.routing.lexer import NAME_BYTES

_PLAIN = re.compile(r"[a-z_][a-z0-9_$]*")
# A cut identifier is this long, or up to three bytes shorter where a character would be cut in two.
_MAYBE_CUT_BYTES = NAME_BYTES - 3


def as_bytes(name: str) -> bytes:
    """Give the bytes of a name of the catalogue."""
    return name.encode("utf-8", "surrogateescape")


def is_plain(name: str) -> bool:
    """Tell whether a name can be written without quotes, whatever the client encoding."""
    return _PLAIN.fullmatch(name) is not None


def may_be_cut(name: str) -> bool:
    """Tell whether a longer name in SQL may be this one: PostgreSQL cuts identifiers."""
    return len(as_bytes(name)) >= _MAYBE_CUT_BYTES


def spellings(name: str, schema: str | None = None, database: str | None = None) -> Iterator[bytes]:
    """Give the words that a statement which names this has at least one of.

    Two kinds may be spelled otherwise: names outside ASCII, in another client encoding, and those that may be cut.
    """
    yield b'"' + as_bytes(name.replace('"', '""')).lower() + b'"'
    if not is_plain(name):
        return
    yield as_bytes(name)
    if schema is not None and is_plain(schema):
        yield as_bytes(f"{schema}.{name}")
        if database is not None and is_plain(database):
            yield as_bytes(f"{database}.{schema}.{name}")
