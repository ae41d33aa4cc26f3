"""What a probe can bring home: a reading of the server, or why there is none. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Reading:
    """What PostgreSQL said of itself at one moment.

    Positions are byte offsets in the WAL. `wal_lsn` is what a primary has written, or a replica received.
    `started_at_s` (of the postmaster, Unix time) tells two servers of one cluster apart. `lag_bytes` and `lag_s` are
    None on a primary, and on a replica that can not know.
    """

    in_recovery: bool
    timeline: int
    system_identifier: str
    server_version: int
    started_at_s: float
    cluster_name: str = ""
    wal_lsn: int | None = None
    replay_lsn: int | None = None
    lag_bytes: int | None = None
    lag_s: float | None = None
    connections: int | None = None
    max_connections: int | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """There is no reading.

    `is_gone`: nobody serves there now. `is_silent`: nothing at all came back, not even a refusal; that is what a
    server that is gone, and one behind a broken network, have in common.
    """

    reason: str
    is_gone: bool
    is_silent: bool = False


Probe: TypeAlias = Reading | Unreachable
