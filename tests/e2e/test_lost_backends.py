"""What an application hears when its backend is lost, for each thing that can be under way."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.conversations import COPY_DONE, copy_data
from tests.support.gates import GateRelay, running_gates
from tests.support.wire import Wire

LOST = "/* lost */"
IDLE, INTRANS, INERROR = TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR
WRITE = "INSERT INTO lost_rows VALUES (1)"

# What ran before, what is under way when its backend is lost, what its application hears (nothing: the answer), and in
# which state its session is then.
CASES: dict[str, tuple[list[str], str, str | None, TransactionStatus]] = {
    "a read": ([], "SELECT 7", None, IDLE),
    "a read of a virtual transaction": (["BEGIN", "SELECT 1"], "SELECT 7", None, INTRANS),
    "a write": ([], WRITE, "08007", IDLE),
    "what may write": ([], "DO $$ BEGIN END $$", "08007", IDLE),
    "a write of a transaction": (["BEGIN", WRITE], WRITE, "40001", INERROR),
    "a read of a transaction": (["BEGIN", WRITE], "SELECT 7", "40001", INERROR),
    "a savepoint": (["BEGIN", WRITE], "SAVEPOINT a", "40001", INERROR),
    "the first write of a transaction": (["BEGIN", "SELECT 1"], WRITE, "40001", INERROR),
    "a commit": (["BEGIN", WRITE], "COMMIT", "08007", IDLE),
    "a commit and chain": (["BEGIN", WRITE], "COMMIT AND CHAIN", "08007", IDLE),
    "a rollback": (["BEGIN", WRITE], "ROLLBACK", "40001", INERROR),
    "the first half of a commit": (["BEGIN", WRITE], "PREPARE TRANSACTION 'lost'", "08007", IDLE),
    "the second half of a commit": ([], "COMMIT PREPARED 'lost'", "08007", IDLE),
}


@pytest.fixture(scope="module")
def gates(postgres: PostgresServer) -> Iterator[GateRelay]:
    postgres.query("CREATE TABLE lost_rows (n int)")
    with running_gates(postgres.port) as relay:
        yield relay
    postgres.query("DROP TABLE lost_rows")


@pytest.fixture(scope="module")
def ambassador(postgres: PostgresServer, gates: GateRelay) -> Iterator[Ambassador]:
    with running_ambassador([postgres], "--registry", f"static://127.0.0.1:{gates.port}") as running:
        yield running


@pytest.fixture
def session(ambassador: Ambassador) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(ambassador.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture(autouse=True)
def _tidy(postgres: PostgresServer) -> Iterator[None]:
    yield
    for (name,) in postgres.query("SELECT gid FROM pg_prepared_xacts WHERE gid = 'lost'"):
        postgres.query(f"ROLLBACK PREPARED '{name}'")


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
@pytest.mark.parametrize(("before", "statement", "sqlstate", "status"), CASES.values(), ids=CASES)
def test_a_statement_under_way(
    gates: GateRelay,
    session: psycopg.Connection[tuple[object, ...]],
    before: list[str],
    statement: str,
    sqlstate: str | None,
    status: TransactionStatus,
    extended: bool,
) -> None:
    for sql in before:
        session.execute(sql)
    with ThreadPoolExecutor() as pool, gates.gate(LOST.encode()) as gate:
        # `binary` asks psycopg for the extended protocol.
        running = pool.submit(session.execute, f"{statement} {LOST}", binary=extended)
        gate.wait_reached()
        gate.drop()
        if sqlstate is None:
            assert running.result(30).fetchone() == (7,)
        else:
            with pytest.raises(psycopg.Error, match="was lost") as caught:
                running.result(30)
            assert caught.value.sqlstate == sqlstate
    assert session.info.transaction_status is status
    if status is INERROR:
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            session.execute("SELECT 1", binary=extended)
    session.execute("ROLLBACK")
    assert session.execute("SELECT 1", binary=extended).fetchone() == (1,)


@pytest.mark.parametrize("extended", [False, True], ids=["simple", "extended"])
def test_between_the_statements_of_a_transaction(
    gates: GateRelay, session: psycopg.Connection[tuple[object, ...]], extended: bool
) -> None:
    session.execute("BEGIN")
    session.execute(WRITE)
    gates.cut()
    with pytest.raises(psycopg.errors.SerializationFailure, match="was lost") as caught:
        session.execute("SELECT 1", binary=extended)
    assert caught.value.diag.message_hint == "Repeat the transaction."
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        session.execute("SELECT 1", binary=extended)
    session.execute("ROLLBACK", binary=extended)
    assert session.execute("SELECT 1").fetchone() == (1,)


def test_nothing_under_way(gates: GateRelay, session: psycopg.Connection[tuple[object, ...]]) -> None:
    session.execute("SET work_mem = '5MB'")
    # By the next answer pgamb knows what that has set.
    session.execute("SELECT 1")
    gates.cut()
    assert session.execute("SHOW work_mem").fetchone() == ("5MB",)
    session.execute("BEGIN")
    session.execute("SELECT 1")
    gates.cut()
    session.execute(WRITE)
    session.execute("ROLLBACK")


@pytest.mark.parametrize(
    ("pin", "named"),
    [
        ("CREATE TEMP TABLE lost_own (n int)", "temporary"),
        ("LISTEN lost", "listen"),
        ("SELECT pg_advisory_lock(71)", "advisory"),
        ("DECLARE lost_c CURSOR WITH HOLD FOR SELECT 1", "cursor"),
    ],
)
def test_a_pinned_session_ends(gates: GateRelay, ambassador: Ambassador, pin: str, named: str) -> None:
    with psycopg.connect(ambassador.dsn(), autocommit=True) as session:
        session.execute(pin)
        gates.cut()
        with pytest.raises(psycopg.OperationalError, match="session's own state") as caught:
            session.execute("SELECT 1")
        assert named in str(caught.value)
        assert session.closed


@pytest.mark.parametrize(("ended", "sqlstate"), [(False, "40001"), (True, "08007")], ids=["in it", "at its end"])
def test_a_copy(gates: GateRelay, ambassador: Ambassador, ended: bool, sqlstate: str) -> None:
    rows, done = copy_data(b"1\n2\n"), COPY_DONE
    password = ambassador.servers[0].credentials.superuser
    with Wire(ambassador.port) as wire, gates.gate(done if ended else rows) as gate:
        wire.log_in(password)
        wire.send(messages.query("COPY lost_rows FROM STDIN"))
        answer = wire.receive()
        assert answer is not None
        assert chr(answer.type) == "G"
        wire.send(rows + (done if ended else b""))
        gate.wait_reached()
        gate.drop()
        told = {chr(message.type): message.payload for message in wire.until_ready()}
        assert f"C{sqlstate}\0".encode() in told["E"]
        assert told["Z"] == b"I"
        wire.send(messages.query("SELECT 1"))
        assert [chr(message.type) for message in wire.until_ready()] == ["T", "D", "C", "Z"]
