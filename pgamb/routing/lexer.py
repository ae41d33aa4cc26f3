"""A text as tokens, and what a token is: word, literal, identifier.

`scanner` cuts the text. What it cannot cut is the token `JUNK`, about which nothing can be proven.
"""

from __future__ import annotations

import re

import msgspec

from pgamb.routing.scanner import JUNK, cut

__all__ = ["ASCII_TRAIL_ENCODINGS", "JUNK", "NAME_BYTES", "Scan", "identifier", "is_literal", "is_word", "scan"]

ASCII_TRAIL_ENCODINGS = frozenset({"BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"})
"""Client encodings whose multibyte characters may contain ASCII bytes, a quote's or a backslash's included."""


class Scan(msgspec.Struct, frozen=True):
    """The tokens of a text, the same in lower case, what deserves a closer look, and whether there is JUNK in it.

    Where no quoted identifier keeps a case, both lists are one, all in lower case.
    """

    tokens: list[bytes]
    words: list[bytes]
    notes: int
    junk: bool


def scan(sql: bytes, *, standard_conforming_strings: bool = True) -> Scan:
    """Cut SQL into tokens, comments and white space left out.

    A token is its text as it stands; literals keep their quotes, continued ones are one token, and so are unquoted
    names joined by dots. A semicolon is added behind the last token. Text that is no token gives JUNK, and ends the
    list if nothing can follow it.
    """
    return Scan(*cut(sql, sql.lower(), standard_conforming_strings))


_START = rb"A-Za-z_\x80-\xff"
_WORD = rb"[%s][%s0-9$]*+" % (_START, _START)
_WHOLE_WORD = re.compile(_WORD)
_WHOLE_NAME = re.compile(rb"%s(?:\.%s)*+" % (_WORD, _WORD))
_UNICODE_ESCAPE = re.compile(r"(?s)(\\)(\\|\+[0-9A-Fa-f]{6}|[0-9A-Fa-f]{4})")
NAME_BYTES = 63
"""Longer identifiers are cut to this (NAMEDATALEN - 1)."""


def is_word(token: bytes) -> bool:
    """Tell a keyword or unquoted identifier from every other token."""
    return _WHOLE_WORD.fullmatch(token) is not None


def is_literal(token: bytes) -> bool:
    """Tell a string literal, of any kind of quoting, from every other token."""
    return token[-1:] == b"'" or (token[:1] == b"$" and token[-1:] == b"$")


def identifier(token: bytes) -> str | None:
    """Give the name that a token spells, folded, unquoted and cut as PostgreSQL does; None if it spells none.

    Bytes that are not UTF-8 become surrogate escapes. Escapes in a `U&""` are those of the default escape character.
    """
    if token[:1] == b'"':
        name = token[1:-1].replace(b'""', b'"')
    elif token[-1:] == b'"':
        name = _unescape(token[3:-1].replace(b'""', b'"').decode(errors="surrogateescape"))
    elif _WHOLE_NAME.fullmatch(token):
        name = token.lower()
    else:
        return None
    if not name:
        return None
    if len(name) > NAME_BYTES:
        cut = NAME_BYTES
        while cut > NAME_BYTES - 4 and name[cut] & 0xC0 == 0x80:
            cut -= 1
        name = name[:cut]
    return name.decode(errors="surrogateescape")


def _unescape(text: str) -> bytes:
    def character(match: re.Match[str]) -> str:
        code = match[2]
        if code == "\\":
            return code
        number = int(code.lstrip("+"), 16)
        return chr(number) if 0 < number < 0x110000 else match[0]

    unescaped = _UNICODE_ESCAPE.sub(character, text)
    # Two \D8xx escapes in a row are one character.
    return unescaped.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()
