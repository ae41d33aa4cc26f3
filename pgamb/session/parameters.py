"""Session parameters as values: what a session has set, and how to make a backend agree with it.

PostgreSQL itself says what is in force: after a statement that may have changed a parameter, `SETTINGS_QUERY` reads
what differs from the defaults of the role and database. So SET, SET LOCAL, RESET, a rollback, `set_config` and a
function's side effects are all exact, and pgamb need not understand any of them.

Custom parameters (`SET tenant.id = ...`, which row-level security stands on) are the exception: PostgreSQL lists them
nowhere. Their names are told from the SQL that sets them (`session.custom`), and asked for one by one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence

# `role` is not among pg_settings. Operators are qualified: a session's search_path may hide them.
SETTINGS_QUERY = (
    b"SELECT name, setting FROM pg_catalog.pg_settings"
    b" WHERE source OPERATOR(pg_catalog.=) ANY ('{session,client}'::pg_catalog.text[])"
    b" UNION ALL SELECT 'role', pg_catalog.current_setting('role')"
    b" WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none'"
)


def settings_query(custom: Iterable[bytes] = ()) -> bytes:
    """Return the query for what a session has set, the custom parameters of these names included.

    A name that an extension has taken possession of meanwhile is in pg_settings like any other.
    """
    names = b", ".join(b"(" + _literal(name) + b")" for name in sorted(custom))
    if not names:
        return SETTINGS_QUERY
    return (
        SETTINGS_QUERY + b" UNION ALL SELECT custom.name, pg_catalog.current_setting(custom.name, true)"
        b" FROM (VALUES " + names + b") AS custom (name) WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_settings AS known"
        b" WHERE pg_catalog.lower(known.name) OPERATOR(pg_catalog.=) custom.name)"
    )


# Client encodings in which a byte that looks like ASCII may be part of another character (src/backend/utils/mb).
_TRAILING_ASCII = frozenset((b"SJIS", b"SHIFT_JIS_2004", b"BIG5", b"GBK", b"GB18030", b"UHC", b"JOHAB"))


class ParameterSet:
    """An immutable set of session parameters, names and values as PostgreSQL's bytes.

    Equal sets made by one `ParameterSets` are the same object, so that the data plane compares by identity.
    """

    __slots__ = ("__weakref__", "ambiguous", "items", "naming", "serializable")

    def __init__(self, items: Mapping[bytes, bytes]) -> None:
        self.items = dict(sorted(items.items()))
        # Whether a quote or a backslash in SQL may mean something else than it seems to.
        self.ambiguous = is_ambiguous(items)
        # A standby refuses each statement of such a session, even the one that would reset the parameter.
        self.serializable = items.get(b"default_transaction_isolation") == b"serializable"
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


def is_ambiguous(parameters: Mapping[bytes, bytes]) -> bool:
    """Tell whether under these parameters SQL cannot be read byte by byte with certainty."""
    return (
        parameters.get(b"standard_conforming_strings", b"on") != b"on"
        or parameters.get(b"client_encoding", b"UTF8").upper() in _TRAILING_ASCII
    )


EMPTY = ParameterSet({})


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
        return self.of({row[0]: row[1] for row in rows if row[0] is not None and row[1] is not None})

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
    text = b"NULL" if value is None else _literal(value)
    return b"pg_catalog.set_config(" + _literal(name) + b", " + text + b", false)"


def _literal(value: bytes) -> bytes:
    return b"E'" + value.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"
