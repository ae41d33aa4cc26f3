"""What `pgamb explain` says: what a text needs in words, where such a text goes, and where it would go now.

Pure: what the text was judged to be, and the picture of a service, go in; lines come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from pgamb.cli.picture import MemberPicture, Picture, lag_text, size_text
from pgamb.config import ExplainOptions
from pgamb.registry.model import MemberState, Role
from pgamb.routing.control import Command, Control
from pgamb.routing.hints import Wish
from pgamb.routing.intent import Intent, Need, Pin

_NEEDS: tuple[tuple[Need, str], ...] = (
    (Need.TRANSACTION_TIME, "looks at the time at which its transaction began, as now() does"),
    (Need.SETTINGS, "may change session parameters in a way that its text does not show"),
    (Need.COPY_IN, "takes rows from the application (COPY FROM STDIN)"),
    (Need.COMMITS, "commits a transaction"),
    (Need.SNAPSHOT, "begins a transaction with one snapshot (REPEATABLE READ or SERIALIZABLE)"),
    (Need.READ_WRITE, "begins a transaction that is READ WRITE"),
    (Need.SEQUENCE, "asks what this session has got from a sequence"),
    (Need.DEALLOCATE_ALL, "drops all prepared statements of the session"),
)
_PINS: tuple[tuple[Pin, str], ...] = (
    (Pin.TEMPORARY, "something temporary"),
    (Pin.LISTEN, "LISTEN"),
    (Pin.ADVISORY_LOCK, "an advisory lock"),
    (Pin.HOLD_CURSOR, "a cursor WITH HOLD"),
    (Pin.PREPARE, "a statement prepared by SQL"),
    (Pin.LOAD, "a loaded library"),
    (Pin.SESSION_AUTHORIZATION, "SET SESSION AUTHORIZATION"),
    (Pin.PARAMETER, "a parameter whose name the text does not show"),
    (Pin.OTHER, "state that only one backend has"),
)
# What a transaction that PostgreSQL does not know of yet makes of its own control.
_VIRTUAL: dict[Control, str] = {
    Control.COMMIT: "ends the transaction without a backend",
    Control.ROLLBACK: "ends the transaction without a backend",
    Control.COMMIT_CHAIN: "ends the transaction and begins the next without a backend",
    Control.ROLLBACK_CHAIN: "ends the transaction and begins the next without a backend",
    Control.SAVEPOINT: "kept, and answered without a backend",
    Control.RELEASE: "answered without a backend, if the savepoint is known",
    Control.ROLLBACK_TO: "answered without a backend, if the savepoint is known",
    Control.SET_TRANSACTION: "kept, and answered without a backend, if nothing has run before it",
}
_REPLICA = "a replica that is new enough, else the primary"
_LATER = "nowhere yet: answered at once, and sent when a statement needs a real transaction"
_OPENS = "opens the real transaction, on the primary"
# What no wish makes a read: it is no query, or the session's state hangs on it.
_NEVER_A_READ = (
    Need.CONTROL
    | Need.SET
    | Need.SHOW
    | Need.COPY_IN
    | Need.MULTIPLE
    | Need.DEALLOCATE
    | Need.DEALLOCATE_ALL
    | Need.EXECUTE
    | Need.EMPTY
    | Need.SEQUENCE
)


@dataclass(frozen=True, slots=True)
class Judged:
    """All that a text tells. `control` is what a single statement of transaction control says, `wish` where a leading
    comment wants it to go, `refusal` what is wrong with a SET of pgamb's own parameters.
    """

    intent: Intent
    control: Command
    wish: Wish
    refusal: str | None

    @property
    def reads(self) -> bool:
        """Say whether it is a read: proven, or called one by a hint that is believed until a replica refuses it."""
        need = self.intent.need
        believed = self.wish is Wish.REPLICA and not need & _NEVER_A_READ and not self.intent.pins
        return bool(need & Need.READ) or believed


class Judgement(msgspec.Struct, frozen=True):
    """Whether one replica could serve a read now, and the reason."""

    node: str
    usable: bool
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is said about one text. `lines` are pairs of a heading and what stands behind it."""

    lines: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        width = max(len(heading) for heading, _ in self.lines)
        return "\n".join(f"{heading:{width}}  {text}".rstrip() for heading, text in self.lines)


def explanation(judged: Judged, options: ExplainOptions, seen: Picture | None) -> Explanation:
    """Explain what a text needs; `seen` is the service to tell where it would go now, if one was looked at."""
    intent = judged.intent
    lines = [("intent", verdict(intent)), ("because", intent.reason)]
    lines += [("also", text) for need, text in _NEEDS if intent.need & need]
    if intent.pins:
        lines.append(("pins", f"its session keeps one backend, because of {_named(intent.pins)}"))
    if intent.unpins:
        lines.append(("unpins", _lifted(intent.unpins)))
    if judged.wish is not Wish.AUTO:
        lines.append(("hint", f"a leading comment asks for {_wished(judged.wish)}"))
    if judged.refusal is not None:
        lines.append(("refused", judged.refusal))
    lines.append(("alone", alone(judged, options)))
    if judged.control.kind is not Control.BEGIN:
        lines.append(("in BEGIN", in_transaction(judged, options)))
    if seen is not None:
        lines += _now(judged, options, seen)
    return Explanation(tuple(lines))


def verdict(intent: Intent) -> str:
    """Say in one or two words what is needed."""
    if intent.need & Need.EMPTY:
        return "nothing"
    if intent.need & Need.READ:
        return "read"
    return "no read and no write" if intent.need & Need.NEUTRAL else "write"


def begins_later(judged: Judged, options: ExplainOptions) -> bool:
    """Say whether it is a BEGIN that is answered at once, and sent later if at all."""
    return judged.control.kind is Control.BEGIN and options.transactions == "lazy"


def goes_to_replicas(judged: Judged, options: ExplainOptions) -> bool:
    """Say whether the text, sent outside a transaction, may be served by a replica."""
    if judged.wish is Wish.PRIMARY:
        return False
    return judged.reads or (bool(judged.intent.need & Need.READ_ONLY) and not begins_later(judged, options))


def alone(judged: Judged, options: ExplainOptions) -> str:
    """Say where the text goes when it is sent outside a transaction, by a session that is not pinned."""
    if begins_later(judged, options):
        return _LATER
    if goes_to_replicas(judged, options):
        return _REPLICA
    if judged.intent.need & Need.SEQUENCE:
        return "the backend on which the session has used the sequence"
    return "the primary"


def in_transaction(judged: Judged, options: ExplainOptions) -> str:
    """Say where the text goes inside BEGIN ... COMMIT at READ COMMITTED, as long as only reads have run in it."""
    if options.transactions == "exact":
        return "where its transaction is: on the primary, or on a replica if it is READ ONLY (--transactions exact)"
    if judged.intent.need & Need.EMPTY:
        return "answered without a backend"
    if not judged.reads:
        return _VIRTUAL.get(judged.control.kind, _OPENS)
    if judged.intent.need & Need.TRANSACTION_TIME:
        return f"{_OPENS}: one transaction has one now()"
    if judged.wish is Wish.PRIMARY:
        return "can be virtual: runs alone, on the primary"
    return "can be virtual: runs alone, on the transaction's replica"


def judge_member(member: MemberPicture, options: ExplainOptions) -> Judgement | None:
    """Say whether a replica would be read from now; None for what is no replica.

    The position that a session must not fall behind is its own, and known to its ambassador alone: here a replica that
    is behind, but not too far, counts as usable.
    """
    if member.role == Role.PRIMARY:
        return None
    if member.role != Role.REPLICA:
        return Judgement(member.node, False, f"it is a {member.role}")
    if member.state != MemberState.RUNNING:
        return Judgement(member.node, False, f"it is {member.state}")
    if member.weight == 0:
        return Judgement(member.node, False, "it is of weight 0")
    if any(note.startswith("follows timeline") for note in member.notes):
        return Judgement(member.node, False, next(n for n in member.notes if n.startswith("follows timeline")))
    if member.lag_bytes is not None and member.lag_bytes > options.max_lag_bytes:
        limit = size_text(options.max_lag_bytes)
        return Judgement(member.node, False, f"{lag_text(member)} behind, --max-lag-bytes is {limit}")
    # Caught up in bytes means caught up: the time since the last replayed transaction is then only idleness.
    if member.lag_bytes and member.lag_s is not None and member.lag_s > options.max_lag_s:
        return Judgement(member.node, False, f"{lag_text(member)} behind, --max-lag is {options.max_lag_s:g} s")
    if member.lag_bytes is None and member.lag_s is None:
        return Judgement(member.node, True, "replica; how far behind is not known")
    behind = "caught up" if member.lag_bytes == 0 else f"{lag_text(member)} behind"
    return Judgement(member.node, True, f"replica, {behind}")


def _now(judged: Judged, options: ExplainOptions, seen: Picture) -> Iterator[tuple[str, str]]:
    replicas = [found for member in seen.members if (found := judge_member(member, options)) is not None]
    yield "now", _destination(judged, options, seen, replicas)
    for member in seen.members:
        if member.node == seen.primary:
            yield member.node, "primary"
        elif member.role == Role.PRIMARY:
            yield member.node, f"says primary, and gets nothing: {seen.why}"
    for replica in replicas:
        yield replica.node, replica.why if replica.usable else f"not usable: {replica.why}"


def _destination(judged: Judged, options: ExplainOptions, seen: Picture, replicas: list[Judgement]) -> str:
    if begins_later(judged, options):
        return "nowhere yet"
    usable = [replica.node for replica in replicas if replica.usable]
    if goes_to_replicas(judged, options) and usable:
        own = [member.node for member in seen.members if member.node in usable and member.zone == options.zone]
        first = own if options.zone and own else usable
        if len(first) == 1:
            why = "the only usable replica" if len(usable) == 1 else f"the usable replica in zone {options.zone}"
            return f"{first[0]}, {why}"
        choice = f"{', '.join(first[:-1])} or {first[-1]}"
        return f"{choice}, whichever has the least outstanding for its weight"
    if seen.primary is None:
        return f"held until there is a primary, for --hold-timeout at most: {seen.why}"
    if goes_to_replicas(judged, options):
        return f"{seen.primary}, the primary, because no replica is usable"
    return f"{seen.primary}, because {seen.why}"


def _wished(wish: Wish) -> str:
    return "the primary" if wish is Wish.PRIMARY else "a replica"


def _named(pins: Pin) -> str:
    return ", ".join(text for pin, text in _PINS if pins & pin)


def _lifted(unpins: Pin) -> str:
    every = all(unpins & pin for pin, _ in _PINS)
    return "lifts every pin" if every else f"may lift the pin of {_named(unpins)}"
