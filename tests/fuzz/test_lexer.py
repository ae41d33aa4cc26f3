"""Two lexers, one of code and one of patterns, cut every text into the same tokens."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgamb.routing.lexer import JUNK, scan
from pgamb.routing.scanner import cut
from tests.support.patterns import tokens_of
from tests.unit.routing import corpus

PIECES = (
    *("'", "''", '"', '""', "E'", "e'", "N'", "n'", "B'", "x'", "U&'", "u&'", 'U&"', 'u&"', "\\", "\\'", "\\\\"),
    *("$", "$$", "$a$", "$A$", "$1", "$a", "$1a", "--", "/*", "*/", "*", "/", "-", "/*/", "**/", "*/*", ".", ".."),
    *(".5", "1", "1.", "1.5", "1e", "1e5", "1e+", "1e-3", "1_0", "1_", "0x", "0xF", "0x_F", "0o7", "0o8", "0b1", "0b2"),
    *(
        "00",
        ";",
        "(",
        ")",
        "[",
        "]",
        ",",
        ":",
        "::",
        ":=",
        "=>",
        "<>",
        "!=",
        "*--",
        "@/*",
        "=-",
        "+",
        "a",
        "a.b",
        "a.e",
    ),
    *(
        "a.u&",
        "ab",
        "e",
        "n",
        "x",
        "b",
        "u",
        "&",
        "|",
        "?",
        "~",
        "#",
        "{",
        "}",
        "\xe9",
        "SELECT",
        " ",
        "\n",
        "\r",
        "\t",
    ),
    *("\v", "\f", "\x00", "\x7f", "\xff", " \n '", "'\n'", "'-- x\n'"),
)

texts = (
    st.lists(st.sampled_from(PIECES), max_size=14).map(lambda pieces: "".join(pieces).encode("latin-1"))
    | st.binary(max_size=40)
    | st.text("'\"\\$aeE/*-.0_1x \n", max_size=16).map(str.encode)
)


@settings(max_examples=2_000)
@given(texts, st.booleans())
@example(b"$a$ $$ $a", True)
@example(b"'a\\' 'b", False)
@example(b"1.e", True)
@example(b"a.e'x'.b", True)
@example(b"'a' --\r--\n 'b'", True)
def test_both_lexers_give_the_same_tokens(sql: bytes, standard: bool) -> None:
    expected = tokens_of(sql, standard_conforming_strings=standard)
    scanned = scan(sql, standard_conforming_strings=standard)
    assert scanned.words == [token.lower() for token in expected]
    assert scanned.tokens == (expected if b'"' in sql else scanned.words)
    assert scanned.junk is (JUNK in expected)


@given(
    st.sampled_from(corpus.EVERYTHING), st.lists(st.tuples(st.integers(0, 200), st.sampled_from(PIECES)), max_size=3)
)
def test_both_lexers_give_the_same_tokens_of_statements(sql: str, inserted: list[tuple[int, str]]) -> None:
    for position, piece in inserted:
        sql = sql[:position] + piece + sql[position:]
    text = b'"" ' + sql.encode()
    for standard in (True, False):
        expected = tokens_of(text, standard_conforming_strings=standard)
        assert scan(text, standard_conforming_strings=standard).tokens == expected


def test_the_text_in_lower_case_is_that_of_the_sql() -> None:
    with pytest.raises(ValueError, match="another"):
        cut(b"SELECT", b"select 1", True)
