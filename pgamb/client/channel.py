"""A connection while it logs in: an asyncio shell around a non-blocking socket, its TLS, and a conversation.

When the log-in is done the socket goes to the data plane (`hand_over`): from then on asyncio knows nothing of it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pgamb.errors import ConnectionFailure
from pgamb.session.conversation import Conversation, Receive, Send
from pgamb.wire.reader import MessageReader

T = TypeVar("T")

RECEIVE_BYTES = 16384


@dataclass(frozen=True, slots=True)
class HandOver:
    """A logged-in connection for the data plane, which owns `fd` from now on. `rest` was received already."""

    fd: int
    rest: bytes
    tls: ssl.SSLObject | None
    tls_in: ssl.MemoryBIO | None
    tls_out: ssl.MemoryBIO | None


class Channel:
    """One end of a connection. Raises ConnectionFailure when the peer goes away."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._tls: ssl.SSLObject | None = None
        self._tls_in = ssl.MemoryBIO()
        self._tls_out = ssl.MemoryBIO()
        self._received = bytearray()
        self._watched = False
        self._readable: asyncio.Future[None] | None = None

    @property
    def tls(self) -> ssl.SSLObject | None:
        return self._tls

    async def receive(self) -> bytes:
        """Return what comes next; raises ConnectionFailure at the end."""
        if self._received:
            data = bytes(self._received)
            self._received.clear()
            return data
        while True:
            if self._tls is not None:
                try:
                    data = self._tls.read(RECEIVE_BYTES)
                except ssl.SSLWantReadError:
                    await self._pump()
                    continue
                except ssl.SSLError as error:
                    raise ConnectionFailure(f"TLS: {error.reason or error}") from error
            else:
                data = await self._receive_raw()
            if not data:
                raise ConnectionFailure("the peer closed the connection")
            return data

    async def receive_exactly(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        data = bytearray()
        while len(data) < count:
            data += await self.receive()
        self._received[:0] = data[count:]
        return bytes(data[:count])

    def received(self) -> bool:
        """Tell whether something has come that nobody has asked for yet."""
        return bool(self._received)

    def unreceive(self, data: bytes) -> None:
        """Put back what was received."""
        self._received[:0] = data

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        if self._tls is not None:
            self._tls.write(data)
            data = self._tls_out.read()
        await self._send_raw(data)

    async def converse(self, conversation: Conversation[T]) -> T:
        """Drive a conversation to its end and return what it has learnt."""
        reader = MessageReader()
        outgoing = bytearray()
        try:
            step = next(conversation)
            while True:
                if isinstance(step, Send):
                    outgoing += step.data
                    step = conversation.send(None)
                    continue
                if outgoing:
                    await self.send(bytes(outgoing))
                    outgoing.clear()
                assert isinstance(step, Receive)
                message = reader.next(step.limit_bytes)
                while message is None:
                    reader.feed(await self.receive())
                    message = reader.next(step.limit_bytes)
                step = conversation.send(message)
        except StopIteration as end:
            if outgoing:
                await self.send(bytes(outgoing))
            result: T = end.value
            return result
        finally:
            conversation.close()
            self.unreceive(reader.rest())

    async def start_tls(
        self, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None
    ) -> None:
        """Shake hands; what was received and not asked for is the beginning of the peer's handshake."""
        tls = context.wrap_bio(self._tls_in, self._tls_out, server_side=server_side, server_hostname=server_hostname)
        if self._received:
            self._tls_in.write(bytes(self._received))
            self._received.clear()
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._pump()
            except ssl.SSLError as error:
                # The peer is told why by an alert.
                await self._send_raw(self._tls_out.read())
                raise ConnectionFailure(f"TLS handshake: {error.reason or error}") from error
            except ssl.CertificateError as error:
                raise ConnectionFailure(f"TLS handshake: {error}") from error
        await self._send_raw(self._tls_out.read())
        self._tls = tls

    def hand_over(self) -> HandOver:
        """Give the connection away."""
        rest = bytes(self._received)
        self._received.clear()
        self._unwatch()
        fd = self._sock.detach()
        if self._tls is None:
            return HandOver(fd, rest, None, None, None)
        return HandOver(fd, rest, self._tls, self._tls_in, self._tls_out)

    def close(self) -> None:
        """Close the connection; harmless after `hand_over`."""
        if self._sock.fileno() < 0:
            return
        self._unwatch()
        try:
            if self._tls is not None:
                self._sock.send(self._last_of_tls(self._tls))
            # Unread input would turn the close into a reset, and the peer would not read our last words.
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.recv(65536)
        except OSError:
            pass
        self._sock.close()

    def _last_of_tls(self, tls: ssl.SSLObject) -> bytes:
        """Return the alert that tells an orderly end from a cut: to libpq, a cancel request must end so."""
        with suppress(ssl.SSLError):
            tls.unwrap()
        return self._tls_out.read()

    async def _pump(self) -> None:
        """Send what TLS wants to say, and receive more for it."""
        await self._send_raw(self._tls_out.read())
        data = await self._receive_raw()
        if data:
            self._tls_in.write(data)
        else:
            self._tls_in.write_eof()

    async def _receive_raw(self) -> bytes:
        """Wait for the peer. The socket stays registered from one wait to the next: a log-in has four or five."""
        while True:
            try:
                return self._sock.recv(RECEIVE_BYTES)
            except BlockingIOError:
                pass
            except OSError as error:
                raise ConnectionFailure(f"the connection was lost: {error.strerror or error}") from error
            self._readable = self._loop.create_future()
            if not self._watched:
                self._loop.add_reader(self._sock, self._on_readable)
                self._watched = True
            await self._readable

    def _on_readable(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)
        else:
            # Nobody is waiting: what has come can wait, too.
            self._unwatch()

    def _unwatch(self) -> None:
        if self._watched:
            self._loop.remove_reader(self._sock)
            self._watched = False

    async def _send_raw(self, data: bytes) -> None:
        if not data:
            return
        try:
            await self._loop.sock_sendall(self._sock, data)
        except OSError as error:
            raise ConnectionFailure(f"the connection was lost: {error.strerror or error}") from error
