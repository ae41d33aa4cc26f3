"""SCRAM-SHA-256 against RFC 7677's vector, both sides against each other, and everything a peer may get wrong."""

from __future__ import annotations

from base64 import b64decode

import pytest

from pgamb.errors import FeatureNotSupported, InvalidAuthorization, PgambError, ProtocolViolation
from pgamb.wire.scram import (
    CLIENT_MAX_ITERATIONS,
    InvalidVerifier,
    ScramClient,
    ScramKeys,
    ScramServer,
    ScramVerifier,
    derive_keys,
    make_verifier,
    mock_verifier,
)

# RFC 7677, section 3.
CLIENT_NONCE = "rOprNGfwEbeRWgbNEkqO"
SERVER_NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
SALT = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
SERVER_FIRST = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
WITHOUT_PROOF = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
CLIENT_FINAL = WITHOUT_PROOF + b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
SERVER_FINAL = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

VERIFIER = make_verifier("pencil", SALT)
KEYS = derive_keys("pencil", SALT, 4096)
MOCK_KEY = b"a key that only the tests have"


def server(verifier: ScramVerifier | None = VERIFIER, nonce: str = SERVER_NONCE) -> ScramServer:
    return ScramServer(verifier, user="user", nonce=nonce, mock_key=MOCK_KEY)


def exchange(client: ScramClient, verifier: ScramVerifier | None) -> ScramKeys | None:
    side = server(verifier)
    final, keys = side.final(client.final(side.first(client.first())))
    if keys is not None:
        client.verify(final)
    return keys


def test_the_vector_of_rfc_7677_as_server() -> None:
    side = server()
    assert side.first(CLIENT_FIRST) == SERVER_FIRST
    assert side.final(CLIENT_FINAL) == (SERVER_FINAL, KEYS)


def test_the_vector_of_rfc_7677_as_client() -> None:
    client = ScramClient(nonce=CLIENT_NONCE, password="pencil")
    # PostgreSQL's clients leave the name empty, so the vector's is put in its place.
    client._bare = b"n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert client.first() == CLIENT_FIRST
    assert client.final(SERVER_FIRST) == CLIENT_FINAL
    client.verify(SERVER_FINAL)


def test_a_verifier_is_read_and_written_as_postgresql_does() -> None:
    text = str(VERIFIER)
    assert text.startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    assert ScramVerifier.parse(text) == VERIFIER
    assert VERIFIER.matches("pencil")
    assert not VERIFIER.matches("Pencil")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pencil",
        "md5" + "0" * 32,
        str(VERIFIER) + "x",
        str(VERIFIER)[:-1],
        str(VERIFIER).replace("4096", "0"),
        str(VERIFIER).replace("4096", "-1"),
        str(VERIFIER).replace("4096", "9999999999"),
        str(VERIFIER).replace("SHA-256", "SHA-1"),
        "SCRAM-SHA-256$4096:c2FsdA==$c2hvcnQ=:c2hvcnQ=",
        str(VERIFIER).replace("W22ZaJ0SNY7soEsUEjb6gQ==", "W22=Z"),
    ],
)
def test_what_is_no_verifier_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(InvalidVerifier) as caught:
        ScramVerifier.parse(text)
    assert caught.value.hint
    assert not text or text not in caught.value.message


def test_no_secret_is_in_a_repr() -> None:
    shown = repr((VERIFIER, KEYS))
    assert repr(KEYS.client_key) not in shown
    assert repr(KEYS.server_key) not in shown
    assert repr(VERIFIER.stored_key) not in shown


def test_the_proof_gives_the_keys_to_log_in_with() -> None:
    keys = exchange(ScramClient(nonce="client", password="pencil"), VERIFIER)
    assert keys == KEYS
    assert exchange(ScramClient(nonce="other", keys=keys), VERIFIER) == KEYS


def test_a_wrong_password_a_wrong_key_and_no_user_are_all_refused_at_the_end() -> None:
    assert exchange(ScramClient(nonce="client", password="pen"), VERIFIER) is None
    wrong = ScramKeys(KEYS.stored_key, KEYS.stored_key, KEYS.server_key)
    assert exchange(ScramClient(nonce="client", keys=wrong), VERIFIER) is None
    assert exchange(ScramClient(nonce="client", password="pencil"), None) is None


def test_an_unknown_user_looks_like_a_known_one_each_time() -> None:
    first = [server(None).first(CLIENT_FIRST) for _ in range(2)]
    assert first[0] == first[1]
    assert len(first[0]) == len(SERVER_FIRST)
    assert mock_verifier("user", MOCK_KEY) != mock_verifier("other", MOCK_KEY)
    assert mock_verifier("user", MOCK_KEY) != mock_verifier("user", b"another key")


def test_a_made_up_verifier_lets_nobody_in_even_with_its_own_keys() -> None:
    keys = ScramKeys(bytes(32), bytes(32), bytes(32))
    assert exchange(ScramClient(nonce="client", keys=keys), None) is None


def test_a_client_that_could_bind_but_thinks_that_we_cannot_is_right() -> None:
    client = ScramClient(nonce="client", password="pencil", channel_binding=b"certificate hash")
    assert client.first().startswith(b"y,,")
    assert exchange(client, VERIFIER) == KEYS


def test_channel_binding_puts_the_certificate_into_the_proof() -> None:
    client = ScramClient(nonce=CLIENT_NONCE, password="pencil", channel_binding=b"hash", plus=True)
    assert client.first().startswith(b"p=tls-server-end-point,,n=,r=")
    bound = client.final(SERVER_FIRST).partition(b",")[0]
    assert b64decode(bound[2:]) == b"p=tls-server-end-point,,hash"


@pytest.mark.parametrize(
    ("message", "error", "says"),
    [
        (b"", ProtocolViolation, "malformed"),
        (b"n", ProtocolViolation, "malformed"),
        (b"n,", ProtocolViolation, "malformed"),
        (b"n,,", ProtocolViolation, "malformed"),
        (b"n,,n=user", ProtocolViolation, "malformed"),
        (b"n,,r=nonce,n=user", ProtocolViolation, "malformed"),
        (b"n,,n=user,r=", ProtocolViolation, "malformed"),
        (b"n,,n=user,r=a b", ProtocolViolation, "malformed"),
        (b"n,,n=user,r=\xff", ProtocolViolation, "malformed"),
        (b"n,,n=user,r=a\0", ProtocolViolation, "malformed"),
        (b"x,,n=user,r=nonce", ProtocolViolation, "malformed"),
        (b"n,a=other,n=user,r=nonce", FeatureNotSupported, "authorization identity"),
        (b"n,,m=ext,n=user,r=nonce", FeatureNotSupported, "extension"),
        (b"p=tls-server-end-point,,n=user,r=nonce", ProtocolViolation, "channel binding"),
    ],
)
def test_a_malformed_first_message_is_refused(message: bytes, error: type[PgambError], says: str) -> None:
    with pytest.raises(error, match=says):
        server().first(message)


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"", "malformed"),
        (b"c=biws", "malformed"),
        (b"c=eSws" + CLIENT_FINAL[6:], "channel-binding"),
        (b"c=" + CLIENT_FINAL[6:], "channel-binding"),
        (CLIENT_FINAL.replace(b"k0,", b"k1,"), "invalid SCRAM response"),
        (CLIENT_FINAL.replace(b"r=rO", b"r=rX"), "invalid SCRAM response"),
        (WITHOUT_PROOF, "malformed"),
        (WITHOUT_PROOF + b",p=", "malformed"),
        (WITHOUT_PROOF + b",p=c2hvcnQ=", "malformed"),
        (WITHOUT_PROOF + b",p=!!!!", "malformed"),
        (CLIENT_FINAL + b",x=y", "malformed"),
        (CLIENT_FINAL + b"\0", "malformed"),
    ],
)
def test_a_malformed_final_message_is_refused(message: bytes, says: str) -> None:
    side = server()
    side.first(CLIENT_FIRST)
    with pytest.raises(ProtocolViolation, match=says):
        side.final(message)


def test_a_changed_extension_changes_the_proof() -> None:
    side = server()
    side.first(CLIENT_FIRST)
    assert side.final(CLIENT_FINAL.replace(b",p=", b",x=y,p="))[1] is None


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"", ProtocolViolation),
        (b"r=other,s=c2FsdA==,i=4096", ProtocolViolation),
        (b"r=client,s=c2FsdA==,i=4096", ProtocolViolation),  # it added nothing of its own
        (b"r=client\xff,s=c2FsdA==,i=4096", ProtocolViolation),
        (b"r=client1", ProtocolViolation),
        (b"r=client1,s=,i=4096", ProtocolViolation),
        (b"r=client1,s=!,i=4096", ProtocolViolation),
        (b"r=client1,s=c2FsdA==", ProtocolViolation),
        (b"r=client1,s=c2FsdA==,i=0", ProtocolViolation),
        (b"r=client1,s=c2FsdA==,i=-5", ProtocolViolation),
        (b"r=client1,s=c2FsdA==,i=x", ProtocolViolation),
        (b"m=ext,r=client1,s=c2FsdA==,i=4096", FeatureNotSupported),
        (b"r=client1,s=c2FsdA==,i=%d" % (CLIENT_MAX_ITERATIONS + 1), FeatureNotSupported),
        (b"r=client1,s=c2FsdA==,i=99999999999999", ProtocolViolation),
    ],
)
def test_a_server_that_answers_nonsense_gets_no_proof(message: bytes, error: type[PgambError]) -> None:
    client = ScramClient(nonce="client", password="pencil")
    with pytest.raises(error):
        client.final(message)


@pytest.mark.parametrize("message", [b"", b"v=", b"v=AAAA", b"v=!", b"e=invalid-proof", SERVER_FINAL])
def test_a_server_that_cannot_prove_itself_is_not_believed(message: bytes) -> None:
    client = ScramClient(nonce=CLIENT_NONCE, password="pencil")
    client.final(SERVER_FIRST)  # without the vector's user name: its signature is another one
    with pytest.raises((InvalidAuthorization, ProtocolViolation)):
        client.verify(message)


def test_a_signature_before_the_proof_is_refused() -> None:
    with pytest.raises(ProtocolViolation):
        ScramClient(nonce="client", keys=KEYS).verify(SERVER_FINAL)


def test_keys_of_another_verifier_are_not_tried() -> None:
    other = make_verifier("pencil", b"another salt")
    with pytest.raises(InvalidAuthorization, match="not the one"):
        exchange(ScramClient(nonce="client", keys=KEYS), other)
    assert exchange(ScramClient(nonce="client", keys=KEYS, password="pencil"), other) is not None


def test_with_neither_password_nor_keys_there_is_no_exchange() -> None:
    with pytest.raises(InvalidAuthorization, match="neither"):
        ScramClient(nonce="client")


@pytest.mark.parametrize("nonce", ["", "a,b", "a b", "é"])
def test_a_nonce_that_breaks_the_syntax_is_a_mistake_of_the_caller(nonce: str) -> None:
    with pytest.raises(ValueError, match="nonce"):
        ScramClient(nonce=nonce, password="x")
    with pytest.raises(ValueError, match="nonce"):
        server(nonce=nonce)
