"""A TCP relay before a PostgreSQL that counts what reaching it costs: each time it is spoken to after it has answered.

That is a round trip, however many messages are in it. Each is kept with its bytes, as evidence.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

from pgamb.demo.postgres import HOST, PostgresServer
from tests.support.relay import Relay

_USER = re.compile(rb"user\0([^\0]+)\0")


@dataclass(slots=True)
class RoundTrip:
    """What was sent to a member at once, on which of its connections, and who had logged in on that."""

    member: str
    connection: int
    user: str
    sent: bytes

    def __str__(self) -> str:
        return f"{self.member} connection {self.connection} ({self.user}): {self.sent!r}"


@dataclass(slots=True)
class _Connection:
    number: int
    user: str | None = None
    answered: bool = True


@dataclass(slots=True)
class Counted:
    """The round trips to some members, in order; `ports` are those to connect to, one a member."""

    ports: list[int] = field(default_factory=list)
    round_trips: list[RoundTrip] = field(default_factory=list)

    @property
    def registry(self) -> str:
        return "static://" + ",".join(f"{HOST}:{port}" for port in self.ports)

    def of(self, user: str, mark: bytes) -> list[RoundTrip]:
        """Return the round trips of this user's connections on which anything with `mark` was sent, and those by which
        a transaction was begun or ended on any other.
        """
        own = [each for each in self.round_trips if each.user == user]
        marked = {(each.member, each.connection) for each in own if mark in each.sent}
        control = re.compile(rb"\b(BEGIN|START|COMMIT|ROLLBACK|SAVEPOINT)\b", re.IGNORECASE)
        return [each for each in own if (each.member, each.connection) in marked or control.search(each.sent)]


class _CountingRelay(Relay):
    def __init__(self, server: PostgresServer, counted: Counted) -> None:
        self._name = server.name
        self._counted = counted
        self._connections = 0
        super().__init__(server.port)
        counted.ports.append(self.port)

    def carry(self, inner: socket.socket, outer: socket.socket) -> None:
        self._connections += 1
        connection = _Connection(self._connections)
        for source, sink, asks in ((inner, outer, True), (outer, inner, False)):
            threading.Thread(target=self._pump, args=(source, sink, connection, asks), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, connection: _Connection, asks: bool) -> None:
        try:
            while data := source.recv(65536):
                if asks:
                    self._asked(connection, data)
                else:
                    connection.answered = True
                sink.sendall(data)
        except OSError:
            pass
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _asked(self, connection: _Connection, data: bytes) -> None:
        if connection.user is None and (found := _USER.search(data)):
            connection.user = found[1].decode()
        if connection.answered:
            self._counted.round_trips.append(RoundTrip(self._name, connection.number, connection.user or "", data))
        else:
            # More of what is not answered yet.
            last = next(
                each
                for each in reversed(self._counted.round_trips)
                if (each.member, each.connection) == (self._name, connection.number)
            )
            last.sent += data
        connection.answered = False


@contextmanager
def counting_relays(servers: Sequence[PostgresServer]) -> Iterator[Counted]:
    """Relay to each of these servers, in their order."""
    counted = Counted()
    with ExitStack() as stack:
        for server in servers:
            relay = _CountingRelay(server, counted)
            stack.callback(relay.close)
        yield counted
