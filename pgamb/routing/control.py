"""Transaction control: what a BEGIN, a COMMIT or a SAVEPOINT says.

Only a statement that is understood whole has a kind; every other one is PostgreSQL's to judge.
"""

from __future__ import annotations

import enum

import msgspec

from pgamb.routing.functions import RESERVED, RESERVED_FUNCTION_NAMES
from pgamb.routing.lexer import NAME_BYTES, identifier, scan


class Control(enum.IntEnum):
    """What a single statement does to its transaction."""

    NONE = 0
    """Nothing, or nothing that is understood."""
    BEGIN = 1
    COMMIT = 2
    COMMIT_CHAIN = 3
    ROLLBACK = 4
    ROLLBACK_CHAIN = 5
    SAVEPOINT = 6
    RELEASE = 7
    ROLLBACK_TO = 8
    SET_TRANSACTION = 9
    PREPARE_TRANSACTION = 10


class Isolation(enum.IntEnum):
    """The isolation level that is asked for; READ UNCOMMITTED is READ COMMITTED in PostgreSQL."""

    DEFAULT = 0
    READ_COMMITTED = 1
    REPEATABLE_READ = 2
    SERIALIZABLE = 3


class Command(msgspec.Struct, frozen=True):
    """A statement of transaction control.

    `savepoint` is the name of one; `read_only` is None if nothing is said; `plain`: it has no transaction modes at all;
    `start`: it is a START TRANSACTION, whose command tag is not BEGIN's.
    """

    kind: Control
    savepoint: str | None = None
    isolation: Isolation = Isolation.DEFAULT
    read_only: bool | None = None
    plain: bool = True
    start: bool = False


NO_CONTROL = Command(Control.NONE)

_ENDS = {
    b"commit": (Control.COMMIT, Control.COMMIT_CHAIN),
    b"end": (Control.COMMIT, Control.COMMIT_CHAIN),
    b"rollback": (Control.ROLLBACK, Control.ROLLBACK_CHAIN),
    b"abort": (Control.ROLLBACK, Control.ROLLBACK_CHAIN),
}
_BLOCK = (b"work", b"transaction")
_LEVELS = {
    (b"read", b"committed"): Isolation.READ_COMMITTED,
    (b"read", b"uncommitted"): Isolation.READ_COMMITTED,
    (b"repeatable", b"read"): Isolation.REPEATABLE_READ,
    (b"serializable",): Isolation.SERIALIZABLE,
}


def control_of(sql: bytes) -> Command:
    """Tell what one statement of transaction control does; the text holds no other statement."""
    scanned = scan(sql)
    words = list(scanned.words)
    tokens = list(scanned.tokens)
    while words and words[-1] == b";":
        words.pop()
        tokens.pop()
    if scanned.junk or not words or b";" in words:
        return NO_CONTROL
    first, rest = words[0], words[1:]
    if first == b"start" and rest[:1] == [b"transaction"]:
        return _modes(Control.BEGIN, rest[1:], start=True)
    if first == b"begin":
        return _modes(Control.BEGIN, rest[1:] if rest[:1] and rest[0] in _BLOCK else rest)
    if first == b"set" and rest[:1] == [b"transaction"] and rest[1:2] != [b"snapshot"]:
        command = _modes(Control.SET_TRANSACTION, rest[1:])
        return NO_CONTROL if command.plain else command
    if first == b"savepoint" and len(words) == 2:
        return _named(Control.SAVEPOINT, tokens[1])
    if first == b"release":
        return _last_named(Control.RELEASE, tokens[1:], rest)
    if first == b"prepare" and rest[:1] == [b"transaction"]:
        return Command(Control.PREPARE_TRANSACTION)
    if first not in _ENDS:
        return NO_CONTROL
    if rest[:1] and rest[0] in _BLOCK:
        rest = rest[1:]
        tokens = tokens[1:]
    if first == b"rollback" and rest[:1] == [b"to"]:
        return _last_named(Control.ROLLBACK_TO, tokens[2:], rest[1:])
    plain, chain = _ENDS[first]
    if rest in ([], [b"and", b"no", b"chain"]):
        return Command(plain)
    return Command(chain) if rest == [b"and", b"chain"] else NO_CONTROL


def _last_named(kind: Control, tokens: list[bytes], words: list[bytes]) -> Command:
    """`[SAVEPOINT] name`; SAVEPOINT alone is a name."""
    if len(words) == 2 and words[0] == b"savepoint":
        tokens = tokens[1:]
    return _named(kind, tokens[0]) if len(tokens) == 1 else NO_CONTROL


def _named(kind: Control, token: bytes) -> Command:
    """A name that PostgreSQL takes without a word: it refuses keywords, and has a NOTICE for what it must cut."""
    word = token.lower()
    if word in RESERVED or word in RESERVED_FUNCTION_NAMES or len(token) > NAME_BYTES or token[-1:] == b"'":
        return NO_CONTROL
    name = identifier(token)
    return NO_CONTROL if name is None or ("." in name and token[:1] != b'"') else Command(kind, name)


def _modes(kind: Control, words: list[bytes], *, start: bool = False) -> Command:
    """Read transaction modes: of each the last one counts, as for PostgreSQL."""
    isolation = Isolation.DEFAULT
    read_only: bool | None = None
    plain = not words
    while words:
        if words[:2] == [b"isolation", b"level"]:
            size = 1 if words[2:3] == [b"serializable"] else 2
            level = _LEVELS.get(tuple(words[2 : 2 + size]))
            if level is None:
                return NO_CONTROL
            isolation = level
            words = words[2 + size :]
        elif words[:2] in ([b"read", b"only"], [b"read", b"write"]):
            read_only = words[1] == b"only"
            words = words[2:]
        elif words[:1] == [b"deferrable"]:
            words = words[1:]
        elif words[:2] == [b"not", b"deferrable"]:
            words = words[2:]
        else:
            return NO_CONTROL
        # Commas may be left out.
        if words[:1] == [b","]:
            words = words[1:]
            if not words:
                return NO_CONTROL
    return Command(kind, None, isolation, read_only, plain, start)


_SNAPSHOTS = frozenset(
    b"select values table with ( insert update delete merge explain declare copy create call do".split()
)


def takes_snapshot(sql: bytes) -> bool:
    """Tell whether PostgreSQL takes a snapshot for a statement: SET TRANSACTION is too late behind it.

    True for everything that begins like a query, a change, or what contains one.
    """
    words = scan(sql).words
    return bool(words) and words[0] in _SNAPSHOTS
