"""Statements from a grammar: most are valid, and they do all that a statement can do to a transaction and a session.

A seed stands for a statement. Every query gives a number, a text and a time, and every source of rows has them as a, b
and c, so that any query fits wherever a query can stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

SCHEMA = """
CREATE TABLE t (a int, b text, c timestamptz);
CREATE SCHEMA s;
CREATE TABLE s.t (a int, b text, c timestamptz);
CREATE TABLE log (a int, b text, c timestamptz);
CREATE VIEW v AS SELECT a, b, c FROM t;
CREATE SEQUENCE seq;
INSERT INTO t SELECT i, 'x' || i, '2024-01-01' FROM generate_series(1, 3) i;
INSERT INTO s.t SELECT i, 'y' || i, '2024-01-02' FROM generate_series(1, 3) i;
CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1';
CREATE FUNCTION g(int) RETURNS int STABLE LANGUAGE sql AS 'SELECT nextval(''seq'')::int';
CREATE FUNCTION h(int) RETURNS int VOLATILE LANGUAGE sql AS 'INSERT INTO log (a) VALUES ($1); SELECT $1';
CREATE FUNCTION "join"(int) RETURNS int LANGUAGE sql AS 'SELECT nextval(''seq'')::int';
CREATE FUNCTION "set"(int) RETURNS int LANGUAGE sql AS 'SELECT nextval(''seq'')::int';
CREATE FUNCTION "zone"(int) RETURNS int LANGUAGE sql AS 'SELECT nextval(''seq'')::int';
CREATE FUNCTION over(int) RETURNS int LANGUAGE sql AS 'SELECT nextval(''seq'')::int';
CREATE FUNCTION cube(int) RETURNS int LANGUAGE sql AS 'SELECT nextval(''seq'')::int';
CREATE FUNCTION conflict(int) RETURNS bool LANGUAGE sql AS 'SELECT nextval(''seq'') > 0';
CREATE FUNCTION materialized(int) RETURNS bool LANGUAGE sql AS 'SELECT nextval(''seq'') > 0';
CREATE FUNCTION plus(int, int) RETURNS int LANGUAGE sql AS 'SELECT nextval(''seq'')::int';
CREATE OPERATOR === (FUNCTION = plus, LEFTARG = int, RIGHTARG = int);
CREATE OPERATOR +* (FUNCTION = plus, LEFTARG = int, RIGHTARG = int);
CREATE PROCEDURE p() LANGUAGE sql AS 'INSERT INTO log (a) VALUES (1)';
"""

# Stands for white space; one kind of it for a statement.
GAP = "\x1f"
_GAPS = (" ", " ", " ", "\n", "\t", "/**/", " /* x /* y */ ' */ ", " -- x;'\n", "\r")

_QUIET_NUMBERS = (
    "1", "42", "-7", "1_000", "'3'::int", "int4 '4'", "CAST('5' AS int)", "length('x')", "abs(-3)", "1 +\x1f2",
    "7 % 4", "2 OPERATOR(pg_catalog.*) 3", "coalesce(NULL, 1)", "extract(year FROM timestamp '2024-01-01')::int",
    "(ARRAY[1, 2])[1]", "ascii('a')", "width_bucket(5, 1, 10, 3)", "strpos('ab', 'b')", "(random() * 0)::int",
    "pg_catalog.abs\x1f(-1)", '"abs"(-2)', "((SELECT count(*) FROM t))::int", "(SELECT max(a) FROM v)",
    "array_length(ARRAY(SELECT a FROM t), 1)", "3 <<\x1f1", "jsonb_array_length('[1, 2]')", "pg_column_size(1)",
    "(SELECT a FROM s.t LIMIT 1)", "('x'::text).length",
)  # fmt: skip
_LOUD_NUMBERS = (
    "nextval('seq')::int", "nextval\x1f('seq')::int", "pg_catalog.nextval('seq')::int", '"nextval"(\'seq\')::int',
    "pg_catalog\x1f.\x1fnextval('seq')::int", "(('seq'::regclass).nextval)::int", "setval('seq', 7)::int",
    "(setval('seq', 9, true))::int", 'U&"\\006eextval"(\'seq\')::int', "txid_current()::int", "f(1)", "g(1)", "h(1)",
    "public.g(2)", '"join"(1)', "join(1)", '"set"(1)', "set(1)", "zone(1)", "over(1)", "cube(1)", "1 === 2", "1 +* 2",
    "1 OPERATOR(public.===) 2", "pg_try_advisory_lock(1)::int", "pg_try_advisory_xact_lock_shared(2, 3)::int",
    "length(pg_advisory_xact_lock(4)::text)", "((5::bigint).pg_try_advisory_lock)::int", "lo_create(0)::int",
    "(0::oid).lo_create::int", "lo_creat(-1)::int", "length(pg_notify('n', 'x')::text)", "(txid_current() % 5)::int",
    "length(pg_current_xact_id()::text)", "1 + g(1)",
    "length(query_to_xml('SELECT nextval(''seq'')', true, true, '')::text)",
    "length(pg_logical_emit_message(true, 'a', 'b')::text)",
)  # fmt: skip
_QUIET_TEXTS = (
    "'x'", "'it''s'", "E'it\\'s'", "$$nextval('seq')$$", "$q$ $$ ; DROP TABLE t; $q$", "U&'\\0041'", "N'n'",
    "'a'\n'b'", "'--'", "'/*'", "lower('X')", "upper(substr('abc', 2))", "substring('abc' FROM 2 FOR 1)",
    "trim(both 'x' FROM 'xax')", "'a' ||\x1f'b'", "md5('x')", "overlay('abc' PLACING 'z' FROM 1)",
    "current_setting('search_path')", "format('%s', 1)", "to_char(1, '9')", "current_user::text",
    "CASE WHEN true THEN 'a' ELSE 'b' END", "(SELECT string_agg(b, ',' ORDER BY a) FROM t)", '\'x\' COLLATE "C"',
    "1::numeric(10, 2)::text", 'quote_ident(\'a"b\')', "(SELECT b FROM v LIMIT 1)", "gen_random_uuid()::text",
    "replace('a', 'a', '\\')", "'INSERT INTO t'", "json_build_object('a', 1)::text",
)  # fmt: skip
_LOUD_TEXTS = ("set_config('my.x', '1', false)", "set_config('work_mem', '5MB', true)", "pg_export_snapshot()")
_TIMES = (
    "now()", "current_timestamp", "timestamptz '2024-01-01'", "'now'::timestamptz", "clock_timestamp()",
    "'2024-01-01'::timestamptz", "date_trunc('day', now())", "to_timestamp(0)", "statement_timestamp()",
    "CURRENT_DATE::timestamptz", "NULL::timestamptz", "now() - interval '1 day'",
    "now() AT TIME ZONE ('UTC') AT TIME ZONE 'UTC'", "make_timestamptz(2024, 1, 1, 0, 0, 0)",
)  # fmt: skip
_QUIET_CONDITIONS = (
    "true", "1\x1f< 2", "x.a IS NOT NULL", "x.a\x1fIN (1, 2, 3)", "x.b LIKE 'x%'", "x.b ILIKE ('X%')", "x.a =\x1f-1",
    "x.b SIMILAR TO 'x_'", "x.a *-1 < 0", "EXISTS (SELECT 1 FROM s.t)", "x.a = ANY (ARRAY[1, 2])", "NOT (x.a = 1)",
    "x.a NOT IN (SELECT a FROM s.t)", "(x.a, x.b) <> (1, 'q')", "x.b ~ '^x'", "x.a BETWEEN 1 AND 2", "x.a--1\n= 1",
    "(DATE '2024-01-01', DATE '2024-01-02') OVERLAPS (DATE '2024-01-01', DATE '2024-01-02')", "x.b || 'q' <> ''",
    "x.a IS DISTINCT FROM 1", "x.a*/* y */1 = 1",
)  # fmt: skip
_LOUD_CONDITIONS = (
    "materialized(1)", "NOT materialized(1)", "conflict(1)", "g(x.a) > 0", "h(1) = 1", "nextval('seq') > 0",
    "(x.a === 1) > 0", "(pg_advisory_xact_lock(1))::text IS NOT NULL", "pg_try_advisory_lock(2)",
)  # fmt: skip
_TAILS = (
    "", "", "", " ORDER BY 1", " LIMIT 2", "\x1fORDER BY 2 OFFSET (0)", " FETCH FIRST (2) ROWS ONLY",
)  # fmt: skip
_LOCKS = ("FOR UPDATE", "FOR\x1fNO KEY UPDATE", "FOR SHARE SKIP LOCKED", "FOR KEY SHARE NOWAIT", "for/**/update")
_OTHERS = (
    "TABLE t", "TABLE\x1fs.t", "SHOW search_path", "SHOW\x1fTIME ZONE", "COPY t TO STDOUT",
    "COPY s.t (a, b) TO STDOUT (FORMAT csv)", "COPY v TO STDOUT", "SET work_mem = '5MB'", "SET LOCAL my.x = 1",
    "RESET ALL", "LISTEN n", "NOTIFY n", "LOCK t IN ACCESS SHARE MODE", "LOCK TABLE t",
    "DO $$ BEGIN PERFORM nextval('seq'); END $$", "CALL p()", "PREPARE q AS SELECT nextval('seq')", "SAVEPOINT x",
    "TRUNCATE log", "CREATE TEMP TABLE x (a int)", "SELECT 1 AS a INTO x", "SELECT\x1f* INTO TEMP x FROM t",
    "CREATE TABLE x AS SELECT g(1)", "REFRESH MATERIALIZED VIEW m", "SECURITY LABEL ON TABLE t IS 'x'",
    "COMMENT ON TABLE t IS 'x'", "ANALYZE log", "DISCARD PLANS", "SELECT nextval('seq'); SELECT 1",
    "UPDATE pg_settings SET setting = '5MB' WHERE name = 'work_mem'", "GRANT SELECT ON t TO public", "MOVE 1 FROM k",
    "DECLARE k CURSOR WITH HOLD FOR SELECT 1",
)  # fmt: skip
_EXPLAINS = (
    "EXPLAIN", "EXPLAIN\x1fVERBOSE", "EXPLAIN (COSTS off)", "EXPLAIN ANALYZE", "EXPLAIN (ANALYZE)",
    "EXPLAIN (ANALYZE off)", 'EXPLAIN ("analyze", VERBOSE)', "EXPLAIN ANALYSE VERBOSE", "EXPLAIN (ANALYZE 0)",
    "EXPLAIN (ANALYZE, TIMING off)",
)  # fmt: skip


class Writer:
    """Writes statements, by choices that a seed determines."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)

    def statements(self) -> str:
        """Write what a Query may contain: one statement, seldom several."""
        parts = [self._single()]
        while self._seldom():
            parts.append(self._single())
        return self._one((";", "; ", "\x1f;\x1f")).join(parts).replace(GAP, self._one(_GAPS))

    def _one(self, choices: Sequence[str]) -> str:
        return self._chance.choice(choices)

    def _sometimes(self) -> bool:
        return self._chance.random() < 0.25

    def _seldom(self) -> bool:
        return self._chance.random() < 0.08

    def _number(self) -> str:
        return self._one(_LOUD_NUMBERS if self._seldom() else _QUIET_NUMBERS)

    def _text(self) -> str:
        return self._one(_LOUD_TEXTS if self._seldom() else _QUIET_TEXTS)

    def _condition(self) -> str:
        return self._one(_LOUD_CONDITIONS if self._seldom() else _QUIET_CONDITIONS)

    def _source(self, depth: int, names: tuple[str, ...]) -> str:
        """Write what FROM takes rows of a, b and c from; the caller names it."""
        kinds = ["t", "t", "s.t", "v", '"t"', "ONLY (t)", "(TABLE t)", "(VALUES (1, 'v', now()))", "cte", "series"]
        match kind := self._one(kinds + ["query"] * 3 if depth else kinds):
            case "cte":
                return self._one([*names, "t"])
            case "series":
                return "(SELECT i, 'z', NULL::timestamptz FROM generate_series(1, 2) WITH ORDINALITY AS k(i, o))"
            case "query":
                return f"{self._one(['', '', 'LATERAL '])}({self._query(depth - 1, names)})"
        return kind

    def _query(self, depth: int = 2, names: tuple[str, ...] = (), *, top: bool = False) -> str:
        """Write a query of three columns; `names` are those of common table expressions around it."""
        head = ""
        if depth and self._sometimes():
            name = f"w{depth}{len(names)}"
            body = self._change(returning=True) if top and self._sometimes() else self._query(depth - 1, names)
            kind = self._one(["AS", "AS", "AS MATERIALIZED", "AS\x1fNOT MATERIALIZED"])
            head = f"WITH{self._one(['', ' RECURSIVE'])}\x1f{name} (a, b, c) {kind} ({body})\x1f"
            names = (*names, name)
        body = self._select(depth, names)
        if depth and self._seldom():
            operator = self._one(["UNION", "UNION ALL", "INTERSECT", "EXCEPT\x1fALL"])
            body = f"({body})\x1f{operator}\x1f({self._select(depth - 1, names)})"
        return head + body

    def _select(self, depth: int, names: tuple[str, ...]) -> str:
        number, text, time = self._number(), self._text(), self._one(_TIMES)
        if self._seldom():
            columns = f"{number}, {text}, {time}"
            return self._one([f"SELECT\x1f{columns}", f"VALUES\x1f({columns})", f"SELECT ALL {columns}"])
        window = self._one(["x.a", "x.a", "(row_number() OVER (ORDER BY x.a))::int", "(sum(x.a) OVER w)::int"])
        columns = self._one(
            [f"{window}, x.b, {time}", f"{number}, x.b, x.c", f"x.a, {text}, x.c", f"{number}, {text}, {time}"]
        )
        sql = f"SELECT\x1f{columns}\x1fFROM {self._source(depth, names)} AS x (a, b, c)"
        if depth and self._sometimes():
            condition = self._one(["true", "y.d = x.a", "y.e = x.b", "conflict(1)"])
            right = self._one(["{} AS y (d, e, f)", "({} AS y (d, e, f) CROSS JOIN (SELECT 1) z)"])
            joined = right.format(self._source(depth - 1, names))
            sql += f" {self._one(['JOIN', 'LEFT JOIN', 'INNER JOIN'])}\x1f{joined} ON {condition}"
        elif self._seldom():
            sql += self._one([", join(1) k", ", LATERAL g(1) AS k", ", generate_series(1, 2) AS k (l)"])
        if self._sometimes():
            sql += f"\x1fWHERE {self._condition()}"
        if "OVER w" in sql:
            sql += "\x1fWINDOW w AS (PARTITION BY x.b)"
        if self._seldom():
            return f"{sql}\x1f{self._one(_LOCKS)}"
        return sql + self._one(_TAILS)

    def _change(self, *, returning: bool = False) -> str:
        kinds = [
            f"INSERT INTO t (a, b, c)\x1f{self._query(1)}",
            f"INSERT\x1fINTO log VALUES ({self._number()}, {self._text()}, now())",
            f"UPDATE t SET a = {self._number()}\x1fWHERE true",
            "UPDATE t SET (a, b) = (1, 'u')",
            "DELETE\x1fFROM t WHERE a = 1",
            "DELETE FROM t USING s.t AS y WHERE y.a = t.a",
            "MERGE INTO t USING s.t y ON t.a = y.a WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (y.a)",
        ]
        if not returning:
            return self._one(kinds)
        change = self._one(kinds[:-1])
        return f"{change} RETURNING a, b, c" if "log" in change else f"{change} RETURNING t.a, t.b, t.c"

    def _single(self) -> str:
        kinds = ["query"] * 12 + ["change", "explain", "explain", "copy", "declare", "into", "other", "other"]
        match self._one(kinds):
            case "change":
                return self._change()
            case "explain":
                explained = self._change() if self._sometimes() else self._query(top=True)
                return f"{self._one(_EXPLAINS)}\x1f{explained}"
            case "copy":
                return f"COPY ({self._query(top=True)}) TO\x1fSTDOUT"
            case "declare":
                return f"DECLARE k\x1fCURSOR FOR {self._query(top=True)}"
            case "into":
                return f"CREATE TEMP TABLE x AS\x1f{self._query(top=True)}"
            case "other":
                return self._one(_OTHERS)
        query = self._query(top=True)
        return f"({query})" if self._sometimes() else query
