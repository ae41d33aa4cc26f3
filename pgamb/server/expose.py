"""The exposed port: everything that connects here is connected to the PostgreSQL beside us.

Responsibility: accept, connect onwards, hand both sockets to a compiled `Pipe`; or refuse, as PostgreSQL would say it.

While there is a refusal, a connection is answered with an ErrorResponse (FATAL, 57P03) once it has said that it speaks
PostgreSQL's protocol, and never reaches the server. The same happens when the server can not be connected to; that
is told to `on_unreachable`, so that the agent looks at once. A refusal that cuts ends the running pipes too: they are
closed as they are, because nothing can be said in the middle of a conversation that is not ours.

TLS is not ended here: what PostgreSQL offers passes through. A connection that is refused is told so in clear text.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from pgamb.config.listen import ListenAddress
from pgamb.errors import CannotConnectNow, PgambError
from pgamb.registry.model import Address
from pgamb.relay.pipe import End, Pipe
from pgamb.relay.reactor import Reactor, Source
from pgamb.server.decide import Refusal
from pgamb.sockets.acceptor import Acceptor
from pgamb.sockets.binding import Listening, bind
from pgamb.sockets.tcp import SILENCE_S, set_tcp_options
from pgamb.sockets.unheard import Unheard
from pgamb.wire import messages
from pgamb.wire.startup import CancelRequest, GSSENCRequest, SSLRequest, parse_startup, startup_length

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
# Who is refused and does not even say what it wants is not waited for.
REFUSAL_TIMEOUT_S = 5.0
# More refusals at one time than this would only be a queue for memory: such a connection is closed without a word.
MAX_REFUSALS = 1000

_UNHEARD_STEP_S = 1.0

STARTING = Refusal("the agent has not seen PostgreSQL yet", "Try again in a moment.")
STOPPING = Refusal("the agent is shutting down", "Connect to another member, or try again.", cut=False)


class Exposure:
    """Listens at `listen` for the PostgreSQL at `postgres`; starts with a refusal until told otherwise.

    `given` are listening sockets to use instead, which somebody else has bound.
    """

    def __init__(
        self,
        listen: ListenAddress,
        postgres: Address,
        on_unreachable: Callable[[], None],
        given: Sequence[Listening] = (),
    ) -> None:
        self._listen = listen
        self._postgres = postgres
        self._on_unreachable = on_unreachable
        self._refusal: Refusal | None = STARTING
        self._listening = list(given)
        self._pipes: set[Pipe] = set()
        self._open: set[socket.socket] = set()
        self._refusals = 0
        self._ended = asyncio.Event()
        self._reactor: Reactor | None = None

    @property
    def refusal(self) -> Refusal | None:
        return self._refusal

    @property
    def connections(self) -> int:
        return len(self._pipes)

    @property
    def port(self) -> int:
        """The port listened at, also when a free one was asked for."""
        return next((each.port for each in self._listening if each.port is not None), self._listen.port)

    def bind(self) -> None:
        """Open the listening sockets, unless they were given; raises ConfigError."""
        if not self._listening:
            self._listening = bind([self._listen], flag="--listen")

    def set_refusal(self, refusal: Refusal | None) -> None:
        """Relay from now on (None), or refuse."""
        if refusal is not None and refusal.cut:
            for pipe in list(self._pipes):
                pipe.close()
        self._refusal = refusal

    async def drain(self, timeout_s: float) -> None:
        """Let in cancel requests only, and wait until all connections have ended, for `timeout_s` at most.

        What runs in them is not known here. Clients of pgamb end theirs between two transactions, once the registry
        does not name this member any more.
        """
        self.set_refusal(STOPPING)
        if self._pipes:
            log.info("server.draining", extra={"kv": {"connections": len(self._pipes), "timeout_s": timeout_s}})
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._pipes:
                    self._ended.clear()
                    await self._ended.wait()

    async def run(self) -> None:
        """Accept until cancelled, then close everything."""
        reactor = self._reactor = Reactor(asyncio.get_running_loop(), _pipe_failed)
        acceptor: Acceptor | None = None
        try:
            async with asyncio.TaskGroup() as group:

                def accepted(connection: socket.socket, address: object, at: Listening) -> None:
                    self._open.add(connection)
                    group.create_task(self._serve(connection, reactor))

                acceptor = Acceptor(self._listening, accepted)
                acceptor.start()
                await self._end_unheard()
        finally:
            if acceptor is not None:
                acceptor.close()
                self._listening.clear()
            for connection in self._open:
                connection.close()
            for pipe in list(self._pipes):
                pipe.close()
            reactor.close()

    async def _serve(self, connection: socket.socket, reactor: Reactor) -> None:
        """Relay or refuse one connection; it is closed, or a pipe's, when this returns."""
        with connection:
            try:
                if connection.family != socket.AF_UNIX:
                    set_tcp_options(connection)
                await self._relay_or_refuse(connection, reactor)
            finally:
                self._open.discard(connection)

    async def _relay_or_refuse(self, connection: socket.socket, reactor: Reactor) -> None:
        refusal = self._refusal
        if refusal is None:
            try:
                with await self._connect() as postgres:
                    # The decision may have changed meanwhile, and this pipe would not have been cut.
                    refusal = self._refusal
                    if refusal is None:
                        self._pipes.add(Pipe(reactor, connection.detach(), postgres.detach(), self._pipe_closed))
                        return
            except (OSError, TimeoutError) as error:
                self._on_unreachable()
                refusal = _unreachable(self._postgres, error)
        await self._refuse(connection, CannotConnectNow(refusal.message, hint=refusal.hint))

    async def _end_unheard(self) -> None:
        """End, until cancelled, the connections of which one end's machine has vanished in the middle of something."""
        unheard = Unheard(SILENCE_S)
        while True:
            await asyncio.sleep(_UNHEARD_STEP_S)
            ends = [end for pipe in self._pipes for end in pipe.ends]
            for end in unheard.overdue(ends, asyncio.get_running_loop().time()):
                log.info("server.expose.vanished", extra={"kv": {"connection": end.pipe, "after_s": SILENCE_S}})
                end.abort()

    def _pipe_closed(self, pipe: Pipe) -> None:
        self._pipes.discard(pipe)
        self._ended.set()
        if self._reactor is not None:
            # Whoever waits for that has no other reason to be woken.
            self._reactor.give_way()

    async def _connect(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            if self._postgres.is_unix:
                return await _connected(socket.AF_UNIX, self._postgres.socket_path)
            places = await loop.getaddrinfo(self._postgres.host, self._postgres.port, type=socket.SOCK_STREAM)
            failure: OSError | None = None
            for family, _, _, _, place in places:
                try:
                    connected = await _connected(family, place)
                except OSError as error:
                    failure = failure or error
                else:
                    set_tcp_options(connected)
                    return connected
            raise failure or OSError(f"{self._postgres.host} has no address")

    async def _refuse(self, connection: socket.socket, refusal: PgambError) -> None:
        if self._refusals >= MAX_REFUSALS:
            return
        self._refusals += 1
        try:
            async with asyncio.timeout(REFUSAL_TIMEOUT_S):
                cancel = await _say(connection, refusal)
                if cancel and self._refusal is STOPPING:
                    await self._pass_on(cancel)
        except (OSError, TimeoutError, EOFError):
            return
        except PgambError as error:
            log.debug("server.expose.garbage", extra={"kv": {"error": error}})
        finally:
            self._refusals -= 1

    async def _pass_on(self, cancel: bytes) -> None:
        """Give a cancel request to PostgreSQL, and wait until it has dealt with it."""
        with await self._connect() as postgres:
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(postgres, cancel)
            await loop.sock_recv(postgres, 1)


async def _connected(family: int, place: object) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, place)  # type: ignore[arg-type]
    except BaseException:
        connection.close()
        raise
    return connection


async def _say(connection: socket.socket, refusal: PgambError) -> bytes:
    """Read up to the startup message, answer it with an error, and wait until the peer has had it.

    Returns a cancel request that came instead, which nothing answers.

    Closing with something unread would reset the connection, and could take the error with it. Raises EOFError,
    ProtocolViolation and its kin.
    """
    loop = asyncio.get_running_loop()
    while True:
        head = await _read_exactly(connection, 8)
        packet = head + await _read_exactly(connection, startup_length(head) - 8)
        try:
            first = parse_startup(packet)
        except PgambError as error:
            await loop.sock_sendall(connection, messages.error_response(error, "FATAL"))
            break
        if isinstance(first, CancelRequest):
            return packet
        if not isinstance(first, SSLRequest | GSSENCRequest):
            await loop.sock_sendall(connection, messages.error_response(refusal, "FATAL"))
            break
        await loop.sock_sendall(connection, b"N")
    connection.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(connection, 4096):
        pass
    return b""


async def _read_exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = await asyncio.get_running_loop().sock_recv(connection, size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def _unreachable(postgres: Address, error: BaseException) -> Refusal:
    reason = f"no answer within {CONNECT_TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else str(error)
    return Refusal(f"cannot connect to PostgreSQL at {postgres}: {reason}", "Is PostgreSQL running there?")


def _pipe_failed(end: Source, error: Exception) -> None:
    log.error("server.expose.failed", extra={"kv": {"error": error}})
    if isinstance(end, End):
        end.abort()
