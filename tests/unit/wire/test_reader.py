"""Messages come out whole, however the bytes came in, and no length is believed."""

from __future__ import annotations

import pytest

from pgamb.errors import ProtocolViolation
from pgamb.wire import messages
from pgamb.wire.reader import Message, MessageReader, describe_type
from tests.support.dialogue import CUTS, Cut

STREAM = messages.query("select 1") + messages.sync() + messages.parse("s", "select $1", [23]) + messages.terminate()


@pytest.mark.parametrize("cut", CUTS)
def test_messages_come_out_as_they_were_however_cut(cut: Cut) -> None:
    reader = MessageReader()
    found: list[Message] = []
    for piece in cut(STREAM):
        reader.feed(piece)
        while (message := reader.next()) is not None:
            found.append(message)
    assert [chr(message.type) for message in found] == ["Q", "S", "P", "X"]
    assert found[0].payload == b"select 1\0"
    assert found[1].payload == b""
    assert found[2].payload == b"s\0select $1\0\0\x01\0\0\0\x17"
    assert reader.rest() == b""


def test_what_was_not_taken_is_the_rest() -> None:
    reader = MessageReader()
    reader.feed(STREAM + b"Q\0\0")
    assert reader.next() == Message(ord("Q"), b"select 1\0")
    assert reader.rest() == STREAM[14:] + b"Q\0\0"


@pytest.mark.parametrize("length", [-(2**31), -1, 0, 3, 65537, 2**31 - 1])
def test_an_impossible_length_is_refused_as_soon_as_it_is_read(length: int) -> None:
    reader = MessageReader()
    reader.feed(b"Q" + length.to_bytes(4, "big", signed=True))
    with pytest.raises(ProtocolViolation, match="invalid message length") as caught:
        reader.next()
    assert caught.value.detail is not None
    assert 'type "Q"' in caught.value.detail
    assert str(length) in caught.value.detail


def test_a_length_that_is_too_long_is_refused_before_its_payload_arrives() -> None:
    reader = MessageReader(limit_bytes=10)
    reader.feed(b"Q\0\0\0\x0a123456")
    assert reader.next() == Message(ord("Q"), b"123456")
    reader.feed(b"Q\0\0\0\x0b")
    with pytest.raises(ProtocolViolation):
        reader.next()
    assert reader.next(limit_bytes=11) is None


def test_no_verdict_before_the_length_is_there() -> None:
    reader = MessageReader()
    reader.feed(b"Q\xff\xff\xff")
    assert reader.next() is None


def test_a_type_is_shown_as_a_person_reads_it() -> None:
    assert describe_type(ord("Q")) == '"Q"'
    assert describe_type(0) == "0x00"
