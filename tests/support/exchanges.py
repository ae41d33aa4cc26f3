"""What is said to PostgreSQL in one packet, what is answered to it, and whether two answers are the same.

Built to say anything that the protocol allows, and to wait for exactly what PostgreSQL owes: each message knows the
reply that it gives unless an error comes first, so that a conversation may go through Flush, errors and pipelines
without knowing beforehand which of its statements fail.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pgamb.session.conversation import Message
from pgamb.wire import constants as c
from pgamb.wire import messages
from tests.support import conversations as said
from tests.support.wire import Wire

# Replies of one message, by type; any of these ends it. A Query's ReadyForQuery comes after its error too, but a Query
# behind an error of the extended protocol is skipped like everything else up to Sync.
OF_QUERY, OF_SYNC, OF_EXECUTE, OF_DESCRIBE = "q", "Z", "CIs", "Tn"
# An error, if it is not skipped; the end of the connection; nothing, but here ends what feeds a COPY.
OF_BROKEN, OF_END, OF_COPY_END = "!", "X", ">"
# Values of this prefix (times, transaction ids) differ from run to run: which of them are equal is compared.
LABELLED = b"same:"
# Known to differ. In a failed transaction, a statement that the backend at hand lacks cannot be prepared there, and it
# is not known how many values its Bind has to have; and a portal whose read ran by itself is gone when it is done.
KNOWN = (
    ("bind message supplies", "'25P02'"),
    ('portal "" cannot be run', 'portal "" does not exist'),
    ("n b''", 'portal "" does not exist'),
)
# What users make has oids from here on (FirstNormalObjectId).
FIRST_OID = 16384


@dataclass(frozen=True, slots=True)
class Exchange:
    """Messages of one packet; `replies` are the types that answer them, one string a reply.

    `cancels`: a cancel request follows; where there are messages, once something sleeps or there is an answer.
    """

    data: bytes
    replies: tuple[str, ...]
    says: str
    cancels: bool = False

    def __add__(self, other: Exchange) -> Exchange:
        return Exchange(
            self.data + other.data,
            self.replies + other.replies,
            f"{self.says} {other.says}".strip(),
            self.cancels or other.cancels,
        )

    def __repr__(self) -> str:
        return self.says


NOTHING = Exchange(b"", (), "")


def query(sql: str) -> Exchange:
    return Exchange(messages.query(sql), (OF_QUERY,), f"Query({sql!r})")


def parse(sql: str, name: str = "") -> Exchange:
    return Exchange(messages.parse(name, sql), ("1",), f"Parse({sql!r}, {name!r})")


def bind(*values: bytes | None, statement: str = "", portal: str = "") -> Exchange:
    return Exchange(messages.bind(portal, statement, values), ("2",), f"Bind({portal!r}, {statement!r})")


def describe(portal: str = "") -> Exchange:
    return Exchange(messages.describe(c.PORTAL, portal), (OF_DESCRIBE,), f"Describe({portal!r})")


def describe_statement(name: str = "") -> Exchange:
    return Exchange(messages.describe(c.STATEMENT, name), ("t", OF_DESCRIBE), f"DescribeStatement({name!r})")


def execute(portal: str = "", limit: int = 0) -> Exchange:
    return Exchange(messages.execute(portal, limit), (OF_EXECUTE,), f"Execute({portal!r}, {limit})")


def close(portal: str = "") -> Exchange:
    return Exchange(messages.close(c.PORTAL, portal), ("3",), f"Close({portal!r})")


def close_statement(name: str) -> Exchange:
    return Exchange(messages.close(c.STATEMENT, name), ("3",), f"CloseStatement({name!r})")


def flush() -> Exchange:
    return Exchange(messages.flush(), (), "Flush")


def sync() -> Exchange:
    return Exchange(messages.sync(), (OF_SYNC,), "Sync")


def copy_data(*lines: bytes) -> Exchange:
    """CopyData, which PostgreSQL ignores when it is not in a COPY."""
    return Exchange(b"".join(said.copy_data(line) for line in lines), (), f"CopyData({lines!r})")


def copy_done() -> Exchange:
    return Exchange(said.COPY_DONE, (OF_COPY_END,), "CopyDone")


def copy_fail(reason: str) -> Exchange:
    return Exchange(messages.copy_fail(reason), (OF_COPY_END,), f"CopyFail({reason!r})")


def copied(*lines: bytes) -> Exchange:
    return copy_data(*lines) + copy_done()


def call(oid: int, *arguments: bytes) -> Exchange:
    return Exchange(said.call(oid, *arguments), (OF_QUERY,), f"FunctionCall({oid}, {arguments!r})")


def broken(kind: str, body: bytes) -> Exchange:
    """A message that is not what it should be: PostgreSQL answers with an error, and goes on."""
    return Exchange(said.message(kind, body), (OF_QUERY if kind in "QF" else OF_BROKEN,), f"Broken({kind!r}, {body!r})")


def fatal(kind: str, body: bytes) -> Exchange:
    """A message that ends the connection."""
    return Exchange(said.message(kind, body), (OF_END,), f"Fatal({kind!r}, {body!r})")


def terminate() -> Exchange:
    return Exchange(messages.terminate(), (OF_END,), "Terminate")


def cancel() -> Exchange:
    return Exchange(b"", (), "Cancel", cancels=True)


def run(sql: str, *values: bytes | None) -> Exchange:
    """Parse, Bind, Describe, Execute, all unnamed and without Sync."""
    return parse(sql) + bind(*values) + describe() + execute()


@dataclass(frozen=True, slots=True)
class Heard:
    """One message of an answer; `origin` is where in PostgreSQL's source an error or notice comes from."""

    number: int
    text: str
    origin: str = ""


class Transcript:
    """Writes down what one connection hears.

    `cancel` is called to ask that what it does be cancelled, with True if that must have begun to sleep before.
    """

    def __init__(self, wire: Wire, cancel: Callable[[Wire, bool], None] | None = None) -> None:
        self._wire = wire
        self._cancel = cancel
        self._owed: list[str] = []
        self._skipping = self._copying = self._ended = False
        self._labels: dict[bytes, str] = {}

    def hold(self, number: int, exchange: Exchange) -> list[Heard]:
        """Say it and return what answers it: nothing when the other side has closed, or fallen silent, before."""
        if self._ended:
            return []
        self._wire.send_all(exchange.data)
        if exchange.cancels and self._cancel is not None:
            self._cancel(self._wire, bool(exchange.replies))
        self._owe(list(exchange.replies))
        heard: list[Heard] = []
        while self._waits():
            try:
                message = self._wire.receive()
            except TimeoutError:
                heard.append(Heard(number, f"silence instead of {self._owed}"))
                self._ended = True
                break
            if message is None:
                heard.append(Heard(number, "closed"))
                self._ended = True
                break
            heard.append(self._show(number, message))
            self._hear(chr(message.type))
        return heard

    def _owe(self, replies: list[str]) -> None:
        self._owed += self._eaten(replies) if self._copying else replies
        # Anything else than data ends the connection.
        self._copying = self._copying and all(reply == OF_COPY_END for reply in self._owed[1:])
        if self._skipping:
            self._skip()

    def _waits(self) -> bool:
        while self._owed and self._owed[0] == OF_COPY_END:
            self._owed.pop(0)
        return bool(self._owed) and not (self._copying and OF_COPY_END not in self._owed)

    def _hear(self, kind: str) -> None:
        wanted = self._owed[0]
        if kind == "G":
            self._copying = True
            self._owed = [wanted, *self._eaten(self._owed[1:])]
        elif kind == "E" and wanted != OF_QUERY:
            self._copying = False
            self._skip()
        elif kind in wanted or (kind == "Z" and wanted == OF_QUERY):
            self._copying = False
            self._owed.pop(0)
            self._skipping = self._skipping and kind != "Z"

    def _eaten(self, replies: list[str]) -> list[str]:
        """Leave out each Sync that a COPY eats."""
        end = next((at for at, reply in enumerate(replies) if reply != OF_SYNC), len(replies))
        return replies[end:]

    def _skip(self) -> None:
        while self._owed and self._owed[0] not in (OF_SYNC, OF_END):
            self._owed.pop(0)
        self._skipping = not self._owed

    def _show(self, number: int, message: Message) -> Heard:
        kind, payload = chr(message.type), message.payload
        if kind in "EN":
            fields = messages.parse_error_fields(payload)
            origin = " ".join(fields.pop(letter, "") for letter in "FLR").strip()
            return Heard(number, f"{kind} {fields!r}", origin)
        if kind == "D" and LABELLED in payload:
            return Heard(number, f"D {[self._label(value) for value in messages.parse_data_row(payload)]}")
        if kind == "A":
            # Without the process that sent it: it is the backend's, whose number is told nobody who is not attached.
            return Heard(number, f"A {payload[4:]!r}")
        if kind == "T":
            return Heard(number, f"T {self._columns(payload)}")
        return Heard(number, f"{kind} {payload!r}")

    def _label(self, value: bytes | None) -> str:
        if value is None or not value.startswith(LABELLED):
            return repr(value)
        return self._labels.setdefault(value, f"#{len(self._labels) + 1}")

    def _columns(self, payload: bytes) -> list[str]:
        """Show a RowDescription; what is made in a conversation has another oid each time."""
        shown: list[str] = []
        position = 2
        while position < len(payload):
            end = payload.index(b"\0", position)
            table, column, kind, *rest = struct.unpack_from("!ihihih", payload, end + 1)
            oids = [self._label(LABELLED + b"%d" % oid) if oid >= FIRST_OID else oid for oid in (table, kind)]
            shown.append(f"{payload[position:end]!r} {oids[0]}.{column} {oids[1]} {rest}")
            position = end + 19
        return shown


def difference(exchanges: Sequence[Exchange], direct: Sequence[Heard], through: Sequence[Heard]) -> str:
    """Show the first message that differs, with what was said and what came before; empty when there is none.

    Where in PostgreSQL's source an error arose is compared when it is told: pgamb's own arose nowhere there, and 25P02
    arises at a Parse of pgamb's own where the backend at hand lacks the statement that is spoken of.
    """
    for position in range(max(len(direct), len(through))):
        ours = through[position] if position < len(through) else Heard(-1, "nothing more")
        theirs = direct[position] if position < len(direct) else Heard(-1, "nothing more")
        if any(first in theirs.text and second in ours.text for first, second in KNOWN):
            continue
        same_origin = not ours.origin or ours.origin == theirs.origin or "'25P02'" in ours.text
        if (ours.number, ours.text) != (theirs.number, theirs.text) or not same_origin:
            number = max(ours.number, theirs.number)
            said = [f"{'>' if n == number else ' '} {n}: {exchange!r}" for n, exchange in enumerate(exchanges)]
            before = [f"  {heard.number}: {heard.text}" for heard in direct[max(0, position - 4) : position]]
            return "\n".join(
                [
                    "said:",
                    *said[: number + 1],
                    "heard on both sides, at last:",
                    *before,
                    f"then PostgreSQL: {theirs}",
                    f"     and pgamb: {ours}",
                ]
            )
    return ""
