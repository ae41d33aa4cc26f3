"""The first packet: every kind of it, every way to get it wrong, in PostgreSQL's words."""

from __future__ import annotations

import pytest

from pgamb.errors import (
    FeatureNotSupported,
    InvalidAuthorization,
    InvalidByteSequence,
    InvalidCommandLineOption,
    PgambError,
    ProtocolViolation,
)
from pgamb.wire import messages
from pgamb.wire.startup import (
    CancelRequest,
    GSSENCRequest,
    SSLRequest,
    StartupMessage,
    parse_options,
    parse_startup,
    startup_length,
)


def packet(body: bytes, code: int = 0x30000) -> bytes:
    return (len(body) + 8).to_bytes(4, "big") + code.to_bytes(4, "big") + body


def test_requests_without_parameters() -> None:
    assert parse_startup(messages.ssl_request()) == SSLRequest()
    assert parse_startup(messages.gssenc_request()) == GSSENCRequest()


@pytest.mark.parametrize("secret", [b"abcd", bytes(32), bytes(256)])
def test_a_cancel_request_carries_a_key_of_any_length_that_a_version_has(secret: bytes) -> None:
    assert parse_startup(messages.cancel_request(2**31 + 1, secret)) == CancelRequest(2**31 + 1, secret)


@pytest.mark.parametrize("secret", [b"", b"abc", bytes(257)])
def test_a_cancel_key_of_another_length_is_refused(secret: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="invalid length of cancel key"):
        parse_startup(messages.cancel_request(1, secret))


def test_a_startup_message() -> None:
    found = parse_startup(messages.startup_message({"user": "ann", "database": "shop", "application_name": "x"}))
    assert found == StartupMessage(0, {"user": "ann", "database": "shop", "application_name": "x"})
    assert not found.needs_negotiation


@pytest.mark.parametrize("parameters", [{"user": "ann"}, {"user": "ann", "database": ""}])
def test_the_database_is_named_like_the_user_unless_told(parameters: dict[str, str]) -> None:
    found = parse_startup(messages.startup_message(parameters))
    assert isinstance(found, StartupMessage)
    assert found.parameters["database"] == "ann"


def test_the_last_of_two_values_counts() -> None:
    found = parse_startup(packet(b"user\0a\0user\0b\0\0"))
    assert isinstance(found, StartupMessage)
    assert found.parameters["user"] == "b"


@pytest.mark.parametrize(
    ("minor", "negotiated", "needs"), [(0, 0, False), (1, 1, False), (2, 2, False), (3, 2, True), (9999, 2, True)]
)
def test_any_minor_version_is_welcome_and_negotiated_where_we_do_not_know_it(
    minor: int, negotiated: int, needs: bool
) -> None:
    found = parse_startup(messages.startup_message({"user": "ann"}, minor))
    assert isinstance(found, StartupMessage)
    assert (found.minor, found.negotiated_minor, found.needs_negotiation) == (minor, negotiated, needs)


def test_protocol_options_are_told_apart_from_parameters() -> None:
    found = parse_startup(messages.startup_message({"user": "ann", "_pq_.new": "1", "_pq_.other": ""}))
    assert isinstance(found, StartupMessage)
    assert found.unknown_options == ("_pq_.new", "_pq_.other")
    assert found.parameters == {"user": "ann", "database": "ann"}
    assert found.needs_negotiation


@pytest.mark.parametrize(
    ("code", "name"), [(0x20000, "2.0"), (0x40000, "4.0"), (0, "0.0"), (0x47455420, "18245.21536")]
)
def test_another_major_version_is_refused_as_postgresql_does(code: int, name: str) -> None:
    with pytest.raises(FeatureNotSupported) as caught:
        parse_startup(packet(b"user\0a\0\0", code))
    assert caught.value.message == f"unsupported frontend protocol {name}: server supports 3.0 to 3.2"
    assert caught.value.sqlstate == "0A000"


@pytest.mark.parametrize(
    "body",
    [b"", b"user", b"user\0", b"user\0a", b"user\0a\0", b"user\0a\0\0x", b"user\0a\0\0\0", b"user\0a\0x\0", b"\0\0"],
)
def test_a_packet_without_its_terminator_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolViolation) as caught:
        parse_startup(packet(body))
    assert caught.value.message == "invalid startup packet layout: expected terminator as last byte"
    assert caught.value.sqlstate == "08P01"


@pytest.mark.parametrize("body", [b"\0", b"user\0\0\0", b"database\0d\0\0"])
def test_a_user_must_be_named(body: bytes) -> None:
    with pytest.raises(InvalidAuthorization) as caught:
        parse_startup(packet(body))
    assert caught.value.message == "no PostgreSQL user name specified in startup packet"
    assert caught.value.sqlstate == "28000"


@pytest.mark.parametrize("length", [0, 3, 7, 10_005, 2**31 - 1, 2**32 - 1, 0x47455420])
def test_a_packet_of_impossible_length_is_refused(length: int) -> None:
    with pytest.raises(ProtocolViolation, match="invalid length of startup packet"):
        startup_length(length.to_bytes(4, "big") + b"\0\x03\0\0")


def test_the_limits_of_a_packet_are_those_of_postgresql() -> None:
    assert startup_length((8).to_bytes(4, "big")) == 8
    assert startup_length((10_004).to_bytes(4, "big")) == 10_004
    with pytest.raises(ProtocolViolation, match="incomplete"):
        startup_length(b"\0\0\0")


def test_every_truncation_is_refused() -> None:
    good = messages.startup_message({"user": "ann", "options": "-c a=b"})
    for end in range(len(good)):
        with pytest.raises(ProtocolViolation):
            parse_startup(good[:end])
        if end >= 8:
            with pytest.raises(ProtocolViolation):
                parse_startup(packet(good[8:end]))


@pytest.mark.parametrize("request_", [messages.ssl_request(), messages.gssenc_request()])
def test_nothing_rides_along_with_an_encryption_request(request_: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        parse_startup((9).to_bytes(4, "big") + request_[4:] + b"x")


def test_names_must_be_utf8_but_an_application_name_is_only_shown() -> None:
    with pytest.raises(InvalidByteSequence) as caught:
        parse_startup(packet(b"user\0gr\xfcn\0\0"))
    assert caught.value.message == 'invalid byte sequence for encoding "UTF8": 0xfc'
    assert caught.value.sqlstate == "22021"
    found = parse_startup(packet(b"user\0a\0application_name\0gr\xfcn\0\0"))
    assert isinstance(found, StartupMessage)
    assert found.parameters["application_name"] == "gr\\xfcn"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("  \t\n", {}),
        ("-c geqo=off", {"geqo": "off"}),
        ("-cgeqo=off", {"geqo": "off"}),
        ("--geqo=off", {"geqo": "off"}),
        ("  -c   geqo=off  --work-mem=4MB ", {"geqo": "off", "work_mem": "4MB"}),
        (r"-c search_path=a,\ b", {"search_path": "a, b"}),
        (r"-c application_name=a\\b", {"application_name": "a\\b"}),
        (r"-c\ geqo=off", {" geqo": "off"}),
        ("-c a.b=c=d", {"a.b": "c=d"}),
        ("-c a=", {"a": ""}),
        ("-c a=1 -c a=2", {"a": "2"}),
        ("-c a=x\\", {"a": "x"}),
        ("-c a=x --", {"a": "x"}),
        ("-c\u00a0a=x", {"\u00a0a": "x"}),  # a space in Unicode, not in the C locale
    ],
)
def test_options_are_read_as_postgresql_reads_them(text: str, expected: dict[str, str]) -> None:
    assert parse_options(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-c", "invalid command-line argument for server process: -c"),
        ("-c geqo", "-c geqo requires a value"),
        ("-cgeqo", "-c geqo requires a value"),
        ("--geqo", "--geqo requires a value"),
        ("--=x", "--=x requires a value"),
        ("-- -c geqo=off", "invalid command-line argument for server process: -c"),
        ("-c a=b -- geqo=off", "invalid command-line argument for server process: geqo=off"),
        ("-", "invalid command-line argument for server process: -"),
        ("-x", "invalid command-line argument for server process: -x"),
        ("-S 100", "invalid command-line argument for server process: -S"),
        ("geqo=off", "invalid command-line argument for server process: geqo=off"),
    ],
)
def test_options_that_are_no_settings_are_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidCommandLineOption) as caught:
        parse_options(text)
    assert caught.value.message == message
    assert caught.value.sqlstate == "42601"
    assert caught.value.hint


def test_every_error_is_one_of_ours() -> None:
    with pytest.raises(PgambError):
        parse_startup(b"")
