"""What a `pgamb client` is doing at one moment, as values: the one source of the page, the JSON and the metrics.

Who serves fills it (`Observed`); nothing here knows where the numbers come from. Every field is also a key of
/status.json: renaming one breaks somebody's dashboard.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

# What a session can be doing, as `Sessions.by_state` has it.
SESSION_STATES = ("idle", "virtual", "running", "in_transaction", "pinned", "waiting", "preparing")


class Readiness(msgspec.Struct, frozen=True):
    """Whether new applications can be served, and why, for a person."""

    ready: bool
    reason: str


class RegistryState(msgspec.Struct, frozen=True):
    """The source of the topology; `age_s` is None until it has answered for the first time. `notes` say what is unusual
    and no error."""

    source: str
    endpoint: str | None
    connected: bool
    age_s: float | None
    last_error: str | None
    notes: tuple[str, ...] = ()


class MemberUse(msgspec.Struct, frozen=True):
    """A member as this process sees it. `down_s` is None while it is thought to answer; `backends_limit` is what it
    leaves us, None until asked; `walsenders` are replication connections, counted apart, as PostgreSQL does; `opened`,
    `refused` and `lost` count backends.

    A replica is read from while `unread_because` is empty. `replay_lsn`, `lag_s` and `lag_bytes` are of its last
    answer, None before there was one, and for a primary."""

    node: str
    role: str
    state: str
    addresses: tuple[str, ...]
    timeline: int
    zone: str
    weight: int
    down_s: float | None
    last_error: str | None
    backends: int
    backends_limit: int | None
    walsenders: int
    opened: int
    refused: int
    lost: int
    replay_lsn: str | None
    lag_s: float | None
    lag_bytes: int | None
    unread_because: str


class PoolUse(msgspec.Struct, frozen=True):
    """The backends of one (member, database, user). `retired`: takes no new work and ends with its last backend.

    `longest_held_pid` is the session that has had its backend for `longest_held_s`, `longest_held_pins` what pins it.
    """

    member: str
    role: str
    database: str
    user: str
    limit: int
    open: int
    active: int
    idle: int
    opening: int
    waiting: int
    longest_wait_s: float
    longest_held_s: float
    longest_held_pid: int | None
    longest_held_pins: tuple[str, ...]
    retired: bool
    checkouts: int
    waits: int
    units: int
    received_bytes: int
    sent_bytes: int


class Held(msgspec.Struct, frozen=True):
    """Sessions of one (database, user) that wait for a primary."""

    database: str
    user: str
    sessions: int
    longest_s: float


class Sessions(msgspec.Struct, frozen=True):
    """Logged-in applications. `by_state` has every one of SESSION_STATES; a session counts for each of its pins."""

    open: int
    limit: int
    by_state: dict[str, int]
    pinned: int
    pinned_by: dict[str, int]


class Routes(msgspec.Struct, frozen=True):
    """Where units of work were sent since the start, and why; `repeated` counts reads that were asked again."""

    to_primary: int
    to_replica: int
    by_reason: dict[str, int]
    repeated: dict[str, int]


class FreshnessUse(msgspec.Struct, frozen=True):
    """How "you read what you wrote" is kept. `floor` is the last commit's, as position@timeline, None while it is not
    known; `questions` were put to all members; of the `waits` for a replica some ended by timeout."""

    consistency: str
    floor: str | None
    questions: int
    waiting: int
    waits: int
    waits_ended_by_timeout: int


class Logins(msgspec.Struct, frozen=True):
    """Log-ins since the start; `refused` is by SQLSTATE. `left`: the application went away, or spoke no protocol."""

    under_way: int
    accepted: int
    refused: dict[str, int]
    timed_out: int
    left: int
    cancel_requests: int


class Snapshot(msgspec.Struct, frozen=True):
    """Everything. `gave_up` counts by SQLSTATE the statements that waited for a backend or a primary in vain."""

    version: str
    service: str
    listening: tuple[str, ...]
    uptime_s: float
    draining: bool
    readiness: Readiness
    registry: RegistryState
    primary: str | None
    conflict: tuple[str, ...]
    topology_revision: int | None
    members: tuple[MemberUse, ...]
    pools: tuple[PoolUse, ...]
    held: tuple[Held, ...]
    sessions: Sessions
    routes: Routes
    freshness: FreshnessUse
    logins: Logins
    gave_up: dict[str, int]


class Observed(Protocol):
    """Who can be looked at."""

    async def readiness(self) -> Readiness:
        """Say whether new applications can be served. May ask members whether they answer, for two seconds at most."""

    async def snapshot(self) -> Snapshot:
        """Look at everything once; its `readiness` may take as long."""
