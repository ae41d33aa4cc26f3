"""How we log in to PostgreSQL: a conversation in which we are the client.

It begins when the connection stands (and its TLS, if any), and ends at the first ReadyForQuery. PostgreSQL decides who
may log in: its refusal comes out as a PostgresError, word for word. Where the method makes it prove something itself
(SCRAM), it is not believed before it did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pgamb.errors import FeatureNotSupported, InvalidAuthorization, PostgresError, ProtocolViolation
from pgamb.session.conversation import Conversation, Message, Send, receive
from pgamb.wire import constants as c
from pgamb.wire import messages
from pgamb.wire.reader import describe_type
from pgamb.wire.scram import ScramClient, ScramKeys

_UNSUPPORTED: Final = {c.AUTH_KERBEROS_V5: "Kerberos V5", c.AUTH_GSS: "GSSAPI", c.AUTH_SSPI: "SSPI"}
_PG_HBA_HINT: Final = "In the server's pg_hba.conf, give pgamb's connections the method scram-sha-256."


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a user logs in with; neither is needed where the server trusts us or asks for our certificate."""

    password: str | None = field(default=None, repr=False)
    scram_keys: ScramKeys | None = None


@dataclass(frozen=True, slots=True)
class Greeting:
    """What the server told at login.

    `secret` is the cancel key (empty, with pid 0, if the server gave none); `scram_keys` are the keys that the login
    was done with, so that the next one need not compute them from the password. `notices` are the
    NoticeResponse messages that came on the way.
    """

    parameters: dict[str, str]
    pid: int
    secret: bytes = field(repr=False)
    scram_keys: ScramKeys | None = None
    minor: int = 0
    notices: bytes = b""


def backend_login(
    user: str,
    database: str,
    credentials: Credentials,
    *,
    parameters: Mapping[str, str],
    nonce: str,
    minor: int = 0,
    channel_binding: bytes | None = None,
) -> Conversation[Greeting]:
    """Log in with protocol 3.`minor`, or what the server makes of it; `parameters` are further startup parameters.

    `nonce` is fresh and random, as for `scram_login`. `channel_binding` is the tls-server-end-point hash, over TLS.
    Raises PostgresError (refused), InvalidAuthorization (credentials of the wrong kind, or an impostor),
    FeatureNotSupported (a method that we do not have), ProtocolViolation.
    """
    extra = {name: value for name, value in parameters.items() if name not in ("user", "database")}
    yield Send(messages.startup_message({"user": user, "database": database, **extra}, minor))
    notices = bytearray()
    minor, scram_keys = yield from _authenticate(user, credentials, nonce, minor, channel_binding, notices)
    statuses: dict[str, str] = {}
    pid, secret = 0, b""
    while True:
        message = yield from _receive(notices)
        if message.type == c.PARAMETER_STATUS:
            name, value = messages.parse_parameter_status(message.payload)
            statuses[name] = value
        elif message.type == c.BACKEND_KEY_DATA:
            pid, secret = messages.parse_backend_key_data(message.payload)
        elif message.type == c.READY_FOR_QUERY:
            if message.payload != c.IDLE:
                raise ProtocolViolation("the server is ready for a query, but in a transaction that nobody began")
            return Greeting(statuses, pid, secret, scram_keys, minor, bytes(notices))
        else:
            raise _refusal(message, "after authentication")


def _receive(notices: bytearray) -> Conversation[Message]:
    """Ask for one message, and keep notices on the way: a collation that has changed, what an event trigger says."""
    while True:
        message = yield from receive()
        if message.type != c.NOTICE_RESPONSE:
            return message
        notices += messages.notice_of_fields(message.payload)


def md5_response(user: str, password: str, salt: bytes) -> str:
    """Compute the answer to AuthenticationMD5Password."""
    inner = hashlib.md5(messages.encode_text(password) + messages.encode_text(user), usedforsecurity=False).hexdigest()
    return "md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest()


def _authenticate(
    user: str, credentials: Credentials, nonce: str, minor: int, channel_binding: bytes | None, notices: bytearray
) -> Conversation[tuple[int, ScramKeys | None]]:
    """Answer what the server asks until it says AuthenticationOk; returns the minor version and the keys used."""
    keys: ScramKeys | None = None
    answered = False
    while True:
        message = yield from _receive(notices)
        if message.type == c.NEGOTIATE_PROTOCOL_VERSION:
            minor = _negotiated(message.payload, minor)
            continue
        if message.type != c.AUTHENTICATION:
            raise _refusal(message, "during authentication")
        code, rest = messages.parse_authentication(message.payload)
        if code == c.AUTH_OK:
            return minor, keys
        if answered:
            raise ProtocolViolation(f"the server asks for authentication {code} after another was answered")
        answered = True
        if code == c.AUTH_SASL:
            keys = yield from _scram(credentials, messages.parse_sasl_mechanisms(rest), nonce, channel_binding, notices)
        elif code == c.AUTH_CLEARTEXT_PASSWORD:
            yield Send(messages.password_message(_password(credentials, user, "a clear-text password")))
        elif code == c.AUTH_MD5_PASSWORD:
            if len(rest) != 4:
                raise ProtocolViolation("malformed AuthenticationMD5Password message")
            password = _password(credentials, user, "an MD5 password")
            yield Send(messages.password_message(md5_response(user, password, rest)))
        else:
            method = _UNSUPPORTED.get(code, f"authentication method {code}")
            raise FeatureNotSupported(f"the server asks for {method}, which pgamb does not speak", hint=_PG_HBA_HINT)


def _scram(
    credentials: Credentials, mechanisms: list[str], nonce: str, channel_binding: bytes | None, notices: bytearray
) -> Conversation[ScramKeys]:
    plus = channel_binding is not None and c.SCRAM_SHA_256_PLUS in mechanisms
    if not plus and c.SCRAM_SHA_256 not in mechanisms:
        raise FeatureNotSupported(
            f"the server offers only SASL mechanisms that pgamb does not speak: {', '.join(mechanisms)}",
            hint=_PG_HBA_HINT,
        )
    client = ScramClient(
        nonce=nonce,
        password=credentials.password,
        keys=credentials.scram_keys,
        channel_binding=channel_binding,
        plus=plus,
    )
    mechanism = c.SCRAM_SHA_256_PLUS if plus else c.SCRAM_SHA_256
    yield Send(messages.sasl_initial_response(mechanism, client.first()))
    server_first = yield from _sasl_data(c.AUTH_SASL_CONTINUE, notices)
    yield Send(messages.sasl_response(client.final(server_first)))
    client.verify((yield from _sasl_data(c.AUTH_SASL_FINAL, notices)))
    if client.keys is None:
        raise RuntimeError("a finished SCRAM exchange has keys")
    return client.keys


def _sasl_data(expected_code: int, notices: bytearray) -> Conversation[bytes]:
    message = yield from _receive(notices)
    if message.type != c.AUTHENTICATION:
        raise _refusal(message, "during SASL authentication")
    code, data = messages.parse_authentication(message.payload)
    if code != expected_code:
        raise ProtocolViolation(
            f"the server sent authentication {code} where SASL needs {expected_code}",
            detail="Without its proof it is not known to be the server that we want.",
        )
    return data


def _password(credentials: Credentials, user: str, wanted: str) -> str:
    if credentials.password is None:
        have = "only a SCRAM key" if credentials.scram_keys is not None else "no password"
        raise InvalidAuthorization(
            f'the server asks for {wanted} of user "{user}", but there is {have}',
            hint="Use scram-sha-256 in the server's pg_hba.conf, or let applications send passwords (--auth password).",
        )
    return credentials.password


def _negotiated(payload: bytes, minor: int) -> int:
    major, server_minor, unknown_options = messages.parse_negotiate_protocol_version(payload)
    if major != c.PROTOCOL_MAJOR or server_minor > minor:
        raise ProtocolViolation(f"the server answers protocol 3.{minor} with {major}.{server_minor}")
    if unknown_options:
        raise ProtocolViolation(f"the server refuses options that were not sent: {', '.join(unknown_options)}")
    return server_minor


def _refusal(message: Message, when: str) -> PostgresError | ProtocolViolation:
    if message.type == c.ERROR_RESPONSE:
        return PostgresError(messages.parse_error_fields(message.payload))
    return ProtocolViolation(f"unexpected message type {describe_type(message.type)} from the server {when}")
