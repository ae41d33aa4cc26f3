"""A TCP relay that falls silent: connections stay, new ones are accepted, and no byte gets through any more."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.relay import Relay, shut

DEADLINE_S = 30.0


class SilentRelay(Relay):
    """Passes everything on, until it is silenced."""

    def __init__(self, target_port: int, *, silent: bool = False) -> None:
        self._passing = threading.Event()
        if not silent:
            self._passing.set()
        self._connected = threading.Semaphore(0)
        super().__init__(target_port)

    def silence(self) -> None:
        """Keep what comes from now on."""
        self._passing.clear()

    def speak(self) -> None:
        """Pass on what was kept, and all that comes."""
        self._passing.set()

    def wait_connected(self) -> None:
        """Wait for a connection that nobody has waited for yet."""
        assert self._connected.acquire(timeout=DEADLINE_S), "nobody has connected"

    def reset(self) -> None:
        """End all connections by a reset: what is under way is lost."""
        for sock in list(self._sockets):
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # A descriptor that a thread reads from is not closed before it has been woken.
                sock.shutdown(socket.SHUT_RD)
                sock.close()
        self._sockets.clear()

    def close(self) -> None:
        self._passing.set()
        super().close()

    def carry(self, inner: socket.socket, outer: socket.socket) -> None:
        self._connected.release()
        for source, sink in ((inner, outer), (outer, inner)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._passing.wait()
                sink.sendall(data)
        self._passing.wait()
        shut(sink)


@contextmanager
def running_silent(target_port: int, *, silent: bool = False) -> Iterator[SilentRelay]:
    relay = SilentRelay(target_port, silent=silent)
    try:
        yield relay
    finally:
        relay.close()
