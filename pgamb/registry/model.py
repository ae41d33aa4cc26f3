"""What the registry tells: members, who is primary, and the immutable snapshot made of them.

Values only. A `Topology` never changes; a newer one replaces it. Everything here is also the JSON in etcd, so
a field that is added needs a default (an older agent does not write it), and unknown fields are ignored.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

from pgamb.errors import ConfigError

DEFAULT_PORT = 5432

# What becomes of a primary, and of writes, while the registry is out of reach: docs/reliability.md has the table.
OnLoss: TypeAlias = Literal["failsafe", "serve", "fence"]


class Role(StrEnum):
    """What a member is; `STALE_PRIMARY` says primary on a timeline that is behind the registered one."""

    PRIMARY = "primary"
    REPLICA = "replica"
    STALE_PRIMARY = "stale-primary"


class MemberState(StrEnum):
    """Whether a member takes new work; one that is `LEAVING` had its agent stopped, and is not looked for any more."""

    RUNNING = "running"
    DRAINING = "draining"
    LEAVING = "leaving"


class Address(msgspec.Struct, frozen=True, order=True):
    """Where a PostgreSQL listens; a `host` that starts with "/" is the folder of a unix socket."""

    host: str
    port: int = DEFAULT_PORT

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    @property
    def socket_path(self) -> str:
        """Return the file that PostgreSQL makes in that folder; only for unix addresses."""
        return f"{self.host.rstrip('/')}/.s.PGSQL.{self.port}"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Read "host", "host:port", "[::1]:port", "::1" or "/folder[:port]".

    Raises ConfigError with the text in question.
    """
    host, port_text = _split(text.strip())
    if not host or any(character.isspace() for character in host):
        raise ConfigError(f'"{text}" is not an address', hint="Write host:port, [IPv6]:port or /socket/folder:port.")
    if port_text is None:
        return Address(host, default_port)
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65536):
        raise ConfigError(f'"{port_text}" in "{text}" is not a port', hint="A port is a number from 1 to 65535.")
    return Address(host, int(port_text))


def _split(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return "", None
        return host, rest[1:] if rest else None
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not text.startswith("/")):
        return text, None
    return host, port


class Member(msgspec.Struct, frozen=True):
    """One PostgreSQL instance, as its agent announces it.

    `server_version` is 150004 for 15.4, and 0 where nobody has said. A replica of weight 0 gets no reads.
    """

    node: str
    role: Role
    addresses: tuple[Address, ...]
    timeline: int
    system_identifier: str
    server_version: int
    state: MemberState = MemberState.RUNNING
    zone: str = ""
    weight: int = 1
    agent_version: str = ""

    def judged(self, timeline: int) -> Member:
        """Return it as what it is if that timeline has been primary: a primary below is stale, whatever it says."""
        if self.role is Role.PRIMARY and self.timeline < timeline:
            return msgspec.structs.replace(self, role=Role.STALE_PRIMARY)
        return self


class Stats(msgspec.Struct, frozen=True):
    """What changes every second. WAL positions are byte offsets (`pg_lsn` as an integer); None is unknown."""

    node: str
    wal_lsn: int | None = None
    replay_lsn: int | None = None
    lag_bytes: int | None = None
    lag_s: float | None = None
    connections: int | None = None


class PrimaryRecord(msgspec.Struct, frozen=True):
    """The `primary` key: who may take writes, and on which timeline."""

    node: str
    timeline: int


class DrainRequest(msgspec.Struct, frozen=True):
    """The `drain/<node>` key: nothing new goes to a member while it has this role on this timeline.

    A server that comes back as something else, a replica after a switchover, drains no more.
    """

    role: Role
    timeline: int


class Topology(msgspec.Struct, frozen=True):
    """All members of a service at one revision of its registry, sorted by node; equal by value."""

    service: str
    members: tuple[Member, ...] = ()
    primary: PrimaryRecord | None = None
    cluster: str | None = None
    conflict: tuple[str, ...] = ()
    revision: int = 0

    def primary_member(self) -> Member | None:
        """Return the member that says it is primary and that `primary` names with that timeline."""
        if self.primary is None:
            return None
        member = self.member(self.primary.node)
        if member is None or member.role is not Role.PRIMARY or member.timeline != self.primary.timeline:
            return None
        return member

    def replicas(self) -> tuple[Member, ...]:
        """Return the replicas that take new work; one that drains, or is of weight 0, does not."""
        return tuple(
            m for m in self.members if m.role is Role.REPLICA and m.state is MemberState.RUNNING and m.weight > 0
        )

    def member(self, node: str) -> Member | None:
        return next((member for member in self.members if member.node == node), None)


class RegistryView(msgspec.Struct, frozen=True):
    """What an agent knows of its service when it decides.

    `primary_revision` and `cluster_revision` are the keys' modification revisions (0: the key is absent), to be
    handed back for a compare-and-swap. `age_s` is the time since the registry last confirmed all this.
    """

    members: tuple[Member, ...]
    primary: PrimaryRecord | None
    primary_revision: int
    cluster: str | None
    cluster_revision: int
    age_s: float
    connected: bool


class RegistryStatus(msgspec.Struct, frozen=True):
    """How a proxy's source of truth is doing; `age_s` is None until the first snapshot. `notes` say what is unusual and
    no error."""

    source: str
    endpoint: str | None
    connected: bool
    age_s: float | None
    last_error: str | None
    notes: tuple[str, ...] = ()
