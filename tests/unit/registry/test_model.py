"""Addresses, and what a topology says of its members."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgamb.errors import ConfigError
from pgamb.registry.model import Address, Member, MemberState, PrimaryRecord, Role, Topology, parse_address


def member(node: str, role: Role, timeline: int = 1, state: MemberState = MemberState.RUNNING) -> Member:
    return Member(node, role, (Address("h"),), timeline, "1", 150000, state)


@pytest.mark.parametrize(
    ("text", "address", "written"),
    [
        ("db", Address("db", 5432), "db:5432"),
        ("db:6000", Address("db", 6000), "db:6000"),
        (" 10.0.0.1:1 ", Address("10.0.0.1", 1), "10.0.0.1:1"),
        ("[::1]:6000", Address("::1", 6000), "[::1]:6000"),
        ("[::1]", Address("::1", 5432), "[::1]:5432"),
        ("::1", Address("::1", 5432), "[::1]:5432"),
        ("fe80::1:5432", Address("fe80::1:5432", 5432), "[fe80::1:5432]:5432"),
        ("/run/pg", Address("/run/pg", 5432), "/run/pg:5432"),
        ("/run/pg:6000", Address("/run/pg", 6000), "/run/pg:6000"),
    ],
)
def test_addresses_are_read_and_written(text: str, address: Address, written: str) -> None:
    assert parse_address(text) == address
    assert str(address) == written
    assert parse_address(written) == address


@pytest.mark.parametrize(
    "text", ["", ":5432", "db:", "db:x", "db:0", "db:65536", "db:-1", "[::1", "[::1]x", "a b", "db:\uff15"]
)
def test_what_is_no_address_is_refused_with_advice(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert caught.value.hint


@given(st.text())
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        address = parse_address(text)
    except ConfigError:
        return
    assert address.host
    assert 0 < address.port < 65536


def test_a_unix_address_knows_its_socket() -> None:
    assert Address("/run/pg/", 6000).socket_path == "/run/pg/.s.PGSQL.6000"
    assert Address("/run/pg").is_unix
    assert not Address("run").is_unix


@pytest.mark.parametrize(
    ("role", "timeline", "record", "found"),
    [
        (Role.PRIMARY, 2, PrimaryRecord("a", 2), True),
        (Role.PRIMARY, 2, PrimaryRecord("a", 1), False),
        (Role.PRIMARY, 2, PrimaryRecord("a", 3), False),
        (Role.PRIMARY, 2, PrimaryRecord("b", 2), False),
        (Role.PRIMARY, 2, None, False),
        (Role.REPLICA, 2, PrimaryRecord("a", 2), False),
        (Role.STALE_PRIMARY, 2, PrimaryRecord("a", 2), False),
    ],
)
def test_the_primary_says_so_and_is_named(role: Role, timeline: int, record: PrimaryRecord | None, found: bool) -> None:
    topology = Topology("db", (member("a", role, timeline),), record)
    assert (topology.primary_member() is not None) is found


def test_draining_replicas_take_no_new_work() -> None:
    running, draining = member("a", Role.REPLICA), member("b", Role.REPLICA, state=MemberState.DRAINING)
    topology = Topology("db", (running, draining, member("c", Role.PRIMARY), member("d", Role.STALE_PRIMARY)))
    assert topology.replicas() == (running,)
    assert topology.member("b") == draining
    assert topology.member("x") is None


def test_an_older_or_newer_agent_is_understood() -> None:
    """Fields that it does not know are missing, those that we do not know are ignored."""
    older = (
        b'{"node":"a","role":"replica","addresses":[{"host":"h","port":5432}],"timeline":1,'
        b'"system_identifier":"1","server_version":150000,"new":{"x":1}}'
    )
    assert msgspec.json.decode(older, type=Member) == member("a", Role.REPLICA)
