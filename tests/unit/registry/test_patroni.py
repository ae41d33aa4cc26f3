"""What follows from a Patroni cluster's keys, case by case."""

from __future__ import annotations

import pytest

from pgamb.registry.model import Address, MemberState, PrimaryRecord, Role, Stats, Topology
from pgamb.registry.patroni import Awaited, Heard, Memory, PatroniKeys, Resolution, read_stats, resolve
from tests.support.patroni_keys import CLUSTER, KEYS, items_of, keys_of, member

PAIR = {"pg1": member("pg1", "primary"), "pg2": member("pg2")}


def seen(keys: dict[str, bytes], before: Resolution | None = None, heard: Heard | None = None) -> Resolution:
    memory = before.memory if before is not None else Memory()
    return resolve("db", KEYS, items_of(keys), 7, memory, heard)


def topology(resolution: Resolution) -> Topology:
    assert resolution.topology is not None
    return resolution.topology


def primary(resolution: Resolution) -> str | None:
    found = topology(resolution).primary_member()
    return found.node if found is not None else None


def replicas(resolution: Resolution) -> list[str]:
    return [each.node for each in topology(resolution).replicas()]


def test_an_ordinary_cluster() -> None:
    found = seen(keys_of(PAIR, leader="pg1"))
    assert primary(found) == "pg1"
    assert replicas(found) == ["pg2"]
    assert (found.notes, found.problems) == ((), ())
    known = topology(found)
    assert (known.service, known.cluster, known.primary, known.revision) == ("db", CLUSTER, PrimaryRecord("pg1", 1), 7)
    one = known.members[0]
    assert one.addresses == (Address("pg1.example", 5432),)
    assert (one.system_identifier, one.server_version, one.agent_version) == (CLUSTER, 0, "Patroni 4.1.5")


def test_master_is_what_older_patronis_call_a_primary() -> None:
    assert primary(seen(keys_of({"pg1": member("pg1", "master")}, leader="pg1"))) == "pg1"


def test_saying_primary_is_not_enough_and_neither_is_the_leader_key() -> None:
    found = seen(keys_of(PAIR, leader="pg2"))
    assert primary(found) is None
    assert topology(found).primary is None
    assert replicas(found) == ["pg2"], "reads go on"
    assert found.notes[0] == "pg2 holds the leader key and says replica: no writes until it is promoted"
    assert "pg1 says primary on timeline 1 without the leader key" in found.notes[1]


def test_a_leader_key_that_has_expired_leaves_reads_and_holds_writes() -> None:
    before = seen(keys_of(PAIR, leader="pg1"))
    found = seen(keys_of({"pg2": member("pg2")}), before)
    assert primary(found) is None
    assert replicas(found) == ["pg2"]
    assert "nobody holds the leader key" in found.notes[0]
    found = seen(keys_of(PAIR), found)
    assert primary(found) is None, "it says primary still, and has no key"
    again = seen(keys_of(PAIR, leader="pg1"), found)
    assert primary(again) == "pg1", "it has taken the key again, on the same timeline"


def test_a_failover_is_followed_when_the_new_leader_says_primary_itself() -> None:
    steps = seen(keys_of(PAIR, leader="pg1"))
    steps = seen(keys_of({"pg2": member("pg2")}, leader="pg2"), steps)
    assert primary(steps) is None
    steps = seen(keys_of({"pg2": member("pg2", "promoted")}, leader="pg2"), steps)
    assert primary(steps) is None
    assert replicas(steps) == ["pg2"], "a server that is being promoted goes on answering reads"
    steps = seen(keys_of({"pg2": member("pg2", "primary", 2)}, leader="pg2"), steps)
    assert topology(steps).primary == PrimaryRecord("pg2", 2)
    old = {"pg1": member("pg1", "primary"), "pg2": member("pg2", "primary", 2)}
    steps = seen(keys_of(old, leader="pg2"), steps)
    assert primary(steps) == "pg2"
    stale = topology(steps).member("pg1")
    assert stale is not None
    assert stale.role is Role.STALE_PRIMARY
    assert any("pg1 says primary on timeline 1 without the leader key" in note for note in steps.notes)


@pytest.mark.parametrize("role", ["replica", "promoted"])
def test_a_leader_that_says_replica_is_asked_and_its_own_answer_counts(role: str) -> None:
    before = seen(keys_of(PAIR, leader="pg1"))
    assert before.awaited is None
    waiting = keys_of({"pg2": member("pg2", role), "pg3": member("pg3")}, leader="pg2")
    found = seen(waiting, before)
    assert found.awaited == Awaited("pg2", Address("pg2.example", 5432))
    assert primary(found) is None
    found = seen(waiting, found, Heard("pg2", 2))
    assert topology(found).primary == PrimaryRecord("pg2", 2)
    assert primary(found) == "pg2"
    assert replicas(found) == ["pg3"]
    assert found.awaited is not None, "asked until its key says it too"
    assert primary(seen(waiting, before, Heard("pg3", 2))) is None, "the answer of one that is not awaited"
    assert primary(seen(waiting, found, Heard("pg2", 1))) is None, "a timeline that is over"
    told = keys_of({"pg2": member("pg2", "primary", 2)}, leader="pg2")
    assert seen(told, found).awaited is None


def test_nobody_else_is_asked() -> None:
    for keys in (
        keys_of(PAIR),
        keys_of({"pg2": member("pg2")}, leader="pg1"),
        keys_of({"pg2": member("pg2", state="starting")}, leader="pg2"),
        keys_of({"pg2": member("pg2", "standby_leader")}, leader="pg2"),
        keys_of({"pg2": member("pg2", conn_url="")}, leader="pg2"),
    ):
        assert seen(keys).awaited is None


def test_a_leader_on_a_lower_timeline_than_one_seen_before_gets_no_writes() -> None:
    before = seen(keys_of({"pg2": member("pg2", "primary", 3)}, leader="pg2"))
    found = seen(keys_of({"pg1": member("pg1", "primary", 2)}, leader="pg1"), before)
    assert primary(found) is None
    assert topology(found).members[0].role is Role.STALE_PRIMARY
    assert "pg2 was primary on timeline 3" in found.notes[0]
    found = seen(keys_of({"pg1": member("pg1", "primary", 4)}, leader="pg1"), found)
    assert primary(found) == "pg1"


def test_a_server_promoted_behind_patronis_back_is_not_followed_and_stops_nobody() -> None:
    """Patroni rewinds it, whatever its timeline: the leader key counts."""
    before = seen(keys_of(PAIR, leader="pg1"))
    both = {"pg1": member("pg1", "primary"), "pg2": member("pg2", "primary", 2)}
    found = seen(keys_of(both, leader="pg1"), before)
    assert primary(found) == "pg1"
    assert replicas(found) == []
    assert found.notes == ("pg2 says primary on timeline 2 without the leader key: gets no work",)
    found = seen(keys_of(PAIR, leader="pg1"), found)
    assert primary(found) == "pg1"


def test_two_primaries_on_one_timeline_are_a_conflict_and_the_newcomer_gets_nothing() -> None:
    both = {"pg1": member("pg1", "primary"), "pg2": member("pg2", "primary")}
    before = seen(keys_of(PAIR, leader="pg1"))
    found = seen(keys_of(both, leader="pg1"), before)
    assert primary(found) == "pg1", "the one that had the work keeps it"
    assert topology(found).conflict == ("pg1", "pg2")
    moved = seen(keys_of(both, leader="pg2"), found)
    assert primary(moved) is None
    assert topology(moved).conflict == ("pg1", "pg2")
    assert "pg1 still says primary" in moved.notes[0]
    alone = seen(keys_of({"pg1": member("pg1"), "pg2": member("pg2", "primary")}, leader="pg2"), moved)
    assert primary(alone) == "pg2"
    assert topology(alone).conflict == ()
    stopped = {"pg1": member("pg1", "primary", state="stopped"), "pg2": member("pg2", "primary")}
    alone = seen(keys_of(stopped, leader="pg2"), moved)
    assert primary(alone) == "pg2", "what is stopped claims nothing"
    assert topology(alone).conflict == ()


@pytest.mark.parametrize(
    "state", ["starting", "stopped", "crashed", "stopping", "restarting", "creating replica", "start failed", ""]
)
def test_only_what_runs_is_used(state: str) -> None:
    found = seen(keys_of({"pg1": member("pg1", "primary"), "pg2": member("pg2", state=state)}, leader="pg1"))
    assert [each.node for each in topology(found).members] == ["pg1"]
    assert "pg2 says replica" in found.notes[0]
    before = seen(keys_of(PAIR, leader="pg1"))
    found = seen(keys_of({**PAIR, "pg1": member("pg1", "primary", state=state)}, leader="pg1"), before)
    assert primary(found) is None
    assert topology(found).primary == PrimaryRecord("pg1", 1), "it is named still, and may come back as it was"
    assert replicas(found) == ["pg2"]
    assert "no writes until it runs" in found.notes[0]


def test_a_role_that_is_none_of_ours_is_left_out() -> None:
    found = seen(keys_of({**PAIR, "pg2": member("pg2", "uninitialized")}, leader="pg1"))
    assert replicas(found) == []
    assert found.notes == ("pg2 says uninitialized, running: not used",)


def test_a_leader_without_a_member_key() -> None:
    found = seen(keys_of({"pg2": member("pg2")}, leader="pg1"), seen(keys_of(PAIR, leader="pg1")))
    assert primary(found) is None
    assert topology(found).primary == PrimaryRecord("pg1", 1)
    assert "pg1 holds the leader key and has no member key" in found.notes[0]


def test_a_timeline_that_patroni_left_out_is_no_contradiction() -> None:
    silent = {**PAIR, "pg1": member("pg1", "primary", None), "pg2": member("pg2", timeline=None)}
    first = seen(keys_of(silent, leader="pg1"))
    assert primary(first) is None
    assert "does not say its timeline" in first.notes[0]
    before = seen(keys_of({**PAIR, "pg1": member("pg1", "primary", 5)}, leader="pg1"))
    found = seen(keys_of(silent, leader="pg1"), before)
    assert topology(found).primary == PrimaryRecord("pg1", 5)
    assert primary(found) == "pg1"
    assert replicas(found) == ["pg2"]
    other = seen(keys_of({"pg2": member("pg2", "primary", None)}, leader="pg2"), before)
    assert primary(other) is None, "of another one nothing is known"


def test_noloadbalance_keeps_reads_away_and_writes_not() -> None:
    tagged = member("pg2", tags={"noloadbalance": True, "clonefrom": True, "nofailover": True})
    found = seen(keys_of({**PAIR, "pg2": tagged, "pg3": member("pg3", tags={"nosync": True})}, leader="pg1"))
    assert replicas(found) == ["pg3"]
    kept = topology(found).member("pg2")
    assert kept is not None
    assert (kept.role, kept.weight) == (Role.REPLICA, 0)
    found = seen(keys_of({"pg2": member("pg2", "primary", tags={"noloadbalance": True})}, leader="pg2"))
    assert primary(found) == "pg2"


def test_tags_of_ours() -> None:
    def tags(**given: object) -> tuple[str, int]:
        found = topology(seen(keys_of({"pg1": member("pg1", tags=given)}))).members[0]
        return found.zone, found.weight

    assert tags(zone="a", weight=3) == ("a", 3)
    assert tags(zone=1, weight="3") == ("", 1)
    assert tags(weight=0) == ("", 1)
    assert tags(weight=True) == ("", 1)


def test_a_standby_cluster_has_readers_only_and_says_so() -> None:
    found = seen(keys_of({"pg1": member("pg1", "standby_leader"), "pg2": member("pg2")}, leader="pg1"))
    assert primary(found) is None
    assert replicas(found) == ["pg1", "pg2"]
    assert "a standby cluster: its leader pg1 is a replica of another cluster" in found.notes[0]


@pytest.mark.parametrize(("pause", "paused"), [(True, True), ("on", True), (False, False), (None, False)])
def test_pause_changes_nothing_and_is_told(pause: object, paused: bool) -> None:
    found = seen(keys_of(PAIR, leader="pg1", config={"ttl": 20, "pause": pause}))
    assert primary(found) == "pg1"
    assert (found.notes == ("Patroni is paused: it promotes nobody by itself",)) is paused


@pytest.mark.parametrize(
    ("request_", "leaving"),
    [
        ({"leader": "pg1", "member": "pg2"}, True),
        ({"leader": "pg1"}, True),
        ({"member": "pg2"}, True),
        ({"leader": "pg2", "member": "pg1"}, False),
        ({"leader": "pg3", "member": "pg2"}, False),
        ({"member": "pg1"}, False),
        ({"leader": "pg1", "member": "pg2", "scheduled_at": "2030-01-01T00:00:00+00:00"}, False),
        ({}, False),
        (b"pg1:pg2", False),
    ],
)
def test_a_switchover_that_was_asked_for_drains_the_primary(request_: object, leaving: bool) -> None:
    found = seen(keys_of(PAIR, leader="pg1", failover=request_))
    one = topology(found).member("pg1")
    assert one is not None
    assert one.state is (MemberState.DRAINING if leaving else MemberState.RUNNING)
    assert any("to give way" in note for note in found.notes) is leaving
    assert bool(found.problems) is isinstance(request_, bytes)


def test_an_etcd_that_has_forgotten_is_not_believed_before_it_knows_the_leader_again() -> None:
    before = seen(keys_of(PAIR, leader="pg1"))
    for keys in ({}, keys_of(PAIR, initialize=None), keys_of(PAIR, leader="pg1", initialize="")):
        assert seen(keys, before).topology is None
    empty = seen({}, before)
    assert "forgotten" in empty.notes[0]
    half = seen(keys_of(PAIR), empty)
    assert half.topology is None, "no leader yet"
    again = seen(keys_of({"pg2": member("pg2", "primary", 2)}, leader="pg2"), half)
    assert primary(again) == "pg2"
    assert again.memory.forgotten is False
    assert seen(keys_of({"pg2": member("pg2")}), again).topology is not None, "from now on as always"


def test_a_store_that_never_knew_the_cluster_is_an_empty_topology() -> None:
    assert topology(seen({})).members == ()


def test_another_system_identifier_begins_anew() -> None:
    before = seen(keys_of({"pg1": member("pg1", "primary", 9)}, leader="pg1"))
    found = seen(keys_of({"pg1": member("pg1", "primary", 1)}, leader="pg1", initialize="1"), before)
    assert topology(found).primary == PrimaryRecord("pg1", 1)
    assert topology(found).cluster == "1"


def test_what_cannot_be_read_is_left_out_and_named() -> None:
    found = seen(
        keys_of(
            {
                **PAIR,
                "pg3": b"\xff{",
                "pg4": member("pg4", conn_url="postgres://u:secret@/postgres"),
                "pg5": member("pg5", conn_url="postgres://h:notaport/postgres"),
                "pg6": member("pg6", conn_url="postgres://[::1]/postgres"),
            },
            leader="pg1",
            config=b"[",
        )
    )
    assert [each.node for each in topology(found).members] == ["pg1", "pg2", "pg6"]
    assert topology(found).members[2].addresses == (Address("::1", 5432),)
    assert primary(found) == "pg1"
    assert len(found.problems) == 4
    assert "secret" not in "".join(found.problems)


def test_positions_are_those_of_the_last_round() -> None:
    behind = member("pg2", replay_lsn=67108800)
    old = member("pg3")
    del old["replay_lsn"]
    keys = keys_of({**PAIR, "pg2": behind, "pg3": old, "pg4": member("pg4", state="stopped")}, leader="pg1")
    assert read_stats(KEYS, items_of(keys)) == (
        Stats("pg1", wal_lsn=67108864),
        Stats("pg2", replay_lsn=67108800, lag_bytes=64),
        Stats("pg3"),
    )


def test_only_what_counts_is_watched() -> None:
    keys = PatroniKeys("/service/demo/")
    for key in (keys.config, keys.failover, keys.initialize, keys.leader, keys.member("pg1")):
        assert key.encode() in keys.watched
    for name in ("status", "sync", "optime/leader"):
        assert f"/service/demo/{name}".encode() not in keys.watched
    assert b"/service/demo2/leader" not in keys.watched
