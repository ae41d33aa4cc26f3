"""The keys of one service, and the JSON in them. Pure.

    <prefix>/<service>/cluster           the PostgreSQL system identifier, no lease
    <prefix>/<service>/drain/<node>      a DrainRequest, on the lease of whoever asked for it
    <prefix>/<service>/members/<node>    a Member, on its agent's lease
    <prefix>/<service>/primary           a PrimaryRecord, no lease, by compare-and-swap only
    <prefix>/<service>/stats/<node>      a Stats, on its agent's lease, never watched

The names are chosen so that everything that is watched sorts before `stats/`: one range, one watch, and a thousand
proxies are not woken every second by what none of them needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from pgamb.errors import ConfigError
from pgamb.registry.model import DrainRequest, Member, MemberState, PrimaryRecord, Role, Stats, Topology
from pgamb.registry.store import KeyRange, KeyValue

DEFAULT_PREFIX = "/pgamb"

V = TypeVar("V")


class Keys:
    """Names the keys of `service`; raises ConfigError for a name that cannot be part of a key."""

    def __init__(self, service: str, prefix: str = DEFAULT_PREFIX) -> None:
        self.service = check_name("service", service)
        self.root = f"/{prefix.strip('/')}/{service}/" if prefix.strip("/") else f"/{service}/"
        self.cluster = self.root + "cluster"
        self.primary = self.root + "primary"
        self._drains = self.root + "drain/"
        self._members = self.root + "members/"
        self._stats = self.root + "stats/"
        self.watched = KeyRange(self.root.encode(), self._stats.encode())
        self.members_range = KeyRange.prefix(self._members)
        self.stats_range = KeyRange.prefix(self._stats)

    def member(self, node: str) -> str:
        return self._members + check_name("node", node)

    def drain(self, node: str) -> str:
        return self._drains + check_name("node", node)

    def stats(self, node: str) -> str:
        return self._stats + check_name("node", node)

    def member_node(self, key: str) -> str | None:
        """Return the node that a member's key is about, None for any other key."""
        return key.removeprefix(self._members) if key.startswith(self._members) else None


def check_name(what: str, name: str) -> str:
    """Return `name` if it can be one part of a key; raises ConfigError."""
    if not name or "/" in name or not name.isprintable() or name != name.strip():
        raise ConfigError(
            f'"{name}" is not a {what} name',
            hint=f'A {what} name is not empty and has no "/", no line break and no space around it.',
        )
    return name


def encode(value: Member | Stats | PrimaryRecord | DrainRequest) -> bytes:
    return msgspec.json.encode(value)


def decode(item: KeyValue, kind: type[V], problems: list[str]) -> V | None:
    """Read a key's JSON; what cannot be read is None and one more line in `problems`, never an exception."""
    try:
        return msgspec.json.decode(item.value, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problems.append(f"{item.key} is not a valid {kind.__name__}: {error}")
        return None


def read_cluster(keys: Keys, items: Mapping[str, KeyValue]) -> str | None:
    item = items.get(keys.cluster)
    return None if item is None else item.value.decode(errors="replace")


def read_topology(keys: Keys, items: Mapping[str, KeyValue], revision: int, problems: list[str]) -> Topology:
    """Make a topology of what the registry holds; what contradicts the rest is left out and named in `problems`."""
    cluster = read_cluster(keys, items)
    primary_item = items.get(keys.primary)
    primary = None if primary_item is None else decode(primary_item, PrimaryRecord, problems)
    timeline = 0 if primary is None else primary.timeline
    members = []
    for key in sorted(items):
        node = keys.member_node(key)
        member = None if node is None else decode(items[key], Member, problems)
        if member is None:
            continue
        if member.node != node:
            problems.append(f'{key} speaks of "{member.node}": not used')
        elif cluster is not None and member.system_identifier != cluster:
            problems.append(f"{node} belongs to cluster {member.system_identifier}, not to {cluster}: not used")
        else:
            drain = items.get(keys.drain(node))
            request = None if drain is None else decode(drain, DrainRequest, problems)
            members.append(_drained(member.judged(timeline), request))
    return Topology(
        service=keys.service,
        members=tuple(members),
        primary=primary,
        cluster=cluster,
        conflict=_conflict(members),
        revision=revision,
    )


def _drained(member: Member, request: DrainRequest | None) -> Member:
    """Let a member drain for as long as it is what it was when that was asked for."""
    if request is None or (request.role, request.timeline) != (member.role, member.timeline):
        return member
    return msgspec.structs.replace(member, state=MemberState.DRAINING)


def _conflict(members: list[Member]) -> tuple[str, ...]:
    """Name the primaries that share the highest timeline, if there are several."""
    claims = [member for member in members if member.role is Role.PRIMARY]
    highest = max([member.timeline for member in claims], default=0)
    nodes = tuple(member.node for member in claims if member.timeline == highest)
    return nodes if len(nodes) > 1 else ()
