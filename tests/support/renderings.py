"""The same statements said in every way that the protocol has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.support.exchanges import NOTHING, Exchange, flush, query, run, sync

# A statement is a string, and is said in every way of `RENDERED`; an Exchange is said as it is.
Case = Sequence[str | Exchange]

READ = "SELECT n, t FROM lazy WHERE n <= 3 ORDER BY n"
COUNT = "SELECT count(*), max(n) FROM lazy"
WRITE = "INSERT INTO lazy VALUES (11, 'new')"
FAIL = "SELECT 1/0"
NOW = "SELECT 'same:' || now()"
ISOLATION = "SHOW transaction_isolation"
READ_ONLY = "SHOW transaction_read_only"


def _extended(statements: Case, end: Exchange) -> list[Exchange]:
    return [run(s) + end if isinstance(s, str) else s for s in statements]


def _one_packet(exchanges: Sequence[Exchange]) -> list[Exchange]:
    return [sum(exchanges, NOTHING)]


def _one_query(statements: Case) -> list[Exchange]:
    return [query("; ".join(s.rstrip(";") for s in statements if isinstance(s, str)))]


def _simple(statements: Case) -> list[Exchange]:
    return [query(s) if isinstance(s, str) else s for s in statements]


RENDERED: dict[str, Callable[[Case], list[Exchange]]] = {
    "simple": _simple,
    "extended": lambda statements: _extended(statements, sync()),
    "simple, one packet": lambda statements: _one_packet(_simple(statements)),
    "extended, one packet": lambda statements: _one_packet(_extended(statements, sync())),
    "one Sync": lambda statements: _one_packet([*_extended(statements, NOTHING), sync()]),
    "Flush for Sync": lambda statements: [*_extended(statements, flush()), sync()],
    "halves": lambda statements: [
        *_simple(statements[: len(statements) // 2]),
        *_extended(statements[len(statements) // 2 :], sync()),
    ],
    "one Query": _one_query,
}
# Whoever has said all this is back where he was.
AFTER: tuple[Exchange, ...] = (query("ROLLBACK"), query(READ), run(COUNT) + sync())
