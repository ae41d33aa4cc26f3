"""A PostgreSQL that loses its manners on request: real until a statement holds `misbehave:NAME`, then scripted.

It relays to a real server, so that log-ins, look-ups and probes are what they are. Instead of passing on a Query, or a
batch, with those words, it answers with the bytes of that name, whole or cut by `cut`, and stays or closes.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.cutting import Cut, whole
from tests.support.relay import Relay, shut

_MARK = re.compile(rb"misbehave:([a-z0-9_]+)")


@dataclass(frozen=True, slots=True)
class Script:
    """What is answered, and whether the connection is closed behind it."""

    answer: bytes
    closes: bool = False


class MisbehavingServer(Relay):
    """Plays `scripts`, by their names."""

    def __init__(self, target_port: int, scripts: Mapping[str, Script]) -> None:
        self._scripts = dict(scripts)
        self.cut: Cut = whole
        super().__init__(target_port)

    def carry(self, inner: socket.socket, outer: socket.socket) -> None:
        threading.Thread(target=self._requests, args=(inner, outer), daemon=True).start()
        threading.Thread(target=self._answers, args=(outer, inner), daemon=True).start()

    def _requests(self, inner: socket.socket, outer: socket.socket) -> None:
        """Pass on what arrives; a packet with a mark is taken for one whole request, as pgamb sends it."""
        with contextlib.suppress(OSError):
            while data := inner.recv(1 << 20):
                found = _MARK.search(data)
                if found is None:
                    outer.sendall(data)
                    continue
                script = self._scripts[found[1].decode()]
                for piece in self.cut(script.answer):
                    inner.sendall(piece)
                if script.closes:
                    break
        shut(inner)
        shut(outer)

    def _answers(self, outer: socket.socket, inner: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := outer.recv(1 << 20):
                inner.sendall(data)
        shut(inner)


@contextmanager
def running_misbehaving(target_port: int, scripts: Mapping[str, Script]) -> Iterator[MisbehavingServer]:
    server = MisbehavingServer(target_port, scripts)
    try:
        yield server
    finally:
        server.close()
