"""The protocol code against the real thing: PostgreSQL as our server, libpq as our client, one plain socket each."""

from __future__ import annotations

import hashlib
import secrets
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TypeVar

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.errors import InvalidAuthorization, InvalidPassword, PgambError, PostgresError
from pgamb.session.backend_login import Credentials, Greeting, backend_login
from pgamb.session.conversation import Conversation, Message, Receive, Send
from pgamb.session.login import password_login, scram_login
from pgamb.session.query import simple_query
from pgamb.wire import messages
from pgamb.wire.reader import MessageReader
from pgamb.wire.scram import ScramKeys, ScramVerifier, derive_keys, make_verifier
from pgamb.wire.startup import SSLRequest, StartupMessage, parse_options, parse_startup, startup_length
from tests.support.servers import running_postgres

T = TypeVar("T")
DEADLINE_S = 20.0
PASSWORD = "pen'cil é"
METHODS = {
    "by_scram": "scram-sha-256",
    "by_md5": "md5",
    "by_password": "password",
    "by_trust": "trust",
    "by_reject": "reject",
}
# From plain to forbidden, unassigned, mapped to nothing, right-to-left: PostgreSQL must come to the same bytes.
PASSWORDS = [
    "pencil",
    "a\x01b\x7f",
    "I\u00adX",
    "\u2168 \u00aa",
    "a\u00a0b\u3000c",
    "e\u0301\u212b",
    "\u0627\u0628",
    "\u06271",
    "a\u0627",
    "é\u0007",
    "\u00ad",
    "\u0627\u00aa\u0627",
    "\u0627\u00bd",
    "\u200b\u00aa",
    "\u0221",
    "\ue000\ufffd",
    "\u0340x",
    "x\u200bz\ufe0f",
    "🙂",
    "ﬁ½Å",
]


class Line:
    """A socket on which conversations are held, one after the other."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._reader = MessageReader()

    def hold(self, conversation: Conversation[T]) -> T:
        answer: Message | None = None
        while True:
            try:
                step = conversation.send(answer)
            except StopIteration as stop:
                result: T = stop.value
                return result
            answer = None
            match step:
                case Send(data):
                    self.socket.sendall(data)
                case Receive(limit_bytes):
                    answer = self._receive(limit_bytes)

    def _receive(self, limit_bytes: int) -> Message:
        while (message := self._reader.next(limit_bytes)) is None:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionResetError("the peer has closed the connection")
            self._reader.feed(data)
        return message


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    lines = [f"host all {user} 127.0.0.1/32 {method}" for user, method in METHODS.items()]
    with running_postgres("wire", hba=lines) as started:
        quoted = PASSWORD.replace("'", "''")
        for user in METHODS:
            secret = md5_secret(user) if user == "by_md5" else quoted
            started.query(f"CREATE ROLE {user} LOGIN PASSWORD '{secret}'")
        yield started


def md5_secret(user: str) -> str:
    return "md5" + hashlib.md5((PASSWORD + user).encode()).hexdigest()


@contextmanager
def connected(server: PostgresServer) -> Iterator[Line]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        yield Line(connection)


def login(
    line: Line, user: str, credentials: Credentials, *, minor: int = 0, parameters: Mapping[str, str] | None = None
) -> Greeting:
    nonce = secrets.token_urlsafe(18)
    return line.hold(
        backend_login(user, "postgres", credentials, parameters=parameters or {}, nonce=nonce, minor=minor)
    )


def verifier_of(server: PostgresServer, user: str) -> ScramVerifier:
    rows = server.query("SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1", user)
    return ScramVerifier.parse(str(rows[0][0]))


@pytest.mark.parametrize("minor", [0, 2, 9999])
@pytest.mark.parametrize("user", ["by_scram", "by_md5", "by_password", "by_trust"])
def test_every_method_lets_us_in(server: PostgresServer, user: str, minor: int) -> None:
    with connected(server) as line:
        greeting = login(line, user, Credentials(PASSWORD), minor=minor, parameters={"application_name": "wire é"})
        assert greeting.parameters["application_name"]
        assert greeting.parameters["session_authorization"] == user
        assert greeting.minor <= minor
        assert len(greeting.secret) == (4 if greeting.minor < 2 else 32)
        rows = line.hold(simple_query("SELECT current_user, pg_backend_pid(), NULL, 'é'"))
        assert rows == [[user, str(greeting.pid), None, "é"]]


@pytest.mark.parametrize("user", ["by_scram", "by_md5", "by_password", "by_reject", "nobody"])
def test_a_refusal_is_postgresqls_own(server: PostgresServer, user: str) -> None:
    with connected(server) as line, pytest.raises(PostgresError) as caught:
        login(line, user, Credentials("wrong"))
    assert caught.value.is_fatal
    if user == "by_reject":
        assert caught.value.sqlstate == "28000"
        return
    assert caught.value.sqlstate == "28P01"
    assert caught.value.message == f'password authentication failed for user "{user}"'


def test_an_unknown_database_is_refused(server: PostgresServer) -> None:
    with connected(server) as line, pytest.raises(PostgresError) as caught:
        line.hold(backend_login("by_trust", "nowhere", Credentials(), parameters={}, nonce="nonce"))
    assert caught.value.sqlstate == "3D000"


def test_keys_of_a_login_with_us_log_in_to_postgresql_without_a_password(server: PostgresServer) -> None:
    keys = pass_through(verifier_of(server, "by_scram"), "by_scram", PASSWORD)
    with connected(server) as line:
        assert login(line, "by_scram", Credentials(scram_keys=keys)).scram_keys == keys
    stale = derive_keys(PASSWORD, b"another salt", 4096)
    with connected(server) as line, pytest.raises(InvalidAuthorization, match="not the one"):
        login(line, "by_scram", Credentials(scram_keys=stale))


@pytest.mark.parametrize("user", ["by_md5", "by_password"])
def test_a_server_that_wants_a_password_is_told_apart(server: PostgresServer, user: str) -> None:
    keys = derive_keys(PASSWORD, b"salt", 4096)
    with connected(server) as line, pytest.raises(InvalidAuthorization, match="only a SCRAM key"):
        login(line, user, Credentials(scram_keys=keys))


def test_passwords_of_every_script_hash_as_in_postgresql(server: PostgresServer) -> None:
    for number, password in enumerate(PASSWORDS):
        user = f"script_{number}"
        server.query(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
        verifier = verifier_of(server, user)
        assert verifier == make_verifier(password, verifier.salt, verifier.iterations), ascii(password)
        assert not verifier.matches(password + "x")


def test_a_query_error_leaves_the_connection_usable_and_a_cancel_reaches_its_query(server: PostgresServer) -> None:
    with connected(server) as line:
        greeting = login(line, "by_trust", Credentials())
        with pytest.raises(PostgresError) as caught:
            line.hold(simple_query("SELECT 1; SELECT nonsense"))
        assert caught.value.sqlstate == "42703"
        assert line.hold(simple_query("SELECT 1; SELECT 2 UNION SELECT 3 ORDER BY 1")) == [["2"], ["3"]]
        with pytest.raises(PostgresError):
            line.hold(simple_query("CREATE TEMP TABLE t (a int); COPY t FROM STDIN"))
        assert line.hold(simple_query("COPY (SELECT 1) TO STDOUT")) == []

        sleep = simple_query("SELECT pg_catalog.pg_sleep(600)")
        # The lock tells that the query runs: the cancel would otherwise find nothing to cancel.
        lock = threading.Thread(target=cancel_when_running, args=(server, greeting))
        lock.start()
        with pytest.raises(PostgresError) as caught:
            line.hold(sleep)
        lock.join()
        assert caught.value.sqlstate == "57014"
        assert line.hold(simple_query("SELECT 1")) == [["1"]]


def cancel_when_running(server: PostgresServer, greeting: Greeting) -> None:
    with connected(server) as watcher:
        login(watcher, "postgres", Credentials(server.credentials.superuser))
        running = (
            "SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity "
            f"WHERE pid = {greeting.pid} AND wait_event = 'PgSleep'"
        )
        while watcher.hold(simple_query(running)) != [["1"]]:
            watcher.hold(simple_query("SELECT pg_catalog.pg_sleep(0.01)"))
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_S) as connection:
        connection.sendall(messages.cancel_request(greeting.pid, greeting.secret))
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-c geqo=off",
        "-cgeqo=off",
        "--geqo=off",
        "  -c   geqo=off --work-mem=4MB\t",
        r"-c search_path=a,\ b",
        r"-c application_name=a\\b\c",
        "-c pgamb.role=replica=x",
        "-c geqo=off -c geqo=on",
        "-c application_name=x\\",
        "--application-name=",
        "-c geqo=off --",
    ],
)
def test_options_mean_what_they_mean_to_postgresql(server: PostgresServer, text: str) -> None:
    with connected(server) as line:
        login(line, "by_trust", Credentials(), parameters={"options": text})
        for name, value in parse_options(text).items():
            assert line.hold(simple_query(f"SELECT pg_catalog.current_setting('{name}')")) == [[value]]


@pytest.mark.parametrize("text", ["-c geqo", "-cgeqo", "--geqo", "-- x", "-", "geqo=off", "-c", "x -c geqo=off"])
def test_options_that_postgresql_refuses_are_refused_likewise(server: PostgresServer, text: str) -> None:
    with pytest.raises(PgambError) as ours:
        parse_options(text)
    with connected(server) as line, pytest.raises(PostgresError) as theirs:
        login(line, "by_trust", Credentials(), parameters={"options": text})
    assert ours.value.sqlstate == theirs.value.sqlstate
    if theirs.value.message.startswith(("-c ", "--")):
        assert ours.value.message == theirs.value.message
    else:
        assert theirs.value.message.startswith("invalid command-line argument")
        assert ours.value.message.startswith("invalid command-line argument")


@pytest.mark.parametrize(
    "body",
    [
        b"\0\4\0\0user\0a\0\0",
        b"\0\3\0\0",
        b"\0\3\0\0\0",
        b"\0\3\0\0user\0a",
        b"\0\3\0\0user\0a\0\0\0",
        b"\0\3\0\0user\0\0\0",
        b"\0\3\0\0database\0a\0\0",
    ],
)
def test_a_bad_first_packet_gets_the_words_of_postgresql(server: PostgresServer, body: bytes) -> None:
    packet = (len(body) + 4).to_bytes(4, "big") + body
    with pytest.raises(PgambError) as ours:
        parse_startup(packet)
    with connected(server) as line:
        line.socket.sendall(packet)
        fields = messages.parse_error_fields(line._receive(65536).payload)
    assert ours.value.sqlstate == fields["C"]
    # What follows a colon of the unsupported version depends on the server's own version.
    wanted = fields["M"].partition(": server supports")[0]
    assert ours.value.message.partition(": server supports")[0] == wanted


# --- libpq logs in to us -----------------------------------------------------------------------------------------


def pass_through(verifier: ScramVerifier | None, user: str, password: str) -> ScramKeys:
    """Let libpq log in to us by SCRAM; returns the keys that we got from it."""
    conversation = scram_login(verifier, user=user, nonce=secrets.token_urlsafe(18), mock_key=b"key")
    return libpq_login(conversation, user, password)


def libpq_login(conversation: Conversation[T], user: str, password: str, words: str = "") -> T:
    outcome: list[T | BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_S)
        thread = threading.Thread(target=serve_one, args=(listener, conversation, outcome))
        thread.start()
        port = listener.getsockname()[1]
        quoted = password.replace("\\", "\\\\").replace("'", "\\'")
        conninfo = f"host=127.0.0.1 port={port} user={user} password='{quoted}' dbname=shop connect_timeout=20 {words}"
        pid, complaint = 0, ""
        try:
            with closing(psycopg.connect(conninfo)) as connection:
                pid = connection.info.backend_pid
        except psycopg.OperationalError as error:
            complaint = str(error)
        thread.join()
    [found] = outcome
    if isinstance(found, BaseException):
        assert str(found) in complaint
        raise found
    assert pid == 77, complaint
    return found


def serve_one(listener: socket.socket, conversation: Conversation[T], outcome: list[T | BaseException]) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(DEADLINE_S)
        try:
            startup = read_startup(connection)
            if startup.needs_negotiation:
                negotiation = messages.negotiate_protocol_version(startup.negotiated_minor, startup.unknown_options)
                connection.sendall(negotiation)
            result = Line(connection).hold(conversation)
            secret = bytes(4 if startup.negotiated_minor < 2 else 32)
            connection.sendall(
                messages.authentication_ok()
                + messages.parameter_status("server_version", "18.1")
                + messages.parameter_status("client_encoding", "UTF8")
                + messages.backend_key_data(77, secret)
                + messages.ready_for_query()
            )
            assert connection.recv(10) == messages.terminate()
            outcome.append(result)
        except PgambError as error:
            connection.sendall(messages.error_response(error, severity="FATAL"))
            outcome.append(error)
        except Exception as error:
            outcome.append(error)


def read_startup(connection: socket.socket) -> StartupMessage:
    while True:
        head = connection.recv(8, socket.MSG_WAITALL)
        packet = parse_startup(head + connection.recv(startup_length(head) - 8, socket.MSG_WAITALL))
        if isinstance(packet, StartupMessage):
            return packet
        assert isinstance(packet, SSLRequest)
        connection.sendall(b"N")


@pytest.mark.parametrize("words", ["", "channel_binding=disable", "require_auth=scram-sha-256"])
def test_libpq_logs_in_to_us_by_scram(words: str) -> None:
    verifier = make_verifier(PASSWORD, b"0123456789abcdef")
    conversation = scram_login(verifier, user="ann", nonce=secrets.token_urlsafe(18), mock_key=b"key")
    assert libpq_login(conversation, "ann", PASSWORD, words) == derive_keys(PASSWORD, b"0123456789abcdef", 4096)


@pytest.mark.parametrize("verifier", [make_verifier(PASSWORD, b"0123456789abcdef"), None])
def test_libpq_is_told_that_its_password_is_wrong(verifier: ScramVerifier | None) -> None:
    with pytest.raises(InvalidPassword):
        pass_through(verifier, "ann", "wrong")


def test_libpq_gives_us_its_password() -> None:
    assert libpq_login(password_login(), "ann", PASSWORD) == PASSWORD


@pytest.mark.skipif(psycopg.pq.version() < 180000, reason="libpq before 18 asks for protocol 3.0 only")
def test_libpq_speaks_protocol_3_2_with_us() -> None:
    assert libpq_login(password_login(), "ann", PASSWORD, "max_protocol_version=latest") == PASSWORD
