"""A TCP relay with gates: a packet with certain bytes waits, and what is behind it on its connection, until let go."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.support.relay import Relay, shut

CANCEL = struct.pack("!I", 80877102)
DEADLINE_S = 30.0


@dataclass(slots=True)
class Gate:
    """Holds what the client sends with `pattern` in it."""

    pattern: bytes
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    dropped: bool = False

    def wait_reached(self) -> None:
        assert self.reached.wait(DEADLINE_S), f"nothing with {self.pattern!r} has come"

    def open(self) -> None:
        self.opened.set()

    def drop(self) -> None:
        """End the connection instead, with what is held; nothing more is held."""
        self.dropped = True
        self.opened.set()


class GateRelay(Relay):
    """Passes everything on but what a gate holds."""

    def __init__(self, target_port: int) -> None:
        self._gates: list[Gate] = []
        self.cancel_sizes: list[int] = []
        super().__init__(target_port)

    @contextmanager
    def gate(self, pattern: bytes) -> Iterator[Gate]:
        """Hold what has `pattern` in it until the gate is opened, at the end of the block at the latest."""
        gate = Gate(pattern)
        self._gates.append(gate)
        try:
            yield gate
        finally:
            self._gates.remove(gate)
            gate.open()

    @property
    def cancels(self) -> int:
        """How many cancel requests have come; `cancel_sizes` has their lengths."""
        return len(self.cancel_sizes)

    def cut(self) -> None:
        """End all connections there are, but for those that a gate holds."""
        for sock in list(self._sockets):
            shut(sock)

    def carry(self, inner: socket.socket, outer: socket.socket) -> None:
        threading.Thread(target=self._pump, args=(inner, outer, True), daemon=True).start()
        threading.Thread(target=self._pump, args=(outer, inner, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if asks:
                    if data[4:8] == CANCEL:
                        self.cancel_sizes.append(len(data))
                    for gate in [gate for gate in self._gates if gate.pattern in data and not gate.opened.is_set()]:
                        self._sockets -= {source, sink}
                        gate.reached.set()
                        gate.opened.wait(DEADLINE_S)
                        self._sockets |= {source, sink}
                        if gate.dropped:
                            source.shutdown(socket.SHUT_RDWR)
                            return
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        if not asks:
            self.forget(source, sink)


@contextmanager
def running_gates(target_port: int) -> Iterator[GateRelay]:
    relay = GateRelay(target_port)
    try:
        yield relay
    finally:
        relay.close()
