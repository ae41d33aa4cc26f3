"""Messages to bytes, and payloads to values, for both ends of a connection.

Builders give whole messages, type byte and length included, and never fail on what a peer sent: text that is not
UTF-8 travels as surrogate escapes and comes out as the bytes that came in. Parsers take a payload (what stands
behind the length word) and raise ProtocolViolation, nothing else, on one that is cut short or makes no sense.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

from pgamb.errors import PgambError, PostgresError, ProtocolViolation, UnsupportedProtocol
from pgamb.wire import constants as c
from pgamb.wire.reader import Message as Message
from pgamb.wire.reader import MessageReader as MessageReader

Severity = Literal["ERROR", "FATAL", "PANIC", "WARNING", "NOTICE", "DEBUG", "INFO", "LOG"]

_INT16: Final = struct.Struct("!H")
_INT32: Final = struct.Struct("!i")
_HEADER: Final = struct.Struct("!Bi")
_MAX_INT16: Final = 0xFFFF


# --- what a backend says -----------------------------------------------------------------------------------------


def authentication_ok() -> bytes:
    """Build AuthenticationOk."""
    return _authentication(c.AUTH_OK)


def authentication_cleartext_password() -> bytes:
    """Build AuthenticationCleartextPassword."""
    return _authentication(c.AUTH_CLEARTEXT_PASSWORD)


def authentication_sasl(mechanisms: Iterable[str]) -> bytes:
    """Build AuthenticationSASL, the best mechanism first."""
    return _authentication(c.AUTH_SASL, b"".join(map(_cstring, mechanisms)) + b"\0")


def authentication_sasl_continue(data: bytes) -> bytes:
    """Build AuthenticationSASLContinue."""
    return _authentication(c.AUTH_SASL_CONTINUE, data)


def authentication_sasl_final(data: bytes) -> bytes:
    """Build AuthenticationSASLFinal."""
    return _authentication(c.AUTH_SASL_FINAL, data)


def parameter_statuses(parameters: Mapping[str, str]) -> bytes:
    """Make one ParameterStatus for each."""
    return b"".join(parameter_status(name, value) for name, value in parameters.items())


def parameter_status(name: str, value: str) -> bytes:
    """Build ParameterStatus."""
    return _message(c.PARAMETER_STATUS, _cstring(name) + _cstring(value))


def backend_key_data(pid: int, secret: bytes) -> bytes:
    """Build BackendKeyData; the secret has exactly 4 bytes in protocol 3.0, and 4 to 256 in 3.2."""
    return _message(c.BACKEND_KEY_DATA, _process_id(pid) + secret)


def ready_for_query(status: bytes = c.IDLE) -> bytes:
    """Build ReadyForQuery with transaction status `I`, `T` or `E`."""
    return _message(c.READY_FOR_QUERY, status)


def command_complete(tag: str) -> bytes:
    """Build CommandComplete."""
    return _message(c.COMMAND_COMPLETE, _cstring(tag))


def negotiate_protocol_version(minor: int, unknown_options: Iterable[str]) -> bytes:
    """Build NegotiateProtocolVersion: the version to go on with, and the `_pq_.` options we do not know.

    Some releases' manuals say that the number is the minor version alone; servers send, and libpq reads, all 32 bits.
    """
    names = [_cstring(name) for name in unknown_options]
    version = (c.PROTOCOL_MAJOR << 16) | minor
    return _message(c.NEGOTIATE_PROTOCOL_VERSION, _INT32.pack(version) + _INT32.pack(len(names)) + b"".join(names))


def error_response(error: PgambError, severity: Severity | None = None) -> bytes:
    """Build ErrorResponse from an error.

    A PostgresError is passed on word for word, with its own severity unless another is asked for; the default is ERROR.
    """
    if isinstance(error, UnsupportedProtocol) and error.major < c.PROTOCOL_MAJOR:
        # Whoever speaks protocol 2 knows no fields, and no lengths.
        return bytes([c.ERROR_RESPONSE]) + _cstring(f"{severity or 'ERROR'}:  {error.message}\n")
    return _message(c.ERROR_RESPONSE, _error_fields(error, severity, "ERROR"))


def notice_response(notice: PgambError, severity: Severity | None = None) -> bytes:
    """Build NoticeResponse; as `error_response`, with the default WARNING."""
    return _message(c.NOTICE_RESPONSE, _error_fields(notice, severity, "WARNING"))


# --- what a frontend says ----------------------------------------------------------------------------------------


def notice_of_fields(fields: bytes) -> bytes:
    """Make a NoticeResponse of the payload of another one."""
    return _message(c.NOTICE_RESPONSE, fields)


def startup_message(parameters: Mapping[str, str], minor: int = 0) -> bytes:
    """Build StartupMessage for protocol 3.`minor`; `parameters` must name the `user`."""
    pairs = b"".join(_cstring(name) + _cstring(value) for name, value in parameters.items())
    body = _INT32.pack((c.PROTOCOL_MAJOR << 16) | minor) + pairs + b"\0"
    if len(body) > c.STARTUP_LIMIT_BYTES:
        raise ProtocolViolation(
            "startup parameters are too long",
            detail=f"They take {len(body)} bytes; PostgreSQL accepts {c.STARTUP_LIMIT_BYTES}.",
        )
    return _INT32.pack(len(body) + 4) + body


def ssl_request() -> bytes:
    """Build SSLRequest."""
    return _INT32.pack(8) + _INT32.pack(c.SSL_REQUEST_CODE)


def gssenc_request() -> bytes:
    """Build GSSENCRequest."""
    return _INT32.pack(8) + _INT32.pack(c.GSSENC_REQUEST_CODE)


def cancel_request(pid: int, secret: bytes) -> bytes:
    """Build CancelRequest with the key of BackendKeyData."""
    return _INT32.pack(12 + len(secret)) + _INT32.pack(c.CANCEL_REQUEST_CODE) + _process_id(pid) + secret


def password_message(password: str | bytes) -> bytes:
    """Build PasswordMessage: a clear password, or the `md5...` answer."""
    return _message(c.PASSWORD_MESSAGE, _cstring(password))


def sasl_initial_response(mechanism: str, data: bytes | None) -> bytes:
    """Build SASLInitialResponse; None is "no initial response", which differs from an empty one."""
    length = -1 if data is None else len(data)
    return _message(c.PASSWORD_MESSAGE, _cstring(mechanism) + _INT32.pack(length) + (data or b""))


def sasl_response(data: bytes) -> bytes:
    """Build SASLResponse."""
    return _message(c.PASSWORD_MESSAGE, data)


def query(sql: str | bytes) -> bytes:
    """Build Query."""
    return _message(c.QUERY, _cstring(sql))


def parse(name: str, sql: str | bytes, oids: Sequence[int] = ()) -> bytes:
    """Build Parse; the empty name is the unnamed statement."""
    types = b"".join(oid.to_bytes(4, "big") for oid in oids)
    return _message(c.PARSE, _cstring(name) + _cstring(sql) + _count(len(oids)) + types)


def bind(
    portal: str,
    statement: str,
    values: Sequence[bytes | None] = (),
    *,
    value_formats: Sequence[int] = (),
    result_formats: Sequence[int] = (),
) -> bytes:
    """Build Bind; formats are 0 (text) or 1 (binary): none for all text, one for all, or one each."""
    body = [_cstring(portal), _cstring(statement), _count(len(value_formats))]
    body += map(_INT16.pack, value_formats)
    body.append(_count(len(values)))
    for value in values:
        body.append(_INT32.pack(-1) if value is None else _INT32.pack(len(value)) + value)
    body.append(_count(len(result_formats)))
    body += map(_INT16.pack, result_formats)
    return _message(c.BIND, b"".join(body))


def describe(kind: bytes, name: str) -> bytes:
    """Build Describe of a `constants.STATEMENT` or `constants.PORTAL`."""
    return _message(c.DESCRIBE, kind + _cstring(name))


def close(kind: bytes, name: str) -> bytes:
    """Build Close of a `constants.STATEMENT` or `constants.PORTAL`."""
    return _message(c.CLOSE, kind + _cstring(name))


def execute(portal: str, row_limit: int = 0) -> bytes:
    """Build Execute; a limit of 0 means all rows."""
    return _message(c.EXECUTE, _cstring(portal) + _INT32.pack(row_limit))


def copy_fail(reason: str) -> bytes:
    """Build CopyFail."""
    return _message(c.COPY_FAIL, _cstring(reason))


def flush() -> bytes:
    """Build Flush."""
    return _message(c.FLUSH)


def sync() -> bytes:
    """Build Sync."""
    return _message(c.SYNC)


def terminate() -> bytes:
    """Build Terminate."""
    return _message(c.TERMINATE)


# --- payloads to values ------------------------------------------------------------------------------------------


def parse_error_fields(payload: bytes) -> dict[str, str]:
    """Read ErrorResponse or NoticeResponse: field letter to text.

    Any field may be missing, the terminator too: what an error says is worth more than its form. Bytes that are not
    UTF-8 become surrogate escapes; `PostgresError.message` shows them as `\\xNN`.
    """
    fields: dict[str, str] = {}
    for field in payload.split(b"\0"):
        if not field:
            break
        if field[0] < 0x80:
            fields[chr(field[0])] = decode_text(field[1:])
    return fields


def parse_parameter_status(payload: bytes) -> tuple[str, str]:
    """Read ParameterStatus: name and value."""
    parts = payload.split(b"\0")
    if len(parts) != 3 or parts[2]:
        raise _malformed("ParameterStatus")
    return decode_text(parts[0]), decode_text(parts[1])


def parse_backend_key_data(payload: bytes) -> tuple[int, bytes]:
    """Read BackendKeyData: process id and secret key (of any length that some protocol version has)."""
    if not c.CANCEL_KEY_MIN_BYTES <= len(payload) - 4 <= c.CANCEL_KEY_MAX_BYTES:
        raise _malformed("BackendKeyData")
    return int.from_bytes(payload[:4], "big"), payload[4:]


def parse_authentication(payload: bytes) -> tuple[int, bytes]:
    """Read AuthenticationXXX: its code and what follows."""
    if len(payload) < 4:
        raise _malformed("Authentication")
    return int.from_bytes(payload[:4], "big"), payload[4:]


def parse_sasl_mechanisms(rest: bytes) -> list[str]:
    """Read the mechanism names of AuthenticationSASL (what `parse_authentication` left)."""
    if not rest.endswith(b"\0"):
        raise _malformed("AuthenticationSASL")
    return [decode_text(name) for name in rest.split(b"\0") if name]


def parse_negotiate_protocol_version(payload: bytes) -> tuple[int, int, tuple[str, ...]]:
    """Read NegotiateProtocolVersion: major, minor, and the options that the server did not know."""
    if len(payload) < 8:
        raise _malformed("NegotiateProtocolVersion")
    version, count = struct.unpack_from("!Ii", payload)
    names = payload[8:].split(b"\0")
    if count < 0 or names.pop() or len(names) != count:
        raise _malformed("NegotiateProtocolVersion")
    return version >> 16, version & 0xFFFF, tuple(map(decode_text, names))


def parse_row_description(payload: bytes) -> list[str]:
    """Read RowDescription: the column names."""
    if len(payload) < 2:
        raise _malformed("RowDescription")
    names: list[str] = []
    position = 2
    for _ in range(_INT16.unpack_from(payload)[0]):
        end = payload.find(b"\0", position)
        if end < 0:
            raise _malformed("RowDescription")
        names.append(decode_text(payload[position:end]))
        position = end + 1 + 18  # table oid, column number, type oid, type size, type modifier, format
    if position != len(payload):
        raise _malformed("RowDescription")
    return names


def parse_data_row(payload: bytes) -> list[bytes | None]:
    """Read DataRow: each column's bytes, None for NULL."""
    if len(payload) < 2:
        raise _malformed("DataRow")
    values: list[bytes | None] = []
    position = 2
    for _ in range(_INT16.unpack_from(payload)[0]):
        if position + 4 > len(payload):
            raise _malformed("DataRow")
        (length,) = _INT32.unpack_from(payload, position)
        position += 4
        if length == -1:
            values.append(None)
        elif 0 <= length <= len(payload) - position:
            values.append(payload[position : position + length])
            position += length
        else:
            raise _malformed("DataRow")
    if position != len(payload):
        raise _malformed("DataRow")
    return values


# --- text --------------------------------------------------------------------------------------------------------


def encode_text(text: str) -> bytes:
    """Undo `decode_text`; what no encoding can say (a lone surrogate of another kind) becomes `?`."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def decode_text(data: bytes) -> str:
    """Decode UTF-8 so that `encode_text` gives the same bytes back, whatever they were."""
    return data.decode("utf-8", "surrogateescape")


def _message(type_byte: int, body: bytes = b"") -> bytes:
    return _HEADER.pack(type_byte, len(body) + 4) + body


def _authentication(code: int, rest: bytes = b"") -> bytes:
    return _message(c.AUTHENTICATION, _INT32.pack(code) + rest)


def _cstring(text: str | bytes) -> bytes:
    data = encode_text(text) if isinstance(text, str) else text
    if b"\0" in data:
        raise ProtocolViolation("text contains a zero byte, which PostgreSQL's protocol cannot carry")
    return data + b"\0"


def _count(number: int) -> bytes:
    if number > _MAX_INT16:
        raise ProtocolViolation(f"a message can carry {_MAX_INT16} values at most, not {number}")
    return _INT16.pack(number)


def _process_id(pid: int) -> bytes:
    return (pid & 0xFFFF_FFFF).to_bytes(4, "big")


def _error_fields(error: PgambError, severity: Severity | None, default: Severity) -> bytes:
    if isinstance(error, PostgresError):
        fields = dict(error.fields)
        if severity is not None and fields.get("V", fields.get("S")) != severity:
            fields |= {"S": severity, "V": severity}
        required = {"S": fields.get("V", default), "C": error.sqlstate, "M": error.message}
        fields = {letter: text for letter, text in required.items() if letter not in fields} | fields
    else:
        word = severity or default
        fields = {"S": word, "V": word, "C": error.sqlstate, "M": error.message}
        fields |= {letter: text for letter, text in (("D", error.detail), ("H", error.hint)) if text}
    # A zero byte would end the field, and the reader would take the rest for another one.
    body = [encode_text(letter + text.replace("\0", "")) + b"\0" for letter, text in fields.items() if len(letter) == 1]
    return b"".join(body) + b"\0"


def _malformed(name: str) -> ProtocolViolation:
    return ProtocolViolation(f"malformed {name} message")
