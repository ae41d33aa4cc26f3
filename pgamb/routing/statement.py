"""One statement of a Query, as tokens."""

from __future__ import annotations

import msgspec

from pgamb.routing.catalog import Catalog
from pgamb.routing.lexer import identifier


class Statement(msgspec.Struct, frozen=True):
    """One statement: its tokens, the same in lower case, and the notes of the text that it is part of."""

    tokens: list[bytes]
    words: list[bytes]
    notes: int
    catalog: Catalog

    def part(self, start: int, end: int | None = None) -> Statement:
        """Give the statement made of some of its tokens."""
        return Statement(self.tokens[start:end], self.words[start:end], self.notes, self.catalog)

    def word(self, index: int) -> bytes:
        """Give a word, empty behind the end."""
        return self.words[index] if index < len(self.words) else b""

    def name(self, index: int) -> str | None:
        """Give the identifier at a position, folded and unquoted."""
        return identifier(self.tokens[index]) if index < len(self.tokens) else None
