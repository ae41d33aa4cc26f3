"""What an opening parenthesis is: the beginning of arguments, a list of columns, or a piece of syntax.

Many of PostgreSQL's keywords are also names that a user's function may have, so a keyword counts as one only where the
words around it leave no doubt.
"""

from __future__ import annotations

from pgamb.routing.functions import COLUMN_NAMES, RESERVED, RESERVED_FUNCTION_NAMES, UNRESERVED
from pgamb.routing.lexer import is_literal, is_word

_NAME_STARTS = frozenset(bytes([character]) for character in range(256) if is_word(bytes([character])))
# Words in front of a parenthesis that are no function there, as long as one of these words is in front of them.
_CONTEXT = {
    b"over": frozenset([b")"]),
    b"filter": frozenset([b")"]),
    b"repeatable": frozenset([b")"]),
    b"by": frozenset(b"order group partition".split()),
    b"sets": frozenset([b"grouping"]),
    b"zone": frozenset([b"time"]),
    b"first": frozenset([b"fetch"]),
    b"next": frozenset([b"fetch"]),
    b"materialized": frozenset([b"as"]),
    b"varying": frozenset(b"character char bit nchar".split()),
    b"system": frozenset([b"tablesample"]),
    b"bernoulli": frozenset([b"tablesample"]),
}
# Behind a name that follows one of these, a parenthesis holds column names or a type's modifiers.
_NO_CALL_BEHIND = frozenset([b"as", b"::", b"into"])
_GROUPINGS = frozenset(b"cube rollup".split())
_NEVER_CALLED = RESERVED | COLUMN_NAMES
_KEYWORDS = RESERVED | COLUMN_NAMES | RESERVED_FUNCTION_NAMES
_ALL_KEYWORDS = _KEYWORDS | UNRESERVED
_JOINS = frozenset(b"cross full inner left natural outer right".split())
_QUERIES = frozenset(b"select table with".split())
_EXPRESSION_FOLLOWS = frozenset(
    b"select values table where group having order window limit offset fetch union intersect except on using set "
    b"returning".split()
)


_SOMETIMES_CALLED = frozenset(b"columns conflict ilike insert join materialized operator passing ref set value".split())


def is_syntax(words: list[bytes], parenthesis: int) -> bool:
    """Tell whether a parenthesis belongs to PostgreSQL's syntax: the word in front of it is no function there."""
    word = words[parenthesis - 1] if parenthesis else b""
    before = words[parenthesis - 2] if parenthesis > 1 else b""
    if word in _NEVER_CALLED or before in _NO_CALL_BEHIND or before in _CONTEXT.get(word, ()):
        return True
    return word in _SOMETIMES_CALLED and _is_keyword(words, parenthesis)


def _is_keyword(words: list[bytes], parenthesis: int) -> bool:
    """Tell whether a keyword in front of a parenthesis is one; all of these may also be functions."""
    before = words[parenthesis - 2] if parenthesis > 1 else b""
    match words[parenthesis - 1]:
        case b"columns" | b"passing":
            return _ends_operand(words, parenthesis - 2)
        case b"conflict":
            return before == b"on" and words.count(b"conflict") == 1 and {b"insert", b"do"} <= set(words)
        case b"ilike":
            return _ends_operand(words, parenthesis - (3 if before == b"not" else 2))
        case b"insert":
            return before == b"then" and b"merge" in words
        case b"join":
            following = words[parenthesis + 1 : parenthesis + 3]
            query = following[:1] and (following[0] in _QUERIES or following == [b"values", b"("])
            return bool(query) or before in _JOINS or _ends_operand(words, parenthesis - 2)
        case b"materialized":
            return before == b"not" and words[parenthesis - 3 : parenthesis - 2] == [b"as"]
        case b"ref" | b"value":
            return before == b"by" and words[parenthesis - 3 : parenthesis - 2] == [b"passing"]
        case b"set":
            return before == b"update" or (b"update" in words and _ends_operand(words, parenthesis - 2))
    # An OPERATOR that is none is no SQL; which one it is, is looked at elsewhere.
    return True


def _ends_operand(words: list[bytes], index: int) -> bool:
    """Tell whether a word surely ends an operand, so that no function can follow it."""
    word = words[index] if index >= 0 else b""
    if word == b")":
        return b"operator" not in words
    if is_literal(word) or word[-1:] in (b'"', b"]") or word[:1].isdigit() or word[:1] == b"$" or b"." in word[1:]:
        return True
    if index and words[index - 1] == b".":
        return word != b"*"
    return word == b"end" or (is_name(word) and word not in _ALL_KEYWORDS)


def is_name(word: bytes) -> bool:
    """Tell a word, a dotted name or a quoted identifier from literals and punctuation."""
    return word[-1:] == b'"' or (word[-1:] != b"'" and word[:1] in _NAME_STARTS)


def find_column_lists(words: list[bytes]) -> set[int]:
    """Find the parentheses behind a name that hold column names or type modifiers, not arguments.

    `WITH name (...)`, `FROM x AS name (...)`, `FROM x name (...)`, `INTO name (...)`, `CAST(x AS name (...))`,
    `x::name (...)`. In doubt a parenthesis is left out, so that it counts as a call.
    """
    found: set[int] = set()
    outer: list[bytes] = []
    clause = b""
    for index, word in enumerate(words):
        previous = words[index - 1] if index else b"("
        if word == b"(":
            sets = clause == b"group" and previous == b"sets"
            if _opens_column_list(words, index, clause):
                found.add(index)
            outer.append(clause)
            in_from = clause == b"from" and previous in (b"from", b"join", b",", b"(")
            clause = b"from" if in_from else b"group" if sets else b""
        elif word == b")":
            clause = outer.pop() if outer else b""
        elif word == b"with":
            clause = b"with" if previous == b"(" or index == 0 else clause
        elif (word == b"from" and previous != b"distinct") or word == b"join":
            clause = b"from"
        elif word == b"by" and previous == b"group":
            clause = b"group"
        elif word in _EXPRESSION_FOLLOWS:
            clause = b""
    return found


def _opens_column_list(words: list[bytes], index: int, clause: bytes) -> bool:
    start = index - 1
    while start > 1 and words[start - 1] == b".":
        start -= 2
    before = words[start - 1] if start > 0 else b""
    if not is_name(words[start]) or words[start] in _KEYWORDS:
        return False
    if before in _NO_CALL_BEHIND:
        return True
    if clause == b"group":
        return words[start] in _GROUPINGS and before in (b"by", b",", b"(", b"all", b"distinct")
    if clause == b"with":
        return before in (b"with", b"recursive", b",")
    return clause == b"from" and (before == b")" or (is_name(before) and before not in _KEYWORDS))
