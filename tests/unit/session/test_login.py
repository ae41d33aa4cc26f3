"""Applications log in to us: every step, every mistake, the bytes cut in every way."""

from __future__ import annotations

import pytest

from pgamb.errors import InvalidPassword, PgambError, ProtocolViolation
from pgamb.session.login import password_login, scram_login
from pgamb.wire import messages
from pgamb.wire.reader import MessageReader
from pgamb.wire.scram import ScramClient, ScramVerifier, derive_keys, make_verifier
from tests.support.dialogue import CUTS, Cut, Party, play

SALT = b"0123456789abcdef"
VERIFIER = make_verifier("pencil", SALT, 10)


def answer(party: Party[object]) -> bytes:
    """Take the one Authentication message that was said: what follows its code."""
    reader = MessageReader()
    reader.feed(party.take())
    message = reader.next()
    assert message is not None
    assert message.type == ord("R")
    assert reader.rest() == b""
    return messages.parse_authentication(message.payload)[1]


def login(verifier: ScramVerifier | None = VERIFIER) -> Party[object]:
    party: Party[object] = Party(scram_login(verifier, user="ann", nonce="server", mock_key=b"key"))
    assert messages.parse_sasl_mechanisms(answer(party)) == ["SCRAM-SHA-256"]
    return party


def hear(party: Party[object], data: bytes, cut: Cut) -> None:
    for piece in cut(data):
        party.hear(piece)


@pytest.mark.parametrize("cut", CUTS)
def test_the_right_password_gives_the_keys(cut: Cut) -> None:
    party = login()
    client = ScramClient(nonce="client", password="pencil")
    hear(party, messages.sasl_initial_response("SCRAM-SHA-256", client.first()), cut)
    hear(party, messages.sasl_response(client.final(answer(party))), cut)
    assert party.result == derive_keys("pencil", SALT, 10)
    client.verify(answer(party))


def test_without_an_initial_response_the_client_is_asked_for_it() -> None:
    party = login()
    client = ScramClient(nonce="client", password="pencil")
    party.hear(messages.sasl_initial_response("SCRAM-SHA-256", None))
    assert answer(party) == b""
    party.hear(messages.sasl_response(client.first()))
    party.hear(messages.sasl_response(client.final(answer(party))))
    assert party.done


@pytest.mark.parametrize("verifier", [VERIFIER, None])
def test_a_wrong_password_and_an_unknown_user_get_the_same_answer(verifier: ScramVerifier | None) -> None:
    party = login(verifier)
    client = ScramClient(nonce="client", password="pen")
    party.hear(messages.sasl_initial_response("SCRAM-SHA-256", client.first()))
    final = client.final(answer(party))
    with pytest.raises(InvalidPassword) as caught:
        party.hear(messages.sasl_response(final))
    assert caught.value.message == 'password authentication failed for user "ann"'
    assert caught.value.sqlstate == "28P01"
    assert party.take() == b""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (messages.query("select 1"), 'expected SASL response, got message type "Q"'),
        (messages.terminate(), "expected SASL response"),
        (messages.sasl_initial_response("SCRAM-SHA-1", b"n,,n=,r=x"), "invalid SASL authentication mechanism"),
        (messages.sasl_initial_response("SCRAM-SHA-256-PLUS", b"n,,n=,r=x"), "invalid SASL authentication mechanism"),
        (messages.sasl_response(b""), "malformed SASLInitialResponse"),
        (messages.sasl_response(b"SCRAM-SHA-256"), "malformed SASLInitialResponse"),
        (messages.sasl_response(b"SCRAM-SHA-256\0\0\0\0\x05n,,"), "malformed SASLInitialResponse"),
        (messages.sasl_response(b"SCRAM-SHA-256\0\0\0\0\x02n,,"), "malformed SASLInitialResponse"),
        (messages.sasl_response(b"SCRAM-SHA-256\0\xff\xff\xff\xfen,,"), "malformed SASLInitialResponse"),
        (messages.sasl_response(b"SCRAM-SHA-256\0\xff\xff\xff\xffn,,"), "malformed SASLInitialResponse"),
        (messages.password_message("pencil"), "malformed SASLInitialResponse"),
        (b"p\x7f\xff\xff\xff", "invalid message length"),
        (b"p\0\0\0\0", "invalid message length"),
        (b"p\xff\xff\xff\xff", "invalid message length"),
    ],
)
def test_a_client_that_does_not_keep_to_the_protocol_is_refused(data: bytes, says: str) -> None:
    party = login()
    with pytest.raises(ProtocolViolation, match=says):
        party.hear(data)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("password", ["pencil", "pen cil é", "\udcfc"])
def test_a_password_comes_as_it_was_typed(cut: Cut, password: str) -> None:
    found, said = play(password_login(), messages.password_message(password), cut=cut)
    assert found == password
    assert said == messages.authentication_cleartext_password()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (messages.password_message(""), "empty password returned by client"),
        (messages.sasl_response(b""), "invalid password packet size"),
        (messages.sasl_response(b"pencil"), "invalid password packet size"),
        (messages.sasl_response(b"pen\0cil\0"), "invalid password packet size"),
        (messages.sync(), 'expected password response, got message type "S"'),
        (b"p\0\1\0\0", "invalid message length"),
    ],
)
def test_what_is_no_password_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(PgambError, match=says):
        play(password_login(), data)
