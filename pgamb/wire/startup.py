"""The first packet of a connection: what a frontend wants, and with which parameters.

It has no type byte, so that it is read differently from all that follows: eight bytes first, of which
`startup_length` tells the length of the whole, then `parse_startup`. Errors are worded as PostgreSQL's own
(`ProcessStartupPacket`, `process_postgres_switches`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from pgamb.errors import (
    InvalidAuthorization,
    InvalidByteSequence,
    InvalidCommandLineOption,
    ProtocolViolation,
    UnsupportedProtocol,
)
from pgamb.wire import constants as c

_LENGTH_MIN: Final = 8
_LENGTH_MAX: Final = c.STARTUP_LIMIT_BYTES + 4
# What isspace() accepts in the C locale, in which PostgreSQL's pg_split_opts runs.
_SPACES: Final = frozenset(" \t\n\v\f\r")
_OPTION_PREFIX: Final = "_pq_."


@dataclass(frozen=True, slots=True)
class SSLRequest:
    """The frontend asks for TLS."""


@dataclass(frozen=True, slots=True)
class GSSENCRequest:
    """The frontend asks for GSSAPI encryption; answer `N`."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """The frontend asks to cancel what the session with this key runs; no answer is sent."""

    pid: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class StartupMessage:
    """A session is wanted; `parameters` always has `user` and `database`, and no `_pq_.` option."""

    minor: int
    parameters: dict[str, str]
    unknown_options: tuple[str, ...] = ()

    @property
    def negotiated_minor(self) -> int:
        """Tell the minor version to go on with: the requested one, or the newest that we know."""
        return min(self.minor, c.NEWEST_MINOR)

    @property
    def needs_negotiation(self) -> bool:
        """Tell whether NegotiateProtocolVersion must be sent before authentication."""
        return self.minor > c.NEWEST_MINOR or bool(self.unknown_options)


FirstPacket: TypeAlias = SSLRequest | GSSENCRequest | CancelRequest | StartupMessage


def startup_length(first8: bytes) -> int:
    """Tell the length of the whole first packet, length word included (8 to 10004), from its first 4 to 8 bytes."""
    if len(first8) < 4:
        raise ProtocolViolation("incomplete startup packet")
    length = int.from_bytes(first8[:4], "big")
    if not _LENGTH_MIN <= length <= _LENGTH_MAX:
        raise ProtocolViolation(
            "invalid length of startup packet",
            detail=f"It claims {length} bytes; a startup packet has {_LENGTH_MIN} to {_LENGTH_MAX}.",
            hint="This port speaks PostgreSQL's protocol; is the peer a PostgreSQL client?",
        )
    return length


def parse_startup(packet: bytes) -> FirstPacket:
    """Read a whole first packet, length word included.

    Raises ProtocolViolation, UnsupportedProtocol (another major version), InvalidAuthorization (no user) or
    InvalidByteSequence (text that is not UTF-8).
    """
    if len(packet) < _LENGTH_MIN or startup_length(packet) != len(packet):
        raise ProtocolViolation("incomplete startup packet")
    code = int.from_bytes(packet[4:8], "big")
    if code == c.CANCEL_REQUEST_CODE:
        return _parse_cancel(packet)
    if code in (c.SSL_REQUEST_CODE, c.GSSENC_REQUEST_CODE):
        if len(packet) != 8:
            raise ProtocolViolation("invalid length of encryption request packet")
        return SSLRequest() if code == c.SSL_REQUEST_CODE else GSSENCRequest()
    major, minor = code >> 16, code & 0xFFFF
    if major != c.PROTOCOL_MAJOR:
        raise unsupported_protocol(code)
    return _parse_parameters(packet[8:], minor)


def unsupported_protocol(code: int) -> UnsupportedProtocol:
    """Make the error for a version, or for a request that came when it could not be one any more."""
    return UnsupportedProtocol(
        code >> 16,
        f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: "
        f"server supports {c.PROTOCOL_MAJOR}.0 to {c.PROTOCOL_MAJOR}.{c.NEWEST_MINOR}",
    )


def parse_options(text: str) -> dict[str, str]:
    """Read the startup parameter `options`: setting name to value, later ones winning.

    Takes `-c name=value`, `-cname=value` and `--name=value`; a backslash keeps the character behind it, so that
    values can hold spaces. In a name, `-` stands for `_`, as in PostgreSQL. Raises InvalidCommandLineOption.
    """
    settings: dict[str, str] = {}
    words = iter(_split_options(text))
    for word in words:
        if word == "-c":
            assignment, switch = next(words, ""), "-c "
            if not assignment:
                raise InvalidCommandLineOption(
                    "invalid command-line argument for server process: -c", hint=_OPTIONS_HINT
                )
        elif word.startswith("-c"):
            assignment, switch = word[2:], "-c "
        elif word.startswith("--") and len(word) > 2:
            assignment, switch = word[2:], "--"
        elif word == "--" and (word := next(words, "")) == "":
            # It ends the switches, as everywhere in getopt(); nothing may stand behind it.
            break
        else:
            raise InvalidCommandLineOption(
                f"invalid command-line argument for server process: {word}", hint=_OPTIONS_HINT
            )
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise InvalidCommandLineOption(f"{switch}{assignment} requires a value", hint=_OPTIONS_HINT)
        settings[name.replace("-", "_")] = value
    return settings


_OPTIONS_HINT: Final = 'In "options", write "-c name=value" or "--name=value"; other server switches are not passed on.'


def _parse_cancel(packet: bytes) -> CancelRequest:
    key_bytes = len(packet) - 12
    if not c.CANCEL_KEY_MIN_BYTES <= key_bytes <= c.CANCEL_KEY_MAX_BYTES:
        raise ProtocolViolation("invalid length of cancel key in cancel request packet")
    return CancelRequest(int.from_bytes(packet[8:12], "big"), packet[12:])


def _parse_parameters(body: bytes, minor: int) -> StartupMessage:
    parameters: dict[str, str] = {}
    unknown: list[str] = []
    position = 0
    while position < len(body) and body[position]:
        name_end = body.find(b"\0", position)
        value_end = body.find(b"\0", name_end + 1) if name_end >= 0 else -1
        if value_end < 0:
            raise _no_terminator()
        name = _text(body[position:name_end])
        if name.startswith(_OPTION_PREFIX):
            unknown.append(name)
        else:
            parameters[name] = _value(name, body[name_end + 1 : value_end])
        position = value_end + 1
    if position != len(body) - 1:
        raise _no_terminator()
    user = parameters.get("user")
    if not user:
        raise InvalidAuthorization("no PostgreSQL user name specified in startup packet")
    parameters["database"] = parameters.get("database") or user
    return StartupMessage(minor, parameters, tuple(unknown))


def _no_terminator() -> ProtocolViolation:
    return ProtocolViolation("invalid startup packet layout: expected terminator as last byte")


def _value(name: str, data: bytes) -> str:
    if name == "application_name":
        # It is shown, never compared: PostgreSQL too keeps such a session and writes the bytes as \xNN.
        return data.decode("utf-8", "backslashreplace")
    return _text(data)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        culprit = " ".join(f"0x{byte:02x}" for byte in data[error.start : max(error.end, error.start + 1)])
        raise InvalidByteSequence(
            f'invalid byte sequence for encoding "UTF8": {culprit}',
            hint="User, database and startup parameters must be written in UTF-8.",
        ) from None


def _split_options(text: str) -> list[str]:
    """Split as pg_split_opts does: at white space, a backslash keeping the character behind it."""
    words: list[str] = []
    word: list[str] | None = None
    characters = iter(text)
    for character in characters:
        if character in _SPACES:
            if word is not None:
                words.append("".join(word))
            word = None
            continue
        word = [] if word is None else word
        word.append(next(characters, "") if character == "\\" else character)
    if word is not None:
        words.append("".join(word))
    return words
