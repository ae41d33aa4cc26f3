"""One simple query of our own on a backend that is idle: for look-ups, probes and SET, not for applications."""

from __future__ import annotations

from pgamb.errors import PostgresError, ProtocolViolation
from pgamb.session.conversation import Conversation, Send, receive
from pgamb.wire import constants as c
from pgamb.wire import messages
from pgamb.wire.reader import describe_type

_IGNORED = frozenset(
    {
        c.COMMAND_COMPLETE,
        c.EMPTY_QUERY_RESPONSE,
        c.NOTICE_RESPONSE,
        c.NOTIFICATION_RESPONSE,
        c.PARAMETER_STATUS,
        c.COPY_OUT_RESPONSE,
        c.COPY_DATA,
        c.COPY_DONE,
    }
)


def simple_query(sql: str, *, limit_bytes: int = 1 << 20) -> Conversation[list[list[str | None]]]:
    """Run `sql`; returns the rows of its last result, each value as text, None for NULL.

    A message, that is a row, may have `limit_bytes` at most. Raises PostgresError with the first error, after
    ReadyForQuery, so that the connection stays usable; a FATAL one at once, as nothing follows it.
    """
    yield Send(messages.query(sql))
    rows: list[list[str | None]] = []
    error: PostgresError | None = None
    while True:
        message = yield from receive(limit_bytes)
        if message.type == c.DATA_ROW:
            rows.append([_as_text(value) for value in messages.parse_data_row(message.payload)])
        elif message.type == c.ROW_DESCRIPTION:
            rows = []
        elif message.type == c.READY_FOR_QUERY:
            if error is not None:
                raise error
            return rows
        elif message.type == c.ERROR_RESPONSE:
            error = error or PostgresError(messages.parse_error_fields(message.payload))
            if error.is_fatal:
                raise error
        elif message.type == c.COPY_IN_RESPONSE:
            yield Send(messages.copy_fail("COPY FROM STDIN has no data here"))
        elif message.type not in _IGNORED:
            raise ProtocolViolation(f"unexpected message type {describe_type(message.type)} from the server in a query")


def _as_text(value: bytes | None) -> str | None:
    return None if value is None else messages.decode_text(value)
