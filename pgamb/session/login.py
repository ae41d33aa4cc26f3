"""How an application logs in to us: conversations in which we are the server.

They begin when the startup packet has been read (and NegotiateProtocolVersion sent, if it must be), and end before
AuthenticationOk: whether the login is believed is for the caller to say, who may still ask PostgreSQL. Errors are
worded as PostgreSQL's; the caller sends them as FATAL.
"""

from __future__ import annotations

from pgamb.errors import InvalidPassword, ProtocolViolation
from pgamb.session.conversation import Conversation, Message, Send, receive
from pgamb.wire import constants as c
from pgamb.wire import messages
from pgamb.wire.reader import describe_type
from pgamb.wire.scram import ScramKeys, ScramServer, ScramVerifier


def password_login() -> Conversation[str]:
    """Ask for the password in clear text; returns it, unchecked. Only for connections that nobody can listen to.

    Bytes that are not UTF-8 come as surrogate escapes, which `messages.password_message` turns back.
    """
    yield Send(messages.authentication_cleartext_password())
    message = yield from _password_message("password response")
    password = message.payload
    if not password or password.find(b"\0") != len(password) - 1:
        raise ProtocolViolation("invalid password packet size")
    if len(password) == 1:
        # As PostgreSQL: some authentication methods behind it take an empty password for "no check, please".
        raise InvalidPassword("empty password returned by client")
    return messages.decode_text(password[:-1])


def scram_login(verifier: ScramVerifier | None, *, user: str, nonce: str, mock_key: bytes) -> Conversation[ScramKeys]:
    """Check by SCRAM-SHA-256 that the application knows the password; returns keys to log in to PostgreSQL with.

    `verifier` is None for a user that does not exist or has none: the exchange is the same, and fails at its end.
    `nonce` is fresh and random (printable ASCII, no comma; 18 random bytes in base64 are PostgreSQL's measure).
    `mock_key` is random, and stays the same for as long as it can. Raises InvalidPassword, ProtocolViolation.
    """
    server = ScramServer(verifier, user=user, nonce=nonce, mock_key=mock_key)
    yield Send(messages.authentication_sasl([c.SCRAM_SHA_256]))
    message = yield from _password_message("SASL response")
    client_first = _initial_response(message.payload)
    if client_first is None:
        yield Send(messages.authentication_sasl_continue(b""))
        client_first = (yield from _password_message("SASL response")).payload
    yield Send(messages.authentication_sasl_continue(server.first(client_first)))
    client_final = (yield from _password_message("SASL response")).payload
    server_final, keys = server.final(client_final)
    if keys is None:
        raise wrong_password(user)
    yield Send(messages.authentication_sasl_final(server_final))
    return keys


def wrong_password(user: str) -> InvalidPassword:
    """Make the error that PostgreSQL gives for a wrong password and an unknown user alike."""
    return InvalidPassword(f'password authentication failed for user "{user}"')


def _password_message(expected: str) -> Conversation[Message]:
    message = yield from receive(c.PASSWORD_LIMIT_BYTES)
    if message.type != c.PASSWORD_MESSAGE:
        raise ProtocolViolation(f"expected {expected}, got message type {describe_type(message.type)}")
    return message


def _initial_response(payload: bytes) -> bytes | None:
    mechanism, zero, rest = payload.partition(b"\0")
    if not zero or len(rest) < 4:
        raise ProtocolViolation("malformed SASLInitialResponse message")
    if mechanism != c.SCRAM_SHA_256.encode():
        raise ProtocolViolation("client selected an invalid SASL authentication mechanism")
    length = int.from_bytes(rest[:4], "big", signed=True)
    if length == -1 and len(rest) == 4:
        return None
    if length != len(rest) - 4:
        raise ProtocolViolation("malformed SASLInitialResponse message")
    return rest[4:]
