"""The intent of every statement in the corpus, and what does not change an intent."""

from __future__ import annotations

import pytest

from pgamb.routing.catalog import BuiltIn
from pgamb.routing.classify import classify
from pgamb.routing.intent import Need, Pin
from pgamb.routing.lexer import ASCII_TRAIL_ENCODINGS
from tests.unit.routing import corpus

# What is told besides reading and writing.
BESIDES = Need.TRANSACTION_TIME | Need.SHOW | Need.SET | Need.MULTIPLE | Need.CONTROL | Need.SETTINGS | Need.SEQUENCE


@pytest.mark.parametrize("sql", corpus.READ_LINES)
def test_proven_reads(sql: str) -> None:
    intent = classify(sql.encode())
    assert intent.need & ~(BESIDES & ~Need.SETTINGS) == Need.READ, intent
    assert (intent.pins, intent.unpins) == (Pin(0), Pin(0))
    assert not intent.writes


@pytest.mark.parametrize("sql", corpus.PRIMARY_LINES)
def test_what_writes_nothing_but_belongs_on_the_primary(sql: str) -> None:
    intent = classify(sql.encode())
    assert intent.need & ~(BESIDES | Need.NAMES) == Need.NEUTRAL, intent
    assert not intent.need & Need.SETTINGS
    assert intent.pins == Pin(0)


@pytest.mark.parametrize("sql", corpus.WRITE_LINES)
def test_writes(sql: str) -> None:
    intent = classify(sql.encode())
    assert intent.need & ~(Need.TRANSACTION_TIME | Need.NAMES) == Need(0), intent
    assert intent.pins == Pin(0)
    assert intent.writes


@pytest.mark.parametrize("sql", corpus.UNKNOWN_LINES)
def test_what_is_unknown_may_write_and_change_settings(sql: str) -> None:
    intent = classify(sql.encode())
    assert intent.need & ~Need.NAMES == Need.SETTINGS, intent
    assert intent.writes


@pytest.mark.parametrize("case", corpus.SPECIAL, ids=lambda case: case.sql[:50])
def test_special_needs_pins_and_names(case: corpus.Case) -> None:
    intent = classify(case.sql.encode())
    assert (intent.need, intent.pins, intent.unpins, intent.name) == (case.need, case.pins, case.unpins, case.name)


def test_the_corpus_is_large() -> None:
    blocks = (corpus.READ_LINES, corpus.PRIMARY_LINES, corpus.WRITE_LINES, corpus.UNKNOWN_LINES, corpus.SPECIAL)
    assert sum(map(len, blocks)) >= 450


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT lower(b), count(*), lower(b) FROM t", "SELECT with harmless functions only: lower, count"),
        ("SELECT public.f(1)", "function public.f is not known to be free of side effects"),
        ("SELECT nextval('s')", "function nextval is volatile"),
        ("SELECT * FROM t FOR UPDATE", "locks rows: FOR UPDATE"),
        ("SELECT pg_backend_pid()", "pg_backend_pid() is asked of the primary"),
        ("SELECT a === b", "operator === is not one of PostgreSQL's own"),
        ("SELECT * FROM pg_locks", "pg_locks tells of one server: the primary's"),
        ("SELECT 1; DROP TABLE t", "statement 2 of 2: DROP belongs on the primary"),
        ("SELECT 1; SELECT 2", "2 reads"),
        ("FROBNICATE", "FROBNICATE is not known to be a read"),
    ],
)
def test_the_reason_is_the_evidence(sql: str, reason: str) -> None:
    assert classify(sql.encode()).reason == reason


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT now()", True),
        ("SELECT pg_catalog.now()", True),
        ("SELECT current_timestamp(3)", True),
        ("SELECT CURRENT_DATE", True),
        ("SELECT 'now'::timestamptz", True),
        ("SELECT date ' Today '", True),
        ("SELECT timestamp 'yesterday 12:00'", True),
        ("SELECT 1; SELECT localtime", True),
        ("SELECT clock_timestamp()", False),
        ("SELECT 'nowhere', known FROM t", False),
        ("SELECT now, today FROM t", False),
    ],
)
def test_the_time_of_the_transaction(sql: str, told: bool) -> None:
    intent = classify(sql.encode())
    assert bool(intent.need & Need.TRANSACTION_TIME) is told
    assert intent.need & Need.READ


def test_backslashes_without_standard_conforming_strings_prove_nothing() -> None:
    hidden = rb"SELECT '\', nextval($$s$$), '"
    assert not classify(hidden, standard_conforming_strings=False).need & Need.READ
    assert classify(hidden).writes
    assert classify(rb"SELECT 'a\b'", standard_conforming_strings=False).writes
    assert classify(rb"SELECT E'a\b', 'c'", standard_conforming_strings=False).need & Need.READ
    assert classify(rb"SELECT n'\''", standard_conforming_strings=False).writes


def test_encodings_whose_characters_hide_ascii_prove_nothing() -> None:
    assert "SJIS" in ASCII_TRAIL_ENCODINGS
    sql = "SELECT '表'".encode("shift_jis")
    assert b"\\" in sql
    assert classify(sql, ascii_superset=False).writes
    assert classify(b"SELECT 'plain'", ascii_superset=False).need & Need.READ
    assert classify("SELECT 'é', \"ä\", ö FROM ü".encode()).need & Need.READ


@pytest.mark.parametrize(
    ("function", "since"),
    [("any_value(a)", 16), ("random_normal()", 16), ("json_value('1', '$')", 17), ("uuidv7()", 18)],
)
def test_functions_of_later_releases_are_known_from_then_on(function: str, since: int) -> None:
    sql = f"SELECT {function} FROM t".encode()
    assert classify(sql, catalog=BuiltIn(since)).need & Need.READ
    assert classify(sql, catalog=BuiltIn(since - 1)).writes


def test_functions_missing_in_earlier_releases_are_unknown_there() -> None:
    assert classify(b"SELECT regexp_like('a', 'b')").need & Need.READ
    assert classify(b"SELECT regexp_like('a', 'b')", catalog=BuiltIn(14)).writes


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1\x00; DROP TABLE t",
        "\x00",
        "SELECT \x01",
        "\\d",
        "SELECT 1 $",
        "'",
        "(",
        ";)(",
        "SELECT (; DROP TABLE t)",
    ],
)
def test_nonsense_is_no_read(sql: str) -> None:
    assert not classify(sql.encode()).need & Need.READ


def test_long_changes_are_told_by_their_beginning() -> None:
    rows = ", ".join(f"({number}, 'x')" for number in range(10_000))
    assert classify(f"INSERT INTO t VALUES {rows};\n".encode()).need == Need.SETTINGS
    assert "too long" in classify(f"  insert INTO t VALUES {rows}".encode()).reason
    # Where anything else may be in it, it is looked into.
    assert classify(f"INSERT INTO t VALUES {rows}; COMMIT".encode()).need & Need.COMMITS
    locking = classify(f"INSERT INTO t VALUES {rows}, (Pg_Advisory_Lock(1), 'x')".encode())
    assert locking.pins == Pin.ADVISORY_LOCK
    assert classify(f"SELECT * FROM (VALUES {rows}) v".encode()).need == Need.READ


@pytest.mark.parametrize(
    "sql", ["SELECT currval('seq')", "SELECT lastval()", "INSERT INTO t VALUES (1); SELECT lastval()"]
)
def test_what_asks_for_the_session_s_own_sequence_values(sql: str) -> None:
    assert classify(sql.encode()).need & Need.SEQUENCE
