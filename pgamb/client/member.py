"""A member of the service, as this process uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pgamb.errors import ConnectionFailure
from pgamb.registry.model import Member, PrimaryRecord
from pgamb.relay.pool import Pool


@dataclass(slots=True)
class UsedMember:
    """What is known of one member besides what the registry says.

    `open` counts connections; `limit` is how many it leaves us, None until asked; `down_since` is in monotonic
    seconds, None while it is thought to answer.
    """

    member: Member
    limit: int | None = None
    open: int = 0
    down_since: float | None = None
    last_error: str = ""
    reviving: bool = False
    lost_logged_at: float = 0.0
    pools: dict[tuple[str, str], Pool] = field(default_factory=dict)

    @property
    def room(self) -> bool:
        return self.limit is None or self.open < self.limit


def forsake_stale(pools: Iterable[Pool], primary: PrimaryRecord | None) -> None:
    """Give up what a former primary has not answered by now: it must not do it any more, nobody would find it again.

    It may be frozen, or cut off, and go on later with what it was sent.
    """
    for pool in pools:
        if primary is not None and not pool.replica and pool.member.timeline < primary.timeline:
            pool.forsake(ConnectionFailure(f"{primary.node} is primary now, on timeline {primary.timeline}"))
