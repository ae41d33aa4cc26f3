"""Which texts speak of process ids, and how the numbers in a unit are exchanged."""

from __future__ import annotations

import struct

import pytest

from pgamb.session.process_ids import FIRST_PID, LAST_PID, Mention, asks_own, mention, named, rewritten

A, B = FIRST_PID, LAST_PID - 1


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def query(sql: str) -> bytes:
    return message("Q", sql.encode() + b"\0")


def parse(sql: str) -> bytes:
    return message("P", b"name\0" + sql.encode() + b"\0\0\1\0\0\0\x17")


def bind(formats: tuple[int, ...], *values: bytes | None) -> bytes:
    parts = [b"\0name\0", struct.pack(f"!h{len(formats)}h", len(formats), *formats), struct.pack("!h", len(values))]
    for value in values:
        parts += [b"\xff\xff\xff\xff"] if value is None else [struct.pack("!i", len(value)), value]
    return message("B", b"".join(parts) + b"\0\1\0\1")


SYNC = message("S", b"")


@pytest.mark.parametrize(
    ("sql", "answer"),
    [
        ("SELECT pg_backend_pid()", "SELECT (SELECT 5 AS pg_backend_pid)"),
        ("select version(), pg_catalog.pg_backend_pid( );", "select version(), (SELECT 5 AS pg_backend_pid);"),
        ("select pg_backend_pid() as a, pg_backend_pid() AS b", None),
        ("SELECT pg_backend_pid() + 1", ""),
        ("SELECT f(1, pg_backend_pid())", ""),
        ("SELECT pg_terminate_backend(pg_backend_pid())", ""),
        ("SELECT 1 FROM t WHERE pid = pg_backend_pid()", ""),
        ("SELECT ', ', pg_backend_pid()", ""),
        ("SELECT 1 -- ,\n, pg_backend_pid()", ""),
        ("INSERT INTO t SELECT pg_backend_pid()", ""),
        ("SELECT pg_backend_pid(); SELECT pg_backend_pid()", ""),
        ("SELECT pg_backend_pid() UNION SELECT 1", ""),
    ],
)
def test_who_only_asks_for_its_own_gets_what_it_was_told(sql: str, answer: str | None) -> None:
    if answer is None:
        answer = "select (SELECT 5 AS pg_backend_pid) as a, (SELECT 5 AS pg_backend_pid) AS b"
    assert asks_own(sql.encode()) == bool(answer)
    assert rewritten(query(sql), [False], 5, {}) == query(answer or sql)
    assert rewritten(parse(sql) + SYNC, [False], 5, {}) == parse(answer or sql) + SYNC


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT PG_Terminate_Backend(1)",
        "select * from pg_catalog.pg_stat_activity",
        "SELECT pg_isolation_test_session_is_blocked($1, '{1}')",
        'SELECT 1 FROM "pg_locks"',
    ],
)
def test_texts_that_name_processes(sql: str) -> None:
    assert mention(sql.encode())


@pytest.mark.parametrize("sql", ["SELECT pg_locks_of_mine", "SELECT pg_backend_pid()", "SELECT my_pg_stat_activity"])
def test_texts_that_do_not(sql: str) -> None:
    assert not mention(sql.encode())


def test_numbers_in_a_text() -> None:
    sql = f"SELECT pg_blocking_pids({A}), '{{{A},{B}}}', {A}0, 1{A}, x{A}, {A}.5, {LAST_PID}, {FIRST_PID - 1}"
    unit = query(sql)
    assert named(unit, [True]) >= {A, B, LAST_PID}
    assert named(unit, [False]) == set()
    expected = f"SELECT pg_blocking_pids(7), '{{7,88}}', {A}0, 1{A}, x{A}, {A}.5, {LAST_PID}, {FIRST_PID - 1}"
    assert rewritten(unit, [True], 5, {A: 7, B: 88}) == query(expected)


def int4(number: int) -> bytes:
    return struct.pack("!i", number)


def array(*numbers: int) -> bytes:
    return struct.pack("!5i", 1, 0, 23, len(numbers), 1) + b"".join(int4(4) + int4(number) for number in numbers)


def test_numbers_among_parameters() -> None:
    real = {A: 7, B: 88}
    text = bind((), b"%d" % A, None, b"{%d,%d}" % (A, B))
    assert named(text, [True]) == {A, B}
    assert rewritten(text + SYNC, [True], 5, real) == bind((), b"7", None, b"{7,88}") + SYNC
    binary = bind((1,), int4(A), struct.pack("!q", B), array(B, 3), b"1073741824", b"\0\0")
    assert named(binary, [True]) == {A, B}
    changed = bind((1,), int4(7), struct.pack("!q", 88), array(88, 3), b"1073741824", b"\0\0")
    assert rewritten(binary, [True], 5, real) == changed
    mixed = bind((0, 1), b"%d" % A, int4(A))
    assert rewritten(mixed, [True], 5, real) == bind((0, 1), b"7", int4(7))


def test_only_what_is_marked_is_looked_into() -> None:
    unit = bind((), b"%d" % A) + message("D", b"Sname\0") + parse("SELECT 1") + bind((), b"%d" % A) + SYNC
    expected = bind((), b"%d" % A) + message("D", b"Sname\0") + parse("SELECT 1") + bind((), b"7") + SYNC
    assert rewritten(unit, [False, False, False, True], 5, {A: 7}) == expected
    assert rewritten(unit, [], 5, {A: 7}) == unit


def test_what_is_malformed_is_left_to_postgresql() -> None:
    for unit in (message("B", b"\0name\0\0\3"), message("B", b"\0name\0\0\0\0\1\0\0"), message("P", b"name")):
        assert named(unit, [True]) == set()
        assert rewritten(unit, [True], 5, {A: 7}) == unit


def test_a_text_that_terminates() -> None:
    others = Mention.PROCESSES | Mention.TERMINATED
    assert mention(b"SELECT pg_catalog.pg_terminate_backend($1)") == others
    assert mention(b"SELECT PG_terminate_backend(PG_Backend_PID())") == others | Mention.OWN_TERMINATED
    assert mention(b"SELECT pg_cancel_backend(pg_backend_pid())") == Mention.PROCESSES
