"""SQL with the intent it must have. Every read also runs on a real replica, against SCHEMA."""

from __future__ import annotations

from dataclasses import dataclass

from pgamb.routing.intent import EVERY_PIN, NO_NEED, NO_PIN, Need, Pin
from tests.unit.routing.reads import READS, SCHEMA


@dataclass(frozen=True, slots=True)
class Case:
    sql: str
    need: Need
    pins: Pin = NO_PIN
    unpins: Pin = NO_PIN
    name: str | None = None


PRIMARY = r"""
SELECT pg_is_in_recovery()
SELECT PG_CATALOG.pg_is_in_recovery(), 1
select "pg_is_in_recovery"()
SELECT inet_server_addr(), inet_server_port()
SELECT pg_backend_pid()
SELECT pg_sleep(0)
SELECT 1, pg_catalog.pg_sleep_for('1 s') FROM generate_series(1, 2)
SELECT 'ok' FROM pg_sleep(0.5)
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
SELECT current_setting('transaction_' || 'read_only')
SELECT pg_size_pretty(pg_total_relation_size('t')), pg_relation_size('t')
SELECT pg_database_size(current_database())
SELECT (1::bigint).pg_advisory_xact_lock
SELECT (x.y).pg_backend_pid FROM t
SELECT r.currval FROM CAST('seq' AS regclass) r
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
EXPLAIN (COSTS off, ANALYZE off) UPDATE t SET a = 1
EXPLAIN (ANALYZE false) DELETE FROM t
EXPLAIN INSERT INTO t (a) VALUES (1)
EXPLAIN VERBOSE SELECT * FROM t FOR UPDATE
EXPLAIN (FORMAT json) SELECT nextval('seq')
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
SELECT ('seq'::regclass).nextval
SELECT ('seq'::regclass) . /* */ "nextval"
SELECT (ARRAY['seq'::regclass])[1].nextval
SELECT r.nextval FROM CAST('seq' AS regclass) r
SELECT (1).pg_cancel_backend
SELECT (0::oid).lo_create
SELECT table_to_xml('t', true, true, '')
EXPLAIN ("analyze") DELETE FROM t
EXPLAIN (U&"analyz\0065") DELETE FROM t
EXPLAIN (VERBOSE, "analyze" true) SELECT nextval('seq')
SELECT pg_replication_origin_create('x')
INSERT INTO t (a) SELECT a FROM t ON CONFLICT (a) DO NOTHING
INSERT INTO t SELECT * FROM t JOIN (u JOIN v ON true) ON true
UPDATE t AS x SET (a, b) = (1, 'y')
UPDATE s.t SET (a, b) = (SELECT 1, 'y') FROM u
VALUES (nextval('seq'))
EXPLAIN ANALYZE INSERT INTO t VALUES (1)
EXPLAIN (ANALYZE) DELETE FROM t
EXPLAIN (ANALYZE true) UPDATE t SET a = 1
EXPLAIN (ANALYZE 0) UPDATE t SET a = 1
EXPLAIN (ANALYZE 'off') UPDATE t SET a = 1
EXPLAIN (COSTS off, ANALYZE 1) SELECT * FROM t FOR UPDATE
EXPLAIN ANALYZE SELECT nextval('seq')
EXPLAIN CREATE TABLE x AS SELECT 1
COPY t TO STDOUT INSERT
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
SELECT NOT materialized(1)
SELECT * FROM t JOIN u ON conflict(1)
INSERT INTO t SELECT a FROM t JOIN u ON conflict(1)
INSERT INTO t SELECT a FROM t JOIN u ON conflict(1) ON CONFLICT (a) DO NOTHING
SELECT * FROM join(1)
SELECT ALL join(1)
SELECT NOT join(1)
SELECT 1 OPERATOR(pg_catalog.+) join(1)
SELECT d AT TIME ZONE join(1) FROM t
SELECT 'a' LIKE 'b' ESCAPE join(1)
SELECT sum(a) OVER (ROWS join(1) PRECEDING) FROM t
SELECT NOT ilike('a', 'b')
SELECT a AND ilike('a', 'b') FROM t
SELECT set(1)
SELECT a FROM t ORDER BY ref(1)
SELECT passing(1)
SELECT columns(1)
SELECT * FROM t WHERE set(1) FOR UPDATE
SELECT CASE WHEN true THEN insert(1) END
SELECT operator(1)
SELECT a FROM t GROUP BY f(cube(1))
SELECT a FROM t ORDER BY cube(a)
SELECT rollup(1) FROM t GROUP BY a
UPDATE pg_settings SET setting = 'x' WHERE name = 'search_path'
CREATE TABLE x AS EXECUTE p
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
    Case("SELECT 'a'\n  'INSERT'\n\t-- comment\n'b', E'c'\r\n'\\'' , 1 FROM t", Need.READ | Need.TRANSACTION_TIME),
    Case("SELECT 'a' -- comment\n 'b' FROM t", Need.READ | Need.TRANSACTION_TIME),
    Case("SELECT 5 *-- FOR UPDATE\n2, 5 +/* INTO x */-1, @/* */-1", Need.READ),
    Case("SELECT a FROM t WHERE a >@-- nextval('seq')\n1 IS NULL", Need.SETTINGS),
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
    Case("SET LOCAL search_path = pg_temp", _N, Pin.TEMPORARY, name="search_path"),
    Case("SELECT set_config('a.b', 'c', false)", _N | Need.SETTINGS),
    Case("SELECT setseed(0.5)", _N, Pin.OTHER),
    Case("SELECT (0.5::float8).setseed", _N, Pin.OTHER),
    Case("SELECT (1::bigint).pg_advisory_lock", _N, Pin.ADVISORY_LOCK),
    Case("SELECT r.pg_try_advisory_lock FROM abs(1::bigint) AS r", _N, Pin.ADVISORY_LOCK),
    Case("SELECT pg_backup_start('x')", _0, Pin.OTHER),
    Case("SELECT pg_create_physical_replication_slot('x', true, true)", _0, Pin.OTHER),
    Case("SELECT pg_replication_origin_session_setup('x')", _0, Pin.OTHER),
    Case('CREATE TABLE U&"pg\\005ftemp".x (a int)', _0, Pin.TEMPORARY),
    Case("SELECT current_setting('transaction_'\n'read_only')", _N | Need.TRANSACTION_TIME),
    Case("SET seed TO 0.5", _SET, Pin.OTHER, name="seed"),
    Case("DISCARD ALL", _N | Need.DEALLOCATE_ALL, NO_PIN, EVERY_PIN),
    Case("DISCARD TEMP", _N, NO_PIN, Pin.TEMPORARY),
    Case("DISCARD TEMPORARY", _N, NO_PIN, Pin.TEMPORARY),
    Case("PREPARE p (int) AS SELECT $1", _N | Need.NAMES, name="p"),
    Case("PREPARE transaction AS SELECT 1", _N | Need.NAMES, name="transaction"),
    Case("DEALLOCATE p", _N | Need.DEALLOCATE, name="p"),
    Case("DEALLOCATE PREPARE P", _N | Need.DEALLOCATE, name="p"),
    Case("DEALLOCATE prepare", _N | Need.DEALLOCATE, name="prepare"),
    Case('DEALLOCATE "all"', _N | Need.DEALLOCATE, name="all"),
    Case('DEALLOCATE "A""b"', _N | Need.DEALLOCATE, name='A"b'),
    Case('DEALLOCATE U&"\\0041b"', _N | Need.DEALLOCATE, name="Ab"),
    Case("DEALLOCATE " + "x" * 70, _N | Need.DEALLOCATE, name="x" * 63),
    Case("DEALLOCATE ALL", _N | Need.DEALLOCATE_ALL),
    Case("DEALLOCATE PREPARE ALL", _N | Need.DEALLOCATE_ALL),
    Case("LISTEN x", _N, Pin.LISTEN, name="x"),
    Case("UNLISTEN *", _N, NO_PIN, Pin.LISTEN),
    Case("UNLISTEN x", _N, NO_PIN, Pin.LISTEN, "x"),
    Case("LOAD 'auto_explain'", _N | Need.SETTINGS, Pin.LOAD),
    Case("CREATE TABLE t (a int DEFAULT nextval('s'), b int DEFAULT currval('s'))", Need.SEQUENCE),
    Case("ALTER TABLE t ALTER b SET DEFAULT pg_catalog.lastval()", Need.SEQUENCE),
    Case("CREATE FUNCTION f() RETURNS trigger AS 'refint', 'f' LANGUAGE C", _0, Pin.LOAD),
    Case("CREATE FUNCTION f() RETURNS int LANGUAGE 'c' AS 'library'", _0),
    Case("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", _0),
    Case("DECLARE c CURSOR WITH HOLD FOR SELECT 1", _N, Pin.HOLD_CURSOR, name="c"),
    Case("DECLARE c CURSOR WITH HOLD FOR SELECT nextval('seq')", _0, Pin.HOLD_CURSOR, name="c"),
    Case("CLOSE c", _N, NO_PIN, Pin.HOLD_CURSOR, "c"),
    Case("SELECT pg_advisory_lock(1)", _N, Pin.ADVISORY_LOCK),
    Case("SELECT a, pg_try_advisory_lock_shared(1, 2) FROM t", _N, Pin.ADVISORY_LOCK),
    Case("SELECT pg_advisory_unlock_all()", _N, NO_PIN, Pin.ADVISORY_LOCK),
    Case("SELECT pg_advisory_unlock(1), pg_advisory_unlock_shared(1, 2)", _N, NO_PIN, Pin.ADVISORY_LOCK),
    Case("SELECT pg_advisory_unlock_all(), pg_advisory_lock(1)", _N, Pin.ADVISORY_LOCK, Pin.ADVISORY_LOCK),
    Case("INSERT INTO t SELECT 1 WHERE pg_try_advisory_lock(1)", _0, Pin.ADVISORY_LOCK),
    Case("CREATE TEMP TABLE x (a int)", _0, Pin.TEMPORARY),
    Case("CREATE LOCAL TEMPORARY TABLE x AS SELECT 1", _0, Pin.TEMPORARY),
    Case("CREATE OR REPLACE TEMP VIEW x AS SELECT 1", _0, Pin.TEMPORARY),
    Case("CREATE TEMP SEQUENCE x", _0, Pin.TEMPORARY),
    Case("CREATE TABLE pg_temp.x (a int)", _0, Pin.TEMPORARY),
    Case('CREATE FUNCTION "pg_temp".f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$', _0, Pin.TEMPORARY),
    Case("SELECT 1 AS a INTO TEMP x", _0, Pin.TEMPORARY),
    Case("SELECT * INTO TEMPORARY TABLE x FROM t", _0, Pin.TEMPORARY),
    Case("CREATE TEMP TABLE x (a int); DISCARD TEMP", Need.MULTIPLE, Pin.TEMPORARY, Pin.TEMPORARY),
    Case("DROP TABLE x", _0, NO_PIN, Pin.TEMPORARY),
    Case("LISTEN a; UNLISTEN *; LISTEN b", Need.MULTIPLE | _N, Pin.LISTEN, Pin.LISTEN),
    Case("COPY t FROM STDIN", Need.COPY_IN),
    Case("COPY t (a, b) FROM STDIN WITH (FORMAT csv) WHERE a > 1", Need.COPY_IN),
    Case("copy binary t from stdout", Need.COPY_IN),
    Case("SELECT 1; COPY t FROM STDIN; SELECT 2", Need.COPY_IN | Need.MULTIPLE),
    Case(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END; COMMIT",
        Need.MULTIPLE | Need.CONTROL | Need.COMMITS,
    ),
)

__all__ = ["EVERYTHING", "PRIMARY_LINES", "READ_LINES", "SCHEMA", "SPECIAL", "UNKNOWN_LINES", "WRITE_LINES", "Case"]

READ_LINES = _lines(READS)
PRIMARY_LINES = _lines(PRIMARY)
WRITE_LINES = _lines(WRITES)
UNKNOWN_LINES = _lines(UNKNOWN)
EVERYTHING = [*READ_LINES, *PRIMARY_LINES, *WRITE_LINES, *UNKNOWN_LINES, *(case.sql for case in SPECIAL)]
