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
import errno
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from pgamb.config.listen import ListenAddress, TcpTarget, UnixTarget, bind_error
from pgamb.errors import CannotConnectNow, PgambError
from pgamb.registry.model import Address
from pgamb.relay.pipe import End, Pipe
from pgamb.relay.reactor import Reactor, Source
from pgamb.server.decide import Refusal
from pgamb.wire import messages
from pgamb.wire.startup import CancelRequest, GSSENCRequest, SSLRequest, parse_startup, startup_length

log = logging.getLogger(__name__)

# PostgreSQL asks for twice its max_connections; a burst of log-ins waits in the kernel.
BACKLOG = 1024
CONNECT_TIMEOUT_S = 5.0
# Who is refused and does not even say what it wants is not waited for.
REFUSAL_TIMEOUT_S = 5.0
MAX_ACCEPTS = 64
# More refusals at one time than this would only be a queue for memory: such a connection is closed without a word.
MAX_REFUSALS = 1000
# Out of descriptors or memory: the kernel keeps the connection, and accepting again at once would spin.
ACCEPT_PAUSE_S = 0.1

STARTING = Refusal("the agent has not seen PostgreSQL yet", "Try again in a moment.")


class Exposure:
    """Listens at `listen` for the PostgreSQL at `postgres`; starts with a refusal until told otherwise."""

    def __init__(self, listen: ListenAddress, postgres: Address, on_unreachable: Callable[[], None]) -> None:
        self._listen = listen
        self._postgres = postgres
        self._on_unreachable = on_unreachable
        self._refusal: Refusal | None = STARTING
        self._listeners: list[socket.socket] = []
        self._pipes: set[Pipe] = set()
        self._open: set[socket.socket] = set()
        self._refusals = 0
        self._crowded = False

    @property
    def refusal(self) -> Refusal | None:
        return self._refusal

    @property
    def connections(self) -> int:
        return len(self._pipes)

    @property
    def port(self) -> int:
        """The port listened at, also when a free one was asked for."""
        for listener in self._listeners:
            if listener.family != socket.AF_UNIX:
                port: int = listener.getsockname()[1]
                return port
        return self._listen.port

    def bind(self) -> None:
        """Open the listening sockets; raises ConfigError."""
        try:
            for target in self._listen.targets():
                if isinstance(target, UnixTarget):
                    self._listeners.append(_bind_unix(target))
                elif (listener := _bind_tcp(target, self._port_for(target))) is not None:
                    self._listeners.append(listener)
        except BaseException:
            self._close_listeners()
            raise

    def set_refusal(self, refusal: Refusal | None) -> None:
        """Relay from now on (None), or refuse."""
        if refusal is not None and refusal.cut:
            for pipe in list(self._pipes):
                pipe.close()
        self._refusal = refusal

    async def run(self) -> None:
        """Accept until cancelled, then close everything."""
        loop = asyncio.get_running_loop()
        reactor = Reactor(loop, _pipe_failed)
        try:
            async with asyncio.TaskGroup() as group:
                for listener in self._listeners:
                    loop.add_reader(listener.fileno(), self._accept, listener, reactor, group)
                await loop.create_future()
        finally:
            for listener in self._listeners:
                loop.remove_reader(listener.fileno())
            self._close_listeners()
            for connection in self._open:
                connection.close()
            for pipe in list(self._pipes):
                pipe.close()
            reactor.close()

    def _accept(self, listener: socket.socket, reactor: Reactor, group: asyncio.TaskGroup) -> None:
        """Accept what has arrived, a few at a time, so that a burst leaves the loop to others too."""
        for _ in range(MAX_ACCEPTS):
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listener, reactor, group, error)
                return
            self._crowded = False
            self._open.add(connection)
            group.create_task(self._serve(connection, reactor))

    def _pause(self, listener: socket.socket, reactor: Reactor, group: asyncio.TaskGroup, error: OSError) -> None:
        """Stop accepting for a moment: out of descriptors or memory, the next try would fail too."""
        if not self._crowded:
            values = {"error": error, "connections": len(self._pipes), "hint": "raise `ulimit -n`"}
            log.error("server.expose.crowded", extra={"kv": values})
        self._crowded = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(listener.fileno())
        group.create_task(self._resume(listener, reactor, group))

    async def _resume(self, listener: socket.socket, reactor: Reactor, group: asyncio.TaskGroup) -> None:
        await asyncio.sleep(ACCEPT_PAUSE_S)
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener, reactor, group)

    async def _serve(self, connection: socket.socket, reactor: Reactor) -> None:
        """Relay or refuse one connection; it is closed, or a pipe's, when this returns."""
        with connection:
            try:
                _tune(connection)
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
                        self._pipes.add(Pipe(reactor, connection.detach(), postgres.detach(), self._pipes.discard))
                        return
            except (OSError, TimeoutError) as error:
                self._on_unreachable()
                refusal = _unreachable(self._postgres, error)
        await self._refuse(connection, CannotConnectNow(refusal.message, hint=refusal.hint))

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
                    _tune(connected)
                    return connected
            raise failure or OSError(f"{self._postgres.host} has no address")

    async def _refuse(self, connection: socket.socket, refusal: PgambError) -> None:
        if self._refusals >= MAX_REFUSALS:
            return
        self._refusals += 1
        try:
            async with asyncio.timeout(REFUSAL_TIMEOUT_S):
                await _say(connection, refusal)
        except (OSError, TimeoutError, EOFError):
            return
        except PgambError as error:
            log.debug("server.expose.garbage", extra={"kv": {"error": error}})
        finally:
            self._refusals -= 1

    def _port_for(self, target: TcpTarget) -> int:
        # Of IPv4 and IPv6, the second takes the free port that the first one found.
        return self.port if target.port == 0 and self._listeners else target.port

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            name = listener.getsockname() if listener.family == socket.AF_UNIX else ""
            listener.close()
            if name:
                Path(name).unlink(missing_ok=True)
        self._listeners.clear()


def _bind_tcp(target: TcpTarget, port: int) -> socket.socket | None:
    """Bind one address; None where an optional family does not exist."""
    try:
        places = socket.getaddrinfo(target.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = places[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        if target.optional:
            return None
        raise bind_error(target, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if target.optional and error.errno == errno.EADDRNOTAVAIL:
            return None
        raise bind_error(target, error) from error
    return listener


def _bind_unix(target: UnixTarget) -> socket.socket:
    """Bind a unix socket, in place of one that nobody listens at any more."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_abandoned(target.path):
            Path(target.path).unlink(missing_ok=True)
        listener.bind(target.path)
        # As PostgreSQL's unix_socket_permissions: who may connect is decided by its pg_hba.conf.
        Path(target.path).chmod(0o777)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise bind_error(target, error) from error
    return listener


def _is_abandoned(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


async def _connected(family: int, place: object) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, place)  # type: ignore[arg-type]
    except BaseException:
        connection.close()
        raise
    return connection


def _tune(connection: socket.socket) -> None:
    connection.setblocking(False)
    if connection.family == socket.AF_UNIX:
        return
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


async def _say(connection: socket.socket, refusal: PgambError) -> None:
    """Read up to the startup message, answer it with an error, and wait until the peer has had it.

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
            return
        if not isinstance(first, SSLRequest | GSSENCRequest):
            await loop.sock_sendall(connection, messages.error_response(refusal, "FATAL"))
            break
        await loop.sock_sendall(connection, b"N")
    connection.shutdown(socket.SHUT_WR)
    while await loop.sock_recv(connection, 4096):
        pass


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
