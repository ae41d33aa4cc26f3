"""A TCP relay that falls silent: connections stay, new ones are accepted, and no byte gets through any more."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.relay import HOST, Relay, shut

DEADLINE_S = 30.0


class SilentRelay(Relay):
    """Passes everything on, until it is silenced. `kept` is what clients have said since."""

    def __init__(self, target_port: int, at: tuple[str, int] = (HOST, 0), *, silent: bool = False) -> None:
        self._pattern = b""
        self._allowance: int | None = None
        self._passing = threading.Event()
        if not silent:
            self._passing.set()
        self.kept: list[bytes] = []
        self._servers: set[socket.socket] = set()
        self._connected = threading.Semaphore(0)
        super().__init__(target_port, at)

    def silence(self) -> None:
        """Keep what comes from now on."""
        self._passing.clear()

    def silence_within(self, pattern: bytes, count: int) -> None:
        """Fall silent when so many bytes have passed from the server in packets with `pattern`."""
        self._pattern, self._allowance = pattern, count

    @property
    def is_silent(self) -> bool:
        return not self._passing.is_set()

    def speak(self) -> None:
        """Pass on what was kept, and all that comes."""
        self._allowance = None
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
        self._passing.set()

    def close(self) -> None:
        self._passing.set()
        super().close()

    def carry(self, inner: socket.socket, outer: socket.socket) -> None:
        self._servers.add(outer)
        self._connected.release()
        for source, sink in ((inner, outer), (outer, inner)):
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source in self._servers and self._allowance is not None and self._pattern in data:
                    sink.sendall(data[: self._allowance])
                    data, self._allowance = data[self._allowance :], max(0, self._allowance - len(data))
                    if data:
                        self._passing.clear()
                if source not in self._servers and self.is_silent:
                    self.kept.append(data)
                self._passing.wait()
                sink.sendall(data)
        self._passing.wait()
        shut(sink)


@contextmanager
def running_silent(target_port: int, at: tuple[str, int] = (HOST, 0), *, silent: bool = False) -> Iterator[SilentRelay]:
    relay = SilentRelay(target_port, at, silent=silent)
    try:
        yield relay
    finally:
        relay.close()
