"""What the agent does next: a pure function of what it saw, what it remembers, and what the registry says.

`remember` takes the newest probe and view into the history, `peers_to_ask` says whom to ask before deciding,
`decide` makes Announce, Withdraw or Hold of it all. Nothing here waits, writes or knows the time.

Invariants (RULES: who is primary):
* `primary` is claimed by a server that is not in recovery, and only upwards: a higher timeline than any this agent has
  ever seen recorded, or the same one when the node recorded for it is known to be a replica now or not to answer.
* What was recorded once is remembered: a registry that was wiped, or restored from a backup, makes no stale primary
  rightful again.
* A primary below the highest timeline seen is a stale primary: announced as such, and nothing is relayed to it.
* A primary that may not be the rightful one is not relayed to. In doubt, closed: replicas are never fenced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from pgamb.registry.model import Address, Member, OnLoss, PrimaryRecord, RegistryView, Role
from pgamb.server.reading import Probe, Reading, Unreachable

# A server that is slow or full once is still there; one that does not answer three times is of no use to anybody.
PATIENCE_PROBES = 2


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are to others; `postgres` is where the server itself is. Without word from the registry for `ttl_s`, it is
    lost."""

    node: str
    addresses: tuple[Address, ...]
    postgres: Address
    zone: str = ""
    weight: int = 1
    agent_version: str = ""
    ttl_s: float = 5.0
    on_loss: OnLoss = "failsafe"


class PeerState(Enum):
    """What another member answered to a direct question."""

    PRIMARY = "primary"
    REPLICA = "replica"
    SILENT = "silent"  # nobody serves at its address
    UNCLEAR = "unclear"  # somebody may, and did not tell
    OURSELVES = "ourselves"  # its address leads to our own server


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    state: PeerState
    timeline: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """What has to be remembered between decisions.

    `record` is the highest `primary` ever seen or written, `holder` the member it names as last seen, `failures`
    the probes in a row that brought nothing certain, `announced` whether we wish to be registered.
    """

    record: PrimaryRecord | None = None
    holder: Member | None = None
    failures: int = 0
    announced: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the exposed port takes no new connection; with `cut` those that there are end too.

    `fence` says that nobody may write to the server, by whatever way.
    """

    message: str
    hint: str
    cut: bool = True
    fence: bool = False


@dataclass(frozen=True, slots=True)
class Announce:
    """Write `member`, then `claim`, if any, by compare-and-swap on the view's `primary_revision`."""

    member: Member
    reason: str
    claim: PrimaryRecord | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Remove the member."""

    reason: str
    refusal: Refusal | None


@dataclass(frozen=True, slots=True)
class Hold:
    """Leave what is registered as it is, and with `keeps_port` the exposed port too."""

    reason: str
    refusal: Refusal | None = None
    keeps_port: bool = False


Decision: TypeAlias = Announce | Withdraw | Hold


def remember(
    history: History, probe: Probe, view: RegistryView | None, answers: Mapping[str, PeerAnswer] | None = None
) -> History:
    """Take in the newest probe, view and peers' answers."""
    failures = 0 if isinstance(probe, Reading) else history.failures + 1
    record, holder = history.record, history.holder
    if view is not None:
        if view.primary is not None and (record is None or view.primary.timeline >= record.timeline):
            if record is None or view.primary.node != record.node:
                holder = None
            record = view.primary
        if record is not None:
            holder = _member(view, record.node) or holder
    for node, answer in (answers or {}).items():
        if answer.state is PeerState.PRIMARY and (record is None or answer.timeline > record.timeline):
            record, holder = PrimaryRecord(node, answer.timeline), None if view is None else _member(view, node)
    return replace(history, record=record, holder=holder, failures=failures)


def announcing(history: History) -> History:
    """Take in that our member is to be registered from now on."""
    return replace(history, announced=True)


def withdrawn(history: History) -> History:
    """Take in that it is to be registered no more."""
    return replace(history, announced=False)


def claimed(history: History, record: PrimaryRecord, member: Member) -> History:
    """Take in that `primary` now holds our own record."""
    return replace(history, record=record, holder=member)


def registry_lost(identity: Identity, view: RegistryView) -> bool:
    """Tell whether our lease must be believed to have ended."""
    return not view.connected and view.age_s > identity.ttl_s


def peers_to_ask(probe: Probe, history: History, view: RegistryView | None, identity: Identity) -> tuple[Member, ...]:
    """Name the members whose own word `decide` needs; only a primary ever asks."""
    if not isinstance(probe, Reading) or probe.in_recovery or view is None:
        return ()
    if registry_lost(identity, view):
        return tuple(member for member in view.members if member.node != identity.node)
    record, holder = history.record, history.holder
    if record is None or holder is None or record.node == identity.node or record.timeline != probe.timeline:
        return ()
    # A holder whose own agent says primary needs no question: that is a conflict.
    now = _member(view, record.node)
    return (holder,) if now is None or now.role is Role.REPLICA else ()


def decide(
    probe: Probe,
    history: History,
    view: RegistryView | None,
    identity: Identity,
    answers: Mapping[str, PeerAnswer] | None = None,
) -> Decision:
    """Make the decision. `history` has taken in the other arguments; `view` is None before the first."""
    if isinstance(probe, Unreachable):
        return _without_reading(probe, history, identity)
    if view is None:
        return Hold("the registry was not reached yet", None if probe.in_recovery else _unknown(identity))
    if view.cluster is not None and view.cluster != probe.system_identifier:
        reason = (
            f"the server's system identifier is {probe.system_identifier}, "
            f"and this service is the cluster {view.cluster}"
        )
        return Withdraw(
            reason, Refusal(f"{identity.node}: {reason}", "Give the agent the --service of its own cluster.")
        )
    twin = _member(view, identity.node)
    # Who was there first stays: our own key, if another agent writes over it, is the registration's to restore.
    if twin is not None and twin.addresses != identity.addresses and not history.announced:
        where = ", ".join(map(str, twin.addresses))
        return Hold(
            f'another agent is registered as node "{identity.node}", at {where}: waiting for that to end; '
            "give each agent its own --node",
            None if probe.in_recovery else _unknown(identity),
        )
    if probe.in_recovery:
        return Announce(_describe(probe, identity, Role.REPLICA), "in recovery")
    return _as_primary(probe, history, view, identity, answers or {})


def _without_reading(probe: Unreachable, history: History, identity: Identity) -> Decision:
    if not probe.is_gone and history.failures <= PATIENCE_PROBES:
        return Hold(f"PostgreSQL gives no answer: {probe.reason}", keeps_port=True)
    # What is relayed now ends with the server; a new connection waits until it is known what the server is.
    refusal = Refusal(
        f"cannot connect to PostgreSQL at {identity.postgres}: {probe.reason}",
        f"Is PostgreSQL running? See the log of the agent of {identity.node}.",
        cut=False,
    )
    return Withdraw(f"cannot reach PostgreSQL: {probe.reason}", refusal)


def _as_primary(
    reading: Reading, history: History, view: RegistryView, identity: Identity, answers: Mapping[str, PeerAnswer]
) -> Decision:
    ahead = _ahead(history, view, identity)
    if ahead is not None and ahead.timeline > reading.timeline:
        message = (
            f"{identity.node} is a stale primary: it is on timeline {reading.timeline}, "
            f"and {ahead.node} is primary on timeline {ahead.timeline}"
        )
        hint = f"Connect to {ahead.node}; rewind {identity.node} and let it follow {ahead.node}."
        member = _describe(reading, identity, Role.STALE_PRIMARY)
        reason = f"stale: {ahead.node} is primary on timeline {ahead.timeline}"
        return Announce(member, reason, refusal=Refusal(message, hint, fence=True))
    member = _describe(reading, identity, Role.PRIMARY)
    claim, doubt = _claim(reading, history, view, identity, answers)
    alone = None if doubt else _without_registry(reading, view, identity, answers)
    doubt = doubt or alone
    if doubt is None:
        return Announce(member, "not in recovery", claim)
    refusal = Refusal(
        f"{identity.node} may not be the primary: {doubt}",
        "See `pgamb status` for what the registry knows.",
        fence=alone is not None,
    )
    return Announce(member, f"not in recovery, but {doubt}", claim, refusal)


def _ahead(history: History, view: RegistryView, identity: Identity) -> PrimaryRecord | None:
    """Return the highest primary known: recorded ever, or announced now and not recorded yet."""
    others = [
        PrimaryRecord(member.node, member.timeline)
        for member in view.members
        if member.role is Role.PRIMARY and member.node != identity.node
    ]
    known = others if history.record is None else [history.record, *others]
    return max(known, key=lambda record: record.timeline, default=None)


def _claim(
    reading: Reading, history: History, view: RegistryView, identity: Identity, answers: Mapping[str, PeerAnswer]
) -> tuple[PrimaryRecord | None, str | None]:
    """Say what to write into `primary`, and why it is doubtful that we are the rightful one; nothing is below us."""
    ours = PrimaryRecord(identity.node, reading.timeline)
    record = history.record
    if record is None:
        rivals = [
            member.node
            for member in view.members
            if member.role is Role.PRIMARY and member.timeline == reading.timeline and member.node != identity.node
        ]
        if rivals:
            return None, f"{' and '.join(sorted(rivals))} says to be primary on timeline {reading.timeline} too"
        return ours, None
    if record == ours or record.timeline < reading.timeline:
        return (None if view.primary == ours else ours), None
    # The same timeline, and another node.
    now = _member(view, record.node)
    if now is not None and now.role is not Role.REPLICA:
        return None, f"{record.node} is the recorded primary on timeline {record.timeline} too, and is one"
    if history.holder is None:
        return None, (
            f"{record.node} is the recorded primary on timeline {record.timeline} too, and this agent never learnt "
            "where it is; if it is gone for good, remove the key `primary` of this service from the registry"
        )
    answer = answers.get(record.node)
    if answer is None:
        return None, f"{record.node} is the recorded primary on timeline {record.timeline} too, and was not asked yet"
    if answer.state in (PeerState.REPLICA, PeerState.SILENT, PeerState.OURSELVES):
        return ours, None
    said = "answers as a primary" if answer.state is PeerState.PRIMARY else f"gives no clear answer ({answer.reason})"
    return None, f"{record.node} is the recorded primary on timeline {record.timeline} too, and {said}"


def _without_registry(
    reading: Reading, view: RegistryView, identity: Identity, answers: Mapping[str, PeerAnswer]
) -> str | None:
    """Say why a primary must not go on without the registry, None if it may (RULES: registry out of reach)."""
    if not registry_lost(identity, view):
        return None
    if identity.on_loss == "fence":
        return "the registry is out of reach"
    for member in view.members:
        if member.node == identity.node:
            continue
        answer = answers.get(member.node, PeerAnswer(PeerState.UNCLEAR, reason="not asked yet"))
        if answer.state in (PeerState.SILENT, PeerState.UNCLEAR):
            if identity.on_loss == "serve":
                continue
            return f"the registry is out of reach, and {member.node} does not answer ({answer.reason})"
        if answer.timeline > reading.timeline:
            return f"the registry is out of reach, and {member.node} is on timeline {answer.timeline}"
    return None


def _describe(reading: Reading, identity: Identity, role: Role) -> Member:
    return Member(
        node=identity.node,
        role=role,
        addresses=identity.addresses,
        timeline=reading.timeline,
        system_identifier=reading.system_identifier,
        server_version=reading.server_version,
        zone=identity.zone,
        weight=identity.weight,
        agent_version=identity.agent_version,
    )


def _unknown(identity: Identity) -> Refusal:
    return Refusal(
        f"{identity.node} says to be primary, and its agent does not know yet whether it is the rightful one",
        "Wait until the agent reaches the registry; its log says what it waits for.",
    )


def _member(view: RegistryView, node: str) -> Member | None:
    return next((member for member in view.members if member.node == node), None)
