"""Each cell of the agent's decision table."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from pgamb.registry.model import Address, Member, OnLoss, PrimaryRecord, RegistryView, Role
from pgamb.server.decide import (
    PATIENCE_PROBES,
    Announce,
    History,
    Hold,
    Identity,
    PeerAnswer,
    PeerState,
    Withdraw,
    announcing,
    claimed,
    decide,
    peers_to_ask,
    registry_lost,
    remember,
    withdrawn,
)
from pgamb.server.reading import Probe, Reading, Unreachable

ME = Identity(node="a", addresses=(Address("10.0.0.1"),), postgres=Address("127.0.0.1"), zone="z", weight=3)
GONE = Unreachable("connection refused", is_gone=True, is_silent=True)
SLOW = Unreachable("no answer within 2 s", is_gone=False, is_silent=True)


def primary(timeline: int = 1, cluster: str = "7") -> Reading:
    return Reading(False, timeline, cluster, 150004, 1000.0)


def replica(timeline: int = 1, cluster: str = "7") -> Reading:
    return Reading(True, timeline, cluster, 150004, 1000.0)


def member(node: str, role: Role = Role.REPLICA, timeline: int = 1) -> Member:
    return Member(node, role, (Address(f"10.0.0.{ord(node) - 96}"),), timeline, "7", 150004)


def view(
    *members: Member,
    record: tuple[str, int] | None = None,
    cluster: str | None = "7",
    connected: bool = True,
    age_s: float = 0.0,
) -> RegistryView:
    named = None if record is None else PrimaryRecord(*record)
    return RegistryView(members, named, 5 if named else 0, cluster, 1, age_s, connected)


def act(
    probe: Probe,
    seen: RegistryView | None,
    history: History | None = None,
    answers: dict[str, PeerAnswer] | None = None,
    me: Identity = ME,
) -> Announce | Withdraw | Hold:
    taken = remember(history or History(), probe, seen, answers)
    return decide(probe, taken, seen, me, answers)


def announced(decision: object) -> Announce:
    assert isinstance(decision, Announce)
    return decision


# PostgreSQL is not there


def test_a_server_that_is_gone_is_withdrawn_at_once_and_not_relayed_to() -> None:
    decision = act(GONE, view())
    assert isinstance(decision, Withdraw)
    assert decision.refusal is not None
    assert decision.refusal.message == "cannot connect to PostgreSQL at 127.0.0.1:5432: connection refused"
    assert not decision.refusal.cut


def test_a_server_that_does_not_answer_is_held_for_a_few_probes_then_withdrawn() -> None:
    history = History()
    for _ in range(PATIENCE_PROBES):
        history = remember(history, SLOW, view())
        decision = decide(SLOW, history, view(), ME)
        assert isinstance(decision, Hold)
        assert decision.keeps_port
    history = remember(history, SLOW, view())
    assert isinstance(decide(SLOW, history, view(), ME), Withdraw)


def test_an_answer_in_between_renews_the_patience() -> None:
    history = History()
    for probe in (SLOW, SLOW, replica(), SLOW, SLOW):
        history = remember(history, probe, view())
        assert not isinstance(decide(probe, history, view(), ME), Withdraw)


# The registry is not there, or is somebody else's


def test_before_the_first_view_nothing_is_announced_and_only_a_replica_is_relayed_to() -> None:
    held = act(replica(), None)
    assert isinstance(held, Hold)
    assert (held.refusal, held.keeps_port) == (None, False)
    held = act(primary(), None)
    assert isinstance(held, Hold)
    assert held.refusal is not None


@pytest.mark.parametrize("probe", [primary(9), replica(9)])
def test_a_server_of_another_cluster_is_refused(probe: Reading) -> None:
    decision = act(probe, view(cluster="8", record=("b", 1)))
    assert isinstance(decision, Withdraw)
    assert decision.reason == "the server's system identifier is 7, and this service is the cluster 8"
    assert decision.refusal is not None
    assert decision.refusal.cut


def test_a_service_without_an_identity_takes_anybody() -> None:
    assert isinstance(act(primary(), view(cluster=None)), Announce)


@pytest.mark.parametrize("probe", [primary(), replica()])
def test_a_name_that_another_agent_has_is_waited_for(probe: Reading) -> None:
    twin = msgspec.structs.replace(member("a"), addresses=(Address("10.9.9.9"),))
    decision = act(probe, view(twin))
    assert isinstance(decision, Hold)
    assert 'another agent is registered as node "a", at 10.9.9.9:5432' in decision.reason
    assert (decision.refusal is None) == probe.in_recovery


def test_who_announced_first_keeps_the_name() -> None:
    twin = msgspec.structs.replace(member("a"), addresses=(Address("10.9.9.9"),))
    history = announcing(History())
    assert isinstance(act(replica(), view(twin), history), Announce)
    assert isinstance(act(replica(), view(twin), withdrawn(history)), Hold)


def test_our_own_older_registration_is_no_twin() -> None:
    assert isinstance(act(replica(), view(member("a", Role.PRIMARY))), Announce)


# A replica


def test_a_replica_is_announced_as_it_is_and_relayed_to() -> None:
    decision = announced(act(replica(4), view(record=("b", 4))))
    assert decision.member == Member(
        "a", Role.REPLICA, ME.addresses, 4, "7", 150004, zone="z", weight=3, agent_version=""
    )
    assert (decision.claim, decision.refusal) == (None, None)


@pytest.mark.parametrize("record", [None, ("a", 1), ("b", 1), ("b", 9)])
def test_a_replica_never_claims_whatever_is_recorded(record: tuple[str, int] | None) -> None:
    decision = announced(act(replica(5), view(record=record)))
    assert decision.claim is None
    assert decision.member.role is Role.REPLICA


@pytest.mark.parametrize("age_s", [0.0, 99.0])
def test_a_replica_goes_on_without_the_registry(age_s: float) -> None:
    lost = view(member("b"), connected=False, age_s=age_s)
    decision = announced(act(replica(), lost))
    assert decision.refusal is None
    assert peers_to_ask(replica(), History(), lost, ME) == ()


# A primary, by what is recorded


def test_the_first_primary_claims() -> None:
    decision = announced(act(primary(1), view()))
    assert decision.claim == PrimaryRecord("a", 1)
    assert decision.refusal is None


def test_the_recorded_primary_claims_nothing_more() -> None:
    decision = announced(act(primary(3), view(member("a", Role.PRIMARY, 3), record=("a", 3))))
    assert (decision.claim, decision.refusal) == (None, None)


@pytest.mark.parametrize("node", ["a", "b"])
def test_a_higher_timeline_claims(node: str) -> None:
    decision = announced(act(primary(4), view(member("b", Role.PRIMARY, 3), record=(node, 3))))
    assert decision.claim == PrimaryRecord("a", 4)
    assert (decision.member.role, decision.refusal) == (Role.PRIMARY, None)


@pytest.mark.parametrize("node", ["a", "b"])
def test_a_lower_timeline_is_a_stale_primary(node: str) -> None:
    decision = announced(act(primary(2), view(record=(node, 3))))
    assert decision.member.role is Role.STALE_PRIMARY
    assert decision.claim is None
    assert decision.refusal is not None
    assert decision.refusal.message == (
        f"a is a stale primary: it is on timeline 2, and {node} is primary on timeline 3"
    )
    assert decision.refusal.cut


def test_a_higher_primary_that_is_announced_and_not_recorded_yet_makes_stale_too() -> None:
    decision = announced(act(primary(2), view(member("b", Role.PRIMARY, 3), record=("a", 2))))
    assert decision.member.role is Role.STALE_PRIMARY


def test_a_higher_replica_or_stale_primary_does_not() -> None:
    others = (member("b", Role.REPLICA, 3), member("c", Role.STALE_PRIMARY, 1))
    decision = announced(act(primary(2), view(*others, record=("a", 2))))
    assert (decision.member.role, decision.refusal) == (Role.PRIMARY, None)


def test_without_a_record_a_rival_on_the_same_timeline_is_a_conflict_and_nobody_writes() -> None:
    decision = announced(act(primary(2), view(member("b", Role.PRIMARY, 2))))
    assert (decision.claim, decision.member.role) == (None, Role.PRIMARY)
    assert decision.refusal is not None
    assert "b says to be primary on timeline 2 too" in decision.refusal.message


# The same timeline, recorded for another node

SAME = ("b", 2)


def with_holder() -> History:
    """b was seen as a member once, and named by `primary`."""
    return remember(History(), primary(2), view(member("b", Role.PRIMARY, 2), record=SAME))


@pytest.mark.parametrize("role", [Role.PRIMARY, Role.STALE_PRIMARY])
def test_two_announced_primaries_are_a_conflict_and_nobody_is_asked(role: Role) -> None:
    seen = view(member("b", role, 2), record=SAME)
    history = remember(History(), primary(2), seen)
    assert peers_to_ask(primary(2), history, seen, ME) == ()
    # Not even an answer that came by other ways changes that.
    decision = announced(decide(primary(2), history, seen, ME, {"b": PeerAnswer(PeerState.SILENT)}))
    assert (decision.claim, decision.member.role) == (None, Role.PRIMARY)
    assert decision.refusal is not None


@pytest.mark.parametrize("members", [(), (member("b", Role.REPLICA, 2),)])
def test_a_holder_that_is_gone_or_in_recovery_is_asked(members: tuple[Member, ...]) -> None:
    seen = view(*members, record=SAME)
    history = remember(with_holder(), primary(2), seen)
    assert [asked.node for asked in peers_to_ask(primary(2), history, seen, ME)] == ["b"]
    unasked = announced(decide(primary(2), history, seen, ME))
    assert unasked.claim is None
    assert unasked.refusal is not None


@pytest.mark.parametrize(
    ("state", "claims"),
    [
        (PeerState.REPLICA, True),
        (PeerState.SILENT, True),
        (PeerState.OURSELVES, True),
        (PeerState.PRIMARY, False),
        (PeerState.UNCLEAR, False),
    ],
)
def test_the_holders_own_word_decides(state: PeerState, claims: bool) -> None:
    seen = view(record=SAME)
    decision = announced(act(primary(2), seen, with_holder(), {"b": PeerAnswer(state, 2, "why")}))
    assert (decision.claim == PrimaryRecord("a", 2)) is claims
    assert (decision.refusal is None) is claims


def test_a_holder_whose_address_was_never_learnt_cannot_be_asked_and_the_reason_says_what_to_do() -> None:
    seen = view(record=SAME)
    decision = act(primary(2), seen)
    assert peers_to_ask(primary(2), remember(History(), primary(2), seen), seen, ME) == ()
    assert announced(decision).claim is None
    assert "remove the key `primary`" in announced(decision).reason


# What was recorded once is remembered


def test_a_wiped_registry_makes_no_stale_primary_rightful() -> None:
    history = remember(History(), primary(1), view(member("b", Role.PRIMARY, 2), record=("b", 2)))
    decision = announced(act(primary(1), view(cluster=None), history))
    assert decision.member.role is Role.STALE_PRIMARY
    assert decision.claim is None


def test_the_rightful_primary_claims_again_in_a_wiped_registry_even_beside_a_rival() -> None:
    history = remember(History(), primary(2), view(record=("a", 2)))
    decision = announced(act(primary(2), view(member("b", Role.PRIMARY, 2)), history))
    assert decision.claim == PrimaryRecord("a", 2)
    assert decision.refusal is None


def test_a_registry_restored_from_a_backup_does_not_take_the_claim_back() -> None:
    history = remember(History(), primary(2), view(record=("a", 2)))
    decision = announced(act(primary(2), view(record=("b", 1)), history))
    assert decision.claim == PrimaryRecord("a", 2)


def test_a_claim_of_ours_counts_before_the_view_shows_it() -> None:
    history = claimed(History(), PrimaryRecord("a", 3), member("a", Role.PRIMARY, 3))
    decision = announced(act(primary(2), view(record=("b", 2)), history))
    assert decision.member.role is Role.STALE_PRIMARY


def test_a_peer_that_answers_as_a_higher_primary_is_remembered() -> None:
    answers = {"b": PeerAnswer(PeerState.PRIMARY, 3)}
    decision = announced(act(primary(2), view(member("b"), record=("a", 2), connected=False, age_s=99), None, answers))
    assert decision.member.role is Role.STALE_PRIMARY
    history = remember(History(), primary(2), view(member("b"), record=("a", 2)), answers)
    assert history.record == PrimaryRecord("b", 3)


def test_the_holder_is_forgotten_with_its_record() -> None:
    history = with_holder()
    assert history.holder == member("b", Role.PRIMARY, 2)
    assert remember(history, primary(2), view(record=("c", 3))).holder is None
    assert remember(history, primary(2), view(member("c"), record=("c", 3))).holder == member("c")


# A primary without the registry


def lost_view(*others: Member) -> RegistryView:
    return view(member("a", Role.PRIMARY, 2), *others, record=("a", 2), connected=False, age_s=6.0)


def test_the_registry_is_lost_when_a_ttl_has_passed_without_word() -> None:
    assert not registry_lost(ME, view(connected=True, age_s=99))
    assert not registry_lost(ME, view(connected=False, age_s=5.0))
    assert registry_lost(ME, view(connected=False, age_s=5.1))


def test_within_the_ttl_a_primary_goes_on_without_asking() -> None:
    seen = view(member("b", timeline=2), record=("a", 2), connected=False, age_s=4.0)
    history = remember(History(), primary(2), seen)
    assert peers_to_ask(primary(2), history, seen, ME) == ()
    assert announced(decide(primary(2), history, seen, ME)).refusal is None


def test_without_the_registry_every_other_member_is_asked() -> None:
    seen = lost_view(member("b"), member("c"))
    asked = peers_to_ask(primary(2), remember(History(), primary(2), seen), seen, ME)
    assert [other.node for other in asked] == ["b", "c"]


@pytest.mark.parametrize(
    ("answer", "goes_on"),
    [
        (PeerAnswer(PeerState.REPLICA, 2), ("failsafe", "serve")),
        (PeerAnswer(PeerState.REPLICA, 1), ("failsafe", "serve")),
        (PeerAnswer(PeerState.OURSELVES, 2), ("failsafe", "serve")),
        (PeerAnswer(PeerState.PRIMARY, 1), ("failsafe", "serve")),
        (PeerAnswer(PeerState.REPLICA, 3), ()),
        (PeerAnswer(PeerState.PRIMARY, 3), ()),
        (PeerAnswer(PeerState.SILENT), ("serve",)),
        (PeerAnswer(PeerState.UNCLEAR), ("serve",)),
        (None, ("serve",)),
    ],
)
@pytest.mark.parametrize("on_loss", ["failsafe", "serve", "fence"])
def test_what_a_primary_does_without_the_registry(
    answer: PeerAnswer | None, goes_on: tuple[str, ...], on_loss: OnLoss
) -> None:
    answers = {"b": PeerAnswer(PeerState.REPLICA, 2)}
    if answer is not None:
        answers["c"] = answer
    me = replace(ME, on_loss=on_loss)
    decision = announced(act(primary(2), lost_view(member("b"), member("c")), None, answers, me))
    assert (decision.refusal is None) is (on_loss in goes_on)
    assert decision.refusal is None or decision.refusal.fence


@pytest.mark.parametrize("on_loss", ["failsafe", "serve", "fence"])
def test_a_primary_alone_without_the_registry(on_loss: OnLoss) -> None:
    decision = announced(act(primary(2), lost_view(), me=replace(ME, on_loss=on_loss)))
    assert (decision.refusal is None) is (on_loss != "fence")


@pytest.mark.parametrize("on_loss", ["failsafe", "serve", "fence"])
def test_a_replica_goes_on_whatever_it_was_told(on_loss: OnLoss) -> None:
    assert announced(act(replica(2), lost_view(), me=replace(ME, on_loss=on_loss))).refusal is None


def test_who_only_does_not_know_yet_is_not_fenced() -> None:
    unsure = act(primary(), None)
    assert unsure.refusal is not None
    assert not unsure.refusal.fence
    stale = act(primary(1), view(member("b", Role.PRIMARY, 2), record=("b", 2)))
    assert stale.refusal is not None
    assert stale.refusal.fence
