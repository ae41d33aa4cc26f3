"""A second lexer of PostgreSQL's tokens, of patterns instead of code: `pgamb.routing.scanner` must agree with it."""

from __future__ import annotations

import re

JUNK = b""

_SPACE = rb"[ \t\n\r\f\v]"
_LINE_COMMENT = rb"--[^\r\n]*+"
_START = rb"A-Za-z_\x80-\xff"
_WORD = rb"[%s][%s0-9$]*+" % (_START, _START)
_PREFIX = rb"(?:[eEnNbBxX](?=')|[uU]&(?=['\"]))"
_PART = rb"(?!%s)%s" % (_PREFIX, _WORD)
_PLAIN_BODY = rb"'[^']*+(?:''[^']*+)*+'"
_ESCAPE_BODY = rb"'[^'\\]*+(?:(?:''|\\[\s\S])[^'\\]*+)*+'"
_CONTINUED = rb"(?:[ \t\f\v]++|%s)*+[\n\r](?:%s++|%s[\n\r])*+" % (_LINE_COMMENT, _SPACE, _LINE_COMMENT)
_DECIMAL = rb"[0-9](?:_?[0-9])*+"
_NUMBER = (
    rb"(?>0[xX](?:_?[0-9A-Fa-f])++|0[oO](?:_?[0-7])++|0[bB](?:_?[01])++"
    rb"|(?:%s(?:\.(?:%s)?+)?+|\.%s)(?:[eE][-+]?%s)?+|\$[0-9]++)" % (_DECIMAL, _DECIMAL, _DECIMAL, _DECIMAL)
)
_DOLLAR_QUOTE = re.compile(rb"\$(?:[%s][%s0-9]*+)?\$" % (_START, _START))
_COMMENT_EDGE = re.compile(rb"/\*|\*/")


def _literal(body: bytes) -> bytes:
    return rb"%s(?:%s%s)*+" % (body, _CONTINUED, body)


def _compile(*, standard_conforming_strings: bool) -> re.Pattern[bytes]:
    kinds = {
        b"gap": rb"(?:%s|%s)++" % (_SPACE, _LINE_COMMENT),
        b"comment": rb"/\*",
        b"dollar": _DOLLAR_QUOTE.pattern,
        b"glued": rb"%s(?=[%s0-9$])" % (_NUMBER, _START),
        b"token": rb"|".join(
            (
                rb"%s(?:\.%s)*+" % (_PART, _PART),
                _NUMBER,
                rb"[(),;\[\].]|::|:=?",
                rb"[nN]?" + _literal(_PLAIN_BODY if standard_conforming_strings else _ESCAPE_BODY),
                rb"[eE]" + _literal(_ESCAPE_BODY),
                rb"(?:[bBxX]|[uU]&)" + _literal(_PLAIN_BODY),
                rb"(?:[uU]&)?\"[^\"]*+(?:\"\"[^\"]*+)*+\"",
                rb"(?:[~!@#^&|`?+*%<>=]|-(?!-)|/(?!\*))++",
            )
        ),
        b"endless": rb"%s?['\"]" % _PREFIX,
        b"junk": rb"[\s\S]",
    }
    return re.compile(rb"|".join(rb"(?P<%s>%s)" % kind for kind in kinds.items()))


_STANDARD = _compile(standard_conforming_strings=True)
_BACKSLASH = _compile(standard_conforming_strings=False)


def tokens_of(sql: bytes, *, standard_conforming_strings: bool) -> list[bytes]:
    """Cut SQL into tokens as they stand, a semicolon behind the last; JUNK as `pgamb.routing.lexer.scan` gives it."""
    pattern = _STANDARD if standard_conforming_strings else _BACKSLASH
    tokens: list[bytes] = []
    position = 0
    while found := pattern.match(sql, position):
        position = found.end()
        match found.lastgroup:
            case "token":
                tokens.append(found[0])
            case "comment":
                position = _end_of_comment(sql, found.start())
            case "dollar":
                position = sql.find(found[0], position) + len(found[0])
                if position < found.end() + len(found[0]):
                    return [*tokens, JUNK]
                tokens.append(sql[found.start() : position])
            case "endless":
                return [*tokens, JUNK]
            case "glued" | "junk":
                tokens.append(JUNK)
        if position < 0:
            return [*tokens, JUNK]
    return [*tokens, b";"]


def _end_of_comment(sql: bytes, start: int) -> int:
    depth = 0
    for edge in _COMMENT_EDGE.finditer(sql, start):
        depth += 1 if edge[0] == b"/*" else -1
        if depth == 0:
            return edge.end()
    return -1
