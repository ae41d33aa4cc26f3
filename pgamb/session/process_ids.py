"""The process ids that applications are told, and the statements that speak of them.

An application is told a number when it connects. It is pgamb's own and lies above any process id that an operating
system gives out, so that both can stand in the same statement and are never confused. Where a statement looks at
PostgreSQL's processes, the number of a session that is here means the backend which runs that session.

Nothing is read of other statements: `mention` and `asks_own` are answered once for each text.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence

# Linux gives out less than 2^22, others less than 2^30; the protocol and pg_backend_pid() have 31 bits.
FIRST_PID = 1 << 30
LAST_PID = (1 << 31) - 1
# Means nobody: a session that has no backend.
NOBODY = LAST_PID

_NAMES = re.compile(
    rb"(?i)\bpg_(?:cancel_backend|terminate_backend|blocking_pids|safe_snapshot_blocking_pids|locks|lock_status"
    rb"|isolation_test_session_is_blocked|log_backend_memory_contexts|stat_activity|stat_get_activity|stat_ssl"
    rb"|stat_gssapi)\b"
)
_TERMINATES = re.compile(rb"(?i)\bpg_terminate_backend\b")
_OWN = re.compile(rb"(?i)(?:\bpg_catalog\s*\.\s*)?\bpg_backend_pid\s*\(\s*\)")
# A list of expressions and nothing else: neither rows that might be compared, nor quotes or comments to look into.
_BARE_LIST = re.compile(rb"""(?is)\s*select\s(?!.*(?:['"$;]|--|/\*|\b(?:from|where|into|union|select)\b).*\S)""")
_ITEM_ENDS = re.compile(rb"(?is)\s*(?:,|;?\s*\Z|as\s+\w+\s*(?:,|;?\s*\Z))")
_NUMBER = re.compile(rb"(?<![\w.])[12]\d{9}(?![\w.])")

# An array of int4 or int8 in binary.
_ONE_DIMENSION = struct.pack("!i", 1)
_INTEGER_TYPES = (struct.pack("!i", 23), struct.pack("!i", 20))

Change = Callable[[int], int]


class Mention(enum.IntFlag):
    """What a text says of processes: it looks at them or does something to one; it may end one; its own, too."""

    PROCESSES = 1
    TERMINATED = 2
    OWN_TERMINATED = 4


def mention(sql: bytes) -> Mention:
    """Tell what a text says of processes, nothing if it neither looks at them nor does something to one of them."""
    if _NAMES.search(sql) is None:
        return Mention(0)
    found = Mention.PROCESSES
    if _TERMINATES.search(sql) is not None:
        found |= Mention.TERMINATED
        if b"pg_backend_pid" in sql.lower():
            found |= Mention.OWN_TERMINATED
    return found


def asks_own(sql: bytes) -> bool:
    """Tell whether a text asks for the session's own process id, to give it to the application and for nothing else."""
    return next(_places(sql), None) is not None


def named(unit: bytes, marks: Sequence[int]) -> set[int]:
    """Return the numbers in a unit that may be process ids of applications.

    A unit is a Query, or a batch of the extended protocol. `marks` has the `Mention` of the statement of each
    Query, Parse, Bind and Describe in it.
    """
    found: set[int] = set()

    def note(number: int) -> int:
        found.add(number)
        return number

    try:
        _rewrite(unit, marks, note, None)
    except struct.error:
        # Malformed: PostgreSQL says how.
        return set()
    return found


def rewritten(unit: bytes, marks: Sequence[int], own: int, real: Mapping[int, int]) -> bytes:
    """Return a unit with `real` process ids in place of those that applications were told.

    A session that asks for its own gets `own`, the one that it was told.
    """
    try:
        return _rewrite(unit, marks, lambda number: real.get(number, number), own)
    except struct.error:
        return unit


def _rewrite(unit: bytes, marks: Sequence[int], change: Change, own: int | None) -> bytes:
    parts: list[bytes] = []
    mark = iter(marks)
    for kind, body in _messages(unit):
        marked = kind in b"QPBD" and bool(next(mark, 0))
        if kind == b"Q":
            body = _text(body[:-1], marked, change, own) + b"\0"
        elif kind == b"P" and body.count(b"\0") >= 2:
            name, sql, types = body.split(b"\0", 2)
            body = b"\0".join((name, _text(sql, marked, change, own), types))
        elif kind == b"B" and marked:
            body = _bind(body, change)
        parts.append(kind + struct.pack("!i", len(body) + 4) + body)
    return b"".join(parts)


def _messages(unit: bytes) -> Iterator[tuple[bytes, bytes]]:
    position = 0
    while position < len(unit):
        (length,) = struct.unpack_from("!i", unit, position + 1)
        yield unit[position : position + 1], unit[position + 5 : position + 1 + length]
        position += 1 + length


def _text(sql: bytes, marked: bool, change: Change, own: int | None) -> bytes:
    if own is not None:
        for start, end in reversed(list(_places(sql))):
            # A query of its own keeps the column's name.
            sql = b"%s(SELECT %d AS pg_backend_pid)%s" % (sql[:start], own, sql[end:])
    return _numbers(sql, change) if marked else sql


def _numbers(text: bytes, change: Change) -> bytes:
    return _NUMBER.sub(lambda match: b"%d" % change(int(match[0])), text)


def _places(sql: bytes) -> Iterator[tuple[int, int]]:
    """Give start and end of each call of pg_backend_pid() that is a whole column of what is selected."""
    if _OWN.search(sql) is None or not _BARE_LIST.match(sql) or _NAMES.search(sql):
        return
    for match in _OWN.finditer(sql):
        before = sql[: match.start()]
        if (
            before.count(b"(") == before.count(b")")
            and (before.rstrip()[-1:] == b"," or before.strip().lower() == b"select")
            and _ITEM_ENDS.match(sql, match.end())
        ):
            yield match.span()


def _bind(body: bytes, change: Change) -> bytes:
    """Change the process ids among the parameters of a Bind."""
    portal, statement, rest = body.split(b"\0", 2)
    (count,) = struct.unpack_from("!h", rest)
    formats = struct.unpack_from(f"!{count}h", rest, 2)
    position = 2 + 2 * count
    (values,) = struct.unpack_from("!H", rest, position)
    position += 2
    parts = [portal, b"\0", statement, b"\0", rest[:position]]
    for index in range(values):
        (length,) = struct.unpack_from("!i", rest, position)
        position += 4
        if length < 0:
            parts.append(b"\xff\xff\xff\xff")
            continue
        value = rest[position : position + length]
        position += length
        binary = formats[index if count > 1 else 0] if count else 0
        value = _binary(value, change) if binary else _numbers(value, change)
        parts.append(struct.pack("!i", len(value)) + value)
    parts.append(rest[position:])
    return b"".join(parts)


def _binary(value: bytes, change: Change) -> bytes:
    """Change a number of four or eight bytes, or each in an array of them."""
    if len(value) in (4, 8):
        number = int.from_bytes(value, "big", signed=True)
        return change(number).to_bytes(len(value), "big") if FIRST_PID <= number <= LAST_PID else value
    # An array without NULLs, or something else.
    if value[:4] != _ONE_DIMENSION or value[8:12] not in _INTEGER_TYPES or value[4:8] != b"\0\0\0\0":
        return value
    width = 4 if value[8:12] == _INTEGER_TYPES[0] else 8
    head, elements = value[:20], value[20:]
    step = 4 + width
    return head + b"".join(
        elements[at : at + 4] + _binary(elements[at + 4 : at + step], change) for at in range(0, len(elements), step)
    )
