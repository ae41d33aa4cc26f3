"""Drive conversations without a socket: against listed messages, or against each other, their bytes cut in any way."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pgamb.session.conversation import Conversation, Message, Receive, Send
from pgamb.wire.reader import MessageReader

T = TypeVar("T")
Cut = Callable[[bytes], Iterator[bytes]]


def whole(data: bytes) -> Iterator[bytes]:
    yield data


def byte_by_byte(data: bytes) -> Iterator[bytes]:
    for position in range(len(data)):
        yield data[position : position + 1]


def at_random(data: bytes) -> Iterator[bytes]:
    chance = random.Random(data)
    position = 0
    while position < len(data):
        size = chance.randint(1, 40)
        yield data[position : position + size]
        position += size


CUTS: tuple[Cut, ...] = (whole, byte_by_byte, at_random)


class Party(Generic[T]):
    """One conversation and the bytes around it: `hear` gives it some, `said` is what it has sent."""

    def __init__(self, conversation: Conversation[T]) -> None:
        self._conversation = conversation
        self._reader = MessageReader()
        self._wanted: Receive | None = None
        self.said = bytearray()
        self.done = False
        self._result: T | None = None
        self._advance()

    @property
    def result(self) -> T:
        assert self.done, "the conversation still waits for a message"
        return self._result  # type: ignore[return-value]

    @property
    def unread(self) -> bytes:
        return self._reader.rest()

    def hear(self, data: bytes) -> None:
        self._reader.feed(data)
        self._advance()

    def take(self) -> bytes:
        """Take what was said since the last time."""
        said = bytes(self.said)
        self.said.clear()
        return said

    def _advance(self) -> None:
        while not self.done:
            message: Message | None = None
            if self._wanted is not None:
                message = self._reader.next(self._wanted.limit_bytes)
                if message is None:
                    return
            try:
                step = self._conversation.send(message)
            except StopIteration as stop:
                self.done, self._result = True, stop.value
                return
            self._wanted = step if isinstance(step, Receive) else None
            if isinstance(step, Send):
                self.said += step.data


def play(conversation: Conversation[T], *heard: bytes, cut: Cut = whole) -> tuple[T, bytes]:
    """Let a conversation hear these bytes; returns its result and all that it said."""
    party = Party(conversation)
    for data in heard:
        for piece in cut(data):
            party.hear(piece)
    return party.result, bytes(party.said)
