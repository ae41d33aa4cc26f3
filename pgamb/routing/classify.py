"""SQL in, intent out. Unknown means write.

Every statement of a Query is judged by itself; the strongest decides. The order of the checks, and what stays unseen,
is in docs/routing.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from pgamb.routing.catalog import BUILT_IN, Catalog
from pgamb.routing.commands import intent_of
from pgamb.routing.intent import NO_PIN, Intent, Need
from pgamb.routing.lexer import is_literal, scan
from pgamb.routing.statement import Statement

_EMPTY = Intent(Need.NEUTRAL | Need.EMPTY, NO_PIN, NO_PIN, "no statement")
# What is true of a Query because it is true of one of its statements; the other needs are those of a single statement.
_OF_ANY = (
    Need.SETTINGS
    | Need.COPY_IN
    | Need.DEALLOCATE_ALL
    | Need.COMMITS
    | Need.CONTROL
    | Need.TRANSACTION_TIME
    | Need.SEQUENCE
    | Need.NAMES
)
_STATEMENTS = b"pg_prepared_statement"
# A string that begins so is SQL for somebody to run, as PL/pgSQL does.
_EXECUTE_IN_A_STRING = re.compile(rb"(?i)['$]\s*(?:explain\b[^';]*\s)?execute\s")


# Lexing takes about 10 microseconds per 100 bytes, and nobody else is served meanwhile: the long statements that
# restoring a dump consists of are told by their beginning, where it is certain that nothing else is in them.
_LONG_BYTES = 65536
_LONG_CHANGE = re.compile(rb"\s*(insert|update|delete|merge)\s", re.IGNORECASE)


def _is_surely_one_statement(sql: bytes) -> bool:
    return b";" not in sql.rstrip(b"; \t\r\n") and b"advisory" not in sql.lower()


def classify(
    sql: bytes,
    *,
    standard_conforming_strings: bool = True,
    ascii_superset: bool = True,
    catalog: Catalog = BUILT_IN,
) -> Intent:
    """Tell what the text of a Query or Parse needs.

    `sql` is as on the wire, without the terminating zero byte. Pass `standard_conforming_strings=False` where the
    session has it off or may have it off: a backslash in an ordinary literal then proves nothing. Pass
    `ascii_superset=False` for a client encoding in `lexer.ASCII_TRAIL_ENCODINGS`. Never raises.
    """
    if not ascii_superset and not sql.isascii():
        return Intent(
            Need.SETTINGS, NO_PIN, NO_PIN, "cannot be read: characters of this client encoding may hide quotes"
        )
    if len(sql) > _LONG_BYTES and (long := _LONG_CHANGE.match(sql)) and _is_surely_one_statement(sql):
        verb = long[1].decode().upper()
        return Intent(Need.SETTINGS, NO_PIN, NO_PIN, f"{verb} writes; {len(sql)} bytes are too long to look into")
    scanned = scan(sql, standard_conforming_strings=standard_conforming_strings)
    tokens, words, notes, junk = scanned.tokens, scanned.words, scanned.notes, scanned.junk
    last = len(words) - 1
    if last > 0 and not junk and words.index(b";") == last:
        del words[last]
        if tokens is not words:
            del tokens[last]
        intent = intent_of(Statement(tokens, words, notes, catalog))
    else:
        intents = [
            intent_of(Statement(tokens[start:end], words[start:end], notes, catalog)) for start, end in _split(words)
        ]
        intent = _EMPTY if not intents else intents[0] if len(intents) == 1 else _combined(intents)
    if _looks_at_statements(sql, words):
        intent = Intent(intent.need | Need.NAMES, intent.pins, intent.unpins, intent.reason, intent.name)
    if junk:
        return _unprovable(intent, "cannot be read: something in it is not SQL")
    if not standard_conforming_strings and any(_has_backslash(token) for token in tokens):
        return _unprovable(intent, "cannot be read for sure: a backslash in an ordinary literal")
    return intent


def _looks_at_statements(sql: bytes, words: Sequence[bytes]) -> bool:
    """Tell whether a text asks which statements the session has prepared, or has a string that executes one."""
    if _EXECUTE_IN_A_STRING.search(sql) is not None:
        return True
    return _STATEMENTS in sql.lower() and any(_STATEMENTS in word and not is_literal(word) for word in words)


def _split(words: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Give start and end of each statement that is not empty, the semicolon left out.

    Only in a CREATE RULE may a semicolon stand within parentheses.
    """
    start = 0
    depth = 0
    body = 0
    for index, word in enumerate(words):
        if word == b"(":
            depth += 1
        elif word == b")":
            depth -= 1
        elif word == b"atomic" and words[index - 1] == b"begin" and words[start] == b"create":
            # A function's body in standard SQL: BEGIN ATOMIC ...; ...; END. In it, CASE has an END too.
            body = 1
        elif body and word == b"case":
            body += 1
        elif body and word == b"end":
            body -= 1
        elif word == b";" and not body and (depth <= 0 or words[start] != b"create"):
            if index > start:
                yield start, index
            start = index + 1
            depth = 0
    if start < len(words):
        yield start, len(words)


def _combined(intents: Sequence[Intent]) -> Intent:
    need = Need.MULTIPLE
    pins = unpins = NO_PIN
    for intent in intents:
        need |= intent.need & _OF_ANY
        if intent.need & Need.DEALLOCATE:
            need |= Need.NAMES
        pins |= intent.pins
        unpins |= intent.unpins
    decisive = next((each for each in intents if each.writes), None)
    if decisive is None:
        decisive = next((each for each in intents if not each.need & Need.READ), None)
        need |= Need.NEUTRAL if decisive else Need.READ
    if decisive is None:
        return Intent(need, pins, unpins, f"{len(intents)} reads")
    number = intents.index(decisive) + 1
    return Intent(need, pins, unpins, f"statement {number} of {len(intents)}: {decisive.reason}")


def _has_backslash(token: bytes) -> bool:
    return b"\\" in token and token[:1] in (b"'", b"n", b"N")


def _unprovable(intent: Intent, reason: str) -> Intent:
    need = (intent.need & ~(Need.READ | Need.NEUTRAL)) | Need.SETTINGS
    return Intent(need, intent.pins, intent.unpins, reason, intent.name)
