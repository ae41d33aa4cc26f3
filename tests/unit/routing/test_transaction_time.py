"""What looks at the start time of its transaction, and what only seems to."""

from __future__ import annotations

import pytest

from pgamb.routing.classify import classify
from pgamb.routing.intent import Need

LOOKS = r"""
SELECT now()
SELECT NOW ( )
SELECT pg_catalog.now()
SELECT pg_catalog . "now"()
SELECT * FROM now()
SELECT * FROM t WHERE c > now() - interval '1 day'
SELECT transaction_timestamp()
SELECT current_timestamp
SELECT current_timestamp(3)
SELECT CURRENT_DATE
SELECT current_time, 1
SELECT localtime
SELECT localtimestamp(0)
SELECT * FROM current_timestamp
SELECT age(c) FROM t
SELECT age(date_trunc('day', c, 'UTC')) FROM t
SELECT age((SELECT max(c) FROM t))
SELECT pg_catalog.age(c), age(c, c) FROM t
SELECT (c).age FROM t
SELECT (ARRAY[c])[1] . "age" FROM t
SELECT r.age FROM CAST('2024-01-01' AS timestamptz) r
SELECT r.age FROM CAST('2024-01-01' AS timestamptz) AS r
SELECT to_timestamp.age FROM to_timestamp(0)
SELECT "R".age FROM to_timestamp(0) "R"
SELECT 'now'::timestamptz
SELECT CAST('now' AS date)
SELECT date ' Today '
SELECT timestamp 'yesterday 12:00'
SELECT 'TOMORROW'::date
SELECT 'today10:00'::timestamp, 1
SELECT '10:00today'::timestamp
SELECT '(now)'::timestamptz
SELECT 'today at 10:00 am'::timestamp
SELECT 'tomorrow 10:00 Europe/Paris'::timestamptz
SELECT 'today foo5bar'::timestamptz
SELECT $$now$$::timestamptz, $a$ today $a$::date
SELECT N'now'::timestamptz
SELECT E'now'::timestamptz
SELECT E'n\157w'::timestamptz
SELECT E'\x6eow'::timestamptz
SELECT E'\\\u006eow'
SELECT U&'\006eow'::timestamptz
SELECT U&'!006eow' UESCAPE '!'
SELECT * FROM t WHERE c > 'today'
SELECT * FROM t WHERE c BETWEEN 'yesterday' AND 'now'
SELECT '10:00'::timetz
SELECT '10:00'::pg_catalog.timetz
SELECT timetz('10:00'), 1
SELECT time with time zone '10:00'
SELECT CAST('10:00' AS time(3) with time zone)
SELECT time '10:00' AT TIME ZONE 'UTC'
SELECT '10:00'::time AT TIME ZONE 'UTC'
SELECT CAST('10:00' AS time) AT TIME ZONE 'UTC'
SELECT * FROM pg_timezone_names
SELECT count(*) FROM pg_catalog.pg_timezone_abbrevs
SELECT * FROM pg_timezone_names()
EXPLAIN SELECT * FROM t WHERE c < now()
EXPLAIN (COSTS off) SELECT 'now'::timestamptz
COPY (SELECT now()) TO STDOUT
WITH x AS (SELECT now()) SELECT * FROM x
SELECT 1; SELECT localtime
VALUES (now())
"""

LOOKS_NOT = r"""
SELECT clock_timestamp(), statement_timestamp(), timeofday()
SELECT now, today FROM (VALUES (1, 2)) x(now, today)
SELECT x.now FROM (VALUES (1)) x(now)
SELECT "now" FROM (VALUES (1)) x("now")
SELECT "current_date" FROM (VALUES (1)) x("current_date")
SELECT x.current_date FROM (VALUES (1)) x("current_date")
SELECT 'nowhere', 'known', 'todays', 'unknown'
SELECT 'buy it now or never'
SELECT b FROM t WHERE b = 'the rain will stop tomorrow'
SELECT age(c, c) FROM t
SELECT pg_catalog.age(c, '2024-01-01') FROM t
SELECT age((c), (SELECT max(c) FROM t)) FROM t
SELECT users.age FROM (VALUES (1)) v(a), (TABLE users) u, users
SELECT users.age, count(*) FROM users GROUP BY users.age ORDER BY lower('x')
SELECT "users"."age" FROM "users" WHERE "users"."id" IN (1, 2)
SELECT age FROM users WHERE age > 1
SELECT max(users.age) FROM users
SELECT public.users.age FROM public.users
SELECT E'it\'s', E'a\\x41', E'a\nb'
SELECT '1\x' || 'a'
SELECT U&'plain'
SELECT 'allballs'::time, 'epoch'::timestamptz, 'infinity'::date
SELECT '10:00'::time, time '10:00', time(3) '10:00'
SELECT c AT TIME ZONE 'UTC', (c AT TIME ZONE 'UTC')::date FROM t
SELECT timestamp with time zone '2024-01-01', timestamp(3) with time zone '2024-01-01'
SELECT CAST(c AS timestamp with time zone) FROM t
SELECT time AT TIME ZONE 'UTC' FROM (SELECT c FROM t) x(time)
SELECT date_trunc('day', c), extract(epoch FROM c), c + interval '1 day' FROM t
SELECT timezone('UTC', c), make_timestamptz(2024, 1, 1, 0, 0, 0) FROM t
SELECT 'a', 'b',
 'c'
SHOW timezone
"""


def _lines(block: str) -> list[str]:
    return block.strip().replace(",\n ", ", ").splitlines()


@pytest.mark.parametrize("sql", _lines(LOOKS))
def test_what_looks_at_the_time_of_the_transaction(sql: str) -> None:
    intent = classify(sql.encode())
    assert intent.need & Need.TRANSACTION_TIME
    assert intent.need & Need.READ, intent


@pytest.mark.parametrize("sql", _lines(LOOKS_NOT))
def test_what_does_not_look_at_the_time_of_the_transaction(sql: str) -> None:
    intent = classify(sql.encode())
    assert not intent.need & Need.TRANSACTION_TIME
    assert intent.need & Need.READ, intent


@pytest.mark.parametrize(
    ("sql", "looks"),
    [
        ("SELECT 'no'\n'w'::timestamptz", True),
        ("SELECT 'no' -- x\r\n -- y\n 'w'::timestamptz", True),
        ("SELECT 'a',\n'b'", False),
        ("SELECT 'a' -- 'b'\n, 'c'", False),
        ("SELECT 'a\n''b', 'c'", False),
        ("SELECT '" + "x" * 200 + " now'", False),
        ("SELECT 'now" + " " * 100 + "'::timestamptz", True),
        ("SELECT $$" + "-" * 160 + " now$$", False),
    ],
)
def test_literals_over_several_lines_and_long_ones(sql: str, looks: bool) -> None:
    assert bool(classify(sql.encode()).need & Need.TRANSACTION_TIME) is looks
