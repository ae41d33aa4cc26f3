"""Whether a new application could be served now: the answer of /readyz.

What pools know is believed: a member with open backends answers, one that is marked down does not. Only where nothing
has been tried yet, an idle ambassador as a rule, is a member asked, and its answer kept for a while: a thousand idle
ambassadors must not be a load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from pgamb.client.member import UsedMember
from pgamb.client.monitor import Asker
from pgamb.client.opener import Opener
from pgamb.errors import PgambError, PostgresError
from pgamb.observe.snapshot import Readiness
from pgamb.registry.model import Address, Member, Role, Topology

ASK_TIMEOUT_S = 1.0
# How long an answer counts: a good one longer, so that who waits for a server to come hears of it soon.
KEEP_GOOD_S = 5.0
KEEP_BAD_S = 1.0

# The server is starting, stopping, or full.
_NOT_NOW = ("57P01", "57P02", "57P03", "53300")


class Reach:
    """Finds a member that would serve a new application.

    `asker` is whom to log in as, None: a connection alone has to do. `verified`: every member of a topology has
    answered us already. `unlisted` are members to try where no topology names any.
    """

    def __init__(
        self,
        opener: Opener,
        asker: Asker | None,
        used: Callable[[str], UsedMember | None],
        *,
        verified: bool,
        unlisted: tuple[Member, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opener = opener
        self._asker = asker
        self._used = used
        self._verified = verified
        self._unlisted = unlisted
        self._clock = clock
        self._asked: dict[tuple[Address, ...], tuple[str | None, float]] = {}
        self._asking = asyncio.Lock()

    async def readiness(self, topology: Topology | None, registry_error: str | None) -> Readiness:
        """Say whether any member serves, and which; takes two ASK_TIMEOUT_S at most."""
        primary = topology.primary_member() if topology is not None else None
        members = [*([primary] if primary is not None else []), *(topology.replicas() if topology is not None else ())]
        failures: dict[str, str] = {}
        unknown: list[Member] = []
        for member in members:
            used = self._used(member.node)
            if used is not None and used.down_since is not None:
                failures[member.node] = used.last_error
            elif self._verified or (used is not None and any(pool.open_count for pool in used.pools.values())):
                return _ready(member, primary)
            else:
                unknown.append(member)
        if not members and self._asker is None:
            unknown.extend(self._unlisted)
        async with self._asking:
            # The first, the primary, will do as a rule; the others are asked together.
            for some in (unknown[:1], unknown[1:]):
                for member, error in zip(some, await asyncio.gather(*map(self._ask, some)), strict=True):
                    if error is None:
                        return _ready(member, primary)
                    failures[member.node] = error
        if failures:
            return Readiness(False, "no member answers: " + "; ".join(f"{n}: {e}" for n, e in failures.items()))
        why = "the registry has not answered yet" if topology is None else "the registry names no member to use"
        if topology is not None and topology.conflict:
            why = f"{' and '.join(topology.conflict)} claim to be primary at the same time, and there is no replica"
        return Readiness(False, f"{why}: {registry_error}" if registry_error else why)

    async def _ask(self, member: Member) -> str | None:
        """Return what is wrong with a member, None if it would let somebody in."""
        known = self._asked.get(member.addresses)
        if known is not None and self._clock() - known[1] < (KEEP_GOOD_S if known[0] is None else KEEP_BAD_S):
            return known[0]
        error = await self._try(member)
        if len(self._asked) > 100:
            self._asked.clear()
        self._asked[member.addresses] = (error, self._clock())
        return error

    async def _try(self, member: Member) -> str | None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                if self._asker is None:
                    await self._opener.touch(member)
                    return None
                asker = self._asker
                opened = await self._opener.open(
                    member, asker.database, asker.user, asker.credentials, {"application_name": "pgamb_monitor"}
                )
                opened.channel.close()
        except TimeoutError:
            return f"no answer within {ASK_TIMEOUT_S:g} s"
        except PgambError as error:
            refusal = isinstance(error, PostgresError) and error.sqlstate not in _NOT_NOW
            # A log-in that PostgreSQL refuses has reached a PostgreSQL that judges log-ins.
            return None if refusal else error.message
        return None


def _ready(member: Member, primary: Member | None) -> Readiness:
    if primary is None:
        return Readiness(True, f"{member.node} answers, but there is no primary: writes are held")
    if member is not primary:
        return Readiness(True, f"{member.node} answers, but the primary {primary.node} does not: writes are held")
    return Readiness(True, f"{member.node}, the primary, answers")


def unlisted_members(addresses: tuple[Address, ...]) -> tuple[Member, ...]:
    """Make members of the addresses of static://, of which nothing else is known."""
    return tuple(Member(str(address), Role.REPLICA, (address,), 0, "", 0) for address in addresses)
