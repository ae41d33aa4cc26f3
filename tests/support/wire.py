"""An application that speaks the protocol byte by byte: says what no driver would, and shows every answer."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType

from pgamb.session.backend_login import Credentials, Greeting, backend_login
from pgamb.session.conversation import Message, Receive, Send
from pgamb.wire import messages
from pgamb.wire.reader import MessageReader

DEADLINE_S = 20.0
LIMIT_BYTES = 0x7FFFFFFF
Cutter = Callable[[bytes], Iterator[bytes]]


class Wire:
    """One connection to a port that speaks PostgreSQL's protocol. Every wait ends after `deadline_s`."""

    def __init__(self, port: int, *, deadline_s: float = DEADLINE_S) -> None:
        self.sock: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=deadline_s)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._deadline_s = deadline_s
        self._reader = MessageReader(LIMIT_BYTES)
        self.greeting: Greeting | None = None

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection without a word."""
        self.sock.close()

    def start_tls(self, context: ssl.SSLContext) -> None:
        """Begin TLS here and now."""
        self.sock = context.wrap_socket(self.sock, server_hostname="localhost")

    def log_in(
        self,
        password: str,
        *,
        user: str = "postgres",
        database: str = "postgres",
        parameters: Mapping[str, str] | None = None,
        minor: int = 0,
    ) -> Wire:
        """Log in; raises what the log-in conversation raises."""
        conversation = backend_login(
            user,
            database,
            Credentials(password=password),
            parameters=parameters or {},
            nonce=base64.b64encode(os.urandom(18)).decode(),
            minor=minor,
        )
        answer: Message | None = None
        try:
            while True:
                step = conversation.send(answer)
                answer = None
                if isinstance(step, Send):
                    self.send(step.data)
                elif isinstance(step, Receive):
                    answer = self.receive()
                    assert answer is not None, "closed during the log-in"
        except StopIteration as end:
            self.greeting = end.value
        return self

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_all(self, data: bytes) -> None:
        """Send what the peer may refuse to take: that it has closed the connection is not an error."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            self.sock.sendall(data)

    def receive(self) -> Message | None:
        """Return the next message, None at the end of the connection. Raises TimeoutError."""
        end = time.monotonic() + self._deadline_s
        while (message := self._reader.next()) is None:
            if time.monotonic() > end:
                raise TimeoutError("no whole message arrived")
            try:
                data = self.sock.recv(1 << 18)
            except (ConnectionResetError, ssl.SSLError):
                return None
            if not data:
                return None
            self._reader.feed(data)
        return message

    @property
    def port(self) -> int:
        """The port that it is connected to."""
        return int(self.sock.getpeername()[1])

    def is_ready(self) -> bool:
        """Tell whether a ReadyForQuery has come that has not been received yet, or the connection has ended."""
        if not select.select([self.sock], [], [], 0)[0]:
            return False
        data = self.sock.recv(1 << 18, socket.MSG_PEEK)
        return not data or messages.ready_for_query()[:5] in data

    def receive_bytes(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end of the connection; for what is no message."""
        data = b""
        while len(data) < count and (more := self.sock.recv(count - len(data))):
            data += more
        return data

    def until_ready(self, times: int = 1) -> list[Message]:
        """Return everything up to the ReadyForQuery of that number; up to the end if there are fewer."""
        found: list[Message] = []
        while times and (message := self.receive()) is not None:
            found.append(message)
            times -= message.type == ord("Z")
        return found

    def until_closed(self) -> list[Message]:
        """Return everything up to the end of the connection."""
        found: list[Message] = []
        while (message := self.receive()) is not None:
            found.append(message)
        return found

    def query(self, sql: str) -> list[Message]:
        """Run a simple query."""
        self.send(messages.query(sql))
        return self.until_ready()

    def query_bytes(self, sql: bytes) -> list[Message]:
        """Run a simple query in whatever encoding it is."""
        self.send(messages.query(sql))
        return self.until_ready()

    def value(self, sql: str) -> str | None:
        """Run a simple query and return the first value of its last row. Raises AssertionError on an error."""
        rows = [message for message in self.query(sql) if message.type == ord("D")]
        assert rows, f"{sql}: no row"
        value = messages.parse_data_row(rows[-1].payload)[0]
        return None if value is None else value.decode()


def kinds(found: list[Message]) -> str:
    """Show message types as one word."""
    return "".join(chr(message.type) for message in found)


def errors(found: list[Message]) -> list[tuple[str, str, str]]:
    """Return severity, SQLSTATE and text of every ErrorResponse."""
    return [
        (fields.get("V", ""), fields.get("C", ""), fields.get("M", ""))
        for fields in (messages.parse_error_fields(m.payload) for m in found if m.type == ord("E"))
    ]
