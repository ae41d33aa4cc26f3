"""What `pgamb status` says: who is primary and why, and what is wrong with whom. A test for each reason."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console

from pgamb.cli.picture import lag_text, lsn_text, picture, size_text, table, version_text, why
from pgamb.registry.model import Address, Member, MemberState, PrimaryRecord, RegistryStatus, Role, Stats, Topology

CONNECTED = RegistryStatus("etcd://h:2379", "h:2379", connected=True, age_s=0.1, last_error=None)


def member(node: str, role: Role = Role.REPLICA, timeline: int = 3, **more: object) -> Member:
    made = Member(node, role, (Address("10.0.0.1", 5432),), timeline, "77", 150004)
    return msgspec.structs.replace(made, **more)


PG1 = member("pg1", Role.PRIMARY)
PG2 = member("pg2")


def topology(*members: Member, record: PrimaryRecord | None = None, conflict: tuple[str, ...] = ()) -> Topology:
    return Topology("db", members, record, "77", conflict, 5)


def drawn(seen: Topology, stats: tuple[Stats, ...] = (), status: RegistryStatus = CONNECTED) -> str:
    console = Console(width=300, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(table(picture(seen, stats, status)))
    return capture.get()


@pytest.mark.parametrize(
    ("seen", "primary", "words"),
    [
        (
            topology(PG1, PG2, record=PrimaryRecord("pg1", 3)),
            "pg1",
            "pg1 says primary with timeline 3, and the registry's `primary` key names pg1 with timeline 3",
        ),
        (topology(), None, "no member is registered: start `pgamb server`"),
        (topology(record=PrimaryRecord("pg1", 3)), None, "(the last primary was pg1 on timeline 3)"),
        (topology(PG1, PG2), None, "pg1 says primary, but no agent has written the registry's `primary` key"),
        (topology(PG2), None, "all members are replicas, and none was ever primary here"),
        (topology(PG2, record=PrimaryRecord("pg1", 3)), None, "names pg1 with timeline 3, but it is not registered"),
        (topology(PG2, record=PrimaryRecord("pg2", 3)), None, "but it says replica: promote a replica"),
        (topology(PG1, record=PrimaryRecord("pg1", 2)), None, "with timeline 2, but it answers with timeline 3"),
        (topology(PG1, member("pg3", Role.PRIMARY), conflict=("pg1", "pg3")), None, "pg1 and pg3 both say primary"),
        (
            topology(PG1, member("pg3", Role.PRIMARY), record=PrimaryRecord("pg1", 3), conflict=("pg1", "pg3")),
            "pg1",
            "pg1 says primary with timeline 3",
        ),
    ],
)
def test_who_is_primary_and_why(seen: Topology, primary: str | None, words: str) -> None:
    made = picture(seen, (), CONNECTED)
    assert made.primary == primary
    assert words in made.why
    assert f"primary {primary or 'none'}  because {made.why}" in drawn(seen)


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (topology(), "no server of static:// answers"),
        (topology(PG2), "no server says primary"),
        (topology(PG2, record=PrimaryRecord("pg1", 3)), "pg1 was primary with timeline 3, and does not answer"),
        (topology(PG1, record=PrimaryRecord("pg1", 3)), "nobody says so with a higher one"),
        (topology(PG1, conflict=("pg1", "pg3")), "both say primary on one timeline: nobody writes"),
    ],
)
def test_why_without_a_registry(seen: Topology, words: str) -> None:
    assert words in why(seen, source="static://h")


@pytest.mark.parametrize(
    ("odd", "conflict", "words"),
    [
        (member("pg3", Role.STALE_PRIMARY, 2), (), "stale primary on timeline 2; pg1 is primary with 3"),
        (member("pg3", Role.PRIMARY, 3), ("pg1", "pg3"), "in conflict: pg1 and pg3 say primary on one timeline"),
        (member("pg3", timeline=2), (), "follows timeline 2, the primary is on 3"),
        (member("pg3", state=MemberState.DRAINING), (), "draining: takes no new work"),
    ],
)
def test_what_is_wrong_with_a_member(odd: Member, conflict: tuple[str, ...], words: str) -> None:
    seen = topology(PG1, odd, record=PrimaryRecord("pg1", 3), conflict=conflict)
    made = picture(seen, (), CONNECTED)
    assert any(words in note for note in made.members[1].notes)
    assert f"pg3: {made.members[1].notes[0]}" in drawn(seen)
    assert (made.stale_primaries == ("pg3",)) is (odd.role is Role.STALE_PRIMARY)


def test_a_sound_member_has_no_notes() -> None:
    made = picture(topology(PG1, PG2, record=PrimaryRecord("pg1", 3)), (), CONNECTED)
    assert [each.notes for each in made.members] == [(), ()]


def test_lag_and_positions() -> None:
    stats = (
        Stats("pg1", wal_lsn=0x1_0300_0148, lag_bytes=7, lag_s=1.0, connections=4),
        Stats("pg2", replay_lsn=0x300_0000, lag_bytes=1_234_567, lag_s=3.04),
    )
    first, second = picture(topology(PG1, PG2), stats, CONNECTED).members
    assert (first.lag_bytes, first.lag_s, first.wal_lsn, first.connections) == (None, None, "1/3000148", 4)
    assert (second.lag_bytes, second.replay_lsn) == (1_234_567, "0/3000000")
    assert lag_text(first) == "-"
    assert lag_text(second) == "1.2 MB, 3.0 s"
    assert "1.2 MB, 3.0 s" in drawn(topology(PG1, PG2), stats)


def test_a_replica_that_caught_up_has_no_lag_in_seconds() -> None:
    stats = (Stats("pg2", lag_bytes=0, lag_s=500.0),)
    assert lag_text(picture(topology(PG2), stats, CONNECTED).members[0]) == "0"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            RegistryStatus("etcd://h", "h:2379", False, 12.4, "refused"),
            "h:2379 cannot be reached, the picture is 12 s old: refused",
        ),
        (RegistryStatus("static://h", None, False, None, "h: refused"), "static://h cannot be reached: h: refused"),
        (RegistryStatus("static://h,i", "i:1", True, 0.1, "h: refused"), "registry: h: refused"),
    ],
)
def test_doubt_about_the_registry(status: RegistryStatus, words: str) -> None:
    assert words in drawn(topology(PG1), status=status)


@pytest.mark.parametrize(
    "status",
    [
        CONNECTED,
        RegistryStatus("etcd://h", "h:2379", True, 40.0, None),
        RegistryStatus("etcd://h", "h:2379", False, 0.1, None),
    ],
)
def test_no_doubt(status: RegistryStatus) -> None:
    assert "registry:" not in drawn(topology(PG1), status=status)


def test_markup_in_a_name_is_only_a_name() -> None:
    assert "[bold]x" in drawn(topology(member("[bold]x")))


def test_json_has_the_keys_that_are_documented() -> None:
    made = msgspec.json.decode(
        msgspec.json.encode(picture(topology(PG1, record=PrimaryRecord("pg1", 3)), (), CONNECTED))
    )
    assert made["primary"] == "pg1"
    assert made["record"] == {"node": "pg1", "timeline": 3}
    assert made["members"][0]["role"] == "primary"
    assert made["members"][0]["server_version"] == "15.4"
    assert made["registry"]["connected"] is True


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (15_500, "16 kB"),
        (999_700, "1.0 MB"),
        (3 * 10**9, "3.0 GB"),
        (5 * 10**12, "5.0 TB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


def test_versions_and_positions() -> None:
    assert [version_text(number) for number in (150004, 90624, 170000)] == ["15.4", "9.6.24", "17.0"]
    assert lsn_text(None) is None


PATRONI = RegistryStatus("patroni+etcd://h:2379/service/demo", "h:2379", connected=True, age_s=0.1, last_error=None)


@pytest.mark.parametrize(
    ("seen", "notes", "words"),
    [
        (topology(PG1, record=PrimaryRecord("pg1", 3)), (), "with timeline 3, and holds Patroni's leader key"),
        (topology(PG1, record=PrimaryRecord("pg1", 3)), ("paused",), "and holds Patroni's leader key"),
        (topology(), ("nobody holds the leader key",), "no member of Patroni runs: is it started"),
        (topology(PG2), ("nobody holds the leader key", "paused"), "nobody holds the leader key"),
        (topology(PG2), (), "nobody says primary and holds Patroni's leader key"),
        (topology(PG1, conflict=("pg1", "pg3")), ("x",), "both say primary on one timeline: nobody writes"),
    ],
)
def test_why_with_patroni(seen: Topology, notes: tuple[str, ...], words: str) -> None:
    status = msgspec.structs.replace(PATRONI, notes=notes)
    assert words in picture(seen, (), status).why


def test_what_the_registry_notes_is_shown_once() -> None:
    text = drawn(topology(PG2), status=msgspec.structs.replace(PATRONI, notes=("nobody leads", "Patroni is paused")))
    assert "primary none  because nobody leads" in text
    assert text.count("nobody leads") == 1
    assert "registry: Patroni is paused" in text


def test_members_as_patroni_tells_of_them() -> None:
    unknown = member("pg2", timeline=0, server_version=0, weight=0)
    text = drawn(topology(PG1, unknown, record=PrimaryRecord("pg1", 3)))
    assert "pg2: of weight 0 (Patroni's tag noloadbalance): gets no reads" in text
    assert "follows timeline" not in text
    assert " 0.0.0 " not in text
    assert version_text(0) == "-"
    assert "weight 0" not in drawn(topology(member("pg1", Role.PRIMARY, weight=0), record=PrimaryRecord("pg1", 3)))
