"""Builders give the bytes of PostgreSQL's manual; parsers read them back, and refuse what is cut short."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pgamb.errors import ConfigError, InvalidPassword, PostgresError, ProtocolViolation
from pgamb.wire import constants as c
from pgamb.wire import messages


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (messages.authentication_ok(), b"R\0\0\0\x08\0\0\0\0"),
        (messages.authentication_cleartext_password(), b"R\0\0\0\x08\0\0\0\x03"),
        (messages.authentication_sasl(["SCRAM-SHA-256"]), b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"),
        (messages.authentication_sasl_continue(b"r=x"), b"R\0\0\0\x0b\0\0\0\x0br=x"),
        (messages.authentication_sasl_final(b"v=x"), b"R\0\0\0\x0b\0\0\0\x0cv=x"),
        (messages.parameter_status("TimeZone", "UTC"), b"S\0\0\0\x11TimeZone\0UTC\0"),
        (messages.backend_key_data(1, b"abcd"), b"K\0\0\0\x0c\0\0\0\x01abcd"),
        (messages.backend_key_data(2**31, b"abcd"), b"K\0\0\0\x0c\x80\0\0\0abcd"),
        (messages.ready_for_query(), b"Z\0\0\0\x05I"),
        (messages.ready_for_query(c.IN_FAILED_TRANSACTION), b"Z\0\0\0\x05E"),
        (messages.command_complete("SELECT 1"), b"C\0\0\0\x0dSELECT 1\0"),
        (messages.negotiate_protocol_version(2, []), b"v\0\0\0\x0c\0\x03\0\x02\0\0\0\0"),
        (messages.negotiate_protocol_version(0, ["_pq_.a"]), b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.a\0"),
        (messages.startup_message({"user": "a"}), b"\0\0\0\x10\0\x03\0\0user\0a\0\0"),
        (messages.startup_message({"user": "a"}, minor=2), b"\0\0\0\x10\0\x03\0\x02user\0a\0\0"),
        (messages.ssl_request(), b"\0\0\0\x08\x04\xd2\x16\x2f"),
        (messages.gssenc_request(), b"\0\0\0\x08\x04\xd2\x16\x30"),
        (messages.cancel_request(1, b"abcd"), b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd"),
        (messages.password_message("pw"), b"p\0\0\0\x07pw\0"),
        (messages.sasl_initial_response("M", b"x"), b"p\0\0\0\x0bM\0\0\0\0\x01x"),
        (messages.sasl_initial_response("M", None), b"p\0\0\0\x0aM\0\xff\xff\xff\xff"),
        (messages.sasl_response(b"x"), b"p\0\0\0\x05x"),
        (messages.query("select 1"), b"Q\0\0\0\x0dselect 1\0"),
        (messages.parse("s", "q", [23]), b"P\0\0\0\x0es\0q\0\0\x01\0\0\0\x17"),
        (
            messages.bind("p", "s", [b"ab", None], value_formats=[1], result_formats=[0, 1]),
            b"B\0\0\0\x1ep\0s\0\0\x01\0\x01\0\x02\0\0\0\x02ab\xff\xff\xff\xff\0\x02\0\0\0\x01",
        ),
        (messages.describe(c.STATEMENT, "s"), b"D\0\0\0\x07Ss\0"),
        (messages.describe(c.PORTAL, ""), b"D\0\0\0\x06P\0"),
        (messages.close(c.STATEMENT, "s"), b"C\0\0\0\x07Ss\0"),
        (messages.execute("", 5), b"E\0\0\0\x09\0\0\0\0\x05"),
        (messages.copy_fail("no"), b"f\0\0\0\x07no\0"),
        (messages.flush(), b"H\0\0\0\x04"),
        (messages.sync(), b"S\0\0\0\x04"),
        (messages.terminate(), b"X\0\0\0\x04"),
    ],
)
def test_built_as_the_manual_says(built: bytes, expected: bytes) -> None:
    assert built == expected


def test_a_zero_byte_cannot_smuggle_a_second_string_in() -> None:
    with pytest.raises(ProtocolViolation, match="zero byte"):
        messages.query("select 1\0drop")
    with pytest.raises(ProtocolViolation, match="zero byte"):
        messages.startup_message({"user": "a\0replication"})


def test_more_values_than_a_message_can_carry_are_refused() -> None:
    with pytest.raises(ProtocolViolation, match="65535 values"):
        messages.bind("", "", [None] * 65536)


def test_startup_parameters_that_postgresql_would_refuse_for_length_are_not_sent() -> None:
    with pytest.raises(ProtocolViolation, match="too long"):
        messages.startup_message({"user": "a", "options": "x" * 10_000})


def test_an_error_of_ours_says_all_it_knows() -> None:
    error = InvalidPassword("no", hint="try again", detail="really")
    assert messages.error_response(error, severity="FATAL") == (
        b"E\0\0\0\x31SFATAL\0VFATAL\0C28P01\0Mno\0Dreally\0Htry again\0\0"
    )
    assert messages.error_response(ConfigError("x")) == b"E\0\0\0\x1dSERROR\0VERROR\0CF0000\0Mx\0\0"
    assert messages.notice_response(ConfigError("x")) == b"N\0\0\0\x21SWARNING\0VWARNING\0CF0000\0Mx\0\0"


def test_an_error_of_postgresql_is_passed_on_word_for_word() -> None:
    payload = b"SFEHLER\0VERROR\0C42P01\0Mgr\xfc\xdfe\0P15\0Fparse.c\0\0"
    error = PostgresError(messages.parse_error_fields(payload))
    assert messages.error_response(error)[5:] == payload
    assert messages.error_response(error, severity="ERROR")[5:] == payload
    assert messages.error_response(error, severity="FATAL")[5:] == (
        b"SFATAL\0VFATAL\0C42P01\0Mgr\xfc\xdfe\0P15\0Fparse.c\0\0"
    )
    assert error.message == "gr\\xfc\\xdfe"
    assert error.sqlstate == "42P01"


def test_an_error_may_lack_any_field() -> None:
    for payload in (b"", b"\0", b"S", b"Mtext", b"\xff\xff\0\0"):
        error = PostgresError(messages.parse_error_fields(payload))
        assert error.sqlstate == "XX000"
        fields = messages.parse_error_fields(messages.error_response(error)[5:])
        assert fields.keys() >= {"S", "C", "M"}
    assert PostgresError(messages.parse_error_fields(b"C\xe9\0\0")).sqlstate == "XX000"


def test_a_zero_byte_in_our_own_message_does_not_make_a_field() -> None:
    fields = messages.parse_error_fields(messages.error_response(ConfigError("a\0Cfalse"))[5:])
    assert fields == {"S": "ERROR", "V": "ERROR", "C": "F0000", "M": "aCfalse"}


def test_payloads_are_read_back() -> None:
    assert messages.parse_parameter_status(b"a\0b\0") == ("a", "b")
    assert messages.parse_backend_key_data(b"\xff\0\0\x01abcd") == (0xFF000001, b"abcd")
    assert messages.parse_backend_key_data(b"\0\0\0\x01" + bytes(256)) == (1, bytes(256))
    assert messages.parse_authentication(b"\0\0\0\x05salt") == (5, b"salt")
    assert messages.parse_sasl_mechanisms(b"A\0B\0\0") == ["A", "B"]
    assert messages.parse_negotiate_protocol_version(b"\0\x03\0\x02\0\0\0\x02a\0b\0") == (3, 2, ("a", "b"))
    column = b"\0" * 18
    assert messages.parse_row_description(b"\0\x02a\0" + column + b"b\0" + column) == ["a", "b"]
    assert messages.parse_data_row(b"\0\x03\0\0\0\x01x\xff\xff\xff\xff\0\0\0\0") == [b"x", None, b""]


@pytest.mark.parametrize(
    ("parse", "payload"),
    [
        (messages.parse_parameter_status, b"a\0b\0"),
        (messages.parse_backend_key_data, b"\0\0\0\x01abcd"),
        (messages.parse_authentication, b"\0\0\0\x00"),
        (messages.parse_sasl_mechanisms, b"A\0"),
        (messages.parse_negotiate_protocol_version, b"\0\x03\0\x02\0\0\0\x01a\0"),
        (messages.parse_row_description, b"\0\x01a\0" + b"\0" * 18),
        (messages.parse_data_row, b"\0\x01\0\0\0\x01x"),
    ],
)
def test_every_truncation_of_a_payload_is_refused(parse: Callable[[bytes], object], payload: bytes) -> None:
    parse(payload)
    for end in range(len(payload)):
        with pytest.raises(ProtocolViolation, match="malformed"):
            parse(payload[:end])


@pytest.mark.parametrize("payload", [b"\0\x01\xff\xff\xff\xfe", b"\0\x01\x7f\xff\xff\xff", b"\0\0extra"])
def test_a_row_with_impossible_lengths_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="malformed DataRow"):
        messages.parse_data_row(payload)


def test_a_cancel_key_of_impossible_length_is_refused() -> None:
    for secret in (b"", b"abc", bytes(257)):
        with pytest.raises(ProtocolViolation, match="malformed BackendKeyData"):
            messages.parse_backend_key_data(b"\0\0\0\x01" + secret)
