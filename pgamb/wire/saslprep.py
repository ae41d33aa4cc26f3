"""SASLprep (RFC 4013) of passwords, as PostgreSQL does it.

A password that SASLprep forbids is used as it is, byte for byte: PostgreSQL allows any password, and both sides
must come to the same bytes. For the same reason the prohibitions are looked for before normalization, as PostgreSQL
does (`pg_saslprep`), where the RFC would have them looked for behind it.
"""

from __future__ import annotations

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,  # unassigned in Unicode 3.2: a "stored string" may not hold them
)


def prepare_password(password: str) -> bytes:
    """Give the bytes that SCRAM hashes for this password."""
    raw = password.encode("utf-8", "surrogateescape")
    if password.isascii():
        return raw
    prepared = _saslprep(password)
    return raw if prepared is None else prepared.encode("utf-8")


def _saslprep(text: str) -> str | None:
    # U+200B is in both tables; as in PostgreSQL, it is a space before it is nothing.
    spaced = (" " if stringprep.in_table_c12(character) else character for character in text)
    mapped = "".join(character for character in spaced if not stringprep.in_table_b1(character))
    if not mapped or any(forbids(character) for character in mapped for forbids in _PROHIBITED):
        return None
    return unicodedata.normalize("NFKC", mapped) if _bidi_allows(mapped) else None


def _bidi_allows(text: str) -> bool:
    """Check RFC 3454 section 6: right-to-left text is not mixed, and stands at both ends."""
    right_to_left = [stringprep.in_table_d1(character) for character in text]
    if not any(right_to_left):
        return True
    if any(stringprep.in_table_d2(character) for character in text):
        return False
    return right_to_left[0] and right_to_left[-1]
