"""What a definition does when it runs: a view's query, the body of a function that is not declared volatile.

In such a function PostgreSQL itself refuses every command that is not a plain query, on the primary too. What is left
to be found is what a query may do: call functions, read relations, look at the time of its transaction. A handler of
exceptions could swallow a replica's refusal, and so make a wrong answer of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pgamb.routing.catalog import Effect, Hazard
from pgamb.routing.classify import classify
from pgamb.routing.intent import Intent, Need, Pin
from pgamb.routing.lexer import identifier, is_literal, scan
from pgamb.routing.query import examine
from pgamb.routing.scanner import NOTE_NAME, NOTE_OPERATOR, NOTE_TIME
from pgamb.routing.server_catalog import HARMLESS, ServerCatalog, stronger

# Languages whose code is in the catalogue; how each of them catches an error.
SCRIPTS: dict[str, re.Pattern[bytes]] = {
    **dict.fromkeys(("plperl", "plperlu"), re.compile(rb"\b(?:eval|try|catch)\b")),
    **dict.fromkeys(("plpython3u", "plpython2u", "plpythonu"), re.compile(rb"\b(?:try|except|exec|eval|suppress)\b")),
    **dict.fromkeys(("pltcl", "pltclu"), re.compile(rb"\b(?:catch|try|eval)\b")),
    **dict.fromkeys(("plv8", "plcoffee", "plls", "pljs"), re.compile(rb"\b(?:try|catch|eval|subtransaction)\b")),
}
_ANY_WORD = re.compile(rb"[a-z_\x80-\xff][a-z0-9_$\x80-\xff]*")
_ANY_OPERATOR = re.compile(rb"[~!@#^&|`?+*/%<>=-]+")
# Quoted names have characters that words have not; comments stick to operators.
_NEEDS_LEXER = re.compile(rb'"|--|/\*')
# Words that mean something else in other languages; what they mean in SQL, PostgreSQL refuses there.
_NOT_SQL_HERE = frozenset(b"insert update delete merge into for operator".split())

# After these a statement of PL/pgSQL begins.
_STATEMENT_BEHIND = frozenset(b"; begin then else loop declare >>".split()) | {b""}
# What may stand there, or behind RETURN, in front of an expression, and is no function.
_OPENERS = frozenset(b"if elsif elseif while return perform assert execute foreach for exit continue raise".split())
_RETURNS = frozenset(b"query next".split())
_ASSIGNED = frozenset(b"into strict".split())

_EVERY_NOTE = NOTE_NAME | NOTE_OPERATOR | NOTE_TIME
_ATOMIC = re.compile(rb"\s*begin\s+atomic\b(.*)\bend\s*", re.IGNORECASE | re.DOTALL)
_RETURN = re.compile(rb"\s*return\b", re.IGNORECASE)


def words_of(text: bytes) -> frozenset[bytes]:
    """Give the words and operators that a definition is to be examined anew for when they mean more than before."""
    lowered = text.lower()
    words = {*_ANY_WORD.findall(lowered), *_ANY_OPERATOR.findall(lowered)}
    if _NEEDS_LEXER.search(text):
        words.update(scan(text).words)
    return frozenset(words)


def effect_of_query(text: bytes, catalog: ServerCatalog) -> Hazard:
    """Tell what the queries of a view, or of a function in SQL, do."""
    return _hazard_of(classify(text, catalog=catalog))


def effect_of_sql_body(text: bytes, catalog: ServerCatalog) -> Hazard:
    """Tell what a function in SQL does, by its text or as PostgreSQL prints a body in standard SQL."""
    if atomic := _ATOMIC.fullmatch(text):
        text = atomic[1]
    elif returned := _RETURN.match(text):
        text = b"SELECT" + text[returned.end() :]
    return effect_of_query(text, catalog)


def effect_of_plpgsql(text: bytes, arguments: Sequence[str], catalog: ServerCatalog) -> Hazard:
    """Tell what a body in PL/pgSQL does."""
    scanned = scan(text)
    tokens, words = list(scanned.tokens), list(scanned.words)
    dynamic = False
    before = b""
    for index, word in enumerate(scanned.words):
        if word == b"exception" and scanned.words[index + 1 : index + 2] == [b"when"]:
            return Hazard(Effect.UNKNOWN, "handles exceptions, a replica's refusal among them")
        if word == b"execute":
            dynamic = True
            if _is_given(scanned.tokens, index + 1, arguments):
                return Hazard(Effect.UNKNOWN, "runs SQL that it is given")
        opens = word in _OPENERS and before in _STATEMENT_BEHIND
        if opens or (word in _RETURNS and before == b"return"):
            tokens[index] = words[index] = b"select"
        elif word in _ASSIGNED:
            tokens[index] = words[index] = b","
        before = word
    found = _hazard_of(examine(tokens, words, scanned.notes, catalog).intent("its body"))
    if dynamic:
        for literal in filter(is_literal, words):
            found = stronger(found, effect_of_words(literal, catalog))
    return found


def _is_given(tokens: Sequence[bytes], index: int, arguments: Sequence[str]) -> bool:
    """Tell whether what EXECUTE runs begins with an argument of the function."""
    while tokens[index : index + 1] == [b"("]:
        index += 1
    if index >= len(tokens):
        return False
    return (tokens[index][:1] == b"$" and not is_literal(tokens[index])) or identifier(tokens[index]) in arguments


def effect_of_script(text: bytes, language: str, catalog: ServerCatalog) -> Hazard:
    """Tell what a body in another language does, by the words in it."""
    lowered = text.lower()
    if SCRIPTS[language].search(lowered):
        return Hazard(Effect.UNKNOWN, "handles exceptions, a replica's refusal among them")
    return effect_of_words(lowered, catalog)


def effect_of_words(lowered: bytes, catalog: ServerCatalog) -> Hazard:
    """Tell the worst that any word of a text could mean."""
    words = [word for word in dict.fromkeys(_ANY_WORD.findall(lowered)) if word not in _NOT_SQL_HERE]
    found = _hazard_of(examine(words, words, _EVERY_NOTE, catalog).intent("its words"))
    for word in words:
        found = stronger(found, catalog.word(word.decode(errors="surrogateescape")))
    return found


def _hazard_of(intent: Intent) -> Hazard:
    need = intent.need
    if intent.writes:
        return Hazard(Effect.UNKNOWN if need & Need.SETTINGS else Effect.WRITES, intent.reason)
    if need & Need.TRANSACTION_TIME and need & Need.READ:
        return Hazard(Effect.TRANSACTION_TIME, "looks at the time of its transaction")
    if need & (Need.READ | Need.EMPTY):
        return HARMLESS
    if need & Need.SETTINGS:
        return Hazard(Effect.SETTING, intent.reason)
    if need & Need.SEQUENCE:
        return Hazard(Effect.SEQUENCE, intent.reason)
    if intent.pins == Pin.ADVISORY_LOCK:
        return Hazard(Effect.ADVISORY_LOCK, intent.reason)
    return Hazard(Effect.UNKNOWN if intent.pins else Effect.PRIMARY, intent.reason)
