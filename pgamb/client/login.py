"""One application's way from `accept` to its first statement: TLS, startup packet, log-in, welcome.

Everything here is linear, bounded by the log-in timeout, and over before the first query: the connection then goes to
the data plane, and nothing of this stays behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from pgamb.client.authenticator import Authenticator, Login
from pgamb.client.cancel import Canceller
from pgamb.client.channel import Channel
from pgamb.client.monitor import Asker, MemberProber
from pgamb.client.occupancy import Occupancy
from pgamb.client.pools import Pools
from pgamb.client.positions import Positions
from pgamb.client.replication import Replications
from pgamb.client.welcome import Welcome, Welcomer
from pgamb.config import ClientOptions
from pgamb.errors import (
    AdminShutdown,
    CannotConnectNow,
    ConnectionFailure,
    InvalidAuthorization,
    PgambError,
    PostgresError,
    ProtocolViolation,
    TooManyConnections,
)
from pgamb.registry.model import Member
from pgamb.relay.frontend import Frontend
from pgamb.relay.reactor import Reactor
from pgamb.relay.session import Relay
from pgamb.session.process_ids import FIRST_PID, LAST_PID
from pgamb.session.replication import Replication, replication_of
from pgamb.session.wish import wish_of_startup
from pgamb.wire import messages
from pgamb.wire.startup import (
    CancelRequest,
    FirstPacket,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    parse_startup,
    startup_length,
    unsupported_protocol,
)

log = logging.getLogger(__name__)

# A TLS handshake record begins with this byte, a startup packet never does (its length would be 370 MB).
_TLS_HANDSHAKE = 0x16
# PostgreSQL's ALPN protocol; without it a direct TLS connection may be meant for another service.
_ALPN = "postgresql"
_SECRET_BYTES_30 = 4
_SECRET_BYTES_32 = 32
_RETRY_S = 0.2


@dataclass(frozen=True, slots=True)
class Peer:
    """Where an application connects from: `local` connections do not leave this machine."""

    name: str
    local: bool

    @property
    def is_unix(self) -> bool:
        return self.name == "unix"


class LoginDesk:
    """Logs applications in and hands them to the data plane."""

    def __init__(
        self,
        options: ClientOptions,
        *,
        reactor: Reactor,
        relay: Relay,
        pools: Pools,
        authenticator: Authenticator,
        welcomer: Welcomer,
        canceller: Canceller,
        prober: MemberProber,
        positions: Positions,
        occupancy: Occupancy,
        replications: Replications,
        static: tuple[Member, ...],
        refresh: Callable[[], object],
        tls: ssl.SSLContext | None,
    ) -> None:
        self._options = options
        self._reactor = reactor
        self._relay = relay
        self._pools = pools
        self._authenticator = authenticator
        self._welcomer = welcomer
        self._canceller = canceller
        self._prober = prober
        self._positions = positions
        self._occupancy = occupancy
        self._replications = replications
        self._refresh = refresh
        self._static = static
        self.tls = tls
        # At random: what an application counts up from one, too, would stand for sessions sooner or later.
        self._last_pid = random.randrange(FIRST_PID, LAST_PID)
        self.logging_in = 0
        self.tally = pools.tally
        self.draining = False

    @property
    def last_pid(self) -> int:
        """The process id that an application was told last."""
        return self._last_pid

    def number_from(self, pid: int) -> None:
        """Tell process ids behind this one from now on: those before it belong to sessions of another process."""
        self._last_pid = pid if pid < LAST_PID - 1 else FIRST_PID

    @property
    def sessions(self) -> int:
        """How many applications are logged in."""
        return len(self._relay.frontends) + len(self._replications.sessions)

    async def serve(self, sock: socket.socket, peer: Peer) -> None:
        """See one connection through; never raises but for cancellation."""
        channel = Channel(sock)
        self.logging_in += 1
        try:
            async with asyncio.timeout(self._options.login_timeout_s):
                await self._serve(channel, peer)
        except TimeoutError:
            self.tally.timed_out += 1
            log.info("login.timeout", extra={"kv": {"peer": peer.name}})
        except ConnectionFailure as error:
            # It left, or lost its way: nobody is there to be told.
            self.tally.left += 1
            log.debug("login.left", extra={"kv": {"peer": peer.name, "error": error.message}})
        except PgambError as error:
            await self._refuse(channel, peer, error)
        except Exception as error:
            log.exception("login.failed", extra={"kv": {"peer": peer.name}})
            await self._refuse(channel, peer, PgambError(f"internal error of pgamb: {error!r}"))
        finally:
            self.logging_in -= 1
            channel.close()

    async def _refuse(self, channel: Channel, peer: Peer, error: PgambError) -> None:
        self.tally.refused[error.sqlstate] += 1
        log.info("login.refused", extra={"kv": {"peer": peer.name, "sqlstate": error.sqlstate, "error": error.message}})
        try:
            async with asyncio.timeout(1.0):
                await channel.send(messages.error_response(error, "FATAL"))
        except (ConnectionFailure, TimeoutError):
            pass

    async def _serve(self, channel: Channel, peer: Peer) -> None:
        first = await self._first_packet(channel, peer)
        if isinstance(first, CancelRequest):
            self.tally.cancel_requests += 1
            await self._canceller.cancel(first.pid, first.secret)
            return
        assert isinstance(first, StartupMessage)
        if self.draining:
            raise AdminShutdown("pgamb is shutting down")
        if self.sessions + self.logging_in > self._options.max_connections:
            raise TooManyConnections(
                "sorry, too many clients already",
                detail=f"pgamb serves {self._options.max_connections} connections (--max-connections).",
            )
        if self._options.tls_required and channel.tls is None and not peer.is_unix:
            raise InvalidAuthorization("this server accepts only TLS connections", hint="Connect with sslmode=require.")
        if first.needs_negotiation:
            await channel.send(messages.negotiate_protocol_version(first.negotiated_minor, first.unknown_options))
        startup = dict(first.parameters)
        user, database = startup.pop("user"), startup.pop("database")
        database, startup = wish_of_startup(database, startup)
        replication = replication_of(startup.get("replication"))
        private = peer.local or channel.tls is not None
        if replication is not Replication.NONE:
            # A physical walsender belongs to no database, whatever name there is.
            login = await self._authenticator.login(
                channel, user, database if replication is Replication.LOGICAL else None, private=private
            )
            await self._replicate(channel, first, database, user, startup, login)
            return
        startup.pop("replication", None)
        login = await self._authenticator.login(channel, user, database, private=private)
        welcome = await self._welcome(login, database, user, startup)
        self._authenticator.credentials[user] = login.credentials
        self._positions.lend(Asker(database, user, login.credentials))
        await self._hand_over(channel, first, welcome, database, user)

    async def _replicate(
        self,
        channel: Channel,
        first: StartupMessage,
        database: str,
        user: str,
        startup: dict[str, str],
        login: Login,
    ) -> None:
        """Give a walsender of the primary's to an application, with all that it asked for."""
        walsender = await self._replications.open(database, user, startup, login.credentials)
        try:
            self._authenticator.credentials[user] = login.credentials
            pid, secret = self._new_key(first)
            told = walsender.opened.greeting
            await channel.send(_greeting(told.notices + messages.parameter_statuses(told.parameters), pid, secret))
        except BaseException:
            walsender.opened.channel.close()
            raise
        self._replications.begin(channel, walsender, pid, secret)
        self.tally.accepted += 1

    async def _first_packet(self, channel: Channel, peer: Peer) -> FirstPacket:
        """Read first packets until one says what is wanted, and start TLS on the way."""
        asked: set[type] = set()
        while True:
            head = await channel.receive_exactly(4)
            if head[0] == _TLS_HANDSHAKE and not asked:
                channel.unreceive(head)
                await self._direct_tls(channel)
                asked.add(SSLRequest)
                continue
            packet = head + await channel.receive_exactly(startup_length(head) - 4)
            first = parse_startup(packet)
            if not isinstance(first, SSLRequest | GSSENCRequest):
                return first
            if type(first) in asked or channel.tls is not None:
                # As PostgreSQL, which takes it for a version then.
                raise unsupported_protocol(int.from_bytes(packet[4:8], "big"))
            asked.add(type(first))
            if isinstance(first, GSSENCRequest) or self.tls is None:
                await channel.send(b"N")
                continue
            if channel.received():
                # Bytes that nothing protects must not pass for what TLS protects (CVE-2021-23214).
                raise ProtocolViolation(
                    "received unencrypted data after SSL request",
                    detail="This could be either a client-software bug or evidence of an attempted "
                    "man-in-the-middle attack.",
                )
            await channel.send(b"S")
            await channel.start_tls(self.tls, server_side=True)

    async def _direct_tls(self, channel: Channel) -> None:
        if self.tls is None:
            raise ConnectionFailure("a direct TLS connection, but there is no --tls-cert")
        await channel.start_tls(self.tls, server_side=True)
        assert channel.tls is not None
        if channel.tls.selected_alpn_protocol() != _ALPN:
            raise ProtocolViolation(
                "received direct SSL connection request without ALPN protocol negotiation extension"
            )

    async def _welcome(self, login: Login, database: str, user: str, startup: dict[str, str]) -> Welcome:
        """Find out what to tell the session; while no member answers, wait as for a primary."""
        if not login.unverified:
            known = self._welcomer.known(database, user, startup)
            if known is not None:
                return known
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.hold_timeout_s
        while True:
            try:
                welcome = await self._welcomer.ask(
                    self._pools.welcomers() or self._static, database, user, startup, login.credentials
                )
                if self._prober.lend(Asker(database, user, login.credentials)) and self._static:
                    self._refresh()
                return welcome
            except (CannotConnectNow, PostgresError) as error:
                if isinstance(error, PostgresError) and error.sqlstate not in ("57P01", "57P02", "57P03"):
                    raise
                if loop.time() + _RETRY_S > deadline:
                    raise
            await asyncio.sleep(_RETRY_S)

    def _free_pid(self) -> int:
        """Return a process id (`session.process_ids`) that no session has."""
        while True:
            self._last_pid = self._last_pid + 1 if self._last_pid < LAST_PID - 1 else FIRST_PID
            if self._last_pid not in self._relay.frontends and self._last_pid not in self._replications.sessions:
                return self._last_pid

    def _new_key(self, first: StartupMessage) -> tuple[int, bytes]:
        """Return what an application cancels with: long from protocol 3.2 on."""
        return self._free_pid(), os.urandom(_SECRET_BYTES_32 if first.negotiated_minor >= 2 else _SECRET_BYTES_30)

    async def _hand_over(
        self, channel: Channel, first: StartupMessage, welcome: Welcome, database: str, user: str
    ) -> None:
        pid, secret = self._new_key(first)
        await channel.send(_greeting(welcome.told, pid, secret))
        # It may leave while it is handed over: what it had sent already is dealt with at once.
        self._occupancy.enter(database)
        given = channel.hand_over()
        Frontend(
            self._reactor,
            given.fd,
            self._relay,
            self._pools.group(database, user),
            pid=pid,
            secret=secret,
            parameters=welcome.parameters,
            startup=welcome.parameters,
            told=welcome.reported,
            limits=welcome.limits,
            rest=given.rest,
            tls=given.tls,
            tls_in=given.tls_in,
            tls_out=given.tls_out,
        )
        self.tally.accepted += 1


def _greeting(told: bytes, pid: int, secret: bytes) -> bytes:
    return messages.authentication_ok() + told + messages.backend_key_data(pid, secret) + messages.ready_for_query()
