"""Prepared statements whose tables are changed by somebody whom pgamb does not hear: who hears of it, and who does not.

Every story is told to PostgreSQL and through pgamb, and the answers are compared. Sessions through pgamb change their
backends within it, so that some have a statement from before the change, some from after it, and some not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest

from pgamb.demo.cluster import Cluster
from pgamb.session.conversation import Message
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.waiting import wait_for
from tests.support.wire import Wire

SYNC = messages.sync()
RESHAPED = ("0A000", "cached plan must not change result type", "RevalidateCachedQuery")

DDL = {
    "type": ("ALTER TABLE shape ALTER c TYPE text", "ALTER TABLE shape ALTER c TYPE int USING c::int"),
    "column": ("ALTER TABLE shape ADD d int", "ALTER TABLE shape DROP d"),
    "name": ("ALTER TABLE shape RENAME c TO e", "ALTER TABLE shape RENAME e TO c"),
}
READ = "SELECT * FROM shape ORDER BY 1"
WRITE = "UPDATE shape SET id = id RETURNING *"
SQL = {"read": READ, "write": WRITE}
ADDED = "SELECT 1 FROM pg_attribute WHERE attname = 'd' AND attrelid = 'shape'::regclass"


class Stage:
    """A place to tell a story: sessions with one port, and somebody else who changes the tables behind its back."""

    def __init__(self, cluster: Cluster, port: int, stack: ExitStack) -> None:
        self._cluster = cluster
        self._port = port
        self._stack = stack
        self.heard: list[object] = []

    def session(self) -> Wire:
        wire = Wire(self._port).log_in(self._cluster.credentials.superuser)
        return self._stack.enter_context(wire)

    def hold(self, sessions: int) -> list[Wire]:
        """Keep backends busy: who comes next gets others than these."""
        found = [self.session() for _ in range(sessions)]
        for wire in found:
            wire.query("BEGIN; SELECT pg_advisory_xact_lock_shared(1)")
        return found

    def behind_its_back(self, sql: str) -> None:
        self._cluster.primary.query(sql)

    def say(self, wire: Wire, *said: bytes) -> None:
        wire.send(b"".join(said))
        self.hear(wire.until_ready())

    def hear(self, found: Sequence[Message]) -> None:
        self.heard.append([_readable(message) for message in found])


def _readable(message: Message) -> object:
    match chr(message.type):
        case "E":
            fields = messages.parse_error_fields(message.payload)
            return tuple(fields.get(key) for key in "CMR")
        case "T" | "D" | "t":
            return chr(message.type), message.payload
        case kind:
            return kind


def prepare(name: str, sql: str) -> tuple[bytes, ...]:
    """As asyncpg and pgjdbc do: what is described here decides how rows are read from then on."""
    return messages.parse(name, sql), messages.describe(b"S", name), SYNC


def run(name: str, *values: bytes) -> bytes:
    return messages.bind("", name, values) + messages.execute("")


@pytest.fixture(scope="module")
def ambassador(bare_cluster: Cluster) -> Iterator[Ambassador]:
    with running_ambassador(bare_cluster.servers[:1], "--pool-size", "6") as running:
        yield running


@pytest.fixture
def compare(bare_cluster: Cluster, ambassador: Ambassador) -> Callable[[Callable[[Stage], None]], list[object]]:
    """Tell a story on both sides; return what was heard, which has to be the same."""

    def compare(story: Callable[[Stage], None]) -> list[object]:
        told: list[list[object]] = []
        for port in (bare_cluster.primary.port, ambassador.port):
            bare_cluster.primary.query("DROP TABLE IF EXISTS shape")
            bare_cluster.primary.query("CREATE TABLE shape (id int PRIMARY KEY, c int)")
            bare_cluster.primary.query("INSERT INTO shape VALUES (1, 1), (2, 2)")
            with ExitStack() as stack:
                stage = Stage(bare_cluster, port, stack)
                story(stage)
                told.append(stage.heard)
        # A table's oid is another one each time.
        direct, through = (repr(heard) for heard in map(_without_oids, told))
        assert through == direct
        return told[1]

    return compare


def _without_oids(heard: list[object]) -> list[object]:
    """Leave out of each RowDescription which table its columns are of."""
    return [[_columns(said) for said in answer] for answer in heard if isinstance(answer, list)]


def _columns(said: object) -> object:
    match said:
        case ("T", bytes(payload)):
            columns, position = [], 2
            while position < len(payload):
                zero = payload.index(0, position)
                columns.append((payload[position:zero], payload[zero + 7 : zero + 19]))
                position = zero + 19
            return "T", columns
    return said


Compare = Callable[[Callable[[Stage], None]], list[object]]


@pytest.mark.parametrize("holding", [0, 1, 3])
@pytest.mark.parametrize("kind", SQL)
@pytest.mark.parametrize("ddl", DDL)
def test_before_and_after(compare: Compare, ddl: str, kind: str, holding: int) -> None:
    """Who has prepared before hears of it, who prepares afterwards does not; `holding` moves them to other backends."""

    def story(stage: Stage) -> None:
        before, after = stage.session(), stage.session()
        stage.say(before, *prepare("old", SQL[kind]))
        stage.say(before, run("old"), SYNC)
        stage.behind_its_back(DDL[ddl][0])
        held = stage.hold(holding)
        stage.say(before, run("old"), SYNC)
        stage.say(after, *prepare("new", SQL[kind]))
        stage.say(after, run("new"), SYNC)
        stage.say(before, run("old"), SYNC)
        stage.say(before, *prepare("again", SQL[kind]))
        stage.say(before, run("again"), SYNC)
        for wire in held:
            wire.query("ROLLBACK")
        stage.say(after, run("new"), SYNC)
        stage.say(before, run("old"), SYNC)
        stage.behind_its_back(DDL[ddl][1])
        for wire, name in ((before, "old"), (after, "new"), (before, "again")):
            stage.say(wire, run(name), SYNC)

    heard = repr(compare(story))
    assert heard.count(RESHAPED[2]) == 5


@pytest.mark.parametrize("begin", ["BEGIN", "BEGIN; LOCK TABLE held"])
@pytest.mark.parametrize("kind", SQL)
def test_in_a_transaction(bare_cluster: Cluster, compare: Compare, kind: str, begin: str) -> None:
    """A transaction fails for who has prepared before, and for nobody else."""
    bare_cluster.primary.query("CREATE TABLE IF NOT EXISTS held ()")

    def story(stage: Stage) -> None:
        before, after = stage.session(), stage.session()
        for wire in (before, after):
            stage.say(wire, *prepare("known", SQL[kind]))
            stage.say(wire, run("known"), SYNC)
        stage.behind_its_back(DDL["type"][0])
        held = stage.hold(1)
        stage.say(after, messages.close(b"S", "known"), *prepare("known", SQL[kind]))
        for wire in (after, before):
            stage.say(wire, messages.query(begin))
            stage.say(wire, run("known"), SYNC)
            stage.say(wire, messages.query("SELECT 1"))
            stage.say(wire, messages.query("ROLLBACK"))
        for wire in held:
            wire.query("ROLLBACK")

    heard = repr(compare(story))
    assert heard.count(RESHAPED[2]) == 1


def test_without_a_description(compare: Compare) -> None:
    """libpq prepares with Parse and Sync alone, which pgamb answers itself where others have prepared the same."""

    def story(stage: Stage) -> None:
        others = [stage.session() for _ in range(3)]
        for wire in others:
            stage.say(wire, messages.parse("q", READ), SYNC)
            stage.say(wire, run("q"), SYNC)
        stage.behind_its_back(DDL["column"][0])
        late = stage.session()
        stage.say(late, messages.parse("q", READ), SYNC)
        stage.say(late, messages.query("BEGIN; SELECT pg_advisory_xact_lock_shared(1)"))
        stage.say(late, messages.bind("", "q"), messages.describe(b"P", ""), messages.execute(""), SYNC)
        stage.say(late, messages.query("COMMIT"))
        for wire in others:
            stage.say(wire, run("q"), SYNC)

    heard = repr(compare(story))
    assert heard.count(RESHAPED[2]) == 3


def test_in_the_middle_of_a_pipeline(compare: Compare) -> None:
    def story(stage: Stage) -> None:
        before = stage.session()
        stage.say(before, *prepare("q", WRITE))
        stage.say(before, *prepare("other", "INSERT INTO shape (id) VALUES ($1::int)"))
        stage.behind_its_back(DDL["type"][0])
        held = stage.hold(2)
        before.send(run("other", b"7") + SYNC + run("q") + run("other", b"8") + SYNC + run("other", b"9") + SYNC)
        stage.hear(before.until_ready(3))
        stage.say(before, run("other", b"10"), run("q"), run("other", b"11"), SYNC)
        stage.say(before, messages.query("SELECT id FROM shape ORDER BY id"))
        for wire in held:
            wire.query("ROLLBACK")

    heard = repr(compare(story))
    assert heard.count(RESHAPED[2]) == 2


def test_types_of_parameters_stay(compare: Compare) -> None:
    """What was inferred when the session prepared is what it sends, whatever a backend would infer now."""

    def story(stage: Stage) -> None:
        before = stage.session()
        stage.say(before, *prepare("q", "INSERT INTO shape VALUES ($1, $2)"))
        stage.behind_its_back(DDL["type"][0])
        held = stage.hold(2)
        binary = b"B" + _body(b"\0q\0" + b"\0\1\0\1" + b"\0\2" + _value(17) + _value(18) + b"\0\0")
        stage.say(before, binary, messages.execute(""), SYNC)
        stage.say(before, messages.query("SELECT * FROM shape WHERE id = 17"))
        for wire in held:
            wire.query("ROLLBACK")

    assert b"18" in [message[1][-2:] for answer in compare(story) for message in answer if message[0] == "D"]  # type: ignore[attr-defined]


def _body(payload: bytes) -> bytes:
    return (len(payload) + 4).to_bytes(4, "big") + payload


def _value(number: int) -> bytes:
    return b"\0\0\0\4" + number.to_bytes(4, "big")


@pytest.mark.parametrize("made", ["parse", "prepare"])
def test_who_must_have_its_own_names_survives_a_table_that_is_gone(compare: Compare, made: str) -> None:
    """Under its own names no statement can be prepared whose table is gone: the others are, and the session goes on."""

    def story(stage: Stage) -> None:
        before = stage.session()
        if made == "parse":
            stage.say(before, messages.parse("gone", READ), messages.parse("kept", "SELECT 7"), SYNC)
        else:
            stage.say(before, messages.query(f"PREPARE gone AS {READ}"))
            stage.say(before, messages.query("PREPARE kept AS SELECT 7"))
        stage.behind_its_back("DROP TABLE shape")
        before.query("SELECT count(*) FROM pg_prepared_statements")
        stage.say(before, run("kept"), SYNC)
        stage.say(before, messages.query("SELECT 1"))
        stage.say(before, messages.query("DEALLOCATE ALL"))
        stage.say(before, messages.query("SELECT name FROM pg_prepared_statements"))

    compare(story)


def test_a_replica_that_says_so_is_asked_again(bare_cluster: Cluster) -> None:
    """A statement that has outlived its table is no less a read: replicas answer it when it is prepared anew."""
    primary = bare_cluster.primary
    primary.query("DROP TABLE IF EXISTS shape")
    primary.query("CREATE TABLE shape (id int PRIMARY KEY, c int)")
    with running_ambassador(bare_cluster.servers, "--replica-wait", "5") as ambassador, ExitStack() as stack:
        stage = Stage(bare_cluster, ambassador.port, stack)
        wire = stage.session()
        wait_for(lambda: "replica" in str(_route(wire)), 30, "reads go to replicas")
        stage.say(wire, *prepare("q", READ))
        stage.say(wire, run("q"), SYNC)
        stage.behind_its_back(DDL["column"][0])
        wait_for(lambda: all(server.query(ADDED) for server in bare_cluster.servers), 30, "it is replayed")
        for _ in range(3):
            stage.say(wire, run("q"), SYNC)
        assert repr(stage.heard).count(RESHAPED[2]) == 3
        stage.say(wire, *prepare("again", READ))
        stage.say(wire, run("again"), SYNC)
        assert repr(stage.heard).count(RESHAPED[2]) == 3
        wait_for(lambda: "replica" in str(_route(wire)), 30, "reads go to replicas")


def _route(wire: Wire) -> str | None:
    wire.send(messages.parse("", READ) + messages.bind("", "") + messages.execute("") + SYNC)
    wire.until_ready()
    return wire.value("SHOW pgamb.last_route")
