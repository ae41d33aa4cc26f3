"""Which address a DSN names, and that asyncpg, which reads the DSN too, would go to the same one."""

from __future__ import annotations

import pytest

from pgamb.errors import ConfigError
from pgamb.registry.model import Address
from pgamb.server.target import SOCKET_FOLDERS, parse_target


@pytest.mark.parametrize(
    ("dsn", "address"),
    [
        ("postgresql://u:p@10.0.0.5:5433/db", Address("10.0.0.5", 5433)),
        ("postgres://10.0.0.5", Address("10.0.0.5", 5432)),
        ("postgresql://u@db.example.org/x?sslmode=require", Address("db.example.org", 5432)),
        ("postgresql://u:p%40ss@[::1]:6000/db", Address("::1", 6000)),
        ("postgresql://u@[2001:db8::1]/db", Address("2001:db8::1", 5432)),
        ("postgresql://u@%2Frun%2Fpostgresql:5433/db", Address("/run/postgresql", 5433)),
        ("postgresql:///db?host=/run/postgresql&port=5434", Address("/run/postgresql", 5434)),
        ("postgresql://u@/db?host=10.0.0.6", Address("10.0.0.6", 5432)),
    ],
)
def test_the_address_of_a_dsn(dsn: str, address: Address) -> None:
    assert parse_target(dsn, {}).address == address


def test_what_is_missing_comes_from_the_environment() -> None:
    environ = {"PGHOST": "10.1.1.1", "PGPORT": "6543"}
    assert parse_target("postgresql:///db", environ).address == Address("10.1.1.1", 6543)
    assert parse_target("postgresql://u@h/db", environ).address == Address("h", 6543)


def test_without_any_host_a_socket_or_this_machine() -> None:
    address = parse_target("postgresql:///db?port=1", {}).address
    assert address == Address("localhost", 1) or address.host in SOCKET_FOLDERS


@pytest.mark.parametrize(
    ("dsn", "words"),
    [
        ("mysql://h/db", "not a postgresql:// URL"),
        ("h:5432", "not a postgresql:// URL"),
        ("", "not a postgresql:// URL"),
        ("postgresql://u:secret@one,two/db", "several servers"),
        ("postgresql://u:secret@/db?host=one,two", "several servers"),
        ("postgresql://u:secret@h:0/db", '"0" is not a port'),
        ("postgresql://u:secret@h:99999/db", '"99999" is not a port'),
        ("postgresql://u:secret@h:x/db", '"x" is not a port'),
        ("postgresql://u:secret@h/db?service=x", "service"),
        ("postgresql://u:secret@[::1/db", "not a URL"),
        ("postgresql://u:secret@h/db?sslmode", "not a URL"),
    ],
)
def test_a_bad_dsn_is_explained_without_its_password(dsn: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_target(dsn, {})
    assert words in caught.value.message
    assert caught.value.hint
    assert "secret" not in caught.value.message + caught.value.hint


def test_a_target_never_shows_its_dsn() -> None:
    target = parse_target("postgresql://u:secret@h/db", {})
    assert "secret" not in repr(target)
    assert target.at(Address("other", 1)).dsn == target.dsn
