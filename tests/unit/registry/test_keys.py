"""What the registry's keys are called, and what is made of their contents."""

from __future__ import annotations

import pytest

from pgamb.errors import ConfigError
from pgamb.registry.keys import Keys, encode, read_topology
from pgamb.registry.model import Address, Member, PrimaryRecord, Role, Stats
from pgamb.registry.store import KeyRange, KeyValue

KEYS = Keys("db")


def member(node: str, role: Role, timeline: int = 1) -> Member:
    return Member(node, role, (Address("h"),), timeline, "1", 150000)


def items(*members: Member, primary: PrimaryRecord | None = None, cluster: str | None = "1") -> dict[str, KeyValue]:
    values = {KEYS.member(member.node): encode(member) for member in members}
    if primary is not None:
        values[KEYS.primary] = encode(primary)
    if cluster is not None:
        values[KEYS.cluster] = cluster.encode()
    return {key: KeyValue(key, value, 1) for key, value in values.items()}


def test_the_keys_are_those_of_the_design() -> None:
    assert KEYS.member("pg1") == "/pgamb/db/members/pg1"
    assert KEYS.stats("pg1") == "/pgamb/db/stats/pg1"
    assert KEYS.primary == "/pgamb/db/primary"
    assert KEYS.cluster == "/pgamb/db/cluster"
    assert Keys("db", "a/b/").primary == "/a/b/db/primary"
    assert Keys("db", "").primary == "/db/primary"


def test_all_but_the_statistics_is_watched() -> None:
    for key in (KEYS.member("pg1"), KEYS.member("ü"), KEYS.primary, KEYS.cluster):
        assert key.encode() in KEYS.watched
    for key in (KEYS.stats("pg1"), Keys("db2").primary, Keys("d").primary, Keys("zz").cluster):
        assert key.encode() not in KEYS.watched
    assert KEYS.stats("pg1").encode() in KEYS.stats_range


def test_a_prefix_covers_what_begins_with_it() -> None:
    covered = KeyRange.prefix("/a/")
    assert b"/a/" in covered
    assert b"/a/\xff\xff" in covered
    assert b"/a" not in covered
    assert b"/a0" not in covered


@pytest.mark.parametrize("name", ["", "a/b", "a\nb", " a", "a "])
def test_names_that_cannot_be_a_part_of_a_key_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        Keys(name)
    with pytest.raises(ConfigError):
        KEYS.member(name)


def test_members_are_sorted_by_node_and_judged_by_the_record() -> None:
    held = items(
        member("c", Role.PRIMARY, 2),
        member("a", Role.PRIMARY, 3),
        member("b", Role.REPLICA, 3),
        primary=PrimaryRecord("a", 3),
    )
    problems: list[str] = []
    topology = read_topology(KEYS, held, 7, problems)
    assert [(m.node, m.role) for m in topology.members] == [
        ("a", Role.PRIMARY),
        ("b", Role.REPLICA),
        ("c", Role.STALE_PRIMARY),
    ]
    assert (topology.service, topology.cluster, topology.revision, topology.conflict) == ("db", "1", 7, ())
    assert problems == []


def test_two_primaries_on_the_highest_timeline_are_a_conflict() -> None:
    pair = member("a", Role.PRIMARY, 2), member("b", Role.PRIMARY, 2)
    for record in (None, PrimaryRecord("a", 2)):
        topology = read_topology(KEYS, items(*pair, primary=record), 1, [])
        assert topology.conflict == ("a", "b")
    topology = read_topology(KEYS, items(*pair, member("c", Role.PRIMARY, 3)), 1, [])
    assert topology.conflict == (), "both are below the third"


def test_what_is_no_member_is_named_and_left_out() -> None:
    held = items(member("a", Role.REPLICA), Member("b", Role.REPLICA, (), 1, "2", 1))
    for key, value in (
        (KEYS.member("c"), b"{"),
        (KEYS.member("d"), encode(member("e", Role.REPLICA))),
        (KEYS.primary, b"\xff"),
    ):
        held[key] = KeyValue(key, value, 1)
    problems: list[str] = []
    topology = read_topology(KEYS, held, 1, problems)
    assert [m.node for m in topology.members] == ["a"]
    assert topology.primary is None
    assert len(problems) == 4
    assert (
        encode(Stats("a"))
        == b'{"node":"a","wal_lsn":null,"replay_lsn":null,"lag_bytes":null,"lag_s":null,"connections":null}'
    )
