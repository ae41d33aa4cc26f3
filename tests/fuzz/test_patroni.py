"""Whatever the keys of a Patroni cluster say, one after the other: no write goes where it must not."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import given
from hypothesis import strategies as st

from pgamb.registry.model import PrimaryRecord, Role, Topology
from pgamb.registry.patroni import PRIMARY_ROLES, PROMOTABLE_ROLES, Heard, Memory, resolve
from tests.support.patroni_keys import CLUSTER, KEYS, items_of, keys_of, member

NAMES = ("pg1", "pg2", "pg3")
ROLES = ("primary", "master", "replica", "standby_leader", "promoted", "demoted", "uninitialized")

members = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(
        lambda role, timeline, state, tagged: member(
            "h", role, timeline, state=state, tags={"noloadbalance": True} if tagged else {}
        ),
        st.sampled_from(ROLES + ("primary", "replica") * 2),
        st.sampled_from((None, 1, 2, 3)),
        st.sampled_from(("running", "running", "running", "starting", "stopped")),
        st.booleans(),
    ),
)
states = st.tuples(
    members,
    st.sampled_from((*NAMES, None)),
    st.sampled_from((CLUSTER, CLUSTER, CLUSTER, None, "1")),
    st.sampled_from((None, {"leader": "pg1", "member": "pg2"}, {"member": "pg3"}, {})),
    st.one_of(st.none(), st.builds(Heard, st.sampled_from(NAMES), st.sampled_from((1, 2, 3)))),
)


State: TypeAlias = tuple[dict[str, dict[str, object]], str | None, str | None, object, Heard | None]


@given(st.lists(states, max_size=12))
def test_any_sequence_of_states(sequence: list[State]) -> None:
    memory = Memory()
    accepted: PrimaryRecord | None = None
    cluster: str | None = None
    forgotten = False
    for revision, (said, leader, initialize, failover, heard) in enumerate(sequence, 1):
        items = items_of(keys_of(said, leader=leader, initialize=initialize, failover=failover))
        found = resolve("db", KEYS, items, revision, memory, heard)
        memory = found.memory
        forgotten = cluster is not None and (initialize is None or (forgotten and leader is None))
        assert (found.topology is None) == forgotten
        if found.topology is None:
            continue
        if cluster not in (None, initialize):
            accepted = None
        cluster = initialize
        primary = found.topology.primary_member()
        asked = heard.node if heard is not None and heard.node == leader else None
        _shows_only_what_runs(found.topology, said, asked)
        if primary is None:
            continue
        assert primary.node == leader
        own = said[primary.node]
        assert own["state"] == "running"
        if own["role"] in PRIMARY_ROLES:
            assert own.get("timeline", primary.timeline) == primary.timeline
        else:
            assert own["role"] in PROMOTABLE_ROLES
            assert heard == Heard(primary.node, primary.timeline)
        if accepted is not None:
            assert primary.timeline >= accepted.timeline, "never back to an older timeline"
            if primary.timeline == accepted.timeline and primary.node != accepted.node:
                before = said.get(accepted.node, {})
                claims = before.get("role") in PRIMARY_ROLES and before.get("state") == "running"
                assert not (claims and before.get("timeline") == primary.timeline), "two primaries on one timeline"
        accepted = PrimaryRecord(primary.node, primary.timeline)


def _shows_only_what_runs(topology: Topology, said: dict[str, dict[str, object]], asked: str | None) -> None:
    assert {each.node for each in topology.members} <= {name for name, own in said.items() if own["state"] == "running"}
    for replica in topology.replicas():
        assert said[replica.node]["role"] not in PRIMARY_ROLES
        assert not said[replica.node]["tags"]
    for each in topology.members:
        if each.node != asked:
            assert (each.role is Role.REPLICA) == (said[each.node]["role"] not in PRIMARY_ROLES)
