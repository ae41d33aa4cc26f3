"""We log in to PostgreSQL: every method, every refusal, and servers that are not what they should be."""

from __future__ import annotations

import hashlib
import re

import pytest

from pgamb.errors import FeatureNotSupported, InvalidAuthorization, PgambError, PostgresError, ProtocolViolation
from pgamb.session.backend_login import Credentials, Greeting, backend_login
from pgamb.session.login import scram_login
from pgamb.wire import messages
from pgamb.wire.scram import DEFAULT_ITERATIONS, derive_keys, make_verifier
from pgamb.wire.startup import StartupMessage, parse_startup
from tests.support.dialogue import CUTS, Cut, Party

SALT = b"0123456789abcdef"
KEYS = derive_keys("pencil", SALT, DEFAULT_ITERATIONS)
VERIFIER = make_verifier("pencil", SALT)
REFUSED = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "ann"\0\0'

NOTICE = messages.notice_response(PostgresError({"M": "collation version mismatch"}))
WELCOME = (
    messages.authentication_ok()
    + messages.parameter_status("server_version", "18.1")
    + NOTICE
    + messages.parameter_status("in_hot_standby", "off")
    + messages.backend_key_data(4242, b"0123456789abcdef0123456789abcdef")
    + messages.ready_for_query()
)


def raw(type_letter: str, payload: bytes) -> bytes:
    return type_letter.encode() + (len(payload) + 4).to_bytes(4, "big") + payload


def asks(code: int, rest: bytes = b"") -> bytes:
    return raw("R", code.to_bytes(4, "big") + rest)


def start(credentials: Credentials | None = None, *, minor: int = 0, binding: bytes | None = None) -> Party[Greeting]:
    party = Party(
        backend_login(
            "ann",
            "shop",
            credentials or Credentials(),
            parameters={"application_name": "x", "user": "not this one"},
            nonce="client",
            minor=minor,
            channel_binding=binding,
        )
    )
    packet = parse_startup(party.take())
    assert packet == StartupMessage(minor, {"user": "ann", "database": "shop", "application_name": "x"})
    return party


@pytest.mark.parametrize("cut", CUTS)
def test_a_server_that_asks_nothing_greets(cut: Cut) -> None:
    party = start()
    for piece in cut(WELCOME):
        party.hear(piece)
    assert party.result == Greeting(
        {"server_version": "18.1", "in_hot_standby": "off"},
        4242,
        b"0123456789abcdef0123456789abcdef",
        notices=NOTICE,
    )
    assert "0123456789abcdef" not in repr(party.result)


def test_what_comes_behind_the_greeting_is_not_lost() -> None:
    party = start()
    party.hear(WELCOME + b"S\0\0")
    assert party.unread == b"S\0\0"


def test_a_server_without_cancel_keys_is_fine() -> None:
    party = start()
    party.hear(messages.authentication_ok() + messages.ready_for_query())
    assert (party.result.pid, party.result.secret) == (0, b"")


def test_a_clear_password_is_sent_where_it_is_asked_for() -> None:
    party = start(Credentials(password="pencil"))
    party.hear(asks(3))
    assert party.take() == messages.password_message("pencil")
    party.hear(WELCOME)
    assert party.done


def test_an_md5_password_is_sent_as_postgresql_wants_it() -> None:
    party = start(Credentials(password="pencil"))
    party.hear(asks(5, b"salt"))
    inner = hashlib.md5(b"pencilann").hexdigest().encode()
    assert party.take() == messages.password_message(b"md5" + hashlib.md5(inner + b"salt").hexdigest().encode())
    party.hear(WELCOME)
    assert party.done


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "credentials",
    [Credentials(password="pencil"), Credentials(scram_keys=KEYS), Credentials(password="not used", scram_keys=KEYS)],
)
def test_scram_with_a_password_or_with_the_keys_alone(cut: Cut, credentials: Credentials) -> None:
    party = start(credentials)
    server = Party(scram_login(VERIFIER, user="ann", nonce="server", mock_key=b"key"))
    while not server.done:
        for piece in cut(server.take()):
            party.hear(piece)
        for piece in cut(party.take()):
            server.hear(piece)
    for piece in cut(server.take() + WELCOME):
        party.hear(piece)
    assert party.result.scram_keys == KEYS == server.result


def test_channel_binding_is_used_where_it_is_offered() -> None:
    party = start(Credentials(password="pencil"), binding=b"hash")
    party.hear(messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]))
    assert b"SCRAM-SHA-256-PLUS\0\0\0\0\x23p=tls-server-end-point,," in party.take()
    party = start(Credentials(password="pencil"), binding=b"hash")
    party.hear(messages.authentication_sasl(["SCRAM-SHA-256"]))
    assert b"y,,n=,r=client" in party.take()
    party = start(Credentials(password="pencil"))
    party.hear(messages.authentication_sasl(["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"]))
    assert b"n,,n=,r=client" in party.take()


def test_a_server_that_skips_its_own_proof_is_not_believed() -> None:
    party = start(Credentials(password="pencil"))
    party.hear(messages.authentication_sasl(["SCRAM-SHA-256"]))
    party.hear(messages.authentication_sasl_continue(b"r=client1,s=c2FsdA==,i=4096"))
    with pytest.raises(ProtocolViolation, match="authentication 0 where SASL needs 12"):
        party.hear(WELCOME)


def test_a_server_with_a_wrong_signature_is_not_believed() -> None:
    party = start(Credentials(password="pencil"))
    party.hear(messages.authentication_sasl(["SCRAM-SHA-256"]))
    party.hear(messages.authentication_sasl_continue(b"r=client1,s=c2FsdA==,i=4096"))
    with pytest.raises(InvalidAuthorization, match="signature is wrong"):
        party.hear(messages.authentication_sasl_final(b"v=" + b"A" * 43 + b"="))


def test_a_server_may_not_ask_again_for_something_weaker() -> None:
    party = start(Credentials(password="pencil"))
    party.hear(asks(5, b"salt"))
    with pytest.raises(ProtocolViolation, match="after another was answered"):
        party.hear(asks(3))


@pytest.mark.parametrize(
    ("credentials", "request_", "error", "says"),
    [
        (Credentials(), asks(3), InvalidAuthorization, "there is no password"),
        (Credentials(), asks(5, b"salt"), InvalidAuthorization, "there is no password"),
        (Credentials(scram_keys=KEYS), asks(3), InvalidAuthorization, "only a SCRAM key"),
        (Credentials(scram_keys=KEYS), asks(5, b"salt"), InvalidAuthorization, "only a SCRAM key"),
        (Credentials(), messages.authentication_sasl(["SCRAM-SHA-256"]), InvalidAuthorization, "neither a password"),
        (Credentials(password="x"), messages.authentication_sasl(["OAUTHBEARER"]), FeatureNotSupported, "OAUTHBEARER"),
        (Credentials(password="x"), messages.authentication_sasl([]), FeatureNotSupported, "SASL mechanisms"),
        (Credentials(password="x"), asks(7), FeatureNotSupported, "GSSAPI"),
        (Credentials(password="x"), asks(9), FeatureNotSupported, "SSPI"),
        (Credentials(password="x"), asks(2), FeatureNotSupported, "Kerberos"),
        (Credentials(password="x"), asks(99), FeatureNotSupported, "authentication method 99"),
        (Credentials(password="x"), asks(5, b"sal"), ProtocolViolation, "malformed"),
        (Credentials(password="x"), raw("R", b"\0\0"), ProtocolViolation, "malformed"),
    ],
)
def test_what_we_cannot_answer_is_said_clearly(
    credentials: Credentials, request_: bytes, error: type[PgambError], says: str
) -> None:
    party = start(credentials)
    with pytest.raises(error, match=says) as caught:
        party.hear(request_)
    assert error is ProtocolViolation or party.take() == b""
    assert "pencil" not in caught.value.message


@pytest.mark.parametrize("before", [b"", messages.authentication_ok(), messages.authentication_sasl(["SCRAM-SHA-256"])])
def test_a_refusal_comes_out_with_all_its_fields(before: bytes) -> None:
    party = start(Credentials(password="pencil"))
    with pytest.raises(PostgresError) as caught:
        party.hear(before + raw("E", REFUSED))
    assert caught.value.sqlstate == "28P01"
    assert caught.value.is_fatal
    assert messages.error_response(caught.value)[5:] == REFUSED


def test_an_older_server_negotiates_the_version_down() -> None:
    party = start(minor=2)
    party.hear(messages.negotiate_protocol_version(0, []) + WELCOME)
    assert party.result.minor == 0
    party = start(minor=2)
    party.hear(WELCOME)
    assert party.result.minor == 2


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (messages.negotiate_protocol_version(2, []), "answers protocol 3.0 with 3.2"),
        (raw("v", b"\0\2\0\0\0\0\0\0"), "answers protocol 3.0 with 2.0"),
        (messages.negotiate_protocol_version(0, ["_pq_.x"]), "options that were not sent: _pq_.x"),
        (messages.query("x"), re.escape('unexpected message type "Q" from the server during authentication')),
        (messages.authentication_ok() + messages.query("x"), "after authentication"),
        (messages.authentication_ok() + messages.ready_for_query(b"T"), "in a transaction"),
        (messages.authentication_sasl(["SCRAM-SHA-256"]) + messages.ready_for_query(), "during SASL"),
        (b"Ecould not fork new process\n\0", "invalid message length"),
        (b"HTTP/1.1 400 Bad Request", "invalid message length"),
    ],
)
def test_a_server_that_does_not_keep_to_the_protocol_is_left(data: bytes, says: str) -> None:
    party = start(Credentials(password="pencil"))
    with pytest.raises(ProtocolViolation, match=says):
        party.hear(data)
