"""Messages out of a stream of bytes, however it was cut.

A length is judged as soon as its four bytes are there and before anything is kept for it: a peer that claims
2 GB gets an error, not a buffer. What was fed and not yet taken stays in `rest()`, so that a connection can be
handed over to another reader without losing a byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pgamb.errors import ProtocolViolation

_HEADER_BYTES: Final = 5
_LENGTH_WORD_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Message:
    """One protocol message: its type byte and the bytes behind the length word."""

    type: int
    payload: bytes


class MessageReader:
    """Collect bytes and give whole messages; `limit_bytes` bounds what a length word may claim."""

    __slots__ = ("_buffer", "_limit_bytes")

    def __init__(self, limit_bytes: int = 65536) -> None:
        self._buffer = bytearray()
        self._limit_bytes = limit_bytes

    def __repr__(self) -> str:
        return f"<MessageReader {len(self._buffer)} bytes unread>"

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Append what arrived."""
        self._buffer += data

    def next(self, limit_bytes: int | None = None) -> Message | None:
        """Take the next whole message, or None while it is incomplete.

        `limit_bytes` overrides the reader's own for this call. Raises ProtocolViolation on a length below 4 or above
        the limit; the bytes stay unread.
        """
        buffer = self._buffer
        if len(buffer) < _HEADER_BYTES:
            return None
        length = int.from_bytes(buffer[1:_HEADER_BYTES], "big", signed=True)
        limit = self._limit_bytes if limit_bytes is None else limit_bytes
        if length < _LENGTH_WORD_BYTES or length > limit:
            raise ProtocolViolation(
                "invalid message length",
                detail=f"A message of type {describe_type(buffer[0])} claims a length of {length} bytes; "
                f"here it must be from {_LENGTH_WORD_BYTES} to {limit}.",
            )
        end = 1 + length
        if len(buffer) < end:
            return None
        message = Message(buffer[0], bytes(memoryview(buffer)[_HEADER_BYTES:end]))
        del buffer[:end]
        return message

    def rest(self) -> bytes:
        """Tell the unread bytes, without taking them."""
        return bytes(self._buffer)


def describe_type(type_byte: int) -> str:
    """Show a message type as a person reads it: its letter if it has one."""
    return f'"{chr(type_byte)}"' if 0x20 < type_byte < 0x7F else f"0x{type_byte:02x}"
