"""WAL positions: the ends of records, how positions are written, and what is asked of which release."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgamb.routing.freshness import (
    PAGE_BYTES,
    bound_of,
    end_of_record,
    format_floor,
    format_lsn,
    parse_floor,
    parse_lsn,
    wait_statement,
)

MEGABYTE = 1 << 20
UNKNOWN = (1 << 64) - 1


@pytest.mark.parametrize(
    ("lsn", "end"),
    [
        # Seen on PostgreSQL 15: the record ended at 0/1375C000, the insert position was 0/1375C018.
        (0x1375C018, 0x1375C000),
        (0x1375C000, 0x1375C000),
        (0x1375C010, 0x1375C010),
        (0x1375C020, 0x1375C020),
        # 40 bytes into a page that does not begin a segment end sixteen bytes of a record.
        (0x1375C028, 0x1375C028),
        (0x13700028, 0x13700000),
        (0x13700000, 0x13700000),
        (0x13700030, 0x13700030),
        (1 << 40 | 40, 1 << 40),
        (0, 0),
    ],
)
def test_where_the_last_record_ended(lsn: int, end: int) -> None:
    assert end_of_record(lsn, segment_bytes=MEGABYTE) == end


def test_the_size_of_a_segment_and_of_a_page_are_the_servers() -> None:
    assert end_of_record(MEGABYTE + 40) == MEGABYTE + 40
    assert end_of_record(16 * MEGABYTE + 40) == 16 * MEGABYTE
    assert end_of_record(MEGABYTE + 40, segment_bytes=MEGABYTE) == MEGABYTE
    assert end_of_record(3 * 8192 + 24, page_bytes=32768) == 3 * 8192 + 24
    assert end_of_record(32768 + 24, page_bytes=32768) == 32768


@given(st.integers(0, UNKNOWN), st.sampled_from([MEGABYTE, 16 * MEGABYTE, 1024 * MEGABYTE]))
def test_only_headers_are_taken_off(lsn: int, segment_bytes: int) -> None:
    end = end_of_record(lsn, segment_bytes=segment_bytes)
    assert lsn - end in (0, 24, 40)
    assert end == lsn or end % PAGE_BYTES == 0
    assert end_of_record(end, segment_bytes=segment_bytes) == end


@given(st.integers(0, UNKNOWN), st.integers(0, (1 << 32) - 1))
def test_what_is_written_can_be_read(lsn: int, timeline: int) -> None:
    assert parse_lsn(format_lsn(lsn)) == lsn
    assert parse_floor(format_floor(lsn, timeline)) == (lsn, timeline)


def test_positions_are_written_as_postgresql_does() -> None:
    assert format_lsn(0x1375C000) == "0/1375C000"
    assert format_lsn(0x16_B374D848) == "16/B374D848"
    assert format_floor(0x1375C000, 3) == "0/1375C000@3"
    assert parse_floor(" 0/1375c000 ") == (0x1375C000, 0)
    assert parse_floor("0/1375C000@3") == (0x1375C000, 3)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0/", "/0", "0/123456789", "123456789/0", "0/x", "x/0", "0/-1", "+1/0", "1_0/0", "0/ 1", "0/1/2"),
        *("0x1/0", "0/1@", "0/1@0", "0/1@x", "0/1@-1", "0/1@4294967296", "0/1@1@1", "0/1@٣"),
    ],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"position|timeline"):
        parse_floor(text)


@pytest.mark.parametrize(
    ("replay", "receive", "bound"),
    [(100, 200, 200), (100, 100, 100), (100, 99, UNKNOWN), (100, None, UNKNOWN), (0, 0, 0)],
)
def test_what_may_have_been_seen_on_a_replica(replay: int, receive: int | None, bound: int) -> None:
    assert bound_of(replay, receive) == bound


def test_only_postgresql_19_waits() -> None:
    # Never run against such a server: there is none to be had yet.
    assert wait_statement(190000, 0x1375C000, 0.02) == (
        b"WAIT FOR LSN '0/1375C000' WITH (MODE 'standby_replay', TIMEOUT '20ms', NO_THROW)"
    )
    assert b"TIMEOUT '1ms'" in (wait_statement(200000, 1, 0.0) or b"")
    assert wait_statement(180004, 0x1375C000, 0.02) is None
    assert wait_statement(190000, 0, 0.02) is None
