"""What one backend alone has of its session, as PostgreSQL itself tells: whether it has to stay with that session.

A text shows what may pin, not what does: a lock that was not to be had, a table that was dropped again or rolled back,
a function that listens. So the text only says when to ask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

# No parameter has such a name: these rows stand among those of `parameters.SETTINGS_QUERY`.
_HELD, _USER = b"what is held", b"who it is"

# Words are the names of `routing.intent.Pin`. The functions behind the views are quicker to plan, and operators are
# qualified because a session's search_path may hide them. Everything in a schema depends on it (2615 is pg_namespace);
# outside of a transaction, the only advisory locks are the session's.
HELD_QUERY = (
    b"SELECT '" + _HELD + b"', pg_catalog.concat_ws(' '"
    b", CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615"
    b" AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) THEN 'temporary' END"
    b", CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_listening_channels()) THEN 'listen' END"
    b", CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_lock_status() AS held"
    b" WHERE held.locktype OPERATOR(pg_catalog.=) 'advisory'"
    b" AND held.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) THEN 'advisory_lock' END"
    b", CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_cursor() WHERE is_holdable) THEN 'hold_cursor' END)"
    b" UNION ALL SELECT '" + _USER + b"', session_user::pg_catalog.text"
)


def pins_held(rows: Iterable[Sequence[bytes | None]], user: bytes) -> set[str] | None:
    """Return the names of the pins that HELD_QUERY has found in a session of `user`; None if its rows are missing.

    A name outside ASCII may come in another encoding than `user`: it tells nothing.
    """
    found: set[str] | None = None
    for name, value in rows:
        if name == _HELD:
            found = {*(found or ()), *(value or b"").decode().split()}
        elif name == _USER and user.isascii() and value != user:
            found = {*(found or ()), "session_authorization"}
    return found


def without_pins(rows: Iterable[Sequence[bytes | None]]) -> list[Sequence[bytes | None]]:
    """Return the rows that tell of parameters."""
    return [row for row in rows if row[0] not in (_HELD, _USER)]
