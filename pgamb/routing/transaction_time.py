"""Whether a query looks at the start time of its transaction without calling `now()`.

A transaction that is answered statement by statement has as many start times as statements, so it must not run such a
query. What is not seen here: the name of a time in a parameter's or a column's value that a cast makes a date.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pgamb.routing.lexer import is_literal

TIME_KEYWORDS = frozenset(b"current_timestamp current_date current_time localtime localtimestamp".split())
TIME_VIEWS = frozenset([b"pg_timezone_names", b"pg_timezone_abbrevs"])
"""Their offsets from UTC are those of the transaction's start."""

# Literals with a line break between them are one.
_CONTINUED = re.compile(rb"'[ \t\f\v]*(?:--[^\r\n]*)?[\r\n](?:[ \t\f\v\r\n]|--[^\r\n]*[\r\n])*'")
_TIME_NAME = re.compile(rb"(?<![a-z])(?:now|today|tomorrow|yesterday)(?![a-z])")
# An escape that can spell a letter: not \\ and not \'.
_LETTER_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*\\[0-7xu]")
# PostgreSQL takes no longer text for a date (MAXDATELEN and MAXDATEFIELDS in datetime.h), and in front of a literal's
# quote at most two characters stand.
_LONGEST_DATE_BYTES = 128 + 25 + 4
_FIELD = re.compile(rb"[a-z\x80-\xff][^\s,()]*")
_KNOWN_FIELDS = frozenset(
    b"""
    ad allballs am apr april at aug august bc d dec december dow doy dst epoch feb february fri friday h infinity isodow
    isoyear j jan january jd jul julian july jun june m mar march may mm mon monday nov november now oct october on pm s
    sat saturday sep sept september sun sunday t thu thur thurs thursday today tomorrow tue tues tuesday wed wednesday
    weds y yesterday
    """.split()
)
# A zone is one unknown field, a word with a number at it may be another.
_UNKNOWN_FIELDS = 2


def looks_at_transaction_time(words: Sequence[bytes], distinct: set[bytes]) -> bool:
    """Tell whether a literal, a type or an attribute does; `distinct` are the words."""
    escapes = b"uescape" in distinct
    if any(is_literal(word) and may_name_a_time(word, other_escapes=escapes) for word in distinct):
        return True
    if b"zone" in distinct and _has_time_of_day(words, distinct):
        return True
    if any(word.rpartition(b".")[2].strip(b'"') == b"timetz" for word in distinct):
        return True
    return _has_age_as_attribute(words)


def may_name_a_time(literal: bytes, *, other_escapes: bool = False) -> bool:
    """Tell whether a literal, in lower case, may be a date that is told from now on: `'now'`, `'tomorrow 10:00'`.

    Nothing else of the literal's text counts, so that `'buy it right now'` is no date.
    """
    prefix = literal[:1]
    if prefix == b"u" and (b"\\" in literal or other_escapes):
        return True
    if prefix == b"e" and _LETTER_ESCAPE.search(literal):
        return True
    if prefix != b"$" and _CONTINUED.search(literal):
        return True
    if not _TIME_NAME.search(literal) or len(literal) > _LONGEST_DATE_BYTES + 2 * literal.count(b"''"):
        return False
    body = literal[literal.index(b"'") + 1 : -1] if prefix != b"$" else literal.split(b"$", 2)[2].rpartition(b"$")[0]
    unknown = [field for field in _FIELD.findall(body) if field not in _KNOWN_FIELDS and not _TIME_NAME.search(field)]
    return len(unknown) <= _UNKNOWN_FIELDS


def _has_time_of_day(words: Sequence[bytes], distinct: set[bytes]) -> bool:
    """Find `time with time zone`, or a `time` that AT TIME ZONE makes one: it is the zone's offset today."""
    moved = b"at" in distinct
    for index, word in enumerate(words):
        if word != b"time":
            continue
        following = list(words[index + 1 : index + 7])
        if following[:1] == [b"("]:
            following = following[3:]
        if following[:3] == [b"with", b"time", b"zone"]:
            return True
        typed = following[:1] and is_literal(following[0])
        if moved and (typed or (index and words[index - 1] in (b"::", b"as"))):
            return True
    return False


def _has_age_as_attribute(words: Sequence[bytes]) -> bool:
    """Find `(x).age`, which calls age(x), and `x.age` where `x` may be the value of a function in FROM."""
    for index, word in enumerate(words):
        if word == b"." and index:
            name, row = words[index + 1 : index + 2], words[index - 1]
            found = name in ([b"age"], [b'"age"'])
        else:
            row, dot, last = word.rpartition(b".")
            found = bool(dot) and last == b"age"
        behind = index + 2 if word == b"." else index + 1
        called = words[behind : behind + 1] == [b"("]
        if found and not called and (row in (b")", b"]") or _may_be_a_value(row, words)):
            return True
    return False


def _may_be_a_value(row: bytes, words: Sequence[bytes]) -> bool:
    """Tell whether a name stands behind a parenthesis, as the alias of a function does, or in front of one."""
    for index, word in enumerate(words):
        if word.strip(b'"') != row.strip(b'"'):
            continue
        before = words[index - 1] if index else b""
        if before == b"as" and index > 1:
            before = words[index - 2]
        if before == b")" or words[index + 1 : index + 2] == [b"("] or before in TIME_KEYWORDS:
            return True
    return False
