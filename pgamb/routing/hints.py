"""pgamb's own words in SQL: a leading comment, and the parameters `pgamb.*`."""

from __future__ import annotations

import enum
import re

from pgamb.routing.intent import Intent, Need
from pgamb.routing.lexer import scan

ROLE = "pgamb.role"
MIN_LSN = "pgamb.min_lsn"
LSN = "pgamb.lsn"
LAST_ROUTE = "pgamb.last_route"
STATUS = "pgamb.status"
SHOWN = frozenset({ROLE, MIN_LSN, LSN, LAST_ROUTE, STATUS})
"""What SHOW tells; the first two may be set."""

_COMMENT = re.compile(rb"\s*/\*\s*pgamb:\s*(primary|replica)\s*\*/", re.IGNORECASE)
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}(?:@[0-9]{1,10})?")


class Wish(enum.IntEnum):
    """Where an application wants its statements to go."""

    AUTO = 0
    PRIMARY = 1
    REPLICA = 2


_WISHES = {wish.name.lower(): wish for wish in Wish}


def wish_of_comment(sql: bytes) -> Wish:
    """Read a leading `/* pgamb: primary */` or `/* pgamb: replica */`."""
    found = _COMMENT.match(sql) if b"pgamb" in sql else None
    return _WISHES[found[1].decode().lower()] if found else Wish.AUTO


def wish_of_role(value: str) -> Wish | None:
    """Read the value of `pgamb.role`; None if it is none."""
    return _WISHES.get(value.strip().lower()) if value.strip() else Wish.AUTO


def refusal(intent: Intent, sql: bytes) -> tuple[str, str] | None:
    """Tell what is wrong with a SET of pgamb's own parameters, and what to do; None if nothing is."""
    if not intent.need & Need.SET or intent.name is None or not intent.name.startswith("pgamb."):
        return None
    words = [token.decode(errors="replace") for token in scan(sql).words if token != b";"]
    if words[0] == "reset":
        return None
    if intent.name not in (ROLE, MIN_LSN):
        return f'parameter "{intent.name}" cannot be changed', f"Set {ROLE} or {MIN_LSN}; the others are for SHOW."
    value = words[-1].strip("'\"")
    if words[-1] == "default" or not value:
        return None
    if intent.name == ROLE and wish_of_role(value) is None:
        return f'invalid value for parameter "{ROLE}": "{value}"', "It is primary, replica or auto."
    if intent.name == MIN_LSN and _LSN.fullmatch(value) is None:
        return (
            f'invalid value for parameter "{MIN_LSN}": "{value}"',
            f"Give what SHOW {LSN} or pg_current_wal_lsn() says, such as 0/1375C000.",
        )
    return None


def in_quotes(intent: Intent, sql: bytes) -> bytes | None:
    """Return `SET pgamb.role = primary` as PostgreSQL takes it: the word is reserved. None for everything else."""
    if intent.name != ROLE or not intent.need & (Need.SET | Need.NEUTRAL):
        return None
    found = re.fullmatch(rb"(?is)(\s*set\s.*(?:=|\sto)\s*)primary([\s;]*)", sql)
    return found[1] + b"'primary'" + found[2] if found else None


def raising(message: str, hint: str) -> bytes:
    """Return SQL that fails with this error: PostgreSQL itself then keeps the transaction's state right."""
    body = f"BEGIN RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = {_quoted(message)}, HINT = {_quoted(hint)}; END"
    return f"DO LANGUAGE plpgsql {_quoted(body)}".encode()


def _quoted(text: str) -> str:
    """Quote a literal that means the same whatever standard_conforming_strings is."""
    return "'" + text.replace("\\", "/").replace("'", "''") + "'"
