"""What a Patroni cluster's keys in etcd say, and the topology that follows from them. Pure.

    <namespace>/<scope>/config           dynamic configuration: `pause`
    <namespace>/<scope>/failover         a switchover that somebody asked for; removed when it is done or refused
    <namespace>/<scope>/initialize       the PostgreSQL system identifier, no lease; empty while a cluster is made
    <namespace>/<scope>/leader           the name of the member that holds the lock, on its lease
    <namespace>/<scope>/members/<name>   what a member says of itself, on its lease

Patroni writes them (`touch_member` in its ha.py, its dcs/etcd3.py); pgamb reads them only. Invariants:

* The primary holds the leader key, runs, and says so itself: in its member key or, for that is written up to seconds
  after a promotion, when it is asked. Nobody else ever gets a write, whatever it says.
* Of one system identifier, no primary is on a lower timeline than an earlier one, and another one on the same timeline
  is none while the earlier one says primary too. Only timelines of primaries that held the leader key count: Patroni
  rewinds a server that was promoted behind its back, however high its timeline.
* Etcd that has forgotten `initialize` has lost its memory, not its members: the last topology stays until it knows
  `initialize` and `leader` again.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from pgamb.registry.keys import decode
from pgamb.registry.model import DEFAULT_PORT, Address, Member, MemberState, PrimaryRecord, Role, Stats, Topology
from pgamb.registry.store import KeyRange, KeyValue

DEFAULT_NAMESPACE = "service"

# As PostgresqlRole and PostgresqlState of Patroni spell them; `master` is what it wrote before version 4.
PRIMARY_ROLES = ("primary", "master")
STANDBY_LEADER = "standby_leader"
# One that is being promoted answers reads all the time.
PROMOTABLE_ROLES = ("replica", "promoted")
REPLICA_ROLES = (*PROMOTABLE_ROLES, STANDBY_LEADER)
RUNNING = "running"
_TRUE = ("true", "on", "yes", "1")


class PatroniKeys:
    """Names the keys below `root`, a namespace and a scope."""

    def __init__(self, root: str) -> None:
        root = f"/{root.strip('/')}/"
        self.config = root + "config"
        self.failover = root + "failover"
        self.initialize = root + "initialize"
        self.leader = root + "leader"
        self._members = root + "members/"
        # What sorts behind the members (`optime`, `status`, `sync`) is of no interest here, and changes all the time.
        self.watched = KeyRange(root.encode(), f"{root}optime".encode())

    def member(self, name: str) -> str:
        return self._members + name

    def member_name(self, key: str) -> str | None:
        """Return the name of the member that a key is about, None for any other key."""
        return key.removeprefix(self._members) if key.startswith(self._members) else None


class Said(msgspec.Struct, frozen=True):
    """A member's key, as far as it is of interest. Patroni leaves `timeline` out when it could not ask for it."""

    conn_url: str = ""
    role: str = ""
    state: str = ""
    timeline: int = 0
    xlog_location: int | None = None
    replay_lsn: int | None = None
    version: str = ""
    tags: dict[str, object] = {}

    @property
    def runs(self) -> bool:
        return self.state == RUNNING

    @property
    def claims(self) -> bool:
        return self.runs and self.role in PRIMARY_ROLES


class Request(msgspec.Struct, frozen=True):
    """The `failover` key; all its parts are empty when there is no request."""

    leader: str | None = None
    member: str | None = None
    scheduled_at: str | None = None

    def is_now_about(self, node: str) -> bool:
        """Tell whether this primary is to give way at once."""
        if self.scheduled_at or not (self.leader or self.member) or self.member == node:
            return False
        return not self.leader or self.leader == node


class Settings(msgspec.Struct, frozen=True):
    """The `config` key. `pause` may be written as a boolean or as a word."""

    pause: object = None


class Memory(msgspec.Struct, frozen=True):
    """What has to be remembered; `primary` is the last one, and `forgotten` says that etcd has lost its memory."""

    cluster: str | None = None
    primary: PrimaryRecord | None = None
    forgotten: bool = False


class Awaited(msgspec.Struct, frozen=True):
    """A member that holds the leader key and is a replica by its own key: its promotion may be over already."""

    node: str
    address: Address


class Heard(msgspec.Struct, frozen=True):
    """What a member answered when it was asked whether it is the primary now."""

    node: str
    timeline: int


class Resolution(msgspec.Struct, frozen=True):
    """`topology` is None when the last one stays. `notes` say what is unusual, `problems` what cannot be read."""

    topology: Topology | None
    memory: Memory
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    awaited: Awaited | None = None


def resolve(
    service: str,
    keys: PatroniKeys,
    items: Mapping[str, KeyValue],
    revision: int,
    memory: Memory,
    heard: Heard | None = None,
) -> Resolution:
    """Turn what etcd holds into a topology, by what was known before; `heard` is the answer of one that was awaited."""
    cluster = _text(items.get(keys.initialize))
    leader = _text(items.get(keys.leader))
    if memory.cluster is not None and (cluster is None or (memory.forgotten and leader is None)):
        note = "etcd has forgotten this cluster: the last topology stays until Patroni has written it again"
        return Resolution(None, msgspec.structs.replace(memory, forgotten=True), (note,))
    known = memory.primary if memory.cluster in (None, cluster) else None
    problems: list[str] = []
    said = _said(keys, items, problems)
    awaited = _awaited(leader, said)
    if awaited is not None and heard is not None and heard.node == awaited.node:
        said[heard.node] = msgspec.structs.replace(said[heard.node], role=PRIMARY_ROLES[0], timeline=heard.timeline)
    ruling = _rule(leader, said, known)
    notes = [ruling.note] if ruling.note else []
    newest = ruling.primary or known
    members = []
    for name, member in said.items():
        role = _role(name, member, ruling, newest)
        if role is None and name == leader:
            continue
        if role is None:
            notes.append(f"{name} says {member.role or 'no role'}, {member.state or 'no state'}: not used")
            continue
        address = _address(member.conn_url)
        if address is None:
            problems.append(f'{name} has no usable conn_url ("{_without_login(member.conn_url)}"): not used')
            continue
        if role is not Role.REPLICA and name != leader:
            notes.append(f"{name} says primary on timeline {member.timeline} without the leader key: gets no work")
        timeline = ruling.primary.timeline if ruling.primary and ruling.primary.node == name else member.timeline
        members.append(_member(name, member, role, address, timeline, cluster or ""))
    if ruling.primary is not None:
        failover = items.get(keys.failover)
        request = None if failover is None else decode(failover, Request, problems)
        if request is not None and request.is_now_about(ruling.primary.node):
            notes.append(f"{ruling.primary.node} is to give way to {request.member or 'another'}: takes no new work")
            members = [_draining(member) if member.node == ruling.primary.node else member for member in members]
    config = items.get(keys.config)
    settings = None if config is None else decode(config, Settings, problems)
    if settings is not None and str(settings.pause).lower() in _TRUE:
        notes.append("Patroni is paused: it promotes nobody by itself")
    topology = Topology(
        service=service,
        members=tuple(sorted(members, key=lambda member: member.node)),
        primary=ruling.primary,
        cluster=cluster,
        conflict=ruling.conflict,
        revision=revision,
    )
    return Resolution(topology, Memory(cluster, newest), tuple(notes), tuple(problems), awaited)


def _awaited(leader: str | None, said: Mapping[str, Said]) -> Awaited | None:
    holder = said.get(leader) if leader is not None else None
    if leader is None or holder is None or not holder.runs or holder.role not in PROMOTABLE_ROLES:
        return None
    address = _address(holder.conn_url)
    return None if address is None else Awaited(leader, address)


class _Ruling(msgspec.Struct, frozen=True):
    """Who may be written to; a primary that does not run just now is named all the same, and is no member."""

    primary: PrimaryRecord | None = None
    note: str | None = None
    conflict: tuple[str, ...] = ()


def _rule(leader: str | None, said: Mapping[str, Said], known: PrimaryRecord | None) -> _Ruling:
    if leader is None:
        return _Ruling(note="nobody holds the leader key: no writes until a member has it")
    same = known if known is not None and known.node == leader else None
    holder = said.get(leader)
    if holder is None or not holder.runs:
        state = "has no member key" if holder is None else f"says {holder.state or 'no state'}"
        return _Ruling(
            same, f"{leader} holds the leader key and {state}: no writes until it runs, or another has the key"
        )
    if holder.role == STANDBY_LEADER:
        return _Ruling(
            note=f"a standby cluster: its leader {leader} is a replica of another cluster, nobody takes writes"
        )
    if not holder.claims:
        return _Ruling(note=f"{leader} holds the leader key and says {holder.role}: no writes until it is promoted")
    # Left out now and then, and never without a reason that passes: no contradiction.
    timeline = holder.timeline or (same.timeline if same is not None else 0)
    if not timeline:
        return _Ruling(note=f"{leader} holds the leader key and does not say its timeline: no writes until it does")
    if known is not None and timeline < known.timeline:
        return _Ruling(
            note=f"{leader} holds the leader key on timeline {timeline}, and {known.node} was primary on timeline "
            f"{known.timeline}: no writes to what is older (if that is as it should be, restart pgamb)"
        )
    claims = tuple(sorted(name for name, member in said.items() if member.claims and member.timeline == timeline))
    conflict = claims if len(claims) > 1 else ()
    if known is not None and known.node != leader and known.timeline == timeline and known.node in conflict:
        return _Ruling(note=f"{leader} holds the leader key, and {known.node} still says primary", conflict=conflict)
    return _Ruling(PrimaryRecord(leader, timeline), conflict=conflict)


def _role(name: str, member: Said, ruling: _Ruling, newest: PrimaryRecord | None) -> Role | None:
    """Say what a member is to be called, None if it is to be left out."""
    if not member.runs:
        return None
    if member.claims:
        unnamed = ruling.primary is None or ruling.primary.node != name
        return Role.STALE_PRIMARY if unnamed and newest and member.timeline < newest.timeline else Role.PRIMARY
    return Role.REPLICA if member.role in REPLICA_ROLES else None


def _member(name: str, said: Said, role: Role, address: Address, timeline: int, cluster: str) -> Member:
    zone, weight = said.tags.get("zone"), said.tags.get("weight")
    return Member(
        node=name,
        role=role,
        addresses=(address,),
        timeline=timeline,
        system_identifier=cluster,
        server_version=0,
        zone=zone if isinstance(zone, str) else "",
        # Any value counts that is not empty: so Patroni's own REST API sees it.
        weight=0 if said.tags.get("noloadbalance") else weight if type(weight) is int and weight > 0 else 1,
        agent_version=f"Patroni {said.version}".strip(),
    )


def read_stats(keys: PatroniKeys, items: Mapping[str, KeyValue]) -> tuple[Stats, ...]:
    """Return the WAL positions that the members' keys tell, as old as the members' last round; sorted by node."""
    said = _said(keys, items, [])
    leader = said.get(_text(items.get(keys.leader)) or "")
    head = leader.xlog_location if leader is not None and leader.claims else None
    return tuple(_stats(name, member, head) for name, member in said.items() if member.runs)


def _stats(name: str, member: Said, head: int | None) -> Stats:
    if member.claims:
        return Stats(name, wal_lsn=member.xlog_location)
    known = head is not None and member.replay_lsn is not None
    lag_bytes = max(0, head - member.replay_lsn) if known else None  # type: ignore[operator]
    return Stats(name, replay_lsn=member.replay_lsn, lag_bytes=lag_bytes)


def _said(keys: PatroniKeys, items: Mapping[str, KeyValue], problems: list[str]) -> dict[str, Said]:
    said = {}
    for key in sorted(items):
        name = keys.member_name(key)
        member = None if not name else decode(items[key], Said, problems)
        if name and member is not None:
            said[name] = member
    return said


def _address(conn_url: str) -> Address | None:
    try:
        parts = urlsplit(conn_url)
        return Address(parts.hostname, parts.port or DEFAULT_PORT) if parts.hostname else None
    except ValueError:
        return None


def _without_login(conn_url: str) -> str:
    return conn_url.rpartition("@")[2]


def _draining(member: Member) -> Member:
    return msgspec.structs.replace(member, state=MemberState.DRAINING)


def _text(item: KeyValue | None) -> str | None:
    return None if item is None else item.value.decode(errors="replace").strip() or None
