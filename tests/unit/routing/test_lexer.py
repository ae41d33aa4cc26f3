"""PostgreSQL's lexical rules, one by one."""

from __future__ import annotations

import pytest

from pgamb.routing.lexer import JUNK, identifier, is_literal, scan

END = b";"


def _tokens(sql: bytes, *, standard_conforming_strings: bool = True) -> list[bytes]:
    """Give the tokens with their case: a quoted identifier in the text keeps it."""
    return scan(b'"" ' + sql, standard_conforming_strings=standard_conforming_strings).tokens[1:]


@pytest.mark.parametrize(
    ("sql", "tokens"),
    [
        ("", []),
        (" \t\r\n\f\v", []),
        ("a b", ["a", "b"]),
        ("a.b.c", ["a.b.c"]),
        ("a . b", ["a", ".", "b"]),
        ("a.*", ["a", ".", "*"]),
        ('a."B".c', ["a", ".", '"B"', ".", "c"]),
        ("a$b _x é9", ["a$b", "_x", "é9"]),
        ("f(x,y)[1:2]", ["f", "(", "x", ",", "y", ")", "[", "1", ":", "2", "]"]),
        ("a::int := b", ["a", "::", "int", ":=", "b"]),
        # literals
        ("'a''b'", ["'a''b'"]),
        (r"'a\' b", [r"'a\'", "b"]),
        (r"E'a\'b' e'\\' c", [r"E'a\'b'", r"e'\\'", "c"]),
        (r"E'a''b\\''c'", [r"E'a''b\\''c'"]),
        ("N'x' n'x' B'01' x'1F' U&'a' u&'b'", ["N'x'", "n'x'", "B'01'", "x'1F'", "U&'a'", "u&'b'"]),
        ("U & 'a'", ["U", "&", "'a'"]),
        ("u&b", ["u", "&", "b"]),
        ("ae'x'", ["ae", "'x'"]),
        ("'a'\n'b'", ["'a'\n'b'"]),
        ("'a' 'b'", ["'a'", "'b'"]),
        ("'a' -- c\n -- d\n 'b'", ["'a' -- c\n -- d\n 'b'"]),
        ("'a' /* */ \n 'b'", ["'a'", "'b'"]),
        ("E'a'\n'b\\'c'", ["E'a'\n'b\\'c'"]),
        # dollar quotes
        ("$$a'b$$ c", ["$$a'b$$", "c"]),
        ("$a$ $$ $b$ $a$", ["$a$ $$ $b$ $a$"]),
        ("$A$ $a$ $A$", ["$A$ $a$ $A$"]),
        ("x$$y", ["x$$y"]),
        ("$1+$23", ["$1", "+", "$23"]),
        # quoted identifiers
        ('"a""b" U&"c"', ['"a""b"', 'U&"c"']),
        ('"--" "/*"', ['"--"', '"/*"']),
        # comments
        ("a -- b\nc", ["a", "c"]),
        ("a -- b\rc", ["a", "c"]),
        ("a--b", ["a"]),
        ("a/* b */c", ["a", "c"]),
        ("a/* /* */ b */c", ["a", "c"]),
        ("a/* /* /**/ */ '*/c", ["a", "c"]),
        ("a/**/b/***/c/*/ */d", ["a", "b", "c", "d"]),
        ("a /* -- */ b", ["a", "b"]),
        ("a -- /*\nb", ["a", "b"]),
        # numbers
        ("1 1.5 .5 5. 1e10 1.e5 1E-3 .5e+1", ["1", "1.5", ".5", "5.", "1e10", "1.e5", "1E-3", ".5e+1"]),
        ("1_000 0xFF 0o17 0b10 0x_f", ["1_000", "0xFF", "0o17", "0b10", "0x_f"]),
        # operators, and what looks like a comment in them
        ("a<--b\nc", ["a", "<", "c"]),
        ("a*/*b*/c", ["a", "*", "c"]),
        ("a=-1", ["a", "=-", "1"]),
        ("a->>'b'", ["a", "->>", "'b'"]),
        ("a|/b !~~* @-@", ["a", "|/", "b", "!~~*", "@-@"]),
        ("a- -b", ["a", "-", "-", "b"]),
        ("a;b", ["a", ";", "b"]),
    ],
)
def test_tokens(sql: str, tokens: list[str]) -> None:
    assert _tokens(sql.encode()) == [token.encode() for token in tokens] + [END]


@pytest.mark.parametrize(
    ("sql", "tokens"),
    [
        (r"'a\'b'", [r"'a\'b'"]),
        (r"'a\\' b", [r"'a\\'", "b"]),
        (r"n'a\'b'", [r"n'a\'b'"]),
        (r"B'\' b", [r"B'\'", "b"]),
        ("'a'\n'b\\'c'", ["'a'\n'b\\'c'"]),
        ('"a\\" b', ['"a\\"', "b"]),
    ],
)
def test_tokens_without_standard_conforming_strings(sql: str, tokens: list[str]) -> None:
    assert _tokens(sql.encode(), standard_conforming_strings=False) == [token.encode() for token in tokens] + [END]


@pytest.mark.parametrize("sql", ["'a", "a '", 'a "', "$$a", "$a$ $b$", "/* a", "/* /* */", "E'a\\'' '"])
def test_what_has_no_end_is_junk_and_ends_the_list(sql: str) -> None:
    assert _tokens(sql.encode())[-1] == JUNK
    assert scan(sql.encode()).junk


@pytest.mark.parametrize("sql", ["1a", "1_", "0xg", "$1a", "$", "\\", "\x00", "\x01", "{", "1.a", "$a"])
def test_what_is_no_token_is_junk(sql: str) -> None:
    tokens = _tokens(sql.encode())
    assert JUNK in tokens
    assert scan(sql.encode()).junk
    assert tokens[-1] == END


@pytest.mark.parametrize("sql", ["", "SELECT 1", "'", "a--", "/* */", "$$x$$", "'a", 'A "B"'])
def test_lower_case_goes_with_its_token(sql: str) -> None:
    scanned = scan(sql.encode())
    tokens, words, junk = scanned.tokens, scanned.words, scanned.junk
    assert [token.lower() for token in tokens] == words
    assert words == [token.lower() for token in _tokens(sql.encode())]
    assert junk is (JUNK in tokens)


def test_dollar_quotes_are_told_apart_by_case() -> None:
    assert scan(b"SELECT $A$ $a$; DROP $A$").words == [b"select", b"$a$ $a$; drop $a$", b";"]


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("Abc", "abc"),
        ('"Abc"', "Abc"),
        ('"a""b"', 'a"b'),
        ('U&"\\0041\\+000042c\\\\"', "ABc\\"),
        ('u&"\\D83D\\DE00"', "\U0001f600"),
        ("é", "é"),
        ("x" * 64, "x" * 63),
        ('"' + "é" * 40 + '"', "é" * 31),
        ("a.B", "a.b"),
        ('""', None),
        ("1", None),
        ("'a'", None),
        ("", None),
    ],
)
def test_identifiers(token: str, name: str | None) -> None:
    assert identifier(token.encode()) == name


def test_literals() -> None:
    assert all(map(is_literal, (b"'a'", b"E'a'", b"$$a$$", b"$x$a$x$")))
    assert not any(map(is_literal, (b"a", b"$1", b'"a"', b"1", b";")))


def test_long_nonsense_takes_no_longer_than_long_sense() -> None:
    """Each kind of unfinished thing is looked for once, not once for each place where it could begin."""
    size = 50_000
    for piece in (b"'", b'"', b"$a$ ", b"/*", b"(", b"$1 ", b"a.", b"--", b"E'\\", b"1e", b" ", b"\n", b"- "):
        assert len(scan(piece * (size // len(piece))).tokens) <= size + 2
    assert scan(b" ".join(b"$a%d$" % number for number in range(5_000))).tokens[-1] == JUNK
