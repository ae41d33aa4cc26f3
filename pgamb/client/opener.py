"""Opens connections to members: connects, negotiates TLS as libpq's sslmode says, and logs in."""

from __future__ import annotations

import asyncio
import base64
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pgamb.client.channel import Channel
from pgamb.config import ClientOptions
from pgamb.errors import ConfigError, ConnectionFailure, PgambError, PostgresError
from pgamb.registry.model import Address, Member
from pgamb.session.backend_login import Credentials, Greeting, backend_login
from pgamb.sockets.tcp import set_tcp_options
from pgamb.wire import messages
from pgamb.wire.constants import NEWEST_MINOR

# What a server before 9.3, or a pooler, says to a protocol that it does not know.
_UNKNOWN_PROTOCOL = ("0A000", "08P01")
# Attempts that may follow one another under one sslmode: with TLS (True), without (False).
_ATTEMPTS = {
    "disable": (False,),
    "allow": (False, True),
    "prefer": (True, False),
    "require": (True,),
    "verify-ca": (True,),
    "verify-full": (True,),
}
# What the network says, not the machine that was asked.
_UNREACHABLE = (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT)
_ASK_AGAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Opened:
    """A logged-in connection to a member; `reached` is where a name led: its cancel requests must go there, too."""

    channel: Channel
    greeting: Greeting
    address: Address
    reached: tuple[int, str | tuple[Any, ...]]


class Opener:
    """Opens connections as `--server-tls` and its companions say."""

    def __init__(self, options: ClientOptions) -> None:
        self._timeout_s = options.connect_timeout_s
        self._silence_s = options.silence_timeout_s
        self._mode = options.server_tls
        self._context = _context(options) if options.server_tls != "disable" else None
        # Where something answers that does not know how to negotiate the protocol's version.
        self._old: set[Address] = set()

    async def open(
        self,
        member: Member,
        database: str,
        user: str,
        credentials: Credentials,
        parameters: Mapping[str, str] | None = None,
    ) -> Opened:
        """Log in to a member, at the first of its addresses that answers.

        Raises PostgresError with PostgreSQL's own words, or ConnectionFailure, within the connect timeout.
        """
        failure: PgambError = ConnectionFailure(f"{member.node} has no address")
        for address in member.addresses:
            try:
                return await self.open_address(address, database, user, credentials, parameters)
            except ConnectionFailure as error:
                failure = error
        raise failure

    async def open_address(
        self,
        address: Address,
        database: str,
        user: str,
        credentials: Credentials,
        parameters: Mapping[str, str] | None = None,
    ) -> Opened:
        """Log in at one address."""
        attempts = (False,) if address.is_unix else _ATTEMPTS[self._mode]
        try:
            async with asyncio.timeout(self._timeout_s):
                for number, tls in enumerate(attempts, 1):
                    log_in = partial(self._log_in, address, tls, database, user, credentials, parameters or {})
                    try:
                        return await self._attempt(address, log_in)
                    except PostgresError as error:
                        # As libpq: pg_hba.conf may let in only the other kind of connection.
                        if number == len(attempts) or not error.sqlstate.startswith("28"):
                            raise
                    except _Refused:
                        if number == len(attempts):
                            raise
        except TimeoutError:
            raise ConnectionFailure(f"{address} did not answer within {self._timeout_s:g} s") from None
        raise AssertionError("every attempt returns or raises")

    async def touch(self, member: Member) -> None:
        """Connect to a member and leave again, which PostgreSQL does not even log; raises ConnectionFailure."""
        failure = ConnectionFailure(f"{member.node} has no address")
        for address in member.addresses:
            try:
                (await self._connect(address)).close()
                return
            except ConnectionFailure as error:
                failure = error
        raise failure

    async def ask_presence(self, place: tuple[int, str | tuple[Any, ...]]) -> None:
        """Return when something at a place that we were connected to has answered, be it that it refuses.

        The question is one that PostgreSQL answers before any log-in, and that it does not log. Where a network says
        that nobody can be reached, nobody has answered.
        """
        while True:
            try:
                channel = Channel(await self._connect_to(_place_text(place), *place))
                try:
                    await channel.send(messages.gssenc_request())
                    await channel.receive()
                finally:
                    channel.close()
                return
            except ConnectionFailure as failure:
                cause = failure.__cause__
                if not isinstance(cause, OSError) or cause.errno not in _UNREACHABLE:
                    return
            await asyncio.sleep(_ASK_AGAIN_S)

    async def send_cancel(self, opened: Opened) -> bool:
        """Cancel what a connection runs, encrypted as that is, and wait until the server has dealt with it.

        Returns False if the request may still arrive: it has been sent, and the server has not closed the connection.
        """
        greeting, sent = opened.greeting, False
        try:
            async with asyncio.timeout(self._timeout_s):
                channel = Channel(await self._connect_to(str(opened.address), *opened.reached))
                try:
                    if opened.channel.tls is not None:
                        await self._start_tls(channel, opened.address)
                    sent = True
                    await channel.send(messages.cancel_request(greeting.pid, greeting.secret))
                    # The server closes the connection when the signal has been sent.
                    await channel.receive()
                finally:
                    channel.close()
        except ConnectionFailure:
            return True
        except (PgambError, TimeoutError):
            return not sent
        return False

    async def _attempt(self, address: Address, log_in: Callable[[int], Awaitable[Opened]]) -> Opened:
        """Log in once, by `log_in(minor)`. Protocol 3.2 is asked for, for its long cancel keys; an older server
        answers with 3.0.
        """
        if address not in self._old:
            try:
                return await log_in(NEWEST_MINOR)
            except PostgresError as error:
                if error.sqlstate not in _UNKNOWN_PROTOCOL:
                    raise
        opened = await log_in(0)
        self._old.add(address)
        return opened

    async def _log_in(
        self,
        address: Address,
        tls: bool,
        database: str,
        user: str,
        credentials: Credentials,
        parameters: Mapping[str, str],
        minor: int,
    ) -> Opened:
        sock = await self._connect(address)
        reached = (int(sock.family), sock.getpeername())
        channel = Channel(sock)
        try:
            if tls:
                await self._start_tls(channel, address)
            nonce = base64.b64encode(os.urandom(18)).decode()
            greeting = await channel.converse(
                backend_login(user, database, credentials, parameters=parameters, nonce=nonce, minor=minor)
            )
            return Opened(channel, greeting, address, reached)
        except ConnectionFailure as error:
            channel.close()
            raise ConnectionFailure(f"{address}: {error.message}") from error
        except BaseException:
            channel.close()
            raise

    async def _start_tls(self, channel: Channel, address: Address) -> None:
        """Ask for TLS; a server that has none raises _Refused unless the mode lets that pass."""
        await channel.send(messages.ssl_request())
        answer = await channel.receive_exactly(1)
        if answer == b"N":
            if self._mode == "prefer":
                return
            raise _Refused(f"{address} does not support TLS, but --server-tls {self._mode} asks for it")
        if answer != b"S" or channel.received():
            # Anything behind the answer was not protected by the TLS that it announces (CVE-2021-23222).
            raise ConnectionFailure(f"{address} does not answer a TLS request as PostgreSQL does")
        assert self._context is not None
        await channel.start_tls(self._context, server_hostname=address.host)

    async def _connect(self, address: Address) -> socket.socket:
        loop = asyncio.get_running_loop()
        if address.is_unix:
            targets: list[tuple[int, str | tuple[Any, ...]]] = [(socket.AF_UNIX, address.socket_path)]
        else:
            found = await _resolve(loop, address)
            targets = [(family, sockaddr) for family, _, _, _, sockaddr in found]
        failure = ConnectionFailure(f"{address} has no address")
        deadline = loop.time() + self._timeout_s
        for left, (family, target) in zip(range(len(targets), 0, -1), targets, strict=True):
            # A name may lead to several places: one that does not answer must not use up the time of the others.
            share_s = (deadline - loop.time()) / left
            try:
                async with asyncio.timeout(share_s if left > 1 else None):
                    return await self._connect_to(str(address), family, target)
            except ConnectionFailure as error:
                failure = error
            except TimeoutError:
                where = _place_text((family, target))
                failure = ConnectionFailure(f"{address} ({where}) did not answer within {share_s:.1f} s")
        raise failure

    async def _connect_to(self, name: str, family: int, target: str | tuple[Any, ...]) -> socket.socket:
        """Connect to one of the places that an address stands for."""
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, target)
            if family != socket.AF_UNIX:
                set_tcp_options(sock, self._silence_s)
            return sock
        except OSError as error:
            sock.close()
            raise ConnectionFailure(f"cannot connect to {name}: {error.strerror or error}") from error
        except BaseException:
            sock.close()
            raise


async def _resolve(loop: asyncio.AbstractEventLoop, address: Address) -> Sequence[tuple[Any, ...]]:
    """Look a name up in a thread; what is a number already needs none."""
    try:
        return socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass
    try:
        return await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectionFailure(f"cannot resolve {address.host}: {error.strerror or error}") from error


class _Refused(ConnectionFailure):
    """The server has no TLS."""


def _place_text(place: tuple[int, str | tuple[Any, ...]]) -> str:
    _, target = place
    return target if isinstance(target, str) else f"{target[0]}:{target[1]}"


def _context(options: ClientOptions) -> ssl.SSLContext:
    """Make the TLS context for an sslmode; raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["postgresql"])
    try:
        if options.server_ca is not None:
            context.load_verify_locations(options.server_ca)
        elif options.server_tls in ("verify-ca", "verify-full"):
            context.load_default_certs()
        if options.server_cert is not None:
            context.load_cert_chain(options.server_cert, options.server_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot load the TLS files towards members: {error}",
            hint="check --server-ca, --server-cert and --server-key",
        ) from error
    context.check_hostname = options.server_tls == "verify-full"
    # As libpq: with a CA file at hand, `require` checks the certificate as `verify-ca` does.
    verified = options.server_tls in ("verify-ca", "verify-full") or (
        options.server_tls == "require" and options.server_ca is not None
    )
    context.verify_mode = ssl.CERT_REQUIRED if verified else ssl.CERT_NONE
    return context
