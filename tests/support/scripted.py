"""Members that answer questions about positions when the test says so, and with what it says; no loop has to run."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from pgamb.errors import PgambError, PostgresError
from pgamb.relay.freshness import Asker, Freshness, Position
from pgamb.relay.reactor import Reactor, Source
from pgamb.routing.freshness import format_lsn
from pgamb.wire import messages


@dataclass(slots=True, eq=False)
class ScriptedMember:
    """One member: its asker, and the other end of that one's connection, None while there is none."""

    asker: Asker
    reactor: Reactor
    stack: ExitStack
    sock: socket.socket | None = None
    version: int = 150000
    asked: list[str] = field(default_factory=list)
    lost: list[PgambError] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def position(self) -> Position:
        return self.asker.position

    def is_usable(self) -> bool:
        """Tell whether it may be read from by now."""
        return self.position.usable

    def connect(self) -> None:
        """Let the asker have a connection."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        self.sock = self.stack.enter_context(theirs)
        self.asked.clear()
        self.asker.open(
            self.reactor, ours.detach(), 1, b"abcd", server_version=self.version, segment_bytes=1 << 24, page_bytes=8192
        )

    def questions(self) -> list[str]:
        """Return the texts that were asked and not answered yet, oldest first."""
        assert self.sock is not None
        data = b""
        while True:
            try:
                part = self.sock.recv(65536)
            except BlockingIOError:
                break
            if not part:
                break
            data += part
        while data:
            length = int.from_bytes(data[1:5], "big") + 1
            if data[:1] == b"Q":
                self.asked.append(data[5 : length - 1].decode())
            data = data[length:]
        return list(self.asked)

    def answer(self, *values: str | None) -> str:
        """Answer the oldest question with one row; returns what it was."""
        return self._reply(_row(values) + messages.command_complete("SELECT 1"))

    def answer_floor(self, lsn: int) -> str:
        return self.answer(format_lsn(lsn))

    def answer_position(self, replay: int, receive: int | None = None, timeline: int | None = None) -> str:
        """Answer as a replica that has received what it has replayed, unless told otherwise."""
        (question, *_) = self.questions()
        values = [format_lsn(replay), format_lsn(receive if receive is not None else replay)]
        if "received_tli" in question:
            values.append(str(timeline if timeline is not None else 1))
        return self.answer(*values)

    def refuse(self, sqlstate: str, message: str) -> str:
        return self._reply(messages.error_response(PostgresError({"S": "ERROR", "C": sqlstate, "M": message})))

    def cut(self) -> None:
        """End the connection from the member's side."""
        assert self.sock is not None
        self.sock.close()
        self.sock = None
        self.reactor.poll()

    def _reply(self, data: bytes) -> str:
        self.questions()
        question = self.asked.pop(0)
        assert self.sock is not None
        self.sock.sendall(data + messages.ready_for_query())
        self.reactor.poll()
        return question


@dataclass(slots=True)
class Scene:
    """Freshness between a primary, two replicas, and whoever asks."""

    loop: asyncio.AbstractEventLoop
    freshness: Freshness
    primary: ScriptedMember
    replicas: list[ScriptedMember]
    failures: list[Exception]

    def use(self, timeline: int = 1, primary: ScriptedMember | None = None) -> None:
        """Say what a registry would: all members are there, and the first (or that one) is primary."""
        members = [self.primary, *self.replicas]
        first = primary or self.primary
        self.freshness.use(first.asker, timeline, [member.asker for member in members if member is not first])

    def settle(self) -> None:
        """Connect all members, and let each answer what it is asked to begin with."""
        self.use()
        for member in (self.primary, *self.replicas):
            member.connect()
        self.primary.answer_floor(0x1000)
        for replica in self.replicas:
            replica.answer_position(0x1000)


@contextmanager
def scene(
    *,
    consistency: str = "ambassador",
    replica_wait_s: float = 0.02,
    max_lag_s: float = 60.0,
    max_lag_bytes: int = 1 << 30,
) -> Iterator[Scene]:
    """Give members that are not connected yet. A defect that is left in `failures` fails the block."""
    loop = asyncio.new_event_loop()
    failures: list[Exception] = []

    def defect(source: Source, error: Exception) -> None:
        failures.append(error)

    reactor = Reactor(loop, defect)
    freshness = Freshness(
        reactor,
        consistency=consistency,
        replica_wait_s=replica_wait_s,
        max_lag_s=max_lag_s,
        max_lag_bytes=max_lag_bytes,
    )
    with ExitStack() as stack:

        def member(node: str) -> ScriptedMember:
            asker = Asker(
                node,
                freshness,
                on_lost=lambda asker, error: made.lost.append(error),
                on_trouble=lambda asker, message: made.refused.append(message),
                on_role=lambda: None,
            )
            made = ScriptedMember(asker, reactor, stack)
            return made

        given = Scene(loop, freshness, member("pg1"), [member("pg2"), member("pg3")], failures)
        try:
            yield given
        finally:
            for each in (given.primary, *given.replicas):
                each.asker.close()
            reactor.close()
            loop.close()
    assert not failures


def _row(values: Sequence[str | None]) -> bytes:
    fields = b"".join(b"?\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0) for _ in values)
    data = b"".join(
        struct.pack("!i", -1) if value is None else struct.pack("!i", len(value)) + value.encode() for value in values
    )
    return _message(b"T", struct.pack("!h", len(values)) + fields) + _message(
        b"D", struct.pack("!h", len(values)) + data
    )


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
