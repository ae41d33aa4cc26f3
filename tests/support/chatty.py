"""A relay that puts asynchronous messages of its own between those of the server, wherever the protocol allows it."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pgamb.errors import PostgresError
from pgamb.session.conversation import Message
from pgamb.wire import messages
from tests.support.cutting import Cut, whole
from tests.support.relay import Relay

MARK = "chatter"


def is_chatter(message: Message) -> bool:
    return chr(message.type) in "NSA" and MARK.encode() in message.payload


class ChattyRelay(Relay):
    """What it says has `MARK` in it."""

    def __init__(self, target_port: int) -> None:
        self.cut: Cut = whole
        self.said = 0
        super().__init__(target_port)

    def carry(self, inner: socket.socket, outer: socket.socket) -> None:
        threading.Thread(target=self._asks, args=(inner, outer), daemon=True).start()
        threading.Thread(target=self._answers, args=(outer, inner), daemon=True).start()

    def _asks(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _answers(self, source: socket.socket, sink: socket.socket) -> None:
        ready = authenticated = False
        pending = b""
        numbers = itertools.count()
        with suppress(OSError):
            while data := source.recv(65536):
                if data == b"N" and not authenticated:
                    # The answer to an SSLRequest is no message.
                    sink.sendall(data)
                    continue
                pending += data
                said = b""
                while len(pending) >= 5 and len(pending) > int.from_bytes(pending[1:5], "big"):
                    total = int.from_bytes(pending[1:5], "big") + 1
                    message, pending = pending[:total], pending[total:]
                    authenticated = authenticated or message[:9] == b"R\0\0\0\x08\0\0\0\0"
                    ready = ready or message[:1] == b"Z"
                    said += message + self._chatter(next(numbers), authenticated=authenticated, ready=ready)
                for piece in self.cut(said):
                    sink.sendall(piece)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _chatter(self, number: int, *, authenticated: bool, ready: bool) -> bytes:
        self.said += 1
        if ready and number % 3 == 0:
            body = (4242).to_bytes(4, "big") + f"{MARK}\0{number}\0".encode()
            return b"A" + (len(body) + 4).to_bytes(4, "big") + body
        if authenticated and number % 3 == 1:
            return messages.parameter_status(f"{MARK}.said", str(number))
        return messages.notice_response(PostgresError({"S": "NOTICE", "C": "00000", "M": f"{MARK} {number}"}))


@contextmanager
def running_chatter(target_port: int) -> Iterator[ChattyRelay]:
    relay = ChattyRelay(target_port)
    try:
        yield relay
    finally:
        relay.close()
