"""Texts of one fingerprint mean the same: a fingerprint is SQL itself, and is judged as the text is."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pgamb.relay.fingerprint import fingerprint_of
from pgamb.relay.statement import Plan, Plans
from pgamb.routing.classify import classify
from pgamb.routing.intent import NO_NEED, NO_PIN, Intent
from tests.unit.routing import corpus

STATEMENTS = [sql.encode() for sql in corpus.EVERYTHING if sql.strip()]
PIECES = (
    b"'", b"''", b"\"", b"\\", b"E'", b"N'", b"U&'", b"$$", b"$a$", b"$1", b"--", b"/*", b"*/", b";", b"(", b")", b",",
    b"1", b"23", b"1e5", b"0x1F", b"a1", b"'now'", b"'today'", b"'x'", b"current_setting(", b"set_config(", b" ", b"\n",
    b" FOR UPDATE", b" INTO x", b"; DELETE FROM t", b"nextval('s')", b"EXPLAIN (ANALYZE 1) ",
    b"EXPLAIN (ANALYZE 'off')",
    b"SET x = 1", b"\x00", b"\xff", b"::", b"SELECT ", b"pg_advisory_lock(1)",
)  # fmt: skip


@st.composite
def adversarial(draw: st.DrawFn) -> bytes:
    """A statement with quotes, comments and values put in anywhere."""
    sql = draw(st.sampled_from(STATEMENTS))
    for _ in range(draw(st.integers(0, 6))):
        start = draw(st.integers(0, len(sql)))
        end = draw(st.integers(start, min(len(sql), start + 8))) if draw(st.booleans()) else start
        sql = sql[:start] + draw(st.sampled_from(PIECES)) + sql[end:]
    return sql


def bits(sql: bytes) -> tuple[int, int, int]:
    plan = Plan(classify(sql), sql)
    return plan.need, plan.pins, plan.unpins


@settings(max_examples=600, deadline=None)
@given(adversarial())
@example(b"EXPLAIN (ANALYZE 1) DELETE FROM t")
@example(b"EXPLAIN (ANALYZE 0) DELETE FROM t")
@example(b"EXPLAIN (ANALYZE 'off') DELETE FROM t")
@example(b"SELECT current_setting(('transaction_read_only'))")
@example(b"SELECT set_config('a.b', 'c', false)")
@example(b"SELECT f('set_config(s')")
@example(b"SELECT 'x' 'y', 1.5e-7, 0x1F, 1_000, $1, a1, \"1\", 'now'::text")
@example(b"SELECT 1--'\n, nextval('s')")
@example(b"SELECT '\\', nextval('s'), '")
def test_a_fingerprint_is_judged_as_its_text(sql: bytes) -> None:
    # Each text is judged as its fingerprint, so those that share one are judged alike.
    assert bits(fingerprint_of(sql)) == bits(sql)


def test_every_statement_of_the_corpus_is_judged_as_its_fingerprint() -> None:
    for sql in STATEMENTS:
        assert bits(fingerprint_of(sql)) == bits(sql), sql


def test_values_make_no_difference() -> None:
    template = b"SELECT a1, %s FROM t2 WHERE n = %s AND m IN (%s, %s) LIMIT %s"
    first = template % (b"'x'", b"1", b"22", b"'it''s'", b"10")
    second = template % (b"''", b"987", b"5", b"'[]$--/*'", b"7")
    assert fingerprint_of(first) == fingerprint_of(second) != first


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"SELECT '\\', f('", b"SELECT '\\', g('"),
        (b"SELECT E'\\'', f('1')", b"SELECT E'', f('1')"),
        (b"SELECT $$ ' $$, f('1')", b"SELECT $$ '' $$, f('1')"),
        (b"SELECT 1 -- '\n, f('a')", b"SELECT 1 -- ''\n, f('a')"),
        (b"SELECT 1 /* ' */, f('a')", b"SELECT 1 /* '' */, f('a')"),
        (b"SELECT 'a", b"SELECT 'b"),
        (b'SELECT "a', b'SELECT "b'),
        (b'SELECT "1"', b'SELECT "2"'),
        (b"SELECT a1", b"SELECT a2"),
        (b"SELECT $1", b"SELECT $2"),
        (b"SELECT 'now'::timestamp", b"SELECT 'then'::timestamp"),
        (b"SELECT current_setting('a')", b"SELECT current_setting('b')"),
        (b"SELECT set_config('a.b', '', false)", b"SELECT set_config('a.c', '', false)"),
        (b"SET a = 'x'", b"SET a = 'y'"),
        (b"SELECT 1; SET a = 'x'", b"SELECT 1; SET a = 'y'"),
        (b"SELECT B'1'", b"SELECT B'0'"),
        (b"SELECT 10x1F", b"SELECT 0x1F"),
        (b"SELECT U&'!0041' UESCAPE '!'", b"SELECT U&'!0042' UESCAPE '!'"),
    ],
)
def test_what_may_be_more_than_a_value_is_kept_apart(one: bytes, other: bytes) -> None:
    assert fingerprint_of(one) != fingerprint_of(other)


class Counting:
    """Classifies, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, sql: bytes) -> Intent:
        self.asked += 1
        return Intent(NO_NEED, NO_PIN, NO_PIN, "counted")


def test_plans_remember_what_is_used_and_forget_the_rest() -> None:
    counting = Counting()
    plans = Plans(counting, 100_000)
    often = b"SELECT a FROM often WHERE n = 5"
    for number in range(2000):
        plans.plan(often)
        plans.plan(b"SELECT a%d" % number)
    assert counting.asked == 2001
    plans.plan(b"SELECT a1999")
    assert counting.asked == 2001
    plans.plan(b"SELECT a0")
    assert counting.asked == 2002


def test_a_long_text_is_remembered_by_itself() -> None:
    counting = Counting()
    plans = Plans(counting)
    for number in (1, 2, 1, 2):
        plans.plan(b"SELECT %d, '" % number + b"x" * 20_000 + b"'")
    assert counting.asked == 2
