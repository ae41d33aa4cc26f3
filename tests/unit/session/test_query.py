"""A simple query of our own ends at ReadyForQuery, whatever comes before it."""

from __future__ import annotations

import pytest

from pgamb.errors import PostgresError, ProtocolViolation
from pgamb.session.query import simple_query
from pgamb.wire import messages
from tests.support.dialogue import CUTS, Cut, Party, play


def raw(type_letter: str, payload: bytes = b"") -> bytes:
    return type_letter.encode() + (len(payload) + 4).to_bytes(4, "big") + payload


def row(*values: bytes | None) -> bytes:
    body = [len(values).to_bytes(2, "big")]
    body += [b"\xff\xff\xff\xff" if value is None else len(value).to_bytes(4, "big") + value for value in values]
    return raw("D", b"".join(body))


COLUMNS = raw("T", b"\0\x01a\0" + bytes(18))
DONE = messages.command_complete("SELECT 1")
READY = messages.ready_for_query()
FAILED = raw("E", b"SERROR\0VERROR\0C42P01\0Mno such relation\0\0")


@pytest.mark.parametrize("cut", CUTS)
def test_rows_come_as_text(cut: Cut) -> None:
    rows, said = play(simple_query("select a"), COLUMNS + row(b"1", None) + row(b"", b"x") + DONE + READY, cut=cut)
    assert rows == [["1", None], ["", "x"]]
    assert said == messages.query("select a")


def test_the_last_result_counts() -> None:
    assert play(simple_query("q"), COLUMNS + row(b"1") + DONE + COLUMNS + row(b"2") + DONE + READY)[0] == [["2"]]
    assert play(simple_query("q"), COLUMNS + row(b"1") + DONE + COLUMNS + DONE + READY)[0] == []
    assert play(simple_query(""), raw("I") + READY)[0] == []


def test_what_comes_unasked_is_no_matter() -> None:
    unasked = messages.parameter_status("TimeZone", "UTC") + raw("N", b"\0") + raw("A", b"\0\0\0\1c\0p\0")
    assert play(simple_query("q"), unasked + COLUMNS + unasked + row(b"1") + DONE + unasked + READY)[0] == [["1"]]


def test_an_error_is_raised_when_the_connection_is_ready_again() -> None:
    party = Party(simple_query("q"))
    party.hear(COLUMNS + row(b"1") + FAILED)
    assert not party.done
    with pytest.raises(PostgresError, match="no such relation"):
        party.hear(READY)
    assert party.unread == b""


def test_a_fatal_error_is_raised_at_once() -> None:
    with pytest.raises(PostgresError, match="going down"):
        play(simple_query("q"), raw("E", b"SFATAL\0VFATAL\0C57P01\0Mgoing down\0\0"))


def test_copy_in_both_directions_leaves_the_connection_usable() -> None:
    party = Party(simple_query("copy t from stdin"))
    party.take()
    party.hear(raw("G", b"\0\0\0"))
    assert party.take().startswith(b"f")
    with pytest.raises(PostgresError):
        party.hear(FAILED + READY)
    assert play(simple_query("q"), raw("H", b"\0\0\0") + raw("d", b"x\n") + raw("c") + DONE + READY)[0] == []


def test_a_row_beyond_the_limit_and_a_message_out_of_place_are_refused() -> None:
    with pytest.raises(ProtocolViolation, match="invalid message length"):
        play(simple_query("q", limit_bytes=100), COLUMNS + row(b"x" * 100))
    with pytest.raises(ProtocolViolation, match='unexpected message type "W"'):
        play(simple_query("START_REPLICATION"), raw("W", b"\0\0\0"))
