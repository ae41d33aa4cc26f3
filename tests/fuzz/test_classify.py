"""Whatever comes in: nothing raises, no write is called a read, and what means the same has the same intent."""

from __future__ import annotations

import re
import string
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from pgamb.routing.classify import classify
from pgamb.routing.intent import Need
from pgamb.routing.lexer import scan
from tests.unit.routing import corpus

STATEMENTS = [sql for sql in corpus.EVERYTHING if sql.strip()]
# A statement that begins with one of these writes, or does something else that no replica can do.
WRITE_WORDS = frozenset(
    b"alter analyze call checkpoint cluster comment create delete do drop grant import insert lock merge notify "
    b"reassign refresh reindex revoke security truncate update vacuum".split()
)
CHANGES = frozenset(b"insert update delete merge into".split())
GAPS = (" ", "\n", "\t ", "\r\n", " /* x */ ", " -- x\n", "/**/", " /* /* nested */ ; ' */ ")
FRAGMENTS = (
    "'",
    '"',
    "$$",
    "$a$",
    "E'",
    "\\",
    "/*",
    "*/",
    "--",
    "\n",
    ";",
    "(",
    ")",
    ",",
    ".",
    "::",
    'U&"',
    "f(",
    "nextval('s')",
    " INTO x",
    " FOR UPDATE",
    "INSERT INTO t VALUES (1)",
    "; DROP TABLE t",
    "WITH x AS (",
    "SELECT",
    " AS ",
    "1a",
    "\x00",
    "EXPLAIN ",
    "EXPLAIN ANALYZE ",
    "COPY (",
    ") TO STDOUT",
    "\xff",
    "BEGIN ATOMIC",
    "END",
)

statements = st.sampled_from(STATEMENTS)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """One or two statements with pieces cut out and fragments put in."""
    sql = draw(statements)
    if draw(st.booleans()):
        sql += draw(st.sampled_from(["; ", " ", ""])) + draw(statements)
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(sql)))
        end = draw(st.integers(start, min(len(sql), start + 12))) if draw(st.booleans()) else start
        sql = sql[:start] + draw(st.sampled_from(FRAGMENTS) | st.text(string.printable, max_size=4)) + sql[end:]
    return sql


def _statement_starts(words: list[bytes]) -> set[bytes]:
    return {*words[:1], *(after for word, after in pairwise(words) if word == b";")}


def _check(sql: bytes) -> None:
    for standard in (True, False):
        intent = classify(sql, standard_conforming_strings=standard)
        assert intent.reason
        assert not (intent.need & Need.READ and intent.need & Need.NEUTRAL)
        if not intent.need & Need.READ:
            continue
        assert not intent.pins
        assert not intent.unpins
        assert not intent.need & (Need.SETTINGS | Need.COPY_IN | Need.CONTROL)
        scanned = scan(sql, standard_conforming_strings=standard)
        words = scanned.words
        assert not scanned.junk
        assert not _statement_starts(words) & WRITE_WORDS
        if b"explain" not in words:
            assert not set(words) & CHANGES


@given(st.binary(max_size=80))
def test_random_bytes(sql: bytes) -> None:
    _check(sql)


@given(st.lists(st.sampled_from([*FRAGMENTS, *GAPS, "a", "1", "(", ")"]), max_size=15))
def test_random_fragments(pieces: list[str]) -> None:
    _check("".join(pieces).encode("latin-1"))


@settings(max_examples=400)
@given(mutated())
def test_mutated_statements(sql: str) -> None:
    _check(sql.encode())


@settings(max_examples=200)
@given(statements, st.data())
def test_case_white_space_and_comments_tell_nothing(sql: str, data: st.DataObject) -> None:
    expected = classify(sql.encode())
    # A quoted identifier in the text, and the tokens keep their case.
    tokens = scan(sql.encode() + b'\n"x"').tokens[:-2]
    if scan(sql.encode()).junk:
        return
    pieces: list[str] = []
    for token in tokens:
        text = token.decode()
        # Unquoted words have no case; what is quoted has.
        if re.fullmatch(r"[a-zA-Z_.]+", text):
            text = data.draw(st.sampled_from([text, text.upper(), text.lower(), text.swapcase()]))
        elif re.fullmatch(r"[-+*/<>=~!@#%^&|`?]+", text) and pieces and text == "-":
            pieces.append(" ")
        pieces += [text, data.draw(st.sampled_from(GAPS))]
        if text[-1:] in "'\"":
            # A line break would join two literals into one.
            pieces[-1] = " "
    changed = "".join(pieces)
    assert classify(changed.encode()) == expected, changed


@given(statements, statements)
def test_two_statements_are_no_more_a_read_than_each_of_them(first: str, second: str) -> None:
    one, two = classify(first.encode()), classify(second.encode())
    if "BEGIN ATOMIC" in first or scan(first.encode()).junk:
        return
    both = classify(f"{first}\n;{second}".encode())
    if not (one.need | two.need) & Need.EMPTY:
        assert bool(both.need & Need.READ) == bool(one.need & two.need & Need.READ)
        assert both.writes == (one.writes or two.writes)


@given(statements)
def test_a_read_inside_a_write_stays_a_write(sql: str) -> None:
    if classify(sql.encode()).need & Need.READ and re.match(r"(SELECT|VALUES|TABLE|WITH)\b", sql) and ";" not in sql:
        assert classify(f"WITH w AS (INSERT INTO t VALUES (1) RETURNING a) {sql}".encode()).writes
        assert classify(f"SELECT * FROM ({sql}\n) q, (SELECT nextval('seq')) r".encode()).writes
        assert classify(f"SELECT 1 UNION SELECT user_function({sql}\n)".encode()).writes
