"""Keeps one connection to each member for questions about its position in the WAL, and tells the data plane who is who.

Responsibility: which members are asked, the connections to them, and the pace of asking while nobody waits. What is
asked when, and what follows from an answer, is in `relay.freshness`.

A service without a replica has no such connections: there is nothing to compare. With `--consistency eventual` it has
them all the same, for `--max-lag` holds in every mode.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pgamb.client.monitor import Asker as LogIn
from pgamb.client.opener import Opened, Opener
from pgamb.config import ClientOptions
from pgamb.errors import ConnectionFailure, PgambError, PostgresError
from pgamb.registry.model import Member, Role, Topology
from pgamb.relay.freshness import ANSWER_TIMEOUT_S, Asker, Freshness, Position
from pgamb.relay.reactor import Reactor
from pgamb.routing.freshness import SHAPE_QUESTION
from pgamb.session.query import simple_query

log = logging.getLogger(__name__)

# How soon, and how seldom at most, a member that failed is tried again (as client.pools has it).
RETRY_FIRST_S = 0.2
RETRY_LAST_S = 2.0

# How often all are asked while there are reads or writes, and while there is nothing to be late for.
BUSY_S = 0.1
IDLE_S = 1.0

# The settings of whoever we log in as must neither end a question nor, as SERIALIZABLE does on a standby, forbid it.
_PARAMETERS = {
    "application_name": "pgamb_freshness",
    "statement_timeout": "0",
    "default_transaction_isolation": "read committed",
}


# A connection that stays must not stand in the way of an application that drops its database.
_DATABASE = "postgres"


@dataclass(slots=True, eq=False)
class _Attended:
    """A member that is asked. `moved` wakes who looks after its connection; `lagged` is what was logged last."""

    member: Member
    asker: Asker
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    lagged: bool = False


class Positions:
    """One asker for each member in use, kept connected."""

    def __init__(
        self,
        options: ClientOptions,
        reactor: Reactor,
        opener: Opener,
        login: LogIn | None,
        spawn: Callable[..., object],
        *,
        activity: Callable[[], int],
        refresh: Callable[[], object],
    ) -> None:
        """`activity` counts reads and writes so far; `refresh` is called when a member contradicts the registry."""
        self._reactor = reactor
        self._opener = opener
        self._fixed = login is not None
        self._login = login
        self._spawn = spawn
        self._activity = activity
        self._refresh = refresh
        self._attended: dict[str, _Attended] = {}
        self.on_silent: Callable[[str], object] = lambda node: None
        self.freshness = Freshness(
            reactor,
            consistency=options.consistency,
            replica_wait_s=options.replica_wait_s,
            max_lag_s=options.max_lag_s,
            max_lag_bytes=options.max_lag_bytes,
        )

    def position(self, node: str) -> Position | None:
        """Return what is known of a member as a replica, None if it is not asked."""
        attended = self._attended.get(node)
        return attended.asker.position if attended is not None else None

    def lend(self, login: LogIn) -> None:
        """Log in as this application from now on, unless there is a log-in of our own."""
        if self._fixed:
            return
        first = self._login is None
        self._login = login
        if first:
            for attended in self._attended.values():
                attended.moved.set()

    def apply(self, topology: Topology) -> None:
        """Follow what the registry says; call it whenever the pools are told."""
        primary = topology.primary_member()
        replicas = topology.replicas()
        members = [*([primary] if primary is not None else []), *replicas] if replicas else []
        wanted = {member.node: member for member in members}
        for node, attended in list(self._attended.items()):
            member = wanted.get(node)
            if member is None or member.addresses != attended.member.addresses:
                del self._attended[node]
                attended.asker.close()
                attended.moved.set()
            else:
                attended.member = member
        for member in members:
            if member.node not in self._attended:
                self._attend(member)
            self._attended[member.node].asker.position.reached(member.timeline)
        self.freshness.use(
            self._attended[primary.node].asker if primary is not None and primary.node in wanted else None,
            topology.primary.timeline if topology.primary is not None else 0,
            [self._attended[member.node].asker for member in replicas],
        )

    async def tick_forever(self) -> None:
        """Ask all members now and then, so that lag can be told, and give up on those that do not answer."""
        seen, changed_at = self._activity(), 0.0
        while True:
            now = time.monotonic()
            if (activity := self._activity()) != seen:
                seen, changed_at = activity, now
            await asyncio.sleep(BUSY_S if now - changed_at < IDLE_S else IDLE_S)
            self._give_up_on_silent()
            self.freshness.survey()
            self._log_lag()

    def close(self) -> None:
        """Say goodbye to all members."""
        attended = list(self._attended.values())
        self._attended.clear()
        for each in attended:
            each.asker.close()
            each.moved.set()

    # Connections.

    def _attend(self, member: Member) -> None:
        asker = Asker(member.node, self.freshness, on_lost=self._lost, on_trouble=self._refused, on_role=self._refresh)
        attended = self._attended[member.node] = _Attended(member, asker)
        self._spawn(self._keep_connected(attended))

    async def _keep_connected(self, attended: _Attended) -> None:
        delay_s = RETRY_FIRST_S
        while self._attended.get(attended.member.node) is attended:
            attended.moved.clear()
            if attended.asker.connected:
                delay_s = RETRY_FIRST_S
                await attended.moved.wait()
            elif self._login is None:
                attended.asker.trouble = "nobody has logged in yet, so that nobody can ask (--auth-dsn)"
                await attended.moved.wait()
            else:
                try:
                    await self._connect(attended, self._login)
                except PgambError as error:
                    attended.asker.trouble = error.message
                    kv = {"member": attended.member.node, "error": error.message}
                    log.debug("freshness.refused", extra={"kv": kv})
                    await asyncio.sleep(delay_s)
                    delay_s = min(delay_s * 2, RETRY_LAST_S)

    async def _connect(self, attended: _Attended, login: LogIn) -> None:
        member = attended.member
        opened = await self._open(member, login)
        try:
            version, segment_bytes, page_bytes = await _ask_shape(opened)
            if self._attended.get(member.node) is not attended:
                opened.channel.close()
                return
        except BaseException:
            opened.channel.close()
            raise
        given = opened.channel.hand_over()
        attended.asker.open(
            self._reactor,
            given.fd,
            opened.greeting.pid,
            opened.greeting.secret,
            server_version=version,
            segment_bytes=segment_bytes,
            page_bytes=page_bytes,
            tls=given.tls,
            tls_in=given.tls_in,
            tls_out=given.tls_out,
        )
        attended.asker.position.reached(attended.member.timeline)

    async def _open(self, member: Member, login: LogIn) -> Opened:
        if not self._fixed:
            try:
                return await self._opener.open(member, _DATABASE, login.user, login.credentials, _PARAMETERS)
            except PostgresError:
                # There is none, or it is closed to this user: the application's own will do.
                pass
        return await self._opener.open(member, login.database, login.user, login.credentials, _PARAMETERS)

    def _lost(self, asker: Asker, error: PgambError) -> None:
        """A connection ended (called in C: nothing may be done here and now)."""
        attended = self._attended.get(asker.position.node)
        if attended is not None and attended.asker is asker:
            log.debug("freshness.lost", extra={"kv": {"member": asker.position.node, "error": error.message}})
            self._reactor.call_soon(attended.moved.set)
            self._reactor.give_way()

    def _refused(self, asker: Asker, message: str) -> None:
        """A member cannot answer what its role should let it: the registry may know why."""
        log.debug("freshness.refused", extra={"kv": {"member": asker.position.node, "error": message}})
        self._refresh()

    # What is seen on the way.

    def _give_up_on_silent(self) -> None:
        patience_s = ANSWER_TIMEOUT_S + self.freshness.replica_wait_s
        before = time.monotonic() - patience_s
        for attended in list(self._attended.values()):
            if attended.asker.overdue(before):
                attended.asker.fail(ConnectionFailure(f"{attended.member.node} did not answer within {patience_s:g} s"))
                self.on_silent(attended.member.node)

    def _log_lag(self) -> None:
        for node, attended in self._attended.items():
            position = attended.asker.position
            lagging = position.lagging and attended.member.role is Role.REPLICA
            if lagging == attended.lagged or not position.answered_at:
                continue
            attended.lagged = lagging
            kv = {"member": node, "lag_s": round(position.lag_s, 3), "lag_bytes": position.lag_bytes}
            if lagging:
                log.warning("replica.lags", extra={"kv": kv})
            else:
                log.info("replica.caught_up", extra={"kv": kv})


async def _ask_shape(opened: Opened) -> tuple[int, int, int]:
    """Return release, bytes of a segment, and bytes of a page; raises ConnectionFailure or PostgresError."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            rows = await opened.channel.converse(simple_query(SHAPE_QUESTION))
    except TimeoutError:
        raise ConnectionFailure(f"{opened.address} let us in, and then did not answer") from None
    version, segment_bytes, page_bytes = rows[0]
    return int(version or 0), int(segment_bytes or 0), int(page_bytes or 0)
