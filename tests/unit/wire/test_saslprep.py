"""Passwords become the bytes that PostgreSQL hashes (an end-to-end test asks PostgreSQL itself)."""

from __future__ import annotations

import pytest

from pgamb.wire.saslprep import prepare_password


@pytest.mark.parametrize(
    ("password", "prepared"),
    [
        ("", b""),
        ("pencil", b"pencil"),
        ("a\x07b", b"a\x07b"),  # pure ASCII is taken as it is
        ("I\u00adX", b"IX"),  # RFC 4013's examples: soft hyphen mapped to nothing
        ("\u00aa", b"a"),
        ("\u2168", b"IX"),
        ("a\u00a0b", b"a b"),
        ("a\u200bb", b"a b"),
        ("e\u0301", "é".encode()),
        ("\u0627\u0628", "\u0627\u0628".encode()),
    ],
)
def test_prepared(password: str, prepared: bytes) -> None:
    assert prepare_password(password) == prepared


# Each holds something that normalization would change, so that leaving it alone can be told from preparing it.
@pytest.mark.parametrize(
    "password",
    [
        "\u0007\u00aa",
        "\u06271\u00bd",
        "\u00bd\u0627",
        "\u00aa\u0627",
        "\u0627\u00aa\u0627",
        "\u00ad",
        "\u0221\u00aa",
        "\ue000\u00aa",
        "\ufffd\u00aa",
        "\u2028\u00aa",
        "\U000e0001\u00aa",
        "\u0340x",
    ],
)
def test_what_saslprep_forbids_is_used_as_it_is(password: str) -> None:
    assert prepare_password(password) == password.encode()


def test_bytes_that_are_no_utf8_are_used_as_they_are() -> None:
    assert prepare_password(b"gr\xfcn".decode("utf-8", "surrogateescape")) == b"gr\xfcn"
