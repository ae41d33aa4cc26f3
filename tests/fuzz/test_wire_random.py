"""Whatever bytes arrive, what comes out is a value or one of our errors; and what was built is read back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgamb.errors import PgambError, PostgresError, ProtocolViolation
from pgamb.session.backend_login import Credentials, backend_login
from pgamb.session.conversation import Conversation
from pgamb.session.login import password_login, scram_login
from pgamb.session.query import simple_query
from pgamb.session.userlist import parse_userlist
from pgamb.wire import messages
from pgamb.wire.reader import MessageReader
from pgamb.wire.scram import ScramClient, ScramServer, ScramVerifier, make_verifier
from pgamb.wire.startup import StartupMessage, parse_options, parse_startup, startup_length
from tests.support.dialogue import Party

QUICK = settings(max_examples=60, deadline=None, database=None)

VERIFIER = make_verifier("pencil", b"0123456789abcdef", 1)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
WORD = TEXT.filter(bool)
NONCE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=1)
# Whole messages of nonsense get further than plain nonsense does.
MESSAGE = st.builds(
    lambda kind, payload: bytes([kind]) + (len(payload) + 4).to_bytes(4, "big") + payload,
    st.sampled_from(b"RSKZEENvTDCIGHdcAp"),
    st.one_of(st.binary(max_size=60), st.binary(max_size=20).map(lambda rest: b"\0\0\0\x0a" + rest)),
)
BYTES = st.one_of(st.binary(), st.lists(MESSAGE).map(b"".join))

PARSERS: list[Callable[[bytes], object]] = [
    messages.parse_error_fields,
    messages.parse_parameter_status,
    messages.parse_backend_key_data,
    messages.parse_authentication,
    messages.parse_sasl_mechanisms,
    messages.parse_negotiate_protocol_version,
    messages.parse_row_description,
    messages.parse_data_row,
    parse_startup,
    startup_length,
]


def allow_our_errors(call: Callable[[], object]) -> None:
    error: PgambError | None = None
    try:
        call()
    except PgambError as raised:
        error = raised
    assert error is None or (error.message and messages.error_response(error))


@pytest.mark.parametrize("parse", PARSERS)
@QUICK
@given(data=st.binary())
def test_random_payloads(parse: Callable[[bytes], object], data: bytes) -> None:
    allow_our_errors(lambda: parse(data))


@QUICK
@given(data=st.binary(), code=st.sampled_from([0x30000, 0x30002, 0x3270F, 80877102, 80877103, 80877104, 0x20000]))
def test_random_first_packets_of_true_length(data: bytes, code: int) -> None:
    allow_our_errors(lambda: parse_startup((len(data) + 8).to_bytes(4, "big") + code.to_bytes(4, "big") + data))


@QUICK
@given(text=st.one_of(st.text(), st.text(alphabet="-c =\\a\t")))
def test_random_options_user_files_and_verifiers(text: str) -> None:
    allow_our_errors(lambda: parse_options(text))
    allow_our_errors(lambda: parse_userlist(text))
    allow_our_errors(lambda: ScramVerifier.parse(text))


@QUICK
@given(pieces=st.lists(BYTES), limit=st.integers(4, 100))
def test_random_streams_keep_every_byte(pieces: list[bytes], limit: int) -> None:
    reader = MessageReader(limit)
    taken = bytearray()
    try:
        for piece in pieces:
            reader.feed(piece)
            while (message := reader.next()) is not None:
                assert len(message.payload) <= limit - 4
                taken += bytes([message.type]) + (len(message.payload) + 4).to_bytes(4, "big") + message.payload
    except ProtocolViolation:
        pass
    assert b"".join(pieces).startswith(taken + reader.rest())


CONVERSATIONS: list[Callable[[], Conversation[object]]] = [
    password_login,
    lambda: scram_login(VERIFIER, user="ann", nonce="server", mock_key=b"key"),
    lambda: scram_login(None, user="ann", nonce="server", mock_key=b"key"),
    lambda: backend_login("ann", "shop", Credentials(password="pencil"), parameters={}, nonce="client"),
    lambda: simple_query("select 1"),
]


@pytest.mark.parametrize("begin", CONVERSATIONS)
@QUICK
@given(pieces=st.lists(BYTES))
def test_random_peers(begin: Callable[[], Conversation[object]], pieces: list[bytes]) -> None:
    party = Party(begin())

    def hear_all() -> None:
        for piece in pieces:
            party.hear(piece)

    allow_our_errors(hear_all)


@QUICK
@given(first=st.one_of(st.binary(), st.binary().map(lambda data: b"n,,n=,r=" + data)), final=st.binary())
def test_random_scram_messages(first: bytes, final: bytes) -> None:
    server = ScramServer(VERIFIER, user="ann", nonce="server", mock_key=b"key")

    def talk() -> None:
        server.first(first)
        assert server.final(final)[1] is None

    allow_our_errors(talk)
    client = ScramClient(nonce="client", password="pencil")
    allow_our_errors(lambda: client.final(first))
    allow_our_errors(lambda: client.verify(final))


@QUICK
@given(
    password=st.text(st.characters(exclude_categories=["Cs"])),
    nonces=st.tuples(NONCE, NONCE),
    salt=st.binary(min_size=1),
)
def test_who_knows_the_password_gets_in(password: str, nonces: tuple[str, str], salt: bytes) -> None:
    verifier = make_verifier(password, salt, 1)
    assert ScramVerifier.parse(str(verifier)) == verifier
    server = ScramServer(verifier, user="ann", nonce=nonces[0], mock_key=b"key")
    client = ScramClient(nonce=nonces[1], password=password)
    final, keys = server.final(client.final(server.first(client.first())))
    client.verify(final)
    assert keys == client.keys


@QUICK
@given(
    user=WORD,
    database=TEXT,
    parameters=st.dictionaries(WORD.filter(lambda name: not name.startswith("_pq_.")), TEXT, max_size=5),
    minor=st.integers(0, 0xFFFF),
)
def test_a_startup_message_is_read_back(user: str, database: str, parameters: dict[str, str], minor: int) -> None:
    sent = parameters | {"user": user, "database": database}
    found = parse_startup(messages.startup_message(sent, minor))
    assert found == StartupMessage(minor, sent | {"database": database or user})


@QUICK
@given(
    values=st.dictionaries(st.text("abz_.", min_size=1), st.text(st.characters(exclude_categories=["Cs"])), max_size=4)
)
def test_options_are_read_back(values: dict[str, str]) -> None:
    def escape(text: str) -> str:
        return "".join("\\" + letter if letter in " \t\n\v\f\r\\" else letter for letter in text)

    for form in ("-c %s=%s", "-c%s=%s", "--%s=%s"):
        assert parse_options(" ".join(form % (name, escape(value)) for name, value in values.items())) == values


@QUICK
@given(
    fields=st.dictionaries(
        st.sampled_from("SVCMDHPpqWstcdnFLR"), st.binary().map(lambda data: data.replace(b"\0", b""))
    )
)
def test_error_fields_are_read_back(fields: dict[str, bytes]) -> None:
    payload = b"".join(letter.encode() + text + b"\0" for letter, text in fields.items()) + b"\0"
    error = PostgresError(messages.parse_error_fields(payload))
    error.message.encode()
    passed_on = messages.parse_error_fields(messages.error_response(error)[5:])
    assert {letter: messages.encode_text(passed_on[letter]) for letter in fields} == fields


@QUICK
@given(columns=st.lists(st.none() | st.binary()))
def test_a_row_is_read_back(columns: list[bytes | None]) -> None:
    body = [len(columns).to_bytes(2, "big")]
    body += [b"\xff" * 4 if value is None else len(value).to_bytes(4, "big") + value for value in columns]
    assert messages.parse_data_row(b"".join(body)) == columns


@QUICK
@given(users=st.dictionaries(WORD, WORD.filter(lambda text: not text.startswith(("md5", "SCRAM"))), max_size=5))
def test_a_user_file_is_read_back(users: dict[str, str]) -> None:
    users = {user.replace("\n", ""): secret.replace("\n", "") for user, secret in users.items()}
    users = {user: secret for user, secret in users.items() if user and secret}

    def quote(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    found = parse_userlist("\n".join(f"{quote(user)} {quote(secret)}" for user, secret in users.items()))
    assert {user: secret.password for user, secret in found.items()} == users
