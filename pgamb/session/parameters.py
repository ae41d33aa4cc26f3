"""Session parameters as values: what a session has set, and how to make a backend agree with it.

PostgreSQL itself says what is in force: after a statement that may have changed a parameter, `SETTINGS_QUERY` reads
what differs from the defaults of the role and database. So SET, SET LOCAL, RESET, a rollback, `set_config` and a
function's side effects are all exact, and pgamb need not understand any of them.

Custom parameters (`SET tenant.id = ...`, which row-level security stands on) are the exception: PostgreSQL lists them
nowhere. Their names are told from the SQL that sets them (`session.custom`), and asked for one by one.

Names and values are kept in the encoding of the database, and travel as ASCII in both directions: the session that sets
a value and the one that had a backend before may use different client encodings.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Mapping, Sequence


def _as_ascii(text: bytes) -> bytes:
    """Return the SQL that gives a text with what is not ASCII as backslash and octal number; `_plain` undoes it."""
    return b"pg_catalog.encode(pg_catalog.convert_to(" + text + b", pg_catalog.getdatabaseencoding()), 'escape')"


# `role` is not among pg_settings. What is said of one transaction keeps the session as its source when that has ended,
# and cannot be set outside of one. Operators are qualified: a session's search_path may hide them.
SETTINGS_QUERY = (
    b"SELECT " + _as_ascii(b"name") + b", " + _as_ascii(b"setting") + b" FROM pg_catalog.pg_settings"
    b" WHERE source OPERATOR(pg_catalog.=) ANY ('{session,client}'::pg_catalog.text[])"
    b" AND name OPERATOR(pg_catalog.<>) ALL"
    b" ('{transaction_isolation,transaction_read_only,transaction_deferrable}'::pg_catalog.text[])"
    b" UNION ALL SELECT 'role', "
    + _as_ascii(b"pg_catalog.current_setting('role')")
    + b" WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'"
)


# In front of a query of ours that a session's statement_timeout has cut off: it tells what that is, and lifts it.
UNHURRIED = (
    b"SELECT 'statement_timeout', (EXTRACT(epoch FROM pg_catalog.current_setting('statement_timeout')"
    b"::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000)::pg_catalog.int8::pg_catalog.text;"
    b" SET LOCAL statement_timeout = 0; "
)


def settings_query(custom: Iterable[bytes] = ()) -> bytes:
    """Return the query for what a session has set, the custom parameters of these names included.

    A name that an extension has taken possession of meanwhile is in pg_settings like any other.
    """
    names = b", ".join(b"(" + _literal(name) + b")" for name in sorted(custom))
    if not names:
        return SETTINGS_QUERY
    return (
        SETTINGS_QUERY
        + b" UNION ALL SELECT "
        + _as_ascii(b"custom.name")
        + b", "
        + _as_ascii(b"pg_catalog.current_setting(custom.name, true)")
        + b" FROM (VALUES "
        + names
        + b") AS custom (name) WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_settings AS known"
        b" WHERE pg_catalog.lower(known.name) OPERATOR(pg_catalog.=) custom.name)"
    )


# Client encodings in which a byte that looks like ASCII may be part of another character (src/backend/utils/mb).
_TRAILING_ASCII = frozenset((b"SJIS", b"SHIFT_JIS_2004", b"BIG5", b"GBK", b"GB18030", b"UHC", b"JOHAB"))


class ParameterSet:
    """An immutable set of session parameters, names and values as PostgreSQL's bytes.

    Equal sets made by one `ParameterSets` are the same object, so that the data plane compares by identity.
    """

    __slots__ = ("__weakref__", "ambiguous", "items", "naming", "serializable", "snapshot")

    def __init__(self, items: Mapping[bytes, bytes]) -> None:
        self.items = dict(sorted(items.items()))
        # Whether a quote or a backslash in SQL may mean something else than it seems to.
        self.ambiguous = is_ambiguous(items)
        # A standby refuses each statement of such a session, even the one that would reset the parameter.
        self.serializable = items.get(b"default_transaction_isolation") == b"serializable"
        self.snapshot = items.get(b"default_transaction_isolation") in (b"serializable", b"repeatable read")
        # What decides which table a name means: the same text under another one may be another statement.
        self.naming = (items.get(b"search_path"), items.get(b"role"))

    def __repr__(self) -> str:
        return f"<ParameterSet {self.items!r}>"

    def sync_sql(self, wanted: ParameterSet) -> bytes:
        """Return the one query that turns a session with these parameters into one with those of `wanted`."""
        calls = []
        if self.items.get(b"role") != wanted.items.get(b"role") and b"role" in self.items:
            # First back to the log-in role: another role may not be allowed to set the rest.
            calls.append(_set_config(b"role", b"none"))
        calls += [_set_config(name, None) for name in self.items if name not in wanted.items and name != b"role"]
        calls += [
            _set_config(name, value)
            for name, value in wanted.items.items()
            if name != b"role" and self.items.get(name) != value
        ]
        if b"role" in wanted.items and self.items.get(b"role") != wanted.items[b"role"]:
            calls.append(_set_config(b"role", wanted.items[b"role"]))
        return b"SELECT " + b", ".join(calls)


class Expression(bytes):
    """A value as SQL that gives it."""


def set_config_query(items: Mapping[bytes, bytes], *, defaults: Mapping[bytes, bytes]) -> bytes:
    """Return the query that sets parameters for the session, those of `defaults` only where they have never been set.

    A value may be an `Expression`.
    """
    calls = [_set_config(name, value) for name, value in items.items()]
    calls += [
        b"CASE WHEN pg_catalog.current_setting("
        + _literal(name)
        + b", true) IS NULL OR pg_catalog.current_setting("
        + _literal(name)
        + b", true) OPERATOR(pg_catalog.=) '' THEN "
        + _set_config(name, value)
        + b" END"
        for name, value in defaults.items()
    ]
    return b"SELECT " + b", ".join(calls)


def is_ambiguous(parameters: Mapping[bytes, bytes]) -> bool:
    """Tell whether under these parameters SQL cannot be read byte by byte with certainty."""
    return (
        parameters.get(b"standard_conforming_strings", b"on") != b"on"
        or parameters.get(b"client_encoding", b"UTF8").upper() in _TRAILING_ASCII
    )


EMPTY = ParameterSet({})


def items_of_rows(rows: Iterable[Sequence[bytes | None]]) -> dict[bytes, bytes]:
    """Return the names and values that `SETTINGS_QUERY` has reported."""
    return {_plain(row[0]): _plain(row[1]) for row in rows if row[0] is not None and row[1] is not None}


_ESCAPE = re.compile(rb"\\(?:\\|([0-7]{3}))")


def _plain(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]) if found[1] else b"\\", text)


class ParameterSets:
    """Makes equal sets the same object for as long as somebody holds it."""

    def __init__(self) -> None:
        self._sets: weakref.WeakValueDictionary[tuple[tuple[bytes, bytes], ...], ParameterSet] = (
            weakref.WeakValueDictionary()
        )

    def of(self, items: Mapping[bytes, bytes]) -> ParameterSet:
        """Return the set with these items."""
        if not items:
            return EMPTY
        key = tuple(sorted(items.items()))
        found = self._sets.get(key)
        if found is None:
            found = self._sets[key] = ParameterSet(items)
        return found

    def of_rows(self, rows: Iterable[Sequence[bytes | None]]) -> ParameterSet:
        """Return the set that `SETTINGS_QUERY` has reported."""
        return self.of(items_of_rows(rows))

    def overlay(self, below: ParameterSet, above: ParameterSet, *, after_reset: bool = False) -> ParameterSet:
        """Return `above` with what only `below` has.

        What a session asked for when it connected is what RESET and DISCARD return to. A custom parameter is never
        gone, only empty: `after_reset` says that being empty means that.
        """
        if after_reset:
            empty = [name for name in below.items if b"." in name and above.items.get(name) == b""]
            if empty:
                above = self.of({name: value for name, value in above.items.items() if name not in empty})
        if all(name in above.items for name in below.items):
            return above
        return self.of({**below.items, **above.items})


def _set_config(name: bytes, value: bytes | None) -> bytes:
    # A null resets. E'' means the same whatever standard_conforming_strings is.
    text = b"NULL" if value is None else value if isinstance(value, Expression) else _literal(value)
    # What it returns might have no equivalent in the client encoding.
    return b"pg_catalog.set_config(" + _literal(name) + b", " + text + b", false) IS NULL"


def _literal(value: bytes) -> bytes:
    """Quote so that it means the same in every client encoding, and whatever standard_conforming_strings is."""
    quoted = value.replace(b"\\", b"\\\\").replace(b"'", b"''")
    if not quoted.isascii():
        quoted = b"".join(b"\\%03o" % byte if byte >= 0x80 else bytes([byte]) for byte in quoted)
    return b"E'" + quoted + b"'"
