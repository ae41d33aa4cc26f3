"""What a conversation is: a generator that says what to send and asks for the next message.

A conversation does no I/O. It yields `Send` and `Receive`; whoever drives it (an asyncio shell, or a test) sends
the bytes, and answers `Receive` with the peer's next message. Its return value is what was learnt.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from pgamb.wire.reader import Message

__all__ = ["Conversation", "Message", "Receive", "Send", "receive"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Ask for the peer's next message; `limit_bytes` bounds the length that it may claim."""

    limit_bytes: int = 65536


# Only `Receive` is answered with a message; `Send` is answered with None.
Conversation: TypeAlias = Generator[Send | Receive, Message | None, T]


def receive(limit_bytes: int = 65536) -> Conversation[Message]:
    """Ask for one message, inside another conversation: `message = yield from receive()`."""
    message = yield Receive(limit_bytes)
    if message is None:
        raise RuntimeError("a Receive was answered without a message")
    return message
