"""Where a PREPARE or EXECUTE has its name; what is not understood whole is no phrase."""

from __future__ import annotations

import pytest

from pgamb.routing.classify import classify
from pgamb.routing.intent import Need
from pgamb.routing.prepare import Verb, may_name, may_prepare, phrase_of

PHRASES = {
    "PREPARE |q| AS SELECT 1": "q",
    "prepare |q1|(int, numeric(10,2)) as select $1": "q1",
    '/* x */ PREPARE |"A ""b"| (text)AS(select 1)': 'A "b',
    "PREPARE |Transaction| AS SELECT 1": "transaction",
    "EXECUTE |q|": "q",
    "  -- c\n\tEXECUTE /* y */ |Q| (1, 2);": "q",
    "EXPLAIN EXECUTE |q|": "q",
    "explain (costs off) execute |q|(1)": "q",
    "EXPLAIN ANALYZE VERBOSE EXECUTE |q|": "q",
    "CREATE TEMP TABLE execute AS EXECUTE |q|(1) WITH NO DATA": "q",
}
NONE = [
    "PREPARE TRANSACTION 'x'",
    "PREPARE select AS SELECT 1",
    "PREPARE q AS",
    "PREPARE q (int, mine) AS SELECT 1",
    "PREPARE q (public.text) AS SELECT 1",
    'PREPARE q ("Int") AS SELECT 1',
    "PREPARE q ASSIGN",
    "PREPARE",
    "PREPARE q(int, '1') AS SELECT 1",
    'PREPARE "ä" AS SELECT 1',
    "/* ä */ EXECUTE q",
    "PREPARE " + "n" * 64 + " AS SELECT 1",
    'EXECUTE U&"\\0061"',
    "EXECUTE /* /* nested */ */ q",
    "EXECUTE left",
    "EXECUTED q",
    "SELECT 1",
    "CREATE TABLE x AS SELECT 'as execute q'",
    "EXPLAIN SELECT execute FROM q",
]


@pytest.mark.parametrize("text", PHRASES)
def test_phrases(text: str) -> None:
    before, token, behind = text.split("|")
    sql = (before + token + behind).encode()
    phrase = phrase_of(sql)
    assert phrase is not None
    assert (phrase.name.decode(), sql[phrase.start : phrase.end].decode()) == (PHRASES[text], token)
    assert phrase.verb is (
        Verb.PREPARE if text.split()[0].lower() == "prepare" or " PREPARE " in text else Verb.EXECUTE
    )
    assert phrase.arguments == (phrase.verb is Verb.EXECUTE and "(" in behind)
    assert phrase.alone == ("EXPLAIN" not in text.upper() and "CREATE" not in text)


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_phrase(text: str) -> None:
    assert phrase_of(text.encode()) is None


def test_the_body_is_what_is_prepared() -> None:
    phrase = phrase_of(b"PREPARE q (int) AS INSERT INTO t VALUES ($1) -- c")
    assert phrase is not None
    assert phrase.body == b" INSERT INTO t VALUES ($1) -- c"


def test_what_is_too_long_is_told_by_its_beginning() -> None:
    assert may_name(b"/* c */ prepare q AS SELECT " + b"1, " * 10)
    assert may_name(b"EXPLAIN ...")
    assert not may_name(b"INSERT INTO prepare")
    assert not may_name(b"PREPARED")


def test_what_may_prepare_has_the_word() -> None:
    assert may_prepare(b"SELECT 1; Prepare q AS SELECT 2")
    assert not may_prepare(b"SELECT * FROM pg_prepared_statements; SELECT unprepare, prepares")


NEEDS = {
    'EXECUTE "P"(1)': Need.EXECUTE | Need.NAMES,
    "EXECUTE p": Need.EXECUTE | Need.NAMES,
    "EXECUTE p(1, 'x', lower('Y'))": Need.EXECUTE | Need.NAMES,
    "EXECUTE p(now())": Need.EXECUTE | Need.NAMES | Need.TRANSACTION_TIME,
    "EXECUTE p(unknown(1))": Need.EXECUTE | Need.NAMES | Need.SETTINGS,
    "DEALLOCATE a; DEALLOCATE b": Need.NEUTRAL | Need.MULTIPLE | Need.NAMES,
    "EXPLAIN EXECUTE p": Need.NEUTRAL | Need.NAMES,
    "EXPLAIN ANALYZE EXECUTE p": Need.NAMES | Need.SETTINGS,
    "CREATE TABLE x AS EXECUTE p(1)": Need.NAMES | Need.SETTINGS,
    "SELECT name FROM pg_prepared_statements": Need.NEUTRAL | Need.NAMES,
    'SELECT name FROM "pg_catalog".PG_PREPARED_STATEMENTS': Need.NEUTRAL | Need.NAMES,
    "SELECT count(*) FROM pg_prepared_statement()": Need.NEUTRAL | Need.NAMES,
}


@pytest.mark.parametrize("text", NEEDS)
def test_what_speaks_of_names(text: str) -> None:
    assert classify(text.encode()).need == NEEDS[text]
