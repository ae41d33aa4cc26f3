"""Replication connections: each has a walsender of its own on the primary, from its log-in to its end.

They are in no pool, and PostgreSQL counts them apart as well (max_wal_senders). What asks for one follows the primary
by connecting again: when another member becomes primary, or this one is lost, they are ended as a server that stops
would end them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pgamb.client.channel import Channel
from pgamb.client.opener import Opened, Opener
from pgamb.errors import AdminShutdown, CannotConnectNow, ConnectionFailure, PgambError, PostgresError
from pgamb.registry.model import Member, MemberState, Role, Topology
from pgamb.relay.reactor import Reactor
from pgamb.relay.replication import Replication
from pgamb.session.backend_login import Credentials

log = logging.getLogger(__name__)

_RETRY_S = 0.2
# A message that PostgreSQL has not finished by then it never will.
_LAST_MESSAGE_S = 2.0
# The server is starting or stopping: what a moment may change.
_PASSING = ("57P01", "57P02", "57P03")


@dataclass(frozen=True, slots=True)
class Walsender:
    """Where a session's walsender is, and how it is cancelled."""

    node: str
    opened: Opened

    def __str__(self) -> str:
        return self.node


Session: TypeAlias = "Replication[Walsender]"


class Replications:
    """The replication connections of a process, by the process id that each application was told."""

    def __init__(
        self,
        reactor: Reactor,
        opener: Opener,
        *,
        hold_timeout_s: float,
        topology: Callable[[], Topology | None],
        static: Sequence[Member],
        refresh: Callable[[], object],
    ) -> None:
        """`static` are asked while there is no topology; `refresh` asks for a newer one."""
        self._reactor = reactor
        self._opener = opener
        self._hold_timeout_s = hold_timeout_s
        self._topology = topology
        self._static = tuple(static)
        self._refresh = refresh
        self.sessions: dict[int, Session] = {}
        self.held = 0

    async def open(self, database: str, user: str, startup: Mapping[str, str], credentials: Credentials) -> Walsender:
        """Log in to the primary as the application asked; while there is none, wait for it as statements do.

        Raises PostgresError with PostgreSQL's own words, ConnectionFailure or CannotConnectNow.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._hold_timeout_s
        self.held += 1
        try:
            while True:
                failure = PgambError("the registry names none")
                for member in self._candidates():
                    try:
                        return await self._open(member, database, user, startup, credentials)
                    except PgambError as error:
                        if isinstance(error, PostgresError) and error.sqlstate not in _PASSING:
                            raise
                        failure = error
                self._refresh()
                if loop.time() + _RETRY_S > deadline:
                    raise CannotConnectNow(
                        f"no primary to replicate from was found within {self._hold_timeout_s:g} s: {failure.message}",
                        hint="See `pgamb status`.",
                    )
                await asyncio.sleep(_RETRY_S)
        finally:
            self.held -= 1

    def begin(self, channel: Channel, walsender: Walsender, pid: int, secret: bytes) -> None:
        """Hand both connections over to the data plane."""
        front, back = channel.hand_over(), walsender.opened.channel.hand_over()
        self.sessions[pid] = Replication(
            self._reactor,
            front.fd,
            back.fd,
            pid=pid,
            secret=secret,
            origin=walsender,
            on_closed=self._closed,
            rest=front.rest,
            tls=front.tls,
            tls_in=front.tls_in,
            tls_out=front.tls_out,
            backend_rest=back.rest,
            backend_tls=back.tls,
            backend_tls_in=back.tls_in,
            backend_tls_out=back.tls_out,
        )
        log.info("replication.begun", extra={"kv": {"pid": pid, "member": walsender.node}})

    def apply(self, topology: Topology) -> None:
        """End those whose member is the primary no more. One that nobody speaks of may still be."""
        primary = topology.primary_member()
        roles = {member.node: member.role for member in topology.members}
        for session in list(self.sessions.values()):
            node = session.origin.node
            if primary is not None and primary.node == node:
                continue
            if primary is not None or roles.get(node, Role.PRIMARY) is not Role.PRIMARY:
                self._end(session, AdminShutdown(f"terminating connection because {node} is not the primary any more"))

    def drain(self, *, last: bool) -> None:
        """End what can be ended without cutting off an answer, or (`last`) everything."""
        for session in list(self.sessions.values()):
            if last or session.is_at_rest:
                self._end(session, AdminShutdown("terminating connection due to administrator command"))

    def close(self) -> None:
        """Close all, at once."""
        for session in list(self.sessions.values()):
            session.end(AdminShutdown("terminating connection due to administrator command"))
            session.close()

    async def cancel(self, session: Session) -> None:
        """Cancel what the walsender does: it is nobody else's."""
        await self._opener.send_cancel(session.origin.opened)

    def by_member(self) -> Counter[str]:
        """Return how many each member has."""
        return Counter(session.origin.node for session in self.sessions.values())

    def _candidates(self) -> Sequence[Member]:
        topology = self._topology()
        if topology is None or not topology.members:
            return self._static
        primary = topology.primary_member()
        return (primary,) if primary is not None and primary.state is MemberState.RUNNING else ()

    async def _open(
        self, member: Member, database: str, user: str, startup: Mapping[str, str], credentials: Credentials
    ) -> Walsender:
        opened = await self._opener.open(member, database, user, credentials, startup)
        if opened.greeting.parameters.get("in_hot_standby") == "on":
            opened.channel.close()
            raise ConnectionFailure(f"{member.node} is no primary")
        return Walsender(member.node, opened)

    def _end(self, session: Session, error: PgambError) -> None:
        session.end(error)
        if session.pid in self.sessions:
            asyncio.get_running_loop().call_later(_LAST_MESSAGE_S, session.close)

    def _closed(self, session: Session) -> None:
        self.sessions.pop(session.pid, None)
        kv = {
            "pid": session.pid,
            "member": session.origin.node,
            "sent_bytes": session.sent_bytes,
            "received_bytes": session.received_bytes,
        }
        log.info("replication.ended", extra={"kv": kv})
