"""Accepts at listening sockets, a few connections at a time, and pauses where descriptors have run out."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable

from pgamb.sockets.binding import Listening

log = logging.getLogger(__name__)

# Connections accepted in one turn of the loop: others have their turn, too.
ACCEPT_BATCH = 64
# When descriptors or memory have run out, the next try would fail too, at once.
PAUSE_S = 0.1
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """Calls `on_accepted(connection, address, listening)` for each connection, which is non-blocking."""

    def __init__(
        self, listening: Iterable[Listening], on_accepted: Callable[[socket.socket, object, Listening], object]
    ) -> None:
        self.listening = list(listening)
        self._on_accepted = on_accepted
        self._accepting = False
        self._crowded = False

    def __str__(self) -> str:
        return ", ".join(map(str, self.listening))

    def start(self) -> None:
        """Accept from now on."""
        self._accepting = True
        for each in self.listening:
            asyncio.get_running_loop().add_reader(each.sock.fileno(), self._accept, each)

    def pause(self) -> None:
        """Accept no more until `start`; who comes meanwhile waits in the kernel."""
        if self._accepting:
            self._accepting = False
            for each in self.listening:
                asyncio.get_running_loop().remove_reader(each.sock.fileno())

    def close(self, keep: Iterable[str] = ()) -> None:
        """Stop listening. The unix sockets' files in `keep` stay: another process goes on there."""
        self.pause()
        kept = frozenset(keep)
        for each in self.listening:
            each.close(unlink=each.path not in kept)
        self.listening.clear()

    def _accept(self, listening: Listening) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                connection, address = listening.sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(listening, error)
                    return
                # The peer was gone before we came.
                continue
            self._crowded = False
            connection.setblocking(False)
            self._on_accepted(connection, address, listening)

    def _exhausted(self, listening: Listening, error: OSError) -> None:
        if not self._crowded:
            values = {"at": listening, "error": error.strerror, "hint": "raise `ulimit -n`"}
            log.error("listener.exhausted", extra={"kv": values})
        self._crowded = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening.sock.fileno())
        loop.call_later(PAUSE_S, self._resume, listening)

    def _resume(self, listening: Listening) -> None:
        if self._accepting and listening in self.listening:
            asyncio.get_running_loop().add_reader(listening.sock.fileno(), self._accept, listening)
