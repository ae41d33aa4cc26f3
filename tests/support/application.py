"""An application on asyncio that speaks the protocol message by message, and leaves whenever it likes."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from pgamb.session.backend_login import Credentials, Greeting, backend_login
from pgamb.session.conversation import Message, Receive, Send
from pgamb.wire import constants as c
from pgamb.wire import messages
from pgamb.wire.reader import MessageReader

DEADLINE_S = 60.0
LIMIT_BYTES = 0x7FFFFFFF


class Gone(Exception):
    """The other side closed the connection."""


@dataclass(slots=True)
class Answer:
    """What came up to a ReadyForQuery; of several results, everything in order."""

    rows: list[list[bytes | None]] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    copied: list[bytes] = field(default_factory=list)
    errors: list[dict[str, str]] = field(default_factory=list)
    kinds: bytes = b""
    status: bytes = b""

    @property
    def sqlstate(self) -> str:
        return self.errors[0]["C"] if self.errors else ""

    @property
    def texts(self) -> list[str]:
        """The first column of each row."""
        return ["NULL" if row[0] is None else row[0].decode() for row in self.rows]


class Application:
    """One logged-in connection. Every wait ends after `DEADLINE_S`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        self._in = reader
        self._out = writer
        self._port = port
        self._messages = MessageReader(LIMIT_BYTES)
        self.greeting: Greeting | None = None

    @classmethod
    async def connect(
        cls, port: int, credentials: Credentials, *, user: str, database: str = "postgres", **parameters: str
    ) -> Application:
        """Log in; raises what the log-in conversation raises."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self = cls(reader, writer, port)
        conversation = backend_login(
            user, database, credentials, parameters=parameters, nonce=secrets.token_urlsafe(18)
        )
        heard: Message | None = None
        while True:
            try:
                step = conversation.send(heard)
            except StopIteration as stop:
                self.greeting = stop.value
                return self
            heard = None
            if isinstance(step, Send):
                self.say(step.data)
            elif isinstance(step, Receive):
                heard = await self.hear()

    def say(self, *data: bytes) -> None:
        """Send, without waiting."""
        self._out.write(b"".join(data))

    async def hear(self) -> Message:
        """Wait for the next message. Raises Gone."""
        async with asyncio.timeout(DEADLINE_S):
            while (message := self._messages.next()) is None:
                data = await self._read()
                if not data:
                    raise Gone
                self._messages.feed(data)
        return message

    async def _read(self) -> bytes:
        try:
            return await self._in.read(65536)
        except ConnectionError:
            return b""

    async def answer(self, until: bytes = b"Z") -> Answer:
        """Collect everything up to a message of one of these types. Raises Gone."""
        answer = Answer()
        while True:
            message = await self.hear()
            if message.type not in b"SN":
                # These may come at any time.
                answer.kinds += bytes([message.type])
            if message.type == c.DATA_ROW:
                answer.rows.append(messages.parse_data_row(message.payload))
            elif message.type == c.COMMAND_COMPLETE:
                answer.tags.append(message.payload[:-1].decode())
            elif message.type == ord("d"):
                answer.copied.append(message.payload)
            elif message.type == c.ERROR_RESPONSE:
                answer.errors.append(messages.parse_error_fields(message.payload))
            elif message.type == c.READY_FOR_QUERY:
                answer.status = message.payload
            if message.type in until:
                return answer

    async def query(self, sql: str) -> Answer:
        """Send one Query and collect its answer."""
        self.say(messages.query(sql))
        return await self.answer()

    async def run(self, sql: str, values: Sequence[bytes | None] = (), *, name: str = "") -> Answer:
        """Parse (unless it has the name of a statement and no text), Bind, Execute, Sync."""
        self.say(
            messages.parse(name, sql) if sql else b"",
            messages.bind("", name, values),
            messages.describe(c.PORTAL, ""),
            messages.execute(""),
            messages.sync(),
        )
        return await self.answer()

    async def cancel(self) -> None:
        """Ask that what runs here be cancelled, and wait until the request has been dealt with."""
        assert self.greeting is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(messages.cancel_request(self.greeting.pid, self.greeting.secret))
            await reader.read()
        finally:
            writer.close()

    def vanish(self) -> None:
        """Close the connection without a word."""
        self._out.transport.abort()

    async def close(self) -> None:
        """Terminate."""
        self.say(messages.terminate())
        self._out.close()
        try:
            await self._out.wait_closed()
        except ConnectionError:
            return
