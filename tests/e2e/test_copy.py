"""COPY in both directions, in every format and protocol, ended by either side: the same answers as direct."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.session.conversation import Message
from pgamb.wire import messages
from pgamb.wire.messages import bind, copy_fail, execute, parse, query, sync
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.conversations import COPY_DONE, copy_data
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors, kinds

DEADLINE_S = 30.0
MEGABYTE = 1 << 20
VOLUME_BYTES = 300 * MEGABYTE
# What one connection may hold, both directions together, and what the allocator does not give back at once.
BOUND_BYTES = 8 * MEGABYTE
ROW_BYTES = 8000
ROWS = 1000
BROKEN_ROW = ROWS // 2
# More than everything between the application and PostgreSQL can hold.
BEHIND_BYTES = 20 * MEGABYTE

FORMATS = ("text", "csv", "binary")
BROKEN = {"text": b"oops\tx\n", "csv": b"oops,x\n", "binary": b"\0\x63"}
ROWS_SQL = f"SELECT n, repeat('ü\\', n % 50) AS t FROM generate_series(1, {ROWS}) AS n"


def run(sql: str) -> bytes:
    return parse("", sql) + bind("", "") + execute("")


def in_pipeline(sql: str) -> bytes:
    return run("SELECT 'before'") + sync() + run("SELECT 'with it'") + run(sql)


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a COPY is begun, what follows its last message, and how many ReadyForQuery answer all that."""

    begin: Callable[[str], bytes]
    end: bytes
    answers: int


PROTOCOLS = {
    "simple": Protocol(query, b"", 1),
    "simple, behind others": Protocol(lambda sql: query(f"SELECT 1; {sql}; SELECT 2"), b"", 1),
    "extended": Protocol(run, sync(), 1),
    # libpq sends a Sync before it knows that this is a COPY.
    "extended, with Sync": Protocol(lambda sql: run(sql) + sync(), sync(), 1),
    "pipeline": Protocol(in_pipeline, run("SELECT 'behind'") + sync() + run("SELECT 'next'") + sync(), 3),
}
# Where there may be no COPY IN, that Sync is one more.
OTHERWISE = tuple(name for name in PROTOCOLS if name != "extended, with Sync")


class Place:
    """The primary, straight and through an ambassador that has one connection to each member."""

    def __init__(self, cluster: Cluster, ambassador: Ambassador) -> None:
        self.server = cluster.primary
        self._servers = cluster.servers
        self.ambassador = ambassador
        self._password = cluster.credentials.superuser

    def direct(self) -> Wire:
        return self._connect(self.server.port)

    def through(self) -> Wire:
        return self._connect(self.ambassador.port)

    def _connect(self, port: int) -> Wire:
        return Wire(port, deadline_s=DEADLINE_S).log_in(self._password, parameters={"application_name": "copies"})

    def waits_for(self, event: str) -> None:
        """Wait until the backend has nothing to do but to wait for this, on whichever member it is."""
        sql = f"SELECT 1 FROM pg_stat_activity WHERE wait_event = '{event}' AND application_name = 'copies'"
        wait_for(lambda: any(server.query(sql) for server in self._servers), DEADLINE_S, f"a backend waits for {event}")

    def contents(self) -> object:
        return self.server.query(
            "SELECT count(*), sum(n), min(length(t)), md5(string_agg(t, '' ORDER BY n)) FROM copied"
        )


@pytest.fixture(scope="module")
def place(bare_cluster: Cluster) -> Iterator[Place]:
    bare_cluster.primary.query("CREATE TABLE IF NOT EXISTS copied (n int, t text)")
    with running_ambassador(bare_cluster.servers, "--pool-size", "1", "--replica-wait", "5") as ambassador:
        yield Place(bare_cluster, ambassador)


@pytest.fixture(scope="module")
def rows(place: Place) -> dict[str, list[bytes]]:
    """The rows in each format, as CopyData."""
    found = {}
    with place.direct() as wire:
        for form in FORMATS:
            said = wire.query(f"COPY ({ROWS_SQL}) TO STDOUT (FORMAT {form})")
            found[form] = [copy_data(message.payload) for message in said if message.type == ord("d")]
    return found


def hold(wire: Wire, data: bytes, answers: int) -> list[str]:
    """Say it, listen meanwhile, and return what was heard and that the session is as good as before."""
    sender = threading.Thread(target=wire.send_all, args=(data,))
    sender.start()
    heard = [shown(message) for message in wire.until_ready(answers)]
    sender.join()
    assert kinds(wire.query("SELECT 'still'")) == "TDCZ"
    wire.send(run("SELECT 'still'") + sync())
    assert kinds(wire.until_ready()) == "12DCZ"
    return heard


def shown(message: Message) -> str:
    if chr(message.type) in "EN":
        return f"{chr(message.type)} {messages.parse_error_fields(message.payload)!r}"
    return f"{chr(message.type)} {message.payload!r}"


def compare(place: Place, data: bytes, answers: int) -> list[str]:
    """Hold it direct and through, from the same contents; return what was heard, when nothing differs."""
    sides = []
    for connect in (place.direct, place.through):
        place.server.query("TRUNCATE copied")
        with connect() as wire:
            sides.append((hold(wire, data, answers), place.contents()))
    assert sides[1] == sides[0]
    return sides[0][0]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMATS)
def test_written(place: Place, rows: dict[str, list[bytes]], form: str, protocol: str) -> None:
    how = PROTOCOLS[protocol]
    begin = how.begin(f"COPY copied FROM STDIN (FORMAT {form})")
    compare(place, begin + b"".join(rows[form]) + COPY_DONE + how.end, how.answers)
    assert place.server.query("SELECT count(*) FROM copied") == [(ROWS,)]


@pytest.mark.parametrize("protocol", OTHERWISE)
@pytest.mark.parametrize("form", FORMATS)
def test_read(place: Place, rows: dict[str, list[bytes]], form: str, protocol: str) -> None:
    how = PROTOCOLS[protocol]
    heard = compare(place, how.begin(f"COPY ({ROWS_SQL}) TO STDOUT (FORMAT {form})") + how.end, how.answers)
    assert sum(said.startswith("d ") for said in heard) == len(rows[form])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMATS)
def test_the_application_gives_up(place: Place, rows: dict[str, list[bytes]], form: str, protocol: str) -> None:
    how = PROTOCOLS[protocol]
    begin = how.begin(f"COPY copied FROM STDIN (FORMAT {form})")
    heard = compare(place, begin + b"".join(rows[form]) + copy_fail("enough") + how.end, how.answers)
    assert any("57014" in said and "enough" in said for said in heard)
    compare(place, begin + copy_fail("") + how.end, how.answers)


@pytest.mark.parametrize("last", [COPY_DONE, copy_fail("too late")], ids=["done", "fail"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("form", FORMATS)
def test_a_row_is_refused_while_more_are_sent(
    place: Place, rows: dict[str, list[bytes]], form: str, protocol: str, last: bytes
) -> None:
    how = PROTOCOLS[protocol]
    begin = how.begin(f"COPY copied FROM STDIN (FORMAT {form})")
    pieces = [*rows[form][:BROKEN_ROW], copy_data(BROKEN[form]), *rows[form][BROKEN_ROW:]]
    behind = copy_data(b"x" * MEGABYTE) * (BEHIND_BYTES // MEGABYTE)
    heard = compare(place, begin + b"".join(pieces) + behind + last + how.end, how.answers)
    assert any("22P0" in said for said in heard)


@pytest.mark.parametrize("protocol", OTHERWISE)
@pytest.mark.parametrize("transaction", [False, True])
def test_what_cannot_begin(place: Place, protocol: str, transaction: bool) -> None:
    how = PROTOCOLS[protocol]
    begin = how.begin("COPY nowhere FROM STDIN")
    data = begin + copy_data(b"1\tx\n") + COPY_DONE + how.end
    if transaction:
        compare(place, query("BEGIN") + data + query("SELECT 1") + query("ROLLBACK"), how.answers + 3)
    else:
        compare(place, data, how.answers)


@pytest.mark.parametrize("protocol", OTHERWISE)
def test_an_error_in_the_middle_of_what_is_read(place: Place, protocol: str) -> None:
    how = PROTOCOLS[protocol]
    sql = f"COPY (SELECT n, 1 / ({BROKEN_ROW} - n) FROM generate_series(1, {ROWS}) AS n) TO STDOUT"
    heard = compare(place, how.begin(sql) + how.end, how.answers)
    assert sum(said.startswith("d ") for said in heard) == BROKEN_ROW - 1


@pytest.mark.parametrize("end", [query("COMMIT"), query("ROLLBACK")], ids=["commit", "rollback"])
def test_in_a_transaction(place: Place, rows: dict[str, list[bytes]], end: bytes) -> None:
    copied = query("COPY copied FROM STDIN") + b"".join(rows["text"]) + COPY_DONE
    said = query("BEGIN") + copied + query("SAVEPOINT a") + copied + query("ROLLBACK TO a")
    said += query("COPY (SELECT count(*) FROM copied) TO STDOUT") + query("SAVEPOINT b")
    said += query("COPY copied FROM STDIN") + copy_data(BROKEN["text"]) + COPY_DONE + query("ROLLBACK TO b")
    compare(place, said + end, 10)


@pytest.mark.parametrize("protocol", ["simple", "extended", "pipeline"])
@pytest.mark.parametrize("through", [False, True])
def test_cancelled(place: Place, protocol: str, through: bool) -> None:
    how = PROTOCOLS[protocol]
    with place.through() if through else place.direct() as wire:
        wire.send(how.begin("COPY (SELECT repeat('x', 8000) FROM generate_series(1, 10000000)) TO STDOUT") + how.end)
        place.waits_for("ClientWrite")
        cancel(place, wire, through)
        heard = wire.until_ready(how.answers)
        assert [error[1] for error in errors(heard)] == ["57014"]
        wire.send(how.begin("COPY copied FROM STDIN"))
        until_copying(wire)
        wire.send(copy_data(b"1\tx\n"))
        place.waits_for("ClientRead")
        cancel(place, wire, through)
        # PostgreSQL looks for it when the next data comes.
        wire.send(copy_data(b"2\tx\n") * 10 + COPY_DONE + how.end)
        assert [error[1] for error in errors(wire.until_ready(how.answers - (protocol == "pipeline")))] == ["57014"]
        assert wire.value("SELECT 'still'") == "still"


def cancel(place: Place, wire: Wire, through: bool) -> None:
    assert wire.greeting is not None
    with Wire(place.ambassador.port if through else place.server.port) as other:
        other.send(messages.cancel_request(wire.greeting.pid, wire.greeting.secret))
        assert other.receive_bytes(1) == b""


def until_copying(wire: Wire) -> None:
    while (message := wire.receive()) is not None and message.type != ord("G"):
        pass
    assert message is not None


@pytest.mark.parametrize("protocol", OTHERWISE)
def test_who_leaves_in_the_middle_leaves_nothing(place: Place, protocol: str) -> None:
    how = PROTOCOLS[protocol]
    place.server.query("TRUNCATE copied")
    with place.through() as wire:
        wire.send(how.begin("COPY copied FROM STDIN") + copy_data(b"1\tx\n") * 1000 + copy_data(b"1\tx\n")[:6])
        until_copying(wire)
    with place.through() as wire:
        wire.send(how.begin("COPY (SELECT repeat('x', 8000) FROM generate_series(1, 1000000)) TO STDOUT") + how.end)
        place.waits_for("ClientWrite")
    # There is one connection to PostgreSQL: it is clean, or a new one.
    with place.through() as wire:
        assert wire.value("SELECT count(*) FROM copied") == "0"


def test_much_to_a_slow_application_in_bounded_memory(place: Place) -> None:
    rows = VOLUME_BYTES // ROW_BYTES
    with place.through() as wire:
        before = place.ambassador.resident_bytes
        wire.send(query(f"COPY (SELECT repeat('x', {ROW_BYTES}) FROM generate_series(1, {rows})) TO STDOUT"))
        place.waits_for("ClientWrite")
        count = 0
        while (message := wire.receive()) is not None and message.type != ord("Z"):
            count += message.type == ord("d")
            if count % 5000 == 0:
                # Everything on the way is full again.
                place.waits_for("ClientWrite")
                assert place.ambassador.resident_bytes - before < BOUND_BYTES
        assert count == rows


@pytest.mark.parametrize("protocol", ["simple", "extended, with Sync"])
def test_much_to_a_slow_server_in_bounded_memory(place: Place, protocol: str) -> None:
    how = PROTOCOLS[protocol]
    piece = copy_data(b"1\t" + b"x" * ROW_BYTES + b"\n") * 100
    slowly = "WHERE pg_sleep(CASE WHEN random() < 0.001 THEN 0.02 ELSE 0 END) IS NULL"
    with place.through() as wire:
        before = place.ambassador.resident_bytes
        wire.send(how.begin(f"COPY copied FROM STDIN {slowly}"))
        until_copying(wire)
        for number in range(VOLUME_BYTES // len(piece)):
            wire.send(piece)
            if number % 20 == 0:
                assert place.ambassador.resident_bytes - before < BOUND_BYTES
        wire.send(COPY_DONE + how.end)
        assert kinds(wire.until_ready()) == "CZ"
        assert place.ambassador.resident_bytes - before < BOUND_BYTES
