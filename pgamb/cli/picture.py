"""The picture of a service that `pgamb status` gives: what is there, who is primary and why; as values and as a table.

Pure: a topology, the members' stats and the registry's own state go in. The field names are the keys of `--json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pgamb.registry.model import Member, MemberState, PrimaryRecord, RegistryStatus, Role, Stats, Topology

# What was read so lately needs no connection to be believed: a snapshot comes before the watch that keeps it fresh.
FRESH_S = 2.0

_COLOURS = {Role.PRIMARY: "green", Role.REPLICA: "cyan", Role.STALE_PRIMARY: "red"}


class MemberPicture(msgspec.Struct, frozen=True, kw_only=True):
    """One member. `lag_bytes` and `lag_s` are None for the primary, and where nothing is known."""

    node: str
    role: str
    state: str
    timeline: int
    addresses: tuple[str, ...]
    server_version: str
    zone: str
    weight: int
    lag_bytes: int | None
    lag_s: float | None
    wal_lsn: str | None
    replay_lsn: str | None
    connections: int | None
    notes: tuple[str, ...]


class RegistryPicture(msgspec.Struct, frozen=True, kw_only=True):
    source: str
    endpoint: str | None
    connected: bool
    age_s: float | None
    last_error: str | None
    notes: tuple[str, ...]


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A whole service. `primary` is the member that takes writes, None where none may; `record` is what the
    registry's `primary` key says."""

    service: str
    primary: str | None
    why: str
    record: PrimaryRecord | None
    conflict: tuple[str, ...]
    stale_primaries: tuple[str, ...]
    cluster: str | None
    members: tuple[MemberPicture, ...]
    registry: RegistryPicture


def picture(topology: Topology, stats: Sequence[Stats], status: RegistryStatus) -> Picture:
    """Put together what is known of a service."""
    by_node = {each.node: each for each in stats}
    primary = topology.primary_member()
    return Picture(
        service=topology.service,
        primary=primary.node if primary else None,
        why=why(topology, source=status.source, notes=status.notes),
        record=topology.primary,
        conflict=topology.conflict,
        stale_primaries=tuple(each.node for each in topology.members if each.role is Role.STALE_PRIMARY),
        cluster=topology.cluster,
        members=tuple(_member(each, topology, by_node) for each in topology.members),
        registry=RegistryPicture(
            source=status.source,
            endpoint=status.endpoint,
            connected=status.connected or (status.age_s is not None and status.age_s < FRESH_S),
            age_s=status.age_s,
            last_error=status.last_error,
            notes=status.notes,
        ),
    )


def why(topology: Topology, *, source: str = "etcd://", notes: Sequence[str] = ()) -> str:
    """Say in one sentence who is primary and for which reason, or why nobody is; `notes` are the registry's own."""
    record = topology.primary
    if topology.conflict and record is None:
        return f"{' and '.join(topology.conflict)} both say primary on one timeline: nobody writes until one is stopped"
    if is_static(source):
        return _why_static(topology)
    if source.startswith("patroni+"):
        return _why_patroni(topology, notes)
    if not topology.members:
        gone = f" (the last primary was {record.node} on timeline {record.timeline})" if record else ""
        return f"no member is registered{gone}: start `pgamb server` beside each PostgreSQL, for this service"
    if record is None:
        claims = [each.node for each in topology.members if each.role is not Role.REPLICA]
        if claims:
            return (
                f"{', '.join(claims)} says primary, but no agent has written the registry's `primary` key: see its log"
            )
        return "all members are replicas, and none was ever primary here: promote one"
    named = topology.member(record.node)
    says = f"the registry's `primary` key names {record.node} with timeline {record.timeline}"
    if named is None:
        return f"{says}, but it is not registered: its agent or its PostgreSQL is gone; start it, or promote a replica"
    if named.timeline != record.timeline:
        return (
            f"{says}, but it answers with timeline {named.timeline}; its agent settles that, or says in its log why not"
        )
    if named.role is not Role.PRIMARY:
        return f"{says}, but it says {named.role}: promote a replica"
    return f"{named.node} says primary with timeline {named.timeline}, and {says}"


def _why_static(topology: Topology) -> str:
    record = topology.primary
    if not topology.members:
        return "no server of static:// answers, or none lets us log in (--auth-dsn): see below for what each said"
    if record is None:
        return "no server says primary: promote one"
    if topology.primary_member() is None:
        return f"{record.node} was primary with timeline {record.timeline}, and does not answer; nobody took its place"
    return f"{record.node} says primary, with timeline {record.timeline}, and nobody says so with a higher one"


def _why_patroni(topology: Topology, notes: Sequence[str]) -> str:
    record = topology.primary
    if record is not None and topology.primary_member() is not None:
        return f"{record.node} says primary with timeline {record.timeline}, and holds Patroni's leader key"
    if not topology.members:
        return "no member of Patroni runs: is it started, with this namespace and scope?"
    return next(iter(notes), "nobody says primary and holds Patroni's leader key")


def _member(member: Member, topology: Topology, stats: Mapping[str, Stats]) -> MemberPicture:
    own = stats.get(member.node)
    is_primary = member.role is Role.PRIMARY
    return MemberPicture(
        node=member.node,
        role=member.role.value,
        state=member.state.value,
        timeline=member.timeline,
        addresses=tuple(map(str, member.addresses)),
        server_version=version_text(member.server_version),
        zone=member.zone,
        weight=member.weight,
        lag_bytes=own.lag_bytes if own and not is_primary else None,
        lag_s=own.lag_s if own and not is_primary else None,
        wal_lsn=lsn_text(own.wal_lsn) if own else None,
        replay_lsn=lsn_text(own.replay_lsn) if own else None,
        connections=own.connections if own else None,
        notes=_notes(member, topology),
    )


def _notes(member: Member, topology: Topology) -> tuple[str, ...]:
    notes = []
    record = topology.primary
    if member.role is Role.STALE_PRIMARY:
        newer = f"; {record.node} is primary with {record.timeline}" if record else ""
        notes.append(f"stale primary on timeline {member.timeline}{newer}: gets no work; rewind it, or stop it")
    if member.node in topology.conflict:
        notes.append(f"in conflict: {' and '.join(topology.conflict)} say primary on one timeline; stop all but one")
    if member.role is Role.REPLICA and record is not None and member.timeline not in (0, record.timeline):
        notes.append(f"follows timeline {member.timeline}, the primary is on {record.timeline}")
    if member.state is MemberState.DRAINING:
        notes.append("draining: takes no new work")
    if member.weight == 0 and member.role is Role.REPLICA:
        notes.append("of weight 0 (Patroni's tag noloadbalance): gets no reads")
    return tuple(notes)


def table(seen: Picture, *, now: str | None = None) -> RenderableType:
    """Draw a picture for a terminal; `now` is a moment to show (of `--watch`)."""
    members = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in ("MEMBER", "ROLE", "STATE", "TL", "LAG", "ADDRESS", "VERSION", "ZONE", "WEIGHT", "CONNECTIONS"):
        right = heading in ("TL", "LAG", "WEIGHT", "CONNECTIONS")
        members.add_column(heading, justify="right" if right else "left", no_wrap=heading in ("MEMBER", "ROLE"))
    for each in seen.members:
        members.add_row(
            Text(each.node),
            Text(each.role, _COLOURS.get(Role(each.role), "")),
            Text(each.state),
            str(each.timeline),
            Text(lag_text(each)),
            Text(", ".join(each.addresses)),
            each.server_version,
            Text(each.zone or "-"),
            str(each.weight),
            "-" if each.connections is None else str(each.connections),
        )
    head = Text.assemble(("service ", "bold"), seen.service)
    if now is not None:
        head.append(f"   {now}", "dim")
    parts: list[RenderableType] = [head, _primary_line(seen)]
    if seen.members:
        parts += [Text(""), members]
    notes = [Text(f"{each.node}: {note}", "yellow") for each in seen.members for note in each.notes]
    if notes:
        parts += [Text(""), *notes]
    unusual = [Text(f"registry: {note}", "yellow") for note in seen.registry.notes if note != seen.why]
    if unusual:
        parts += [Text(""), *unusual]
    doubt = registry_doubt(seen.registry)
    if doubt is not None:
        parts += [Text(""), Text(doubt, "red")]
    return Group(*parts)


def registry_doubt(registry: RegistryPicture) -> str | None:
    """Say when the picture may be old or incomplete; None when it is not."""
    if registry.connected:
        # Entries that contradict the others are left out, and servers of static:// may answer in part.
        return f"registry: {registry.last_error}" if registry.last_error else None
    age = "" if registry.age_s is None else f", the picture is {registry.age_s:.0f} s old"
    reason = f": {registry.last_error}" if registry.last_error else ""
    return f"registry: {registry.endpoint or registry.source} cannot be reached{age}{reason}"


def is_static(source: str) -> bool:
    return source.startswith("static://")


def lag_text(member: MemberPicture) -> str:
    """Write a lag as one reads it: `0`, `1.2 MB, 3.0 s`; `-` where there is none to know."""
    if member.lag_bytes is None and member.lag_s is None:
        return "-"
    size = "" if member.lag_bytes is None else size_text(member.lag_bytes)
    # Caught up in bytes means caught up: the time since the last replayed transaction is then only idleness.
    if member.lag_bytes == 0 or member.lag_s is None:
        return size
    return ", ".join(filter(None, (size, f"{member.lag_s:.1f} s")))


def size_text(size_bytes: int) -> str:
    if size_bytes < 1000:
        return f"{size_bytes} B" if size_bytes else "0"
    size = float(size_bytes)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.5:
            return f"{size:.1f} {unit}" if size < 10 else f"{size:.0f} {unit}"
    return f"{size / 1000:.1f} TB"


def lsn_text(lsn: int | None) -> str | None:
    """Write a WAL position as PostgreSQL does: `0/3000148`."""
    return None if lsn is None else f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def version_text(number: int) -> str:
    """Write `server_version_num` as people do: 150004 is `15.4`, 90624 is `9.6.24`; what nobody has said is `-`."""
    if not number:
        return "-"
    major, rest = divmod(number, 10000)
    return f"{major}.{rest}" if major >= 10 else f"{major}.{rest // 100}.{rest % 100}"


def _primary_line(seen: Picture) -> Text:
    if seen.primary is not None:
        return Text.assemble(("primary ", "bold"), (seen.primary, "green"), f"  because {seen.why}")
    return Text.assemble(("primary ", "bold"), ("none", "red"), f"  because {seen.why}")
