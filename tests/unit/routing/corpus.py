"""SQL with the intent it must have. Every READ here also runs on a real replica, against SCHEMA."""

from __future__ import annotations

from dataclasses import dataclass

from pgamb.routing.intent import EVERY_PIN, NO_NEED, NO_PIN, Need, Pin

SCHEMA = """
CREATE TABLE t (a int PRIMARY KEY, b text, c timestamptz, j jsonb, r int[], d date, n numeric(10, 2));
CREATE TABLE "Order" ("id" int, "user" text, "update" int, "select" int);
CREATE TABLE u (id int, t_a int, "delete" boolean);
CREATE VIEW v AS SELECT a, b FROM t;
CREATE SCHEMA s;
CREATE TABLE s.t (a int, b text);
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE SEQUENCE seq;
INSERT INTO t SELECT i, 'x' || i, '2024-01-01', '{"k": [1, 2]}', '{1,2,3}', '2024-01-01', i FROM generate_series(1, 20) i;
INSERT INTO u SELECT i, i, false FROM generate_series(1, 5) i;
"""  # noqa: E501


@dataclass(frozen=True, slots=True)
class Case:
    sql: str
    need: Need
    pins: Pin = NO_PIN
    unpins: Pin = NO_PIN
    name: str | None = None


READS = r"""
SELECT
SELECT 1
select 1;
 ;;  SELECT 1 ; ;
SELECT * FROM t
SELECT a, b FROM t WHERE a = 1
SELECT a FROM ONLY t
SELECT t.* FROM t AS x (a, b), t
SELECT x.k FROM t x(k)
SELECT x.p, y.q FROM (SELECT 1) x(p), (SELECT 2) AS y(q)
SELECT x.p FROM (t JOIN u x(p) ON p = a)
SELECT a FROM t WHERE b = 'INSERT INTO t VALUES (1); DROP TABLE t'
SELECT a FROM t -- FOR UPDATE
SELECT a /* INTO x */ FROM t
SELECT a /* nested /* INSERT */ DELETE */ FROM t
/* leading */ SELECT 1
SELECT $$INSERT$$, $tag$ UPDATE $$ $tag$
SELECT E'it\'s', 'it''s', N'n', B'101', X'1F', U&'\0041', U&'!0041' UESCAPE '!'
SELECT 'a\' AS b
SELECT b FROM t WHERE b LIKE 'x\_%' ESCAPE '\'
SELECT 1.5, .5, 1e10, 1.5e-3, 5., -1, 1--1
SELECT 1 = -1, 2 != 3, 2 <> 3, 1 <= 2, 2 >= 1, 1 < 2, - 1, + 1, 7 % 3, 2 ^ 3, @ -1, |/ 4, 5 & 1, 5 | 1, 5 # 1, ~ 1, 1 << 2
SELECT 'a' ~ 'b', 'a' ~* 'b', 'a' !~ 'b', 'a' !~* 'b', 'a' ~~ 'b', 'a' || 'b'
SELECT a=-1 FROM t
SELECT r[1], r[1:2], r[:2] FROM t
SELECT j -> 'k', j ->> 'k', j #> '{k,0}', j #>> '{k,0}', j @> '{}', j ? 'k', j ?| '{k}', j @? '$.k', j @@ '$.k == 1' FROM t
SELECT 1 OPERATOR(pg_catalog.+) 2
SELECT a::text, a::numeric(10, 2), a::varchar(3), '1'::pg_catalog.int4, a::character varying(3) FROM t
SELECT CAST(a AS numeric(10, 2)), CAST(b AS varchar(3)), CAST(c AS timestamp(3) with time zone) FROM t
SELECT 'sad'::mood
SELECT date '2024-01-01', timestamp(3) '2024-01-01', interval '1' hour, interval(3) '1 second', time '10:00'
SELECT count(*), sum(a), avg(a), min(a), max(a), string_agg(b, ',' ORDER BY b), array_agg(a) FROM t
SELECT COUNT(DISTINCT b) FILTER (WHERE a > 1) FROM t
SELECT lower(b), UPPER(b), length (b), pg_catalog.btrim(b), "lower"(b), "pg_catalog"."upper"(b) FROM t
SELECT pg_catalog . lower ( b ) FROM t
SELECT coalesce(a, 0), nullif(a, 1), greatest(a, 2), least(a, 3) FROM t
SELECT extract(epoch FROM c), substring(b FROM 1 FOR 1), trim(both 'x' FROM b), position('x' IN b), overlay(b placing 'y' from 1) FROM t
SELECT CASE WHEN a > 1 THEN (1) ELSE (2) END FROM t
SELECT a FROM t WHERE a IN (1, 2) AND a NOT IN (3) AND a = ANY (ARRAY[1]) AND a < ALL (SELECT 5)
SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.t_a = t.a)
SELECT a FROM t WHERE (a, b) = (1, 'x') OR NOT (a = 1)
SELECT row_number() OVER (PARTITION BY b ORDER BY a), rank() OVER w FROM t WINDOW w AS (ORDER BY a)
SELECT lag(a) OVER (ORDER BY a), first_value(a) OVER (), last_value(a) OVER (), sum(a) OVER (ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY a) FROM t
SELECT b, count(*) FROM t GROUP BY (b) HAVING (count(*) > 1) ORDER BY (b) LIMIT (1) OFFSET (0)
SELECT a, b FROM t GROUP BY GROUPING SETS ((a), (b), ())
SELECT a, b, grouping(a) FROM t GROUP BY ROLLUP (a, b)
SELECT a FROM t ORDER BY a FETCH FIRST (2) ROWS ONLY
SELECT DISTINCT ON (b) a FROM t
SELECT DISTINCT b FROM t
SELECT * FROM t JOIN u ON (t.a = u.t_a) LEFT JOIN (SELECT 1 AS id) x USING (id) WHERE false
SELECT * FROM t NATURAL JOIN (SELECT 1 AS a) x
SELECT * FROM t JOIN (SELECT 1) x ON true CROSS JOIN LATERAL (SELECT t.a) y
SELECT * FROM t TABLESAMPLE bernoulli (10)
SELECT * FROM t TABLESAMPLE system (10) REPEATABLE (1)
SELECT * FROM generate_series(1, 3) WITH ORDINALITY AS g(a, b)
SELECT * FROM unnest(ARRAY[1, 2]) u(x), LATERAL jsonb_array_elements('[1]') AS e(v)
SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(1, 3)) AS g(a, b)
SELECT * FROM json_to_record('{"a": 1}') AS x(a int)
SELECT 1 UNION SELECT 2 UNION ALL (SELECT 3) INTERSECT SELECT 1 EXCEPT SELECT 4
(SELECT 1)
((SELECT 1) UNION (SELECT 2)) ORDER BY 1
VALUES (1, 'a'), (2, 'b')
TABLE t
TABLE t ORDER BY a LIMIT 1
WITH x AS (SELECT 1) SELECT * FROM x
WITH x(a, b) AS (SELECT 1, 2), y (c) AS MATERIALIZED (SELECT 3), z AS NOT MATERIALIZED (SELECT 4) SELECT * FROM x, y, z
WITH RECURSIVE r(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT sum(n) FROM r
WITH x AS (WITH y(q) AS (SELECT 1) SELECT * FROM y) SELECT * FROM x
SELECT (WITH y(q) AS (SELECT 1) SELECT q FROM y)
WITH x AS (SELECT 1) TABLE x
SELECT now(), current_timestamp, CURRENT_DATE, current_time(0), localtimestamp, transaction_timestamp()
SELECT 'now'::timestamptz, date 'today'
SELECT clock_timestamp(), statement_timestamp(), timeofday()
SELECT random(), gen_random_uuid()
SELECT pg_sleep(0)
SELECT current_user, session_user, current_database(), current_schema, current_schema(), current_schemas(true), version(), user, current_catalog
SELECT current_setting('cluster_name')
SELECT current_setting('search_path'), current_setting('no.such', true)
SELECT x AT TIME ZONE ('UTC') FROM (SELECT now()) q(x)
SELECT to_char(c, 'YYYY'), date_trunc('day', c), age(c, c), make_date(2024, 1, 1), to_timestamp(0) FROM t
SELECT md5('x'), encode('x', 'hex'), digest FROM (SELECT sha256('x')) AS q(digest)
SELECT json_build_object('a', 1), to_jsonb(a), jsonb_agg(a) FROM t GROUP BY a
SELECT regexp_replace(b, 'x', 'y'), split_part(b, 'x', 1), format('%s', b), concat(b, a), replace(b, 'x', '') FROM t
SELECT to_tsvector('simple', b) @@ to_tsquery('simple', 'x') FROM t
SELECT xmlelement(name foo, xmlattributes(1 AS a)), xmlconcat('<a/>', '<b/>')
SELECT b IS NULL, b IS DISTINCT FROM 'x', b ISNULL, b SIMILAR TO 'x', b LIKE ('x'), b NOT ILIKE ('x') FROM t
SELECT (DATE '2024-01-01', DATE '2024-01-02') OVERLAPS (DATE '2024-01-01', DATE '2024-01-02')
SELECT left(b, 1), right(b, 1) FROM t
SELECT make_interval(days => 1), make_interval(days := 1)
SELECT "id", "user", "update", "select" FROM "Order"
SELECT "Order"."update" FROM "Order" WHERE "Order"."id" = 1
SELECT * FROM s.t, public.u AS k(z)
SELECT u.delete FROM u
SELECT ROW(1, 2), (t).a, (t.*) IS NULL FROM t
SELECT array_length(ARRAY(SELECT a FROM t), 1), ARRAY[[1], [2]]
SELECT * FROM information_schema.tables LIMIT 1
SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relname OPERATOR(pg_catalog.~) '^(t)$' COLLATE pg_catalog.default AND pg_catalog.pg_table_is_visible(c.oid) ORDER BY 2, 3
SELECT pg_catalog.format_type(a.atttypid, a.atttypmod), pg_catalog.pg_get_expr(d.adbin, d.adrelid, true) FROM pg_attribute a LEFT JOIN pg_attrdef d ON true
SELECT pg_size_pretty(pg_total_relation_size('t')), pg_relation_size('t')
SELECT has_table_privilege('t', 'insert'), obj_description('t'::regclass), 't'::regclass
SELECT * FROM pg_stats LIMIT 1
SELECT * FROM v
SELECT substr(b, 1, 1) COLLATE "C" FROM t
SELECT count(*) FROM t, LATERAL (SELECT 1) AS l(x), u z(y)
SELECT a AS "into", b AS for_update FROM t
SELECT a insertion, b AS updated FROM t
SELECT 1 AS "INSERT INTO"
EXPLAIN SELECT 1
EXPLAIN (ANALYZE) SELECT 1
EXPLAIN ANALYZE VERBOSE SELECT count(*) FROM t
EXPLAIN (COSTS off, ANALYZE off) UPDATE t SET a = 1
EXPLAIN (ANALYZE false) DELETE FROM t
EXPLAIN INSERT INTO t (a) VALUES (1)
EXPLAIN VERBOSE SELECT * FROM t FOR UPDATE
EXPLAIN (SELECT 1)
EXPLAIN (FORMAT json) SELECT nextval('seq')
EXPLAIN (VERBOSE) WITH x AS (SELECT 1) SELECT * FROM x
SHOW search_path
SHOW TIME ZONE
SHOW server_version
SHOW cluster_name
SHOW "work_mem"
COPY t TO STDOUT
COPY t (a, b) TO STDOUT
COPY s.t TO STDOUT WITH (FORMAT csv, HEADER)
COPY t TO STDIN
COPY (SELECT a, 'to' FROM t) TO STDOUT
COPY (VALUES (1)) TO STDOUT (FORMAT binary)
SELECT 1; SELECT 2
SELECT 1; VALUES (2); TABLE t; SHOW work_mem;
"""  # noqa: E501

PRIMARY = r"""
SELECT pg_is_in_recovery()
SELECT PG_CATALOG.pg_is_in_recovery(), 1
select "pg_is_in_recovery"()
SELECT inet_server_addr(), inet_server_port()
SELECT pg_backend_pid()
SELECT pg_postmaster_start_time()
SELECT pg_current_wal_lsn()
SELECT pg_last_wal_replay_lsn()
SELECT currval('seq')
SELECT lastval()
SELECT last_value FROM seq
SELECT s.is_called FROM seq s
SELECT "log_cnt" FROM seq
SELECT pg_advisory_unlock(1)
SELECT pg_advisory_xact_lock(1)
SELECT pg_try_advisory_xact_lock_shared(1)
SELECT * FROM pg_stat_activity
SELECT * FROM pg_catalog.pg_stat_replication
SELECT * FROM "pg_catalog"."pg_locks"
SELECT count(*) FROM pg_statio_user_tables
SELECT * FROM PG_REPLICATION_SLOTS
SELECT * FROM pg_prepared_statements
SELECT * FROM pg_cursors
SELECT * FROM pg_settings
SELECT * FROM pg_sequences
SELECT pg_stat_get_numscans(1)
SELECT current_setting('transaction_read_only')
SELECT current_setting('IN_HOT_STANDBY', true)
SELECT current_setting(b) FROM t
SELECT current_setting('port' || '')
SELECT txid_current_if_assigned()
SHOW transaction_read_only
SHOW in_hot_standby
SHOW transaction isolation level
SHOW ALL
SHOW data_directory
SHOW session authorization
SET CONSTRAINTS ALL DEFERRED
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
SET LOCAL work_mem = '4MB'
SET LOCAL TIME ZONE 'UTC'
SET LOCAL ROLE x
DISCARD PLANS
DISCARD SEQUENCES
UNLISTEN x
FETCH NEXT FROM c
FETCH 5 FROM c
MOVE FORWARD ALL IN c
CLOSE c
DECLARE c CURSOR FOR SELECT a FROM t
DECLARE c SCROLL CURSOR WITHOUT HOLD FOR SELECT pg_backend_pid()
EXPLAIN EXECUTE x
EXPLAIN ANALYZE SELECT pg_backend_pid()
COPY pg_stat_activity TO STDOUT
COPY (SELECT pg_backend_pid()) TO STDOUT
"""

WRITES = r"""
INSERT INTO t VALUES (1)
INSERT INTO t (a, b) VALUES (1, lower('X')), (2, 'y') ON CONFLICT (a) DO UPDATE SET (b) = ROW(excluded.b) RETURNING a, (b)
INSERT INTO s.t AS x (a) SELECT a FROM t
INSERT INTO "Order" ("id") VALUES (1)
INSERT INTO "s"."t" ("a") VALUES (1)
INSERT INTO t DEFAULT VALUES
UPDATE t SET a = 1 WHERE b = 'x'
DELETE FROM t USING u WHERE a = id
MERGE INTO t USING u ON (a = id) WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (a) VALUES (1)
WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x
WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x
WITH x AS (SELECT 1) UPDATE t SET a = 1
WITH x AS (WITH y AS (DELETE FROM t RETURNING a) SELECT * FROM y) SELECT * FROM x
SELECT * FROM t FOR UPDATE
SELECT * FROM t FOR NO KEY UPDATE OF t NOWAIT
SELECT * FROM t FOR SHARE SKIP LOCKED
SELECT * FROM (SELECT * FROM t FOR KEY SHARE) x
SELECT * FROM t /* */ for/**/update
SELECT * INTO x FROM t
SELECT a INTO TABLE x FROM t
SELECT nextval('seq')
SELECT setval('seq', 1)
SELECT pg_catalog.nextval('seq')
SELECT "nextval"('seq')
SELECT nextval /* comment */ ('seq')
SELECT txid_current()
SELECT pg_current_xact_id()
SELECT pg_export_snapshot()
SELECT pg_notify('a', 'b')
SELECT pg_stat_reset()
SELECT pg_switch_wal()
SELECT pg_create_restore_point('x')
SELECT pg_cancel_backend(1), pg_terminate_backend(1)
SELECT pg_logical_emit_message(false, 'a', 'b')
SELECT lo_create(0)
SELECT query_to_xml('SELECT 1', true, true, '')
SELECT lower(b), nextval('seq') FROM t
VALUES (nextval('seq'))
EXPLAIN ANALYZE INSERT INTO t VALUES (1)
EXPLAIN (ANALYZE) DELETE FROM t
EXPLAIN (ANALYZE true) UPDATE t SET a = 1
EXPLAIN (COSTS off, ANALYZE 1) SELECT * FROM t FOR UPDATE
EXPLAIN ANALYZE SELECT nextval('seq')
EXPLAIN CREATE TABLE x AS SELECT 1
COPY t TO '/tmp/x'
COPY t TO PROGRAM 'cat'
COPY t FROM '/tmp/x'
COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT
COPY (SELECT nextval('seq')) TO STDOUT
DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE
DECLARE c CURSOR FOR SELECT nextval('seq')
NOTIFY x
NOTIFY x, 'payload'
LOCK TABLE t
CHECKPOINT
TRUNCATE t
VACUUM
ANALYZE t
CREATE TABLE x (a numeric(10, 2) DEFAULT 1)
CREATE TABLE x AS SELECT lower(b) FROM t
CREATE TEMP TABLE x (a int) ON COMMIT DROP
CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ INSERT INTO t VALUES (1); SELECT 1 $$
CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END
CREATE RULE r AS ON INSERT TO t DO (SELECT 1; SELECT 2)
GRANT SELECT ON t TO x
WHATEVER
selec 1
"""  # noqa: E501

# Nothing proves anything about these: they may change the session too.
UNKNOWN = r"""
SELECT f(1)
SELECT public.f(1)
SELECT public.lower('x')
SELECT "Lower"('x')
SELECT "public".lower('x')
SELECT "public" . coalesce(1)
SELECT "s".over(1), 2
SELECT a @+ b FROM t
SELECT a =*- b FROM t
SELECT pg_catalog.no_such_function(1)
SELECT x.pg_catalog.lower('x')
SELECT DISTINCT ON (a) f(b) FROM t
SELECT * FROM f(1)
SELECT * FROM f(1) AS x(a int)
SELECT * FROM t JOIN f(1) ON true
SELECT * FROM t, LATERAL f(1)
SELECT * FROM t WHERE f(a)
SELECT * FROM (f(1) JOIN t ON true)
WITH x(a) AS (SELECT f(1)) SELECT * FROM x
WITH x AS (SELECT 1) (SELECT 1) ORDER BY f(1)
SELECT count(*) FILTER (WHERE f(a)) FROM t
SELECT a FROM t GROUP BY f(a)
SELECT a FROM t LIMIT f(1)
SELECT over(1)
SELECT join(1)
SELECT 1, join(1)
SELECT a === b FROM t
SELECT a OPERATOR(public.+) b FROM t
SELECT a <~> b FROM t
SELECT U&"\0066"(1)
SELECT uuid_generate_v4()
SELECT dblink('', 'INSERT')
SELECT CASE WHEN f(1) THEN 1 END
INSERT INTO t VALUES (f(1))
UPDATE t SET a = f(1)
CREATE TABLE x AS SELECT f(1)
EXPLAIN SELECT f(1)
EXPLAIN ANALYZE EXECUTE x
DO $$ BEGIN END $$
CALL p(1)
DECLARE c CURSOR FOR SELECT f(1)
COPY (SELECT f(1)) TO STDOUT
INSERT INTO t VALUES (set_config('a.b', 'c', false))
SELECT 'unterminated
SELECT "unterminated
SELECT /* unterminated
SELECT $$unterminated
SELECT 1abc
SELECT $1abc
SELECT \ 1
"""


def _lines(block: str) -> list[str]:
    return [line for line in block.strip().splitlines() if line.strip()]


_ONE = Need.BEGIN | Need.CONTROL | Need.NEUTRAL
_END = Need.END | Need.CONTROL | Need.NEUTRAL
_SAVE = Need.CONTROL | Need.NEUTRAL
_SET = Need.SET | Need.NEUTRAL
_N = Need.NEUTRAL
_0 = NO_NEED

SPECIAL = (
    Case("-- leading\nSELECT a\n-- FOR UPDATE\rFROM t --", Need.READ),
    Case("SELECT 'a'\n  'INSERT'\n\t-- comment\n'b', E'c'\r\n'\\'' , 1 FROM t", Need.READ),
    Case("SELECT 'a' -- comment\n 'b' FROM t", Need.READ),
    Case("", Need.EMPTY | _N),
    Case(" ; ; -- nothing\n", Need.EMPTY | _N),
    Case("/* nothing */", Need.EMPTY | _N),
    Case("BEGIN", _ONE),
    Case("begin work", _ONE),
    Case("START TRANSACTION", _ONE),
    Case("BEGIN READ ONLY", _ONE | Need.READ_ONLY),
    Case("BEGIN TRANSACTION READ WRITE", _ONE | Need.READ_WRITE),
    Case("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", _ONE | Need.READ_ONLY | Need.SNAPSHOT),
    Case("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", _ONE | Need.SNAPSHOT),
    Case("BEGIN ISOLATION LEVEL SERIALIZABLE", _ONE | Need.SNAPSHOT),
    Case("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY", _ONE | Need.READ_ONLY),
    Case("BEGIN READ ONLY READ WRITE", _ONE | Need.READ_WRITE),
    Case("COMMIT", _END | Need.COMMITS),
    Case("END TRANSACTION", _END | Need.COMMITS),
    Case("COMMIT AND NO CHAIN", _END | Need.COMMITS),
    Case("COMMIT AND CHAIN", _SAVE | Need.COMMITS),
    Case("ROLLBACK", _END),
    Case("ABORT WORK", _END),
    Case("ROLLBACK AND CHAIN", _SAVE),
    Case('ROLLBACK TO SAVEPOINT "A b"', _SAVE, name="A b"),
    Case("ROLLBACK TRANSACTION TO x", _SAVE, name="x"),
    Case("SAVEPOINT Abc", _SAVE, name="abc"),
    Case("RELEASE SAVEPOINT x", _SAVE, name="x"),
    Case("RELEASE savepoint", _SAVE, name="savepoint"),
    Case("SET TRANSACTION READ ONLY", _SAVE),
    Case("SET TRANSACTION SNAPSHOT '1'", _SAVE),
    Case("PREPARE TRANSACTION 'x'", Need.CONTROL | Need.COMMITS),
    Case("COMMIT PREPARED 'x'", Need.CONTROL | Need.COMMITS),
    Case("ROLLBACK PREPARED 'x'", Need.CONTROL),
    Case("BEGIN; SELECT 1; COMMIT", _SAVE | Need.MULTIPLE | Need.COMMITS),
    Case("BEGIN; INSERT INTO t VALUES (1); COMMIT", Need.CONTROL | Need.MULTIPLE | Need.COMMITS),
    Case("SELECT 1; INSERT INTO t VALUES (1)", Need.MULTIPLE),
    Case("SELECT 1; SET work_mem = 1", Need.MULTIPLE | _N),
    Case("SELECT 1; CREATE TABLE x (a int)", Need.MULTIPLE),
    Case("SET search_path TO a, b", _SET, name="search_path"),
    Case("SET SESSION work_mem = '4MB'", _SET, name="work_mem"),
    Case('SET "Work_Mem" = 1', _SET, name="work_mem"),
    Case("SET my.param = 'x'", _SET, name="my.param"),
    Case('SET my . "param" = 1', _SET, name="my.param"),
    Case("SET TIME ZONE 'UTC'", _SET, name="timezone"),
    Case("SET NAMES 'utf8'", _SET, name="client_encoding"),
    Case("SET ROLE x", _SET, name="role"),
    Case("SET SCHEMA 'x'", _SET, name="search_path"),
    Case("RESET work_mem", _SET, name="work_mem"),
    Case("RESET ALL", _SET, name="all"),
    Case("SET search_path = pg_temp, public", _SET, Pin.TEMPORARY, name="search_path"),
    Case("SET SESSION AUTHORIZATION x", _SET, Pin.SESSION_AUTHORIZATION, name="session_authorization"),
    Case("SET SESSION AUTHORIZATION DEFAULT", _SET, NO_PIN, Pin.SESSION_AUTHORIZATION, "session_authorization"),
    Case("RESET SESSION AUTHORIZATION", _SET, NO_PIN, Pin.SESSION_AUTHORIZATION, "session_authorization"),
    Case("SET LOCAL SESSION AUTHORIZATION x", _N, name="session_authorization"),
    Case("SELECT set_config('a.b', 'c', false)", _N | Need.SETTINGS),
    Case("SELECT setseed(0.5)", _N, Pin.OTHER),
    Case("SET seed TO 0.5", _SET, Pin.OTHER, name="seed"),
    Case("DISCARD ALL", _N | Need.DEALLOCATE_ALL, NO_PIN, EVERY_PIN),
    Case("DISCARD TEMP", _N, NO_PIN, Pin.TEMPORARY),
    Case("DISCARD TEMPORARY", _N, NO_PIN, Pin.TEMPORARY),
    Case("PREPARE p (int) AS SELECT $1", _N, Pin.PREPARE, name="p"),
    Case("PREPARE transaction AS SELECT 1", _N, Pin.PREPARE, name="transaction"),
    Case('EXECUTE "P"(1)', Need.EXECUTE | Need.SETTINGS, name="P"),
    Case("DEALLOCATE p", _N | Need.DEALLOCATE, name="p"),
    Case("DEALLOCATE PREPARE P", _N | Need.DEALLOCATE, name="p"),
    Case("DEALLOCATE prepare", _N | Need.DEALLOCATE, name="prepare"),
    Case('DEALLOCATE "all"', _N | Need.DEALLOCATE, name="all"),
    Case('DEALLOCATE "A""b"', _N | Need.DEALLOCATE, name='A"b'),
    Case('DEALLOCATE U&"\\0041b"', _N | Need.DEALLOCATE, name="Ab"),
    Case("DEALLOCATE " + "x" * 70, _N | Need.DEALLOCATE, name="x" * 63),
    Case("DEALLOCATE ALL", _N | Need.DEALLOCATE_ALL, NO_PIN, Pin.PREPARE),
    Case("DEALLOCATE PREPARE ALL", _N | Need.DEALLOCATE_ALL, NO_PIN, Pin.PREPARE),
    Case("LISTEN x", _N, Pin.LISTEN, name="x"),
    Case("UNLISTEN *", _N, NO_PIN, Pin.LISTEN),
    Case("LOAD 'auto_explain'", _N | Need.SETTINGS, Pin.LOAD),
    Case("DECLARE c CURSOR WITH HOLD FOR SELECT 1", _N, Pin.HOLD_CURSOR, name="c"),
    Case("DECLARE c CURSOR WITH HOLD FOR SELECT nextval('seq')", _0, Pin.HOLD_CURSOR, name="c"),
    Case("CLOSE ALL", _N, NO_PIN, Pin.HOLD_CURSOR, "all"),
    Case("SELECT pg_advisory_lock(1)", _N, Pin.ADVISORY_LOCK),
    Case("SELECT a, pg_try_advisory_lock_shared(1, 2) FROM t", _N, Pin.ADVISORY_LOCK),
    Case("SELECT pg_advisory_unlock_all()", _N, NO_PIN, Pin.ADVISORY_LOCK),
    Case("INSERT INTO t SELECT 1 WHERE pg_try_advisory_lock(1)", _0, Pin.ADVISORY_LOCK),
    Case("CREATE TEMP TABLE x (a int)", _0, Pin.TEMPORARY),
    Case("CREATE LOCAL TEMPORARY TABLE x AS SELECT 1", _0, Pin.TEMPORARY),
    Case("CREATE OR REPLACE TEMP VIEW x AS SELECT 1", _0, Pin.TEMPORARY),
    Case("CREATE TEMP SEQUENCE x", _0, Pin.TEMPORARY),
    Case("CREATE TABLE pg_temp.x (a int)", _0, Pin.TEMPORARY),
    Case('CREATE FUNCTION "pg_temp".f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$', _0, Pin.TEMPORARY),
    Case("SELECT 1 AS a INTO TEMP x", _0, Pin.TEMPORARY),
    Case("SELECT * INTO TEMPORARY TABLE x FROM t", _0, Pin.TEMPORARY),
    Case("CREATE TEMP TABLE x (a int); DISCARD TEMP", Need.MULTIPLE, NO_PIN, Pin.TEMPORARY),
    Case("DISCARD TEMP; CREATE TEMP TABLE x (a int)", Need.MULTIPLE, Pin.TEMPORARY),
    Case("LISTEN a; UNLISTEN *; LISTEN b", Need.MULTIPLE | _N, Pin.LISTEN),
    Case("COPY t FROM STDIN", Need.COPY_IN),
    Case("COPY t (a, b) FROM STDIN WITH (FORMAT csv) WHERE a > 1", Need.COPY_IN),
    Case("copy binary t from stdout", Need.COPY_IN),
    Case("SELECT 1; COPY t FROM STDIN; SELECT 2", Need.COPY_IN | Need.MULTIPLE),
    Case(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END; COMMIT",
        Need.MULTIPLE | Need.CONTROL | Need.COMMITS,
    ),
)

READ_LINES = _lines(READS)
PRIMARY_LINES = _lines(PRIMARY)
WRITE_LINES = _lines(WRITES)
UNKNOWN_LINES = _lines(UNKNOWN)
EVERYTHING = [*READ_LINES, *PRIMARY_LINES, *WRITE_LINES, *UNKNOWN_LINES, *(case.sql for case in SPECIAL)]
