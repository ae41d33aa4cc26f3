"""A TCP relay that cuts what it passes on: into single bytes, or at random, in both directions."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tests.support.relay import Relay

Cut = Callable[[bytes], Iterator[bytes]]
# A piece is sent on its own so that it arrives on its own; more than this is cut in fewer, larger pieces.
MOST_PIECES = 3000


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    size = max(1, len(data) // MOST_PIECES)
    for position in range(0, len(data), size):
        yield data[position : position + size]


class AtPosition:
    """Cuts once, behind so many bytes."""

    def __init__(self, position: int) -> None:
        self._position = position

    def __repr__(self) -> str:
        return f"AtPosition({self._position})"

    def __call__(self, data: bytes) -> Iterator[bytes]:
        yield data[: self._position]
        if len(data) > self._position:
            yield data[self._position :]


class AtRandom:
    """Cuts into pieces of 1 to `longest` bytes; the same `seed` cuts the same way."""

    def __init__(self, seed: int, longest: int = 13) -> None:
        self._seed = seed
        self._chance = random.Random(seed)
        self._longest = longest

    def __repr__(self) -> str:
        return f"AtRandom({self._seed}, {self._longest})"

    def __call__(self, data: bytes) -> Iterator[bytes]:
        longest = max(self._longest, len(data) // MOST_PIECES)
        position = 0
        while position < len(data):
            size = self._chance.randint(1, longest)
            yield data[position : position + size]
            position += size


class CuttingRelay(Relay):
    """`cut` may be changed at any time."""

    def __init__(self, target_port: int) -> None:
        self.cut: Cut = whole
        super().__init__(target_port)

    def carry(self, inner: socket.socket, outer: socket.socket) -> None:
        threading.Thread(target=self._carry, args=(inner, outer), daemon=True).start()

    def _carry(self, inner: socket.socket, outer: socket.socket) -> None:
        answering = threading.Thread(target=self._pump, args=(outer, inner), daemon=True)
        answering.start()
        self._pump(inner, outer)
        answering.join()
        self.forget(inner, outer)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                for piece in self.cut(data):
                    sink.sendall(piece)
        except OSError:
            pass
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def running_relay(target_port: int) -> Iterator[CuttingRelay]:
    relay = CuttingRelay(target_port)
    try:
        yield relay
    finally:
        relay.close()
