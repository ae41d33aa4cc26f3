"""A TCP relay: what the relays that cut, count, chatter or misbehave have in common."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

HOST = "127.0.0.1"


class Relay:
    """Listens on `port`, and connects each that comes to `target_port`; `carry` says what becomes of the two."""

    def __init__(self, target_port: int, at: tuple[str, int] = (HOST, 0)) -> None:
        self._target = (HOST, target_port)
        self._listening = socket.create_server(at, backlog=256)
        self.port: int = self._listening.getsockname()[1]
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening and close what is open."""
        for sock in (self._listening, *self._sockets):
            shut(sock)
            sock.close()

    def carry(self, inner: socket.socket, outer: socket.socket) -> None:
        """Begin to pass on what comes from a client (`inner`) and from the server (`outer`), each in a thread."""
        raise NotImplementedError

    def forget(self, *socks: socket.socket) -> None:
        """Close sockets whose connections have ended."""
        for sock in socks:
            self._sockets.discard(sock)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                inner, _ = self._listening.accept()
            except OSError:
                return
            try:
                outer = socket.create_connection(self._target)
            except OSError:
                inner.close()
                continue
            self._sockets |= {inner, outer}
            for sock in (inner, outer):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.carry(inner, outer)


def shut(sock: socket.socket) -> None:
    """End both directions: a close alone does not wake a thread that is in accept() or recv()."""
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
