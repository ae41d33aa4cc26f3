"""Random transactions: what applications say between BEGIN and COMMIT, and what none would, in any way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support import renderings as cases
from tests.support.exchanges import (
    NOTHING,
    Exchange,
    bind,
    close_statement,
    copied,
    describe,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    run,
    sync,
)

BEGINS = ("BEGIN",) * 12 + (
    "START TRANSACTION",
    "BEGIN READ ONLY",
    "BEGIN READ WRITE",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
)
ENDS = ("COMMIT",) * 6 + ("ROLLBACK",) * 4 + ("END", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "", "")
READS = (
    cases.READ,
    cases.COUNT,
    "SELECT t FROM seen WHERE n = 2",
    "SELECT n, t FROM lazy WHERE n = $1",
    "SELECT loud(1)",
    "SELECT 1",
    "VALUES (1), (2)",
)
SAVEPOINTS = (
    *(
        "SAVEPOINT a",
        "SAVEPOINT a",
        "SAVEPOINT b",
        'SAVEPOINT "B c"',
        "RELEASE a",
        "RELEASE SAVEPOINT b",
        "ROLLBACK TO a",
    ),
    *("ROLLBACK TO a", "ROLLBACK WORK TO SAVEPOINT b", 'ROLLBACK TO "B c"', 'RELEASE "B c"'),
)
FAILURES = (
    cases.FAIL,
    cases.FAIL,
    "SELECT * FROM nowhere",
    "SELEC",
    "SELECT broken()",
    "SELECT 1/(n - 3) FROM lazy",
    "BEGIN BEGIN",
)
WRITES = (
    *(cases.WRITE, "INSERT INTO lazy SELECT max(n) + 1, 'next' FROM lazy RETURNING n", "DELETE FROM lazy WHERE n = 3"),
    *(
        "UPDATE lazy SET t = t || '!' WHERE n = 2",
        "INSERT INTO lazy VALUES ($1::int + 20, 'p')",
        "SELECT nextval('counter')",
    ),
    *("SELECT sly()", "INSERT INTO due VALUES (1)", "CREATE TABLE made (n int)", "INSERT INTO made VALUES (1)"),
    *("SELECT count(*) FROM made", "DROP TABLE made", "COPY lazy FROM STDIN"),
)
# A transaction of PostgreSQL's own is wanted for these, or an answer that only the primary can give.
REAL = (
    *(
        "SELECT 'same:' || now()",
        "SELECT 'same:' || current_timestamp",
        "SELECT 'same:' || txid_current_if_assigned()",
    ),
    *("SELECT 'same:' || txid_current()", "SELECT pg_is_in_recovery()", cases.ISOLATION, cases.READ_ONLY),
    *("SET LOCAL work_mem = '3MB'", "SET work_mem = '5MB'", "RESET work_mem", "SHOW work_mem", "RESET ALL"),
    *("SELECT set_config('work_mem', '6MB', true)", "SET application_name = 'x'", "SHOW application_name"),
    *("SET TRANSACTION READ ONLY", "SET TRANSACTION READ WRITE", "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"),
    *("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
    *("SET default_transaction_isolation = serializable", "SET default_transaction_read_only = off"),
    *("SELECT n FROM lazy WHERE n = 1 FOR UPDATE", "LOCK TABLE lazy", "SELECT pg_advisory_xact_lock(3)"),
    *(
        "DECLARE c CURSOR FOR SELECT n FROM lazy ORDER BY n",
        "FETCH 2 FROM c",
        "CLOSE c",
        "DO 'BEGIN RAISE NOTICE ''do''; END'",
    ),
    *("PREPARE s AS SELECT 2", "EXECUTE s", "DEALLOCATE s", "DISCARD ALL", "CREATE TEMP TABLE mine (n int)"),
    *("SELECT count(*) FROM mine", "LISTEN news", "COPY (SELECT n FROM lazy ORDER BY n) TO STDOUT", "", ";", "-- x"),
    *(
        "EXPLAIN (COSTS OFF) SELECT 1",
        "SELECT current_setting('transaction_read_only')",
        "SET CONSTRAINTS ALL IMMEDIATE",
    ),
)

# How a statement is said. Q: Query; E: unnamed and whole; N: by a name, which may be taken; L: two rows at first;
# W: a named portal, one row; and, of what was said before: B: a named statement again; X: the named portal again;
# P: Parse alone; D: Parse and Describe of the statement; C: the name is closed.
WAYS = "QQQQQQQQEEEEEENNLWBXPDC"
# What comes behind it. wait: an end (Sync if it takes one), and the answer is waited for; send: an end, and the next
# goes into the same packet; join: no end: one Query holds both, or one Sync; flush: Flush, and waiting without an end.
LINKS = ("wait",) * 8 + ("send", "send", "join", "join", "join", "flush")


@dataclass(frozen=True, slots=True)
class Said:
    """One statement, how it is said, and what comes behind it."""

    sql: str
    way: str
    link: str


def _statements() -> st.SearchStrategy[list[str]]:
    inside = st.one_of(*(st.sampled_from(kind) for kind in (READS, READS, READS, SAVEPOINTS, FAILURES, WRITES, REAL)))
    reads = st.one_of(*(st.sampled_from(kind) for kind in (READS, READS, SAVEPOINTS, SAVEPOINTS, FAILURES)))
    anything = st.one_of(inside, st.sampled_from(BEGINS), st.sampled_from(ENDS))
    whole = st.builds(
        lambda begin, first, rest, end: [begin, *first, *rest, end],
        st.sampled_from(BEGINS),
        st.lists(reads, max_size=5),
        st.lists(inside, max_size=4),
        st.sampled_from(ENDS),
    )
    return st.lists(st.one_of(whole, whole, whole, st.lists(anything, max_size=2)), min_size=1, max_size=3).map(
        lambda parts: [sql for part in parts for sql in part]
    )


def _spoken(statements: list[str]) -> st.SearchStrategy[list[Said]]:
    one = st.tuples(st.sampled_from(WAYS), st.sampled_from(LINKS))
    return st.lists(one, min_size=len(statements), max_size=len(statements)).map(
        lambda ways: [Said(sql, *way) for sql, way in zip(statements, ways, strict=True)]
    )


CONVERSATIONS: st.SearchStrategy[list[Said]] = _statements().flatmap(_spoken)


def exchanges_of(conversation: Sequence[Said]) -> list[Exchange]:
    """Say it, and end with a Sync if the last batch has none."""
    found: list[Exchange] = []
    packet, texts, copies = NOTHING, [], NOTHING
    unsynced = naming = False
    for said in conversation:
        copy = copied(b"30\tcopied\n") if "FROM STDIN" in said.sql else NOTHING
        if said.way == "Q":
            texts.append(said.sql)
            copies += copy
            if said.link == "join":
                continue
        if texts:
            packet += query("; ".join(texts)) + copies
            texts, copies = [], NOTHING
        # Known to differ: two Parses of one name in a packet. pgamb refuses the second before the first has failed.
        naming = naming or said.way in "ND"
        if said.way != "Q":
            packet += _extended(said) + (copy if said.way in "ENLW" else NOTHING)
            if said.link == "join":
                unsynced = True
                continue
            packet += flush() if said.link == "flush" else sync()
            unsynced = said.link == "flush"
        if said.link != "send" or naming:
            found.append(packet)
            packet, naming = NOTHING, False
    if texts:
        packet += query("; ".join(texts)) + copies
    if unsynced:
        packet += sync()
    return [exchange for exchange in (*found, packet) if exchange.data]


def _extended(said: Said) -> Exchange:
    sql, name = said.sql, f"n{len(said.sql) % 3}"
    values = (b"2",) if "$1" in sql else ()
    match said.way:
        case "N":
            return parse(sql, name) + bind(*values, statement=name) + describe() + execute()
        case "L":
            return parse(sql) + bind(*values) + execute("", 2) + execute("", 2)
        case "W":
            return parse(sql) + bind(*values, portal="p") + execute("p", 1)
        case "B":
            return bind(*values, statement=name) + execute()
        case "X":
            return execute("p", 1)
        case "P":
            return parse(sql)
        case "D":
            return parse(sql, name) + describe_statement(name)
        case "C":
            return close_statement(name)
        case _:
            return run(sql, *values)
