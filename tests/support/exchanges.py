"""What is said to PostgreSQL in one packet, what is answered to it, and whether two answers are the same.

Built to say anything that the protocol allows, and to wait for exactly what PostgreSQL owes: each message knows the
reply that it gives unless an error comes first, so that a conversation may go through Flush, errors and pipelines
without knowing beforehand which of its statements fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pgamb.session.conversation import Message
from pgamb.wire import constants as c
from pgamb.wire import messages
from tests.support.wire import Wire

# Replies of one message, by type; any of these ends it. A Query's ReadyForQuery comes after its error too, but a Query
# behind an error of the extended protocol is skipped like everything else up to Sync.
OF_QUERY, OF_SYNC, OF_EXECUTE, OF_DESCRIBE = "q", "Z", "CIs", "Tn"
# Values of this prefix (times, transaction ids) differ from run to run: which of them are equal is compared.
LABELLED = b"same:"


@dataclass(frozen=True, slots=True)
class Exchange:
    """Messages of one packet; `replies` are the types that answer them, one string a reply."""

    data: bytes
    replies: tuple[str, ...]
    says: str

    def __add__(self, other: Exchange) -> Exchange:
        return Exchange(self.data + other.data, self.replies + other.replies, f"{self.says} {other.says}".strip())

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


def copied(*lines: bytes) -> Exchange:
    """CopyData and CopyDone, which PostgreSQL ignores when it is not in a COPY."""
    data = b"".join(b"d" + (len(line) + 4).to_bytes(4, "big") + line for line in lines)
    return Exchange(data + b"c\0\0\0\4", (), f"Copied({lines!r})")


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
    """Writes down what one connection hears."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._skipping = False
        self._labels: dict[bytes, str] = {}
        self.heard: list[Heard] = []

    def hold(self, exchanges: Sequence[Exchange]) -> list[Heard]:
        """Say all of it, each when the one before is answered; less when the other side closes or falls silent."""
        for number, exchange in enumerate(exchanges):
            self._wire.send_all(exchange.data)
            if not self._listen(number, list(exchange.replies)):
                break
        return self.heard

    def _listen(self, number: int, wanted: list[str]) -> bool:
        if self._skipping:
            self._skip(wanted)
        while wanted:
            try:
                message = self._wire.receive()
            except TimeoutError:
                self.heard.append(Heard(number, f"silence instead of {wanted}"))
                return False
            if message is None:
                self.heard.append(Heard(number, "closed"))
                return False
            self.heard.append(self._show(number, message))
            kind = chr(message.type)
            if kind == "E" and wanted[0] != OF_QUERY:
                self._skip(wanted)
            elif kind in wanted[0] or (kind == "Z" and wanted[0] == OF_QUERY):
                wanted.pop(0)
                self._skipping = self._skipping and kind != "Z"
        return True

    def _skip(self, wanted: list[str]) -> None:
        while wanted and wanted[0] != OF_SYNC:
            wanted.pop(0)
        self._skipping = not wanted

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
        return Heard(number, f"{kind} {payload!r}")

    def _label(self, value: bytes | None) -> str:
        if value is None or not value.startswith(LABELLED):
            return repr(value)
        return self._labels.setdefault(value, f"#{len(self._labels) + 1}")


def difference(exchanges: Sequence[Exchange], direct: Sequence[Heard], through: Sequence[Heard]) -> str:
    """Show the first message that differs, with what was said and what came before; empty when there is none.

    Where in PostgreSQL's source an error arose is compared when it is told: pgamb's own arose nowhere there, and 25P02
    arises at a Parse of pgamb's own where the backend at hand lacks the statement that is spoken of.
    """
    for position in range(max(len(direct), len(through))):
        ours = through[position] if position < len(through) else Heard(-1, "nothing more")
        theirs = direct[position] if position < len(direct) else Heard(-1, "nothing more")
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
