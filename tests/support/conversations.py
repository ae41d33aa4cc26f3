"""Conversations to be held with PostgreSQL itself and through pgamb: what is said, and until when is listened.

Each is legal protocol, if not always usual, or an error that PostgreSQL has words for. They use the table `talk`
(`n int primary key, t text`), which `PREPARE_SQL` fills with ten rows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pgamb.wire import constants as c
from pgamb.wire.messages import bind, close, copy_fail, describe, execute, flush, parse, query, sync

PREPARE_SQL = (
    "CREATE TABLE IF NOT EXISTS talk (n int PRIMARY KEY, t text); TRUNCATE talk; "
    "INSERT INTO talk SELECT g, 't' || g FROM generate_series(1, 10) AS g"
)
S, P = c.STATEMENT, c.PORTAL


def message(kind: str, body: bytes = b"") -> bytes:
    """Build any message."""
    return kind.encode() + struct.pack("!I", len(body) + 4) + body


def copy_data(data: bytes) -> bytes:
    return message("d", data)


COPY_DONE = message("c")


@dataclass(frozen=True, slots=True)
class Step:
    """Send `data`, then listen until these message types have come, in this order (others may come between)."""

    data: bytes
    until: str = "Z"


def call(oid: int, *arguments: bytes) -> bytes:
    """Build FunctionCall, arguments and result as text."""
    body = struct.pack("!IHH", oid, 0, len(arguments))
    body += b"".join(struct.pack("!I", len(a)) + a for a in arguments)
    return message("F", body + struct.pack("!H", 0))


SELECT = "SELECT n, t FROM talk WHERE n <= $1 ORDER BY n"

CONVERSATIONS: dict[str, tuple[Step, ...]] = {
    "simple": (
        Step(query("SELECT 1, 'two', NULL")),
        Step(query("")),
        Step(query("   ;; ")),
        Step(query("SELECT 1; SELECT 2; INSERT INTO talk VALUES (11, 'x')")),
        Step(query("SELECT 1; SELECT 1/0; SELECT 2")),
        Step(query("SELECT")),
        Step(query("SELEC")),
        Step(query("BEGIN")),
        Step(query("INSERT INTO talk VALUES (12, 'y')")),
        Step(query("INSERT INTO talk VALUES (12, 'y')")),
        Step(query("SELECT 1")),
        Step(query("ROLLBACK")),
        Step(query("ROLLBACK")),
        Step(query("SELECT count(*) FROM talk")),
        Step(query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")),
        Step(query("SET application_name = 'me'")),
        Step(query("SHOW application_name")),
        Step(query("RESET application_name")),
    ),
    "pipelined simple": (Step(query("SELECT 1") + query("SELECT 1/0") + query("SELECT 3"), "ZZZ"),),
    "pipelined writes": (
        Step(
            query("INSERT INTO talk VALUES (21)")
            + query("SELECT n FROM talk WHERE n = 21")
            + query("DELETE FROM talk"),
            "ZZZ",
        ),
        Step(query("BEGIN") + query("SELECT 1") + query("COMMIT") + query("SELECT count(*) FROM talk"), "ZZZZ"),
    ),
    "unnamed": (
        Step(parse("", SELECT) + describe(S, "") + sync()),
        Step(bind("", "", [b"2"]) + describe(P, "") + execute("") + sync()),
        Step(bind("", "", [b"3"]) + execute("") + sync()),
        Step(parse("", "SELECT 1/0") + bind("", "") + execute("") + sync()),
        Step(bind("", "") + execute("") + sync()),
        Step(query("SELECT 5")),
        Step(bind("", "") + execute("") + sync()),
    ),
    "named": (
        Step(parse("one", SELECT, [23]) + describe(S, "one") + sync()),
        Step(bind("", "one", [b"2"]) + describe(P, "") + execute("") + sync()),
        Step(bind("p", "one", [b"1"]) + execute("p") + close(P, "p") + sync()),
        Step(parse("one", "SELECT 1") + sync()),
        Step(parse("two", "SELECT 2") + bind("", "two") + execute("") + parse("one", "SELECT 3") + sync()),
        Step(bind("", "two") + execute("") + sync()),
        Step(close(S, "one") + sync()),
        Step(bind("", "one", [b"2"]) + execute("") + sync()),
        Step(parse("one", "SELECT 'again'") + bind("", "one") + execute("") + sync()),
        Step(close(S, "nothing") + close(P, "nothing") + sync()),
        Step(describe(S, "nothing") + sync()),
        Step(describe(P, "nothing") + sync()),
        Step(execute("nothing") + sync()),
        Step(bind("", "nothing") + sync()),
    ),
    "errors in a batch": (
        Step(parse("e", "SELECT n FROM nowhere") + bind("", "e") + execute("") + sync()),
        Step(bind("", "e") + sync()),
        Step(
            parse("a", "SELECT 1")
            + parse("b", "SELECT 1/$1::int")
            + bind("", "b", [b"0"])
            + execute("")
            + parse("d", "SELECT 4")
            + close(S, "a")
            + sync()
        ),
        Step(bind("", "a") + execute("") + sync()),
        Step(bind("", "d") + execute("") + sync()),
        Step(bind("", "b", [b"1"]) + execute("") + sync()),
        Step(bind("", "b", [b"x"]) + execute("") + sync()),
    ),
    "pipeline of several syncs": (
        Step(
            parse("", "SELECT 1")
            + bind("", "")
            + execute("")
            + sync()
            + parse("", "SELECT 1/0")
            + bind("", "")
            + execute("")
            + parse("", "SELECT 9")
            + sync()
            + parse("x", "SELECT 3")
            + bind("", "x")
            + execute("")
            + sync()
            + sync()
            + bind("", "x")
            + execute("")
            + sync(),
            "ZZZZZ",
        ),
        Step(
            parse("", "INSERT INTO talk VALUES (31)")
            + bind("", "")
            + execute("")
            + sync()
            + parse("", "INSERT INTO talk VALUES (31)")
            + bind("", "")
            + execute("")
            + sync()
            + parse("", "SELECT count(*) FROM talk")
            + bind("", "")
            + execute("")
            + sync(),
            "ZZZ",
        ),
    ),
    "row limits in a transaction": (
        Step(query("BEGIN")),
        Step(parse("", "SELECT n FROM talk ORDER BY n") + bind("cur", "") + execute("cur", 3) + sync()),
        Step(execute("cur", 3) + execute("cur", 2) + sync()),
        Step(describe(P, "cur") + execute("cur") + execute("cur", 1) + sync()),
        Step(bind("cur", "") + sync()),
        Step(query("COMMIT")),
        Step(query("SELECT 1")),
    ),
    "row limit without a transaction": (
        Step(parse("", "SELECT n FROM talk ORDER BY n") + bind("", "") + execute("", 3) + execute("", 100) + sync()),
        Step(parse("", "SELECT n FROM talk ORDER BY n") + bind("c1", "") + execute("c1", 3) + sync()),
        Step(execute("c1", 3) + sync()),
    ),
    "flush": (
        Step(parse("", "SELECT 1") + flush(), "1"),
        Step(describe(S, "") + flush(), "T"),
        Step(bind("", "") + flush(), "2"),
        Step(execute("") + flush(), "C"),
        Step(sync()),
        Step(parse("f", "INSERT INTO talk VALUES (41)") + bind("", "f") + execute("") + flush(), "C"),
        Step(parse("g", "SELECT count(*) FROM talk") + bind("", "g") + execute("") + flush(), "C"),
        Step(sync()),
        Step(parse("", "SELECT 1/0") + bind("", "") + execute("") + flush(), "E"),
        Step(parse("", "SELECT 1") + bind("", "") + execute("") + flush() + sync()),
        Step(flush() + flush() + sync()),
        Step(parse("h", "SELECT 1") + flush(), "1"),
        Step(parse("i", "SELECT 1") + flush(), "1"),
        Step(close(S, "i") + flush(), "3"),
        Step(sync()),
    ),
    "empty": (
        Step(sync()),
        Step(sync() + sync() + sync(), "ZZZ"),
        Step(parse("", "") + bind("", "") + describe(P, "") + execute("") + sync()),
        Step(parse("", "-- nothing") + describe(S, "") + sync()),
    ),
    "simple between": (
        Step(parse("", "INSERT INTO talk VALUES (51)") + bind("", "") + execute("") + query("SELECT 1"), "CCZ"),
        Step(sync()),
        Step(parse("m", "SELECT 7") + query("SELECT 2"), "CZ"),
        Step(bind("", "m") + execute("") + sync()),
        Step(parse("", "SELECT 1/0") + bind("", "") + execute("") + query("SELECT 3") + sync(), "Z"),
        Step(query("SELECT 4")),
    ),
    "copy in": (
        Step(query("COPY talk FROM STDIN"), "G"),
        Step(copy_data(b"61\ta\n62\tb\n") + copy_data(b"63") + copy_data(b"\tc\n") + COPY_DONE),
        Step(query("COPY talk FROM STDIN"), "G"),
        Step(copy_data(b"64\ta\n") + copy_fail("no more")),
        Step(query("COPY talk FROM STDIN") + copy_data(b"65\tx\n") + COPY_DONE),
        Step(query("COPY talk FROM STDIN") + copy_data(b"oops\tx\n" * 3) + COPY_DONE),
        Step(query("COPY nowhere FROM STDIN") + copy_data(b"65\tx\n") + COPY_DONE),
        Step(query("SELECT 1; COPY talk FROM STDIN; SELECT 2"), "G"),
        Step(copy_data(b"66\ty\n") + COPY_DONE),
        Step(query("COPY talk FROM STDIN; COPY talk FROM STDIN"), "G"),
        Step(copy_data(b"67\ty\n") + COPY_DONE, "G"),
        Step(copy_data(b"68\ty\n") + COPY_DONE),
        Step(query("SELECT count(*) FROM talk")),
        Step(query("BEGIN")),
        Step(query("COPY talk FROM STDIN"), "G"),
        Step(copy_data(b"61\ta\n") + COPY_DONE),
        Step(query("ROLLBACK")),
    ),
    "copy out": (
        Step(query("COPY (SELECT n, t FROM talk ORDER BY n) TO STDOUT")),
        Step(query("COPY (SELECT 1/(n - 5) FROM talk ORDER BY n) TO STDOUT")),
        Step(query("COPY talk TO STDOUT; SELECT 1")),
        Step(parse("", "COPY talk TO STDOUT") + bind("", "") + describe(P, "") + execute("") + sync()),
    ),
    "copy in, extended": (
        # libpq sends the first Sync before it knows that this is a COPY; PostgreSQL ignores it.
        Step(parse("", "COPY talk FROM STDIN") + bind("", "") + describe(P, "") + execute("") + sync(), "G"),
        Step(copy_data(b"71\ta\n") + COPY_DONE + sync()),
        Step(parse("", "COPY talk FROM STDIN") + bind("", "") + execute("") + sync(), "G"),
        Step(copy_data(b"72\ta\n") + copy_fail("enough") + sync()),
        Step(parse("", "COPY talk FROM STDIN") + bind("", "") + execute("") + flush(), "G"),
        Step(sync() + flush() + copy_data(b"73\ta\n") + sync() + COPY_DONE + sync()),
        Step(parse("", "COPY talk FROM STDIN") + bind("", "") + execute("") + sync(), "G"),
        Step(copy_data(b"x\ta\n") + COPY_DONE + sync()),
        Step(
            parse("k", "COPY talk FROM STDIN")
            + bind("", "k")
            + execute("")
            + copy_data(b"74\tb\n")
            + COPY_DONE
            + sync()
        ),
        Step(query("SELECT count(*) FROM talk")),
    ),
    "copy data for nobody": (
        Step(copy_data(b"1\t2\n") + COPY_DONE + copy_fail("?") + query("SELECT 1")),
        Step(query("BEGIN")),
        Step(copy_data(b"1\t2\n") + COPY_DONE + query("SELECT 2")),
        Step(parse("", "SELECT 3") + bind("", "") + execute("") + copy_data(b"x") + COPY_DONE + sync()),
        Step(query("COMMIT")),
    ),
    "function call": (
        Step(call(1397, b"-7")),
        Step(call(1397, b"x")),
        Step(call(4294967295)),
        Step(query("BEGIN") + call(1397, b"-8") + query("COMMIT"), "ZZZ"),
        Step(query("SELECT 1")),
    ),
    "deallocate": (
        Step(parse("d1", "SELECT 1") + parse("d2", "SELECT 2") + parse("d3", "SELECT 3") + sync()),
        Step(query("DEALLOCATE d1")),
        Step(bind("", "d1") + execute("") + sync()),
        Step(query("DEALLOCATE d1")),
        Step(parse("", "DEALLOCATE d2") + bind("", "") + execute("") + sync()),
        Step(bind("", "d2") + execute("") + sync()),
        Step(parse("d1", "SELECT 4") + bind("", "d1") + execute("") + sync()),
        Step(query("BEGIN")),
        Step(query("SELECT 1/0")),
        Step(query("DEALLOCATE d1")),
        Step(query("ROLLBACK")),
        Step(bind("", "d1") + execute("") + sync()),
        Step(query("DEALLOCATE ALL")),
        Step(bind("", "d3") + execute("") + sync()),
        Step(parse("d3", "SELECT 5") + bind("", "d3") + execute("") + sync()),
        Step(query("DISCARD ALL")),
        Step(bind("", "d3") + execute("") + sync()),
        Step(parse("d3", "SELECT 6") + bind("", "d3") + execute("") + sync()),
        Step(query("DEALLOCATE PREPARE d3")),
        Step(parse('D"X', "SELECT 7") + sync()),
        Step(query('DEALLOCATE "D""X"')),
        Step(bind("", 'D"X') + sync()),
    ),
    "deallocate all in a pipeline": (
        Step(parse("d1", "SELECT 1") + parse("d2", "SELECT 2") + bind("", "d2") + execute("") + sync()),
        Step(
            parse("", "DEALLOCATE ALL")
            + bind("", "")
            + execute("")
            + sync()
            + parse("d2", "SELECT 2")
            + bind("", "d2")
            + execute("")
            + sync()
            + bind("", "d1")
            + execute("")
            + sync(),
            "ZZZ",
        ),
        Step(bind("", "d2") + execute("") + sync()),
        Step(query("DISCARD ALL") + parse("d1", "SELECT 1") + bind("", "d1") + execute("") + sync(), "ZZ"),
        Step(bind("", "d1") + execute("") + sync()),
        Step(
            parse("", "DEALLOCATE ALL")
            + bind("", "")
            + execute("")
            + parse("d2", "SELECT 2")
            + bind("", "d2")
            + execute("")
            + bind("", "d1")
            + execute("")
            + sync(),
            "Z",
        ),
        Step(bind("", "d2") + execute("") + sync()),
    ),
    "more statements than a backend keeps": (
        Step(b"".join(parse(f"s{n}", f"SELECT {n}, $1::text") for n in range(8)) + sync()),
        *(Step(bind("", f"s{n}", [b"v"]) + execute("") + sync()) for n in (0, 7, 3, 3, 1, 5, 0, 2, 4, 6)),
        Step(b"".join(bind("", f"s{n}", [b"v"]) + execute("") for n in range(8)) + sync()),
        Step(
            bind("", "s0", [b"v"])
            + execute("")
            + bind("", "s1", [b"v"])
            + parse("z", "SELECT 1/0")
            + bind("", "z")
            + execute("")
            + bind("", "s2", [b"v"])
            + sync()
        ),
        Step(b"".join(bind("", f"s{n}", [b"v"]) + execute("") for n in reversed(range(8))) + sync()),
        Step(query("BEGIN") + bind("", "s7", [b"v"]) + execute("") + sync() + query("SELECT 1/0"), "ZZZ"),
        Step(bind("", "s6", [b"v"]) + execute("") + sync()),
        Step(parse("late", "SELECT 1") + sync()),
        Step(parse("back", "ROLLBACK") + bind("", "back") + execute("") + sync()),
        Step(b"".join(bind("", f"s{n}", [b"v"]) + execute("") for n in range(8)) + sync()),
    ),
    "transactions in the extended protocol": (
        *(
            Step(parse("", sql) + bind("", "") + execute("") + sync())
            for sql in (
                "BEGIN",
                "INSERT INTO talk VALUES (81)",
                "SAVEPOINT a",
                "SELECT 1/0",
                "SELECT 1",
                "ROLLBACK TO a",
                "SELECT count(*) FROM talk",
                "COMMIT",
                "COMMIT",
                "BEGIN",
                "SELECT 1/0",
                "COMMIT",
            )
        ),
        Step(
            b"".join(parse("", sql) + bind("", "") + execute("") for sql in ("BEGIN", "SELECT 1", "COMMIT", "SELECT 2"))
            + sync()
        ),
    ),
    "binary and formats": (
        Step(
            parse("b", "SELECT $1::int8, $2::text, $3::bytea", [20, 25, 17])
            + bind("", "b", [struct.pack("!q", 7), None, b"\0\xff"], value_formats=[1, 0, 1], result_formats=[1, 0, 1])
            + describe(P, "")
            + execute("")
            + sync()
        ),
        Step(bind("", "b", [b"7", b"x", b"y"], result_formats=[1]) + execute("") + sync()),
        Step(bind("", "b", [b"7", b"x", b"y"], result_formats=[7]) + execute("") + sync()),
    ),
}
