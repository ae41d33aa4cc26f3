"""WAL positions: how they are written, compared, and asked for.

A position is a byte offset in the WAL (`pg_lsn` as an integer). What is compared are ends of records: a replica that
has replayed to the end of a commit's record shows that commit.

The one trap is a page's header. `pg_current_wal_insert_lsn()` tells where the next record will begin, and behind a
record that fills its page that is behind the next page's header, while `pg_last_wal_replay_lsn()` stays where the
record ended. On an idle cluster the replica would seem to be behind for as long as nothing else is written.
(`XLogBytePosToRecPtr` and `XLogBytePosToEndRecPtr` in xlog.c are the two ways of telling.)
"""

from __future__ import annotations

import re
from typing import Final

# XLOG_BLCKSZ and wal_segment_size, where nobody has asked the server.
PAGE_BYTES: Final = 8192
SEGMENT_BYTES: Final = 16 << 20

# SizeOfXLogShortPHD and SizeOfXLogLongPHD: headers of a page, and of the first page of a segment (xlog_internal.h).
SHORT_HEADER_BYTES: Final = 24
LONG_HEADER_BYTES: Final = 40

_LARGEST: Final = (1 << 64) - 1
_LSN: Final = re.compile("([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")

# WAIT FOR LSN came with this release.
WAIT_FOR_VERSION: Final = 190000

# Asked once for each connection: the shape of this server's WAL, and its release.
SHAPE_QUESTION: Final = (
    "SELECT pg_catalog.current_setting('server_version_num'),"
    " pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size')),"
    " pg_catalog.current_setting('wal_block_size')"
)

FLOOR_QUESTION: Final = b"SELECT pg_catalog.pg_current_wal_insert_lsn()"

_REPLAYED: Final = "SELECT pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_last_wal_receive_lsn()"
POSITION_QUESTION: Final = _REPLAYED.encode()
# PostgreSQL sleeps for whole milliseconds. The function scan comes first, so that what is told is of afterwards.
PAUSED_POSITION_QUESTION: Final = (_REPLAYED + " FROM pg_catalog.pg_sleep(0.001)").encode()
# No function tells which timeline a replica replays; each of these is one that it has reached, and only grows. Who may
# not see the WAL receiver (pg_monitor) gets a NULL there.
TIMELINE_QUESTION: Final = (
    _REPLAYED + ", GREATEST((SELECT received_tli FROM pg_catalog.pg_stat_get_wal_receiver()),"
    " (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),"
    " (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()))"
).encode()


def end_of_record(lsn: int, *, segment_bytes: int = SEGMENT_BYTES, page_bytes: int = PAGE_BYTES) -> int:
    """Turn an insert position into the end of the record before it; other ends of records stay as they are.

    No record ends right behind a header: where it has nothing to put into a page, it ended with the page before. An
    offset of 40 in another page than a segment's first is 16 bytes of a record, and a real end.
    """
    if lsn % segment_bytes == LONG_HEADER_BYTES:
        return lsn - LONG_HEADER_BYTES
    if lsn % page_bytes == SHORT_HEADER_BYTES:
        return lsn - SHORT_HEADER_BYTES
    return lsn


def parse_lsn(text: str) -> int:
    """Read "0/1375C000", as `pg_lsn` is written. Raises ValueError."""
    found = _LSN.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not a WAL position; PostgreSQL writes them like 0/1375C000')
    return int(found[1], 16) << 32 | int(found[2], 16)


def format_lsn(lsn: int) -> str:
    """Write a position as PostgreSQL does."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFF_FFFF:X}"


def parse_floor(text: str) -> tuple[int, int]:
    """Read "0/1375C000@3" or "0/1375C000"; returns position and timeline (0: not given). Raises ValueError."""
    lsn, at, timeline = text.strip().partition("@")
    if at and not (timeline.isascii() and timeline.isdigit() and 0 < int(timeline) < 1 << 32):
        raise ValueError(f'"{timeline}" in "{text}" is not a timeline, which is a number from 1')
    return parse_lsn(lsn), int(timeline) if at else 0


def format_floor(lsn: int, timeline: int) -> str:
    """Write a position with its timeline, for another process to read; 0 as timeline is left out."""
    return f"{format_lsn(lsn)}@{timeline}" if timeline else format_lsn(lsn)


def bound_of(replay_lsn: int, receive_lsn: int | None) -> int:
    """Return what nothing lies behind that could have been seen on a replica, the largest number if that is unknown.

    A commit becomes visible an instant before it counts as replayed, so that `replay_lsn` is no such bound. What was
    received is, as long as everything comes that way: not while WAL is read from an archive, nor while the receiver
    has begun again, at the start of a segment.
    """
    if receive_lsn is None or receive_lsn < replay_lsn:
        return _LARGEST
    return receive_lsn


def wait_statement(server_version: int, lsn: int, timeout_s: float) -> bytes | None:
    """Return what lets a replica wait until it has replayed `lsn`, None where the server has no such thing.

    It has to be a message of its own, for it may not run where a snapshot is held.
    """
    if server_version < WAIT_FOR_VERSION or not lsn:
        return None
    timeout_ms = max(1, round(timeout_s * 1000))
    return (
        f"WAIT FOR LSN '{format_lsn(lsn)}' WITH (MODE 'standby_replay', TIMEOUT '{timeout_ms}ms', NO_THROW)"
    ).encode()
