"""Conversations about statements prepared by SQL, and what PostgreSQL says of them."""

from __future__ import annotations

from tests.support.exchanges import (
    Exchange,
    bind,
    close_statement,
    describe,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    run,
    sync,
)

Q, R, P, B, D, X, F, S = query, run, parse, bind, describe, execute, flush(), sync()
STATEMENTS = (
    "SELECT name, statement, parameter_types::text[], from_sql FROM pg_prepared_statements ORDER BY prepare_time"
)
LOOK = Q(STATEMENTS)
READ_ONE = "SELECT t FROM lazy WHERE n = $1"

# What a string says of prepared statements only PostgreSQL finds out.
STRING = "DO $$DECLARE found text; BEGIN EXECUTE 'execute q (3)' INTO found; RAISE NOTICE '%', found; END$$"
EXPLAIN = "EXPLAIN (COSTS OFF) EXECUTE"

PREPARED: dict[str, tuple[Exchange, ...]] = {
    "in a string": (
        *(Q(STRING), Q(f"PREPARE q AS {READ_ONE}"), Q(STRING), Q("EXECUTE q(4)"), R(STRING) + S, Q("DEALLOCATE q")),
        *(Q("BEGIN"), Q(f"PREPARE q AS {READ_ONE}"), Q(STRING), Q("COMMIT"), Q(STRING), Q("DEALLOCATE ALL"), Q(STRING)),
        *(P(READ_ONE, "q") + S, Q(STRING), Q("BEGIN"), Q(STRING), Q("ROLLBACK"), B(b"5", statement="q") + X() + S),
    ),
    # Each has its plan, which is kept: there are no parameters.
    "one text under two names": (
        *(Q("PREPARE i AS SELECT t FROM lazy WHERE n = 3"), Q("PREPARE s AS SELECT t FROM lazy WHERE n = 3")),
        *(Q("BEGIN"), Q("SET LOCAL enable_seqscan = off"), Q(f"{EXPLAIN} i"), Q("SET LOCAL enable_seqscan = on")),
        *(
            Q("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off"),
            Q(f"{EXPLAIN} s"),
            Q(f"{EXPLAIN} i"),
        ),
        *(Q("COMMIT"), Q("DEALLOCATE i"), Q("EXECUTE s"), Q("PREPARE i AS SELECT t FROM lazy WHERE n = 3")),
        *(Q("EXECUTE i"), Q("EXECUTE s"), Q("DEALLOCATE s"), Q("EXECUTE i"), Q("EXECUTE s")),
    ),
    "prepare, execute, deallocate": (
        *(Q(f"PREPARE q AS {READ_ONE}"), Q("EXECUTE q(3)"), Q("EXECUTE q(4)"), Q("execute Q ( 5 ) ;")),
        *(Q("DEALLOCATE q"), Q("EXECUTE q(3)"), Q("DEALLOCATE q"), Q("DEALLOCATE PREPARE q")),
        *(Q(f"PREPARE q(int) AS {READ_ONE}"), Q("EXECUTE q(3)"), Q("DEALLOCATE PREPARE q"), Q("EXECUTE q(3)")),
    ),
    "writes": (
        *(Q("PREPARE w (int, text) AS INSERT INTO lazy VALUES ($1, $2) RETURNING n"), Q("EXECUTE w(20, 'x')")),
        *(Q("EXECUTE w(20, 'x')"), Q("EXECUTE w(21, 'x' || 'y')"), Q("SELECT * FROM lazy WHERE n > 19 ORDER BY n")),
        *(Q("PREPARE d AS DELETE FROM lazy WHERE n > 19"), Q("EXECUTE d"), Q("SELECT count(*) FROM lazy")),
        *(Q("PREPARE u AS UPDATE lazy SET t = $2 WHERE n = $1"), Q("EXECUTE u(1, 'one')"), Q("EXECUTE u(1)")),
    ),
    "names": (
        *(
            Q('PREPARE "A b" AS SELECT 1'),
            Q('EXECUTE "A b"'),
            Q("EXECUTE a"),
            Q('EXECUTE "a b"'),
            Q('DEALLOCATE "A b"'),
        ),
        *(Q('PREPARE "x""y" AS SELECT 2'), Q('EXECUTE "x""y"'), Q("PREPARE UPPER AS SELECT 3"), Q('EXECUTE "upper"')),
        *(
            Q('PREPARE "ä" AS SELECT 4'),
            Q('EXECUTE "ä"'),
            Q("EXECUTE ä"),
            Q("EXECUTE Ä"),
            LOOK,
            Q("DEALLOCATE ä"),
            LOOK,
        ),
        *(
            Q("PREPARE " + "n" * 70 + " AS SELECT 5"),
            Q("EXECUTE " + "n" * 63),
            Q("EXECUTE " + "n" * 66),
            Q("DEALLOCATE ALL"),
        ),
        *(
            Q("PREPARE select AS SELECT 6"),
            Q("EXECUTE select"),
            Q("PREPARE transaction AS SELECT 7"),
            Q("EXECUTE transaction"),
        ),
        *(
            Q('PREPARE U&"\\0061b" AS SELECT 8'),
            Q("EXECUTE ab"),
            Q('EXECUTE U&"\\0061b"'),
            Q("EXECUTE 'ab'"),
            Q("EXECUTE a.b"),
        ),
    ),
    "positions of errors": (
        *(
            Q("PREPARE q AS SELECT nothing"),
            Q("  PREPARE a_very_long_name_that_is_longer_than_pgambs AS SELECT * FROM nowhere"),
        ),
        *(
            Q("/* ä */ PREPARE q AS SELECT 'ä', nothing"),
            Q("PREPARE q AS"),
            Q("PREPARE q AS SELECT 1 2 x"),
            Q("PREPARE q AS DROP TABLE x"),
        ),
        *(
            Q("PREPARE q(int, nonsense) AS SELECT 1"),
            Q("PREPARE q (int) AS SELECT $1 + $2"),
            Q("PREPARE q AS SELECT $1"),
        ),
        *(
            Q("PREPARE p AS SELECT $1::int + 1"),
            Q("EXECUTE p"),
            Q("EXECUTE p('x')"),
            Q("EXECUTE p(nothing)"),
            Q("EXECUTE p(1, 2)"),
        ),
        *(
            Q("/* before */ EXECUTE /* c */ p(1 +)"),
            Q("EXECUTE p(1.5)"),
            Q("EXECUTE p('2001-01-01'::date)"),
            Q("EXECUTE p((SELECT 1))"),
        ),
        *(Q("EXECUTE p(2)"), Q("EXECUTE p(1/0)"), Q("EXECUTE p(2147483647)"), Q("-- c\nEXECUTE p(2)")),
        *(Q("EXECUTE p(1) x"), Q("EXECUTE nothing(x)"), Q("EXECUTE"), Q("PREPARE"), Q("DEALLOCATE"), Q("EXECUTE p(")),
    ),
    "one namespace": (
        *(
            Q("PREPARE q AS SELECT 1"),
            P("SELECT 2", "q") + S,
            B(statement="q") + D() + X() + S,
            describe_statement("q") + S,
        ),
        *(
            P("SELECT 3", "p") + S,
            Q("PREPARE p AS SELECT 4"),
            Q("EXECUTE p"),
            Q("PREPARE p AS SELECT nothing"),
            Q("EXECUTE q"),
        ),
        *(close_statement("q") + S, Q("EXECUTE q"), Q("PREPARE q AS SELECT 5"), Q("EXECUTE q"), Q("DEALLOCATE p")),
        *(B(statement="p") + S, describe_statement("p") + S, Q("EXECUTE p"), P("SELECT 6", "p") + S, Q("EXECUTE p")),
    ),
    "protocol and sql, with parameters": (
        *(P(READ_ONE, "s") + describe_statement("s") + S, Q("EXECUTE s(3)"), Q("EXECUTE s('x')"), Q("EXECUTE s")),
        *(Q(f"PREPARE q (int) AS {READ_ONE}"), describe_statement("q") + S, B(b"4", statement="q") + D() + X() + S),
        *(
            B(b"x", statement="q") + D() + X() + S,
            B(statement="q") + S,
            P("BEGIN", "b") + S,
            Q("EXECUTE b"),
            Q("ROLLBACK"),
        ),
        *(
            P("", "empty") + S,
            Q("EXECUTE empty"),
            P("SET work_mem = '5MB'", "set") + S,
            Q("EXECUTE set"),
            Q("SHOW work_mem"),
        ),
        *(P("COMMIT", "c") + S, Q("EXECUTE c"), Q("RESET work_mem")),
    ),
    "explain and create table as": (
        *(
            Q(f"PREPARE q (int) AS {READ_ONE}"),
            Q("EXPLAIN (COSTS OFF) EXECUTE q(3)"),
            Q("EXPLAIN (COSTS OFF) EXECUTE nothing"),
        ),
        *(
            Q("EXPLAIN (COSTS OFF, ANALYZE, TIMING OFF, SUMMARY OFF, BUFFERS OFF) EXECUTE q(3)"),
            Q("EXPLAIN EXECUTE q('x')"),
        ),
        *(Q("BEGIN"), Q("CREATE TABLE made AS EXECUTE q(3)"), Q("SELECT max(t) FROM made"), Q("ROLLBACK")),
        *(Q("BEGIN"), Q("CREATE TABLE made AS EXECUTE q(3) WITH NO DATA"), Q("SELECT max(t) FROM made"), Q("ROLLBACK")),
        *(
            Q("CREATE TABLE made AS EXECUTE q"),
            Q("CREATE TABLE made (a, b) AS EXECUTE q(3)"),
            Q("CREATE TABLE made AS EXECUTE nothing"),
        ),
        *(Q("DEALLOCATE q"), Q(f"PREPARE q (int) AS {READ_ONE}"), Q("EXPLAIN ANALYZE EXECUTE nothing")),
        *(Q("EXPLAIN (COSTS OFF) CREATE TABLE made AS EXECUTE q(3)"), LOOK),
    ),
    "looking": (
        *(LOOK, Q("PREPARE q (int, text) AS SELECT $1, $2"), LOOK, P(READ_ONE, "s") + S, P("SELECT 7", "") + S, LOOK),
        *(
            Q("EXECUTE q(1, 'x')"),
            B(b"3", statement="s") + X() + S,
            Q("DEALLOCATE q"),
            LOOK,
            Q("/* c */ PREPARE q AS SELECT 8;"),
            LOOK,
        ),
        *(R(STATEMENTS) + S, P(STATEMENTS, "look") + S, B(statement="look") + D() + X() + S, Q("DEALLOCATE ALL"), LOOK),
        *(P(STATEMENTS, "look") + S, B(statement="look") + D() + X() + S, Q("DISCARD ALL"), LOOK),
        *(Q("SELECT count(*) FROM pg_catalog.pg_prepared_statement()"), Q("SELECT 'pg_prepared_statements'")),
    ),
    "counts of plans": (
        *(Q("PREPARE q (int) AS SELECT $1"), Q("SELECT name, generic_plans, custom_plans FROM pg_prepared_statements")),
        *(
            Q("EXECUTE q(1)"),
            Q("EXECUTE q(2)"),
            Q("SELECT name, generic_plans, custom_plans FROM pg_prepared_statements"),
        ),
    ),
    "several in one query": (
        *(Q("PREPARE a AS SELECT 1; PREPARE b AS SELECT 2; EXECUTE a; EXECUTE b"), Q("EXECUTE b"), LOOK),
        *(
            Q("DEALLOCATE a; EXECUTE b; EXECUTE a"),
            Q("EXECUTE a"),
            Q("DEALLOCATE a; DEALLOCATE b"),
            Q("EXECUTE a"),
            LOOK,
        ),
        *(
            Q("DEALLOCATE ALL; PREPARE c AS SELECT 3"),
            Q("EXECUTE c"),
            Q("SELECT 1; DEALLOCATE ALL"),
            Q("EXECUTE c"),
            LOOK,
        ),
        *(Q("PREPARE d AS SELECT 4"), Q("EXECUTE d; DEALLOCATE d; EXECUTE d"), Q("EXECUTE d"), Q("DISCARD ALL"), LOOK),
    ),
    "not transactional": (
        *(
            Q("BEGIN"),
            Q("PREPARE q AS SELECT 1"),
            Q("ROLLBACK"),
            Q("EXECUTE q"),
            Q("BEGIN"),
            Q("DEALLOCATE q"),
            Q("ROLLBACK"),
        ),
        *(
            Q("EXECUTE q"),
            Q("BEGIN"),
            Q("DELETE FROM lazy"),
            Q("PREPARE q AS SELECT count(*) FROM lazy"),
            Q("EXECUTE q"),
            Q("ROLLBACK"),
        ),
        *(
            Q("EXECUTE q"),
            Q("BEGIN"),
            Q("EXECUTE q"),
            Q("SAVEPOINT a"),
            Q("EXECUTE nothing"),
            Q("EXECUTE q"),
            Q("PREPARE r AS SELECT 1"),
        ),
        *(Q("DEALLOCATE q"), Q("ROLLBACK TO a"), Q("EXECUTE q"), Q("COMMIT"), Q("EXECUTE r"), Q("EXECUTE q")),
        *(
            Q("BEGIN"),
            Q("SELECT 1/0"),
            Q("EXECUTE q"),
            Q("PREPARE q AS SELECT 2"),
            Q("DEALLOCATE q"),
            Q("PREPARE x AS"),
            LOOK,
            Q("COMMIT"),
            LOOK,
        ),
        *(Q("BEGIN"), Q("PREPARE t AS SELECT 1"), LOOK, Q("SELECT 1/0"), LOOK, Q("ROLLBACK"), LOOK, Q("EXECUTE t")),
    ),
    "in a transaction that writes": (
        *(
            Q("BEGIN"),
            Q("CREATE TABLE made (n int)"),
            Q("PREPARE q AS SELECT max(n) FROM made"),
            Q("EXECUTE q"),
            Q("ROLLBACK"),
            Q("EXECUTE q"),
        ),
        *(
            Q("EXPLAIN EXECUTE q"),
            B(statement="q") + S,
            Q("BEGIN"),
            Q("EXECUTE q"),
            Q("SELECT 1"),
            Q("ROLLBACK"),
            Q("DEALLOCATE q"),
            Q("EXECUTE q"),
        ),
    ),
    "search_path": (
        *(
            Q("CREATE SCHEMA IF NOT EXISTS pg_temp_none"),
            Q("SET search_path = pg_catalog"),
            Q("PREPARE q AS SELECT count(*) FROM lazy"),
        ),
        *(
            Q("SET search_path = public"),
            Q("PREPARE q (lazy) AS SELECT $1.n"),
            Q("EXECUTE q(ROW(3, 'x'))"),
            Q("SET search_path = pg_catalog"),
        ),
        *(
            Q("EXECUTE q(NULL)"),
            Q("PREPARE r (lazy) AS SELECT $1.n"),
            Q("SET search_path = public"),
            Q("EXECUTE q(ROW(4, 'x')::lazy)"),
            LOOK,
        ),
    ),
    "what a body does": (
        *(
            Q("PREPARE c AS SELECT set_config('work_mem', $1, false)"),
            Q("EXECUTE c('6MB')"),
            Q("SHOW work_mem"),
            Q("RESET work_mem"),
        ),
        *(
            Q("PREPARE n AS SELECT nextval('counter')"),
            Q("EXECUTE n"),
            Q("SELECT currval('counter')"),
            Q("EXECUTE n"),
            Q("SELECT lastval()"),
        ),
        *(
            Q("PREPARE l AS SELECT loud($1)"),
            Q("EXECUTE l(3)"),
            Q("PREPARE b AS SELECT broken()"),
            Q("EXECUTE b"),
            Q("PREPARE y AS SELECT sly()"),
            Q("EXECUTE y"),
        ),
        *(
            Q("PREPARE now AS SELECT now() = now()"),
            Q("BEGIN"),
            Q("EXECUTE now"),
            Q("COMMIT"),
            Q("EXECUTE c(nothing)"),
            Q("PREPARE v AS VALUES (1), (2)"),
            Q("EXECUTE v"),
        ),
        *(
            Q("PREPARE f AS SELECT n FROM lazy WHERE n = 1 FOR UPDATE"),
            Q("EXECUTE f"),
            Q("PREPARE i AS SELECT 1 INTO made"),
            Q("PREPARE a AS SELECT pg_advisory_xact_lock(1)"),
            Q("EXECUTE a"),
        ),
    ),
}
