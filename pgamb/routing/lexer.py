"""PostgreSQL's tokens, by the rules of its own scanner (the manual's "Lexical Structure", `scan.l`).

One compiled pattern cuts ordinary SQL at C speed. What a pattern cannot match (nested comments, dollar quotes) is junk
to it, and a second, slower pass takes over. Junk that is left is the token `JUNK`: PostgreSQL refuses such text, or
releases of it disagree about it (`1abc`), so nothing can be proven about it.
"""

from __future__ import annotations

import re

import msgspec

JUNK = b""
"""Stands for a piece of text that is no token. Never the text of a real token."""

ASCII_TRAIL_ENCODINGS = frozenset({"BIG5", "GB18030", "GBK", "JOHAB", "SHIFT_JIS_2004", "SJIS", "UHC"})
"""Client encodings whose multibyte characters may contain ASCII bytes, a quote's or a backslash's included."""

_SPACE = rb"[ \t\n\r\f\v]"
_LINE_COMMENT = rb"--[^\r\n]*+"
_FLAT_COMMENT = rb"/\*[^*/]*+(?:\*(?!/)[^*/]*+|/(?!\*)[^*/]*+)*+\*/"
_SKIP = rb"%s*+(?:(?:%s|%s)%s*+)*+" % (_SPACE, _LINE_COMMENT, _FLAT_COMMENT, _SPACE)
_START = rb"A-Za-z_\x80-\xff"
_WORD = rb"[%s][%s0-9$]*+" % (_START, _START)
# Names joined by dots without white space are one token: fewer tokens, and no keyword is mistaken for a column.
_NAME = rb"%s(?:\.%s)*+" % (_WORD, _WORD)
_NOT_GLUED = rb"(?![%s0-9$])" % _START
_PLAIN_BODY = rb"'[^']*+(?:''[^']*+)*+'"
_ESCAPE_BODY = rb"'[^'\\]*+(?:(?:''|\\[\s\S])[^'\\]*+)*+'"
# Literals separated by white space with a line break in it are one literal, with the quoting rules of the first.
_CONTINUED = rb"(?:[ \t\f\v]++|%s)*+[\n\r](?:%s++|%s[\n\r])*+" % (_LINE_COMMENT, _SPACE, _LINE_COMMENT)
_NUMBER = (
    rb"(?>0[xX](?:_?[0-9A-Fa-f])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+"
    rb"|(?:[0-9](?:_?[0-9])*+(?:\.(?:[0-9](?:_?[0-9])*+)?)?|\.[0-9](?:_?[0-9])*+)(?:[eE][-+]?[0-9](?:_?[0-9])*+)?)"
)
_OPERATOR = rb"(?:[~!@#^&|`?+*%<>=]|-(?!-)|/(?!\*))++"


def _literal(body: bytes) -> bytes:
    return rb"%s(?:%s%s)*+" % (body, _CONTINUED, body)


def _compile(*, standard_conforming_strings: bool, comments: bool) -> re.Pattern[bytes]:
    plain = _literal(_PLAIN_BODY if standard_conforming_strings else _ESCAPE_BODY)
    tokens = (
        _NAME + rb"(?!['&])",
        rb"[(),;\[\]]|\.(?![0-9])|::|:=?",
        rb"[nN]?" + plain,
        rb"\$[0-9]++" + _NOT_GLUED,
        _NUMBER + _NOT_GLUED,
        _OPERATOR,
        rb"(?:[uU]&)?\"[^\"]*+(?:\"\"[^\"]*+)*+\"",
        rb"[eE]" + _literal(_ESCAPE_BODY),
        rb"(?:[bBxX]|[uU]&)" + _literal(_PLAIN_BODY),
        _WORD,
    )
    # A text that is no token is matched outside the group, so that findall gives JUNK for it.
    skip = _SKIP if comments else _SPACE + rb"*+"
    return re.compile(skip + rb"(?:(" + rb"|".join(tokens) + rb")|[\s\S])")


_STANDARD = _compile(standard_conforming_strings=True, comments=True)
_STANDARD_BARE = _compile(standard_conforming_strings=True, comments=False)
_BACKSLASH = _compile(standard_conforming_strings=False, comments=True)
_DOLLAR_QUOTE = re.compile(rb"\$(?:[%s][%s0-9]*+)?\$" % (_START, _START))
_COMMENT_EDGE = re.compile(rb"/\*|\*/")
# Ends a trailing comment, and the last statement: every token list ends with a semicolon, unless it ends in JUNK.
_SENTINEL = b"\n;"


class Scan(msgspec.Struct, frozen=True):
    """The tokens of a text, the same in lower case, and whether there is JUNK among them.

    Where case tells nothing (no quoted identifier, no dollar quote) both lists are one, all in lower case.
    """

    tokens: list[bytes]
    words: list[bytes]
    junk: bool


def scan(sql: bytes, *, standard_conforming_strings: bool = True) -> Scan:
    """Cut SQL into tokens, comments and white space left out.

    A token is its text as it stands; literals keep their quotes, continued ones are one token, and so are unquoted
    names joined by dots. A semicolon is added behind the last token. Text that is no token gives JUNK, and ends the
    list if nothing can follow it.
    """
    folded = b'"' not in sql
    text = (sql.lower() if folded else sql) + _SENTINEL
    pattern = _pattern_for(text, standard_conforming_strings)
    tokens = pattern.findall(text)
    if JUNK not in tokens:
        return Scan(tokens, tokens if folded else [token.lower() for token in tokens], junk=False)
    # The tags of dollar quotes are told apart by case, so the text is taken as it is.
    tokens = _scan_all(pattern, sql + _SENTINEL)
    return Scan(tokens, [token.lower() for token in tokens], JUNK in tokens)


def _pattern_for(text: bytes, standard_conforming_strings: bool) -> re.Pattern[bytes]:
    if not standard_conforming_strings:
        return _BACKSLASH
    return _STANDARD if b"--" in text or b"/*" in text else _STANDARD_BARE


def _scan_all(pattern: re.Pattern[bytes], text: bytes) -> list[bytes]:
    """Do what `scan` does, one token after the other, with nested comments and dollar quotes."""
    tokens: list[bytes] = []
    position = 0
    while position < len(text):
        match = pattern.match(text, position)
        if match is None:
            break
        position = match.end()
        token = match[1]
        if token is not None:
            tokens.append(token)
            continue
        start = position - 1
        end = start
        if text.startswith(b"/*", start):
            end = _end_of_comment(text, start)
        elif opening := _DOLLAR_QUOTE.match(text, start):
            quote = opening[0]
            end = text.find(quote, opening.end()) + len(quote)
            if end < opening.end() + len(quote):
                end = -1
            else:
                tokens.append(text[start:end])
        elif text[start] in b"'\"":
            end = -1
        if end < 0:
            tokens.append(JUNK)
            break
        if end == start:
            tokens.append(JUNK)
        else:
            position = end
    return tokens


def _end_of_comment(text: bytes, start: int) -> int:
    """Give the position behind the comment that starts here, or -1 if it has no end."""
    depth = 0
    for edge in _COMMENT_EDGE.finditer(text, start):
        depth += 1 if edge[0] == b"/*" else -1
        if depth == 0:
            return edge.end()
    return -1


_WHOLE_WORD = re.compile(_WORD)
_WHOLE_NAME = re.compile(_NAME)
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
