"""A server that breaks the protocol: the application hears the truth, and its connection goes on."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from pgamb.wire.messages import bind, execute, parse, query, sync
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.conversations import message
from tests.support.cutting import AtRandom, Cut, byte_by_byte, whole
from tests.support.misbehaving import MisbehavingServer, Script, running_misbehaving
from tests.support.wire import Wire, errors, kinds


def row(value: bytes) -> bytes:
    return message("D", struct.pack("!HI", 1, len(value)) + value)


def error(**fields: str) -> bytes:
    return message("E", b"".join(k.encode() + v.encode() + b"\0" for k, v in fields.items()) + b"\0")


READY = messages.ready_for_query()
COLUMN = message("T", struct.pack("!H", 1) + b"x\0" + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0))
ANSWER = COLUMN + row(b"fine") + messages.command_complete("SELECT 1") + READY
NOTICE = message("N", b"SNOTICE\0VNOTICE\0C00000\0Mby the way\0\0")
ODDITIES = NOTICE + messages.parameter_status("application_name", "odd") + message("A", b"\0\0\0\1c\0p\0")
MANY = 2000
WIDE = message("T", struct.pack("!H", MANY) + (b"x" * 60 + b"\0" + struct.pack("!IhIhih", 0, 0, 25, -1, -1, 0)) * MANY)

# The bytes are lost, or make no sense: the read has to be repeated, the write may have taken effect.
LOSSES = {
    "leaves": Script(b"", True),
    "leaves_within_a_header": Script(COLUMN + b"D\0\0", True),
    "leaves_within_a_row": Script(COLUMN + row(b"fine") + row(b"half")[:-2], True),
    "leaves_before_ready": Script(ANSWER[:-6], True),
    "length_minus_1": Script(b"T\xff\xff\xff\xff" + b"x" * 100),
    "length_0": Script(b"T\0\0\0\0" + b"x" * 100),
    "length_3": Script(COLUMN + b"D\0\0\0\3" + b"x" * 100),
    "length_2_gb": Script(COLUMN + b"D\x7f\xff\xff\xff" + b"x" * 100),
    "unknown_type": Script(message("?", b"what")),
    "authentication": Script(messages.authentication_ok()),
    "parse_complete": Script(message("1")),
    "bind_complete": Script(COLUMN + message("2")),
    "ready_too_short": Script(COLUMN + message("Z")),
    "ready_too_long": Script(COLUMN + message("Z", b"II")),
    "ready_in_no_state": Script(ANSWER[:-1] + b"?"),
}
# Legal, if unusual: passed on as it is.
PASSED = {
    "error_without_code": Script(error(S="ERROR", V="ERROR", M="m") + READY),
    "error_without_severity": Script(error(C="22012", M="m") + READY),
    "error_without_fields": Script(error() + READY),
    "error_without_end": Script(message("E", b"SERROR\0VERROR\0Mno end") + READY),
    "error_without_anything": Script(message("E") + READY),
    "error_of_1_mb": Script(error(S="ERROR", V="ERROR", C="22012", M="m" * (1 << 20)) + READY),
    "notice_of_1_mb": Script(message("N", b"SNOTICE\0M" + b"n" * (1 << 20) + b"\0\0") + ANSWER),
    "oddities_before": Script(ODDITIES * 3 + ANSWER),
    "oddities_between": Script(COLUMN + ODDITIES + row(b"a") + ODDITIES + ANSWER[len(COLUMN) :]),
    "oddities_behind": Script(ANSWER[:-6] + ODDITIES + READY),
    "wide": Script(WIDE + messages.command_complete("SELECT 0") + READY),
    "large_row": Script(COLUMN + row(b"x" * (1 << 20)) + messages.command_complete("SELECT 1") + READY),
    "empty": Script(message("I") + READY),
}
OTHERS = {
    "ready_twice": Script(ANSWER + READY),
    "answers_twice": Script(ANSWER + ANSWER),
    "commits_and_answers": Script(messages.command_complete("COMMIT") + READY + ANSWER),
    "leaves_within_a_large_row": Script(COLUMN + row(b"x" * (1 << 20))[:-10], True),
    "fatal": Script(error(S="FATAL", V="FATAL", C="57014", M="enough of you"), True),
    "shutdown": Script(error(S="FATAL", V="FATAL", C="57P01", M="administrator"), True),
    "fatal_of_old": Script(error(S="FATAL", C="XX000", M="old"), True),
    "prepared_wide": Script(
        message("1") + message("t", struct.pack("!H", 20_000) + b"\0\0\0\x19" * 20_000) + WIDE + READY
    ),
}
CUTS: dict[str, Cut] = {"whole": whole, "bytes": byte_by_byte, "random": AtRandom(23)}


@pytest.fixture(scope="module")
def server(postgres: PostgresServer) -> Iterator[MisbehavingServer]:
    with running_misbehaving(postgres.port, LOSSES | PASSED | OTHERS) as server:
        yield server


@pytest.fixture(scope="module")
def ambassador(postgres: PostgresServer, server: MisbehavingServer) -> Iterator[Ambassador]:
    postgres.query("CREATE TABLE IF NOT EXISTS written (name text)")
    registry = f"static://127.0.0.1:{server.port}"
    with running_ambassador([postgres], "--pool-size", "4", "--registry", registry) as ambassador:
        yield ambassador


@pytest.fixture
def wire(ambassador: Ambassador) -> Iterator[Wire]:
    """A session, beside another one in a transaction that must not notice anything."""
    password = ambassador.servers[0].credentials.superuser
    with Wire(ambassador.port).log_in(password) as neighbour, Wire(ambassador.port).log_in(password) as wire:
        neighbour.query("BEGIN")
        yield wire
        assert neighbour.value("SELECT 'after'") == "after"
        assert kinds(neighbour.query("COMMIT")) == "CZ"


@pytest.fixture(params=CUTS)
def cut(request: pytest.FixtureRequest, server: MisbehavingServer) -> Iterator[None]:
    server.cut = CUTS[request.param]
    yield
    server.cut = whole


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_told_and_the_connection_stays(wire: Wire, name: str) -> None:
    found = wire.query(f"SELECT 'misbehave:{name}'")
    assert [e[:2] for e in errors(found)] == [("ERROR", "40001")], found
    assert found[-1].payload == b"I"
    found = wire.query(f"INSERT INTO written VALUES ('misbehave:{name}')")
    assert [e[:2] for e in errors(found)] == [("ERROR", "08007")], found
    assert wire.value("SELECT 'again'") == "again"


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_ends_the_transaction(wire: Wire, name: str) -> None:
    wire.query("BEGIN")
    found = wire.query(f"INSERT INTO written VALUES ('misbehave:{name}')")
    assert [e[1] for e in errors(found)] == ["40001"]
    assert found[-1].payload == b"E"
    assert [e[1] for e in errors(wire.query("SELECT 1"))] == ["25P02"]
    assert kinds(wire.query("ROLLBACK")) == "CZ"
    assert wire.value("SELECT 'again'") == "again"


@pytest.mark.usefixtures("cut")
@pytest.mark.parametrize("name", PASSED)
def test_what_is_legal_is_passed_on(wire: Wire, name: str) -> None:
    # What the backend has reported to others before is told first.
    wire.value("SELECT 'known'")
    wire.send(query(f"SELECT 'misbehave:{name}'"))
    found = wire.until_ready()
    assert b"".join(message(chr(m.type), m.payload) for m in found) == PASSED[name].answer
    assert wire.value("SELECT 'again'") == "again"


@pytest.mark.parametrize("name", ["ready_twice", "answers_twice"])
def test_more_than_was_asked_for_reaches_nobody(wire: Wire, name: str) -> None:
    # Somebody else's query could be under way already when the second answer came.
    for _ in range(8):
        # Each time another backend answers: what this one has reported is told.
        assert kinds(wire.query(f"SELECT 'misbehave:{name}'")).lstrip("S") == "TDCZ"
        assert wire.value("SELECT 'mine'") == "mine"


def test_an_answer_too_many_is_not_the_next_session_s(wire: Wire, ambassador: Ambassador) -> None:
    # Whoever waited for this backend got it while the second answer was still to be read, and took that for its own.
    password = ambassador.servers[0].credentials.superuser
    with (
        Wire(ambassador.port).log_in(password) as second,
        Wire(ambassador.port).log_in(password) as third,
        Wire(ambassador.port).log_in(password) as late,
    ):
        for holder in (second, third, wire):
            # With the neighbour's, these are all backends that there may be.
            assert kinds(holder.query("BEGIN; SELECT 1")) == "CTDCZ"
        late.send(query("SELECT 'mine'"))
        assert kinds(wire.query("COMMIT -- misbehave:commits_and_answers")) == "CZ"
        found = late.until_ready()
        assert kinds(found) == "TDCZ"
        assert messages.parse_data_row(found[1].payload) == [b"mine"]


def test_half_a_large_row_cannot_be_finished(wire: Wire) -> None:
    wire.send(query("SELECT 'misbehave:leaves_within_a_large_row'"))
    with pytest.raises((AssertionError, TimeoutError)):
        assert wire.until_ready()[-1].type == ord("Z")


def test_a_fatal_error_is_passed_on(wire: Wire) -> None:
    found = wire.query("SELECT 'misbehave:fatal'")
    assert errors(found) == [("FATAL", "57014", "enough of you")]


@pytest.mark.parametrize("name", ["shutdown", "fatal_of_old"])
def test_a_server_that_goes_down_costs_no_connection(wire: Wire, name: str) -> None:
    found = wire.query(f"SELECT 'misbehave:{name}'")
    assert "40001" in [e[1] for e in errors(found)]
    assert kinds(found)[-1] == "Z"
    assert wire.value("SELECT 'again'") == "again"


def test_every_unit_of_a_lost_pipeline_gets_its_error(wire: Wire) -> None:
    # Only the first one got an error; the others got a ReadyForQuery that seemed to say that all was well.
    insert = parse("", "INSERT INTO written VALUES ('misbehave:leaves')") + bind("", "") + execute("")
    wire.send(insert + sync() + insert + sync() + sync() + query("INSERT INTO written VALUES ('misbehave:leaves')"))
    found = wire.until_ready(4)
    assert kinds(found) == "EZEZZEZ"
    assert {e[1] for e in errors(found)} == {"08007"}
    assert wire.value("SELECT 'again'") == "again"


def test_a_description_of_any_size_is_passed_on(wire: Wire) -> None:
    wire.send(parse("", "SELECT 'misbehave:prepared_wide'") + messages.describe(b"S", "") + sync())
    assert kinds(wire.until_ready()) == "1tTZ"
    assert wire.value("SELECT 'again'") == "again"
