"""What SQL says of prepared statements, and where in the text it names one.

Only what is understood whole is a phrase. Anything else has to be said under the application's own names.
"""

from __future__ import annotations

import enum
import re

import msgspec

from pgamb.routing.functions import RESERVED, RESERVED_FUNCTION_NAMES
from pgamb.routing.intent import NO_PIN, Intent, Need
from pgamb.routing.lexer import NAME_BYTES, is_literal
from pgamb.routing.query import examine
from pgamb.routing.statement import Statement


class Verb(enum.IntEnum):
    """What is done with the statement that is named."""

    PREPARE = 1
    EXECUTE = 2
    """Also within EXPLAIN and CREATE TABLE AS."""


class Phrase(msgspec.Struct, frozen=True):
    """A PREPARE or EXECUTE: `start` and `end` are where its name stands in the text; `name` is what it means.

    `body` is what a PREPARE prepares; `arguments`: an EXECUTE has some; `alone`: it stands in nothing else.
    """

    verb: Verb
    name: bytes
    start: int
    end: int
    body: bytes = b""
    arguments: bool = False
    alone: bool = True


# White space and comments, but for nested ones.
_SPACE = rb"(?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r]|/\*(?:(?!/\*|\*/).)*\*/)"
_NAME = rb'(?P<name>"(?:[^"\0]|"")+"|[a-z_][a-z0-9_$]*)(?=[ \t\n\r\f\v(;/-]|\Z)'
_TYPES = rb"(?:\((?:[^()'/-]|\([^()'/-]*\))*\))"
_SPACES = {b"S": _SPACE, b"N": _NAME, b"T": _TYPES}


def _pattern(text: bytes) -> re.Pattern[bytes]:
    spelled = re.sub(rb"%([SNT])", lambda found: _SPACES[found[1]], text)
    return re.compile(rb"(?is)" + spelled)


_PREPARE = _pattern(rb"%S*+prepare%S++%N(?=%S*+%T?%S*+as(?:%S|\())%S*+(?P<types>%T)?%S*+as")
_EXECUTE = _pattern(rb"%S*+execute%S++%N(?P<behind>%S*+)")
_EXPLAIN = _pattern(
    rb"%S*+explain(?:%S++(?:analyze|analyse|verbose))*+(?:%S*+\([^()'\"/-]*\))?%S*+(?<![a-z0-9_$])execute%S++%N"
    rb"(?P<behind>%S*+)"
)
_CREATE = _pattern(rb"%S*+create%S[^'\"$/-]*?(?<![a-z0-9_$])as%S++execute%S++%N(?P<behind>%S*+)")


def phrase_of(sql: bytes) -> Phrase | None:
    """Read one PREPARE or EXECUTE; None if it is neither, or not as plain as it would have to be."""
    found = _PREPARE.match(sql)
    if found is not None:
        return _phrase(Verb.PREPARE, sql, found)
    for pattern in (_EXECUTE, _EXPLAIN, _CREATE):
        found = pattern.match(sql)
        if found is not None:
            return _phrase(Verb.EXECUTE, sql, found, alone=pattern is _EXECUTE)
    return None


def _phrase(verb: Verb, sql: bytes, found: re.Match[bytes], *, alone: bool = True) -> Phrase | None:
    start, end = found.span("name")
    if not sql[:end].isascii():
        # PostgreSQL counts characters, and folds what is not ASCII by the rules of the database's encoding.
        return None
    token = sql[start:end]
    if token[:1] == b'"':
        name = token[1:-1].replace(b'""', b'"')
    else:
        name = token.lower()
        if name in RESERVED or name in RESERVED_FUNCTION_NAMES:
            return None
    if len(name) > NAME_BYTES:
        return None
    if verb is Verb.PREPARE:
        if not {*_TYPE_WORD.findall((found["types"] or b"").lower())} <= _TYPES_ANYWHERE or b'"' in (
            found["types"] or b""
        ):
            # Another search_path may know no such type, and the statement must be prepared again under any.
            return None
        return Phrase(verb, name, start, end, sql[found.end() :])
    return Phrase(verb, name, start, end, arguments=sql[found.end() : found.end() + 1] == b"(", alone=alone)


_WORD = re.compile(rb"(?i)(?<![a-z0-9_$])prepare(?![a-z0-9_$])")


def may_prepare(sql: bytes) -> bool:
    """Tell whether a text may prepare a statement: it has the word in it."""
    return _WORD.search(sql) is not None


_TYPE_WORD = re.compile(rb"[a-z_][a-z0-9_$]*|[.\x80-\xff]")
_TYPES_ANYWHERE = frozenset(
    b"""
    bigint bit bool boolean box bpchar bytea char character cidr circle date day decimal double float float4 float8 hour
    inet int int2 int4 int8 integer interval json jsonb jsonpath line lseg macaddr macaddr8 minute money month name
    numeric oid path pg_lsn point polygon precision real regclass regproc regtype second smallint text time timestamp
    timestamptz timetz to tsquery tsvector unknown uuid varbit varchar varying with without xml year zone array
    """.split()
)


_FIRST_WORD = _pattern(rb"%S*+(?:prepare|execute|deallocate|explain|create)(?![a-z0-9_$])")


def may_name(beginning: bytes) -> bool:
    """Tell from the beginning of a text that is too long to look into whether it may speak of prepared statements."""
    return _FIRST_WORD.match(beginning) is not None


def intent_of_prepare(statement: Statement) -> Intent:
    """Tell what a PREPARE needs; it may be a PREPARE TRANSACTION."""
    if statement.word(1) == b"transaction" and is_literal(statement.word(2)):
        return Intent(Need.CONTROL | Need.COMMITS, NO_PIN, NO_PIN, "PREPARE TRANSACTION writes")
    return Intent(Need.NEUTRAL | Need.NAMES, NO_PIN, NO_PIN, "PREPARE", statement.name(1))


def intent_of_execute(statement: Statement) -> Intent:
    """Tell what an EXECUTE needs besides what its statement does: its arguments may do something themselves."""
    need = Need.EXECUTE | Need.NAMES
    pins = NO_PIN
    if len(statement.words) > 2:
        tokens, words = [b"values", *statement.tokens[2:]], [b"values", *statement.words[2:]]
        arguments = examine(tokens, words, statement.notes, statement.catalog).intent("EXECUTE")
        pins = arguments.pins
        need |= arguments.need & ~(Need.READ | Need.NEUTRAL)
        if not arguments.need & Need.READ or pins:
            need |= Need.SETTINGS
    return Intent(need, pins, NO_PIN, "EXECUTE of a statement that is not looked into", statement.name(1))


def intent_of_deallocate(statement: Statement) -> Intent:
    """Tell what a DEALLOCATE needs."""
    index = 2 if statement.word(1) == b"prepare" and len(statement.words) > 2 else 1
    if statement.word(index) == b"all":
        return Intent(Need.NEUTRAL | Need.DEALLOCATE_ALL, NO_PIN, NO_PIN, "DEALLOCATE ALL")
    return Intent(Need.NEUTRAL | Need.DEALLOCATE, NO_PIN, NO_PIN, "DEALLOCATE", statement.name(index))
