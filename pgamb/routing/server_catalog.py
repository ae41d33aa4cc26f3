"""What one database's own catalogue says: its functions, and whatever else makes a query more than a read.

Names are looked up without regard to search_path: an unqualified name counts as the strongest of all schemas, an
overloaded one as its strongest overload, PostgreSQL's own functions included. `assembly.assemble` makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

from pgamb.routing.catalog import BuiltIn, Effect, Hazard
from pgamb.routing.functions import COLUMN_NAMES
from pgamb.routing.lexer import NAME_BYTES, identifier
from pgamb.routing.names import as_bytes, is_plain, may_be_cut, spellings

HARMLESS = Hazard(Effect.HARMLESS, "")
_HARMLESS_BESIDES = (Effect.HARMLESS, Effect.TRANSACTION_TIME, Effect.PRIMARY, Effect.ASKS_SETTING)

_OPERATOR_STARTS = frozenset(b"~!@#^&|`?+-*/%<>=")
_NAME_STARTS = frozenset(b"abcdefghijklmnopqrstuvwxyz_") | frozenset(range(0x80, 0x100))
# Signs that may stick to an operator, `=-1` for `= -1`.
_SIGNS = (b"", b"-", b"+", b"+-", b"-+", b"++", b"+-+", b"++-", b"+++")
# Operators that are not always written as operators.
_WRITTEN_AS: dict[bytes, bytes] = {
    b"=": b"in any some all case nullif distinct using natural join between intersect except union group",
    b"<>": b"!= in any some all distinct",
    b"<": b"order between max min sort",
    b"<=": b"between",
    b">": b"order between max min",
    b">=": b"between",
    b"~~": b"like any some all",
    b"!~~": b"like any some all",
    b"~~*": b"ilike",
    b"!~~*": b"ilike",
    b"~": b"similar",
    b"!~": b"similar",
}
_ELUSIVE = "a name outside ASCII, which may stand for {} in its encoding"


def stronger(one: Hazard, other: Hazard) -> Hazard:
    """Give what both together may do; the very first if the other one adds nothing to it."""
    if one.effect.value >= other.effect.value:
        one, other = other, one
    if one.effect is other.effect or one.effect in _HARMLESS_BESIDES or other.effect is Effect.UNKNOWN:
        return other
    # Each leaves something of its own behind, in the data or in the session.
    return Hazard(Effect.UNKNOWN, other.reason)


class ServerCatalog:
    """Implements `Catalog` for one database. Its `add_` methods are for the assembly alone."""

    def __init__(self, server_version: int, database: str) -> None:
        self._built_in = BuiltIn(server_version)
        self._database = database
        self._functions: dict[tuple[str | None, str], Hazard] = {}
        self._relations: dict[str, dict[str | None, Hazard]] = {}
        self._attributes: dict[str, Hazard] = {}
        self._operators: dict[bytes, Hazard] = {}
        self.harmless: set[bytes] = set(self._built_in.harmless)
        self.operators: set[bytes] = set()
        self._suspects: set[bytes] = set()
        self._attribute_words: set[bytes] = set()
        self._has_long = False
        self._has_foreign = False

    def __eq__(self, other: object) -> bool:
        """Tell whether both would give the same answers."""
        return isinstance(other, ServerCatalog) and self._content() == other._content()

    __hash__ = None  # type: ignore[assignment]

    def _content(self) -> tuple[object, ...]:
        built_in = self._built_in.harmless
        return (self._functions, self._relations, self._attributes, self._operators, self.operators, built_in)

    def __repr__(self) -> str:
        functions = sum(schema is not None for schema, _ in self._functions)
        return (
            f"<ServerCatalog of {self._database}: {functions} functions, {len(self._relations)} suspicious relations>"
        )

    # As Catalog.

    def is_suspicious(self, words: Set[bytes]) -> bool:
        if not words.isdisjoint(self._suspects):
            return True
        if self._attribute_words and not self._attribute_words.isdisjoint(
            word.rpartition(b".")[2] for word in words if b"." in word
        ):
            return True
        if self._has_foreign and not all(map(bytes.isascii, words)):
            return True
        return self._has_long and any(len(word) > NAME_BYTES for word in words)

    def function(self, schema: str | None, name: str) -> Effect:
        return self.call(schema, name).effect

    def evidence(self, schema: str | None, name: str) -> str:
        return self.call(schema, name).reason

    def call(self, schema: str | None, name: str) -> Hazard:
        """Tell what a call does, and why."""
        built_in = self._built_in.function(schema, name)
        own = self._functions.get((schema, name))
        if own is None:
            return Hazard(built_in, "")
        # What PostgreSQL itself does not have is unknown to it.
        return own if built_in is Effect.UNKNOWN else stronger(Hazard(built_in, ""), own)

    def hazards(self, tokens: Sequence[bytes], words: Sequence[bytes]) -> Iterator[Hazard]:
        for index, word in enumerate(words):
            if word[:1] and word[0] in _OPERATOR_STARTS:
                yield from self._hazards_of_operator(word)
            elif word[-1:] == b'"' or (word[:1] and word[0] in _NAME_STARTS and word[-1:] != b"'"):
                behind_dot = index > 0 and words[index - 1] == b"."
                called = words[index + 1 : index + 2] == [b"("]
                yield from self._hazards_of_name(tokens[index], behind_dot, called)

    def _hazards_of_operator(self, word: bytes) -> Iterator[Hazard]:
        found = self._operators.get(word) or self._operators.get(word.rstrip(b"+-"))
        if word == b"!=":
            found = found or self._operators.get(b"<>")
        if found is not None and found.effect is not Effect.HARMLESS:
            yield found

    def _hazards_of_name(self, token: bytes, behind_dot: bool, called: bool) -> Iterator[Hazard]:
        schema: str | None = None
        last = token
        if token[-1:] != b'"' and b"." in token:
            before, _, last = token.rpartition(b".")
            schema = identifier(before.rpartition(b".")[2])
        name = identifier(last)
        if name is None:
            return
        for home, hazard in self._relations.get(name, {}).items():
            if schema is None or home is None or home == schema:
                yield hazard
        if (behind_dot or schema is not None) and not called and name in self._attributes:
            yield self._attributes[name]
        spelled = _WRITTEN_WITH.get(last.lower())
        if spelled is not None:
            for operator in spelled:
                yield from self._hazards_of_operator(operator)
        if self._has_foreign and not last.isascii():
            # In another client encoding it may be any of them.
            for other, homes in self._relations.items():
                if not other.isascii():
                    for hazard in homes.values():
                        yield Hazard(hazard.effect, _ELUSIVE.format(other))

    # For the assembly.

    def word(self, name: str) -> Hazard:
        """Tell the worst that a word may mean in code that is not understood: a function, relation or type."""
        found = HARMLESS
        call = self.call(None, name)
        if call.effect is not Effect.UNKNOWN or (None, name) in self._functions:
            found = (
                Hazard(call.effect, call.reason or f"function {name}") if call.effect is not Effect.HARMLESS else found
            )
        for hazard in self._relations.get(name, {}).values():
            found = stronger(found, hazard)
        return stronger(found, self._attributes.get(name, HARMLESS))

    def add_function(self, schema: str, name: str, hazard: Hazard, *, attribute: bool) -> set[bytes]:
        """Note what one overload does. Returns the words that mean more than before."""
        changed = False
        for key in ((schema, name), (None, name)):
            known = self._functions.get(key, HARMLESS)
            self._functions[key] = stronger(known, hazard)
            changed |= self._functions[key] is not known
        if self.function(None, name) is not Effect.HARMLESS:
            self.harmless.discard(as_bytes(name))
        elif is_plain(name):
            self.harmless.add(as_bytes(name))
        if hazard.effect is Effect.HARMLESS:
            return set()
        if attribute:
            self._attributes[name] = stronger(self._attributes.get(name, HARMLESS), hazard)
            self._attribute_words.add(as_bytes(name))
            self._suspects.update(spellings(name))
        if as_bytes(name) in COLUMN_NAMES:
            # In front of a parenthesis it is a keyword: its overload would go unseen.
            self._suspect(name, None, hazard)
        return set(spellings(name, schema, self._database)) if changed else set()

    def add_relation(self, name: str, schema: str | None, hazard: Hazard) -> set[bytes]:
        """Note what reading a relation, or naming a type, does. Returns the words that mean more than before."""
        if hazard.effect is Effect.HARMLESS:
            return set()
        return self._suspect(name, schema, hazard)

    def _suspect(self, name: str, schema: str | None, hazard: Hazard) -> set[bytes]:
        homes = self._relations.setdefault(name, {})
        known = homes.get(schema)
        if known is not None and stronger(known, hazard) is known:
            return set()
        homes[schema] = hazard
        words = set(spellings(name, schema, self._database))
        self._suspects |= words
        self._has_long |= may_be_cut(name)
        self._has_foreign |= not name.isascii()
        return words

    def add_operator(self, operator: bytes, hazard: Hazard) -> set[bytes]:
        """Note what one operator of this name does. Returns the words that mean more than before."""
        known = self._operators.get(operator, HARMLESS)
        self._operators[operator] = stronger(known, hazard)
        if self._operators[operator].effect is Effect.HARMLESS:
            self.operators.add(operator)
            return set()
        self.operators.discard(operator)
        if self._operators[operator] is known:
            return set()
        words = {operator + signs for signs in _SIGNS} | set(_WRITTEN_AS.get(operator, b"").split())
        self._suspects |= words
        return words


_WRITTEN_WITH: dict[bytes, list[bytes]] = {}
for _operator, _words in _WRITTEN_AS.items():
    for _word in _words.split():
        _WRITTEN_WITH.setdefault(_word, []).append(_operator)
