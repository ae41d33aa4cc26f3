-- what is said of errors, with every VERBOSITY
CREATE TABLE t (n int PRIMARY KEY, t text NOT NULL);
SELECT 1/0;
\errverbose
SELECT * FROM nowhere;
\errverbose
\set VERBOSITY verbose
INSERT INTO t VALUES (1, NULL);
SELECT n, nothing FROM t;
DO $$BEGIN RAISE EXCEPTION 'own' USING ERRCODE = 'P1234', DETAIL = 'd', HINT = 'h', TABLE = 't', COLUMN = 'n'; END$$;
DO $$BEGIN RAISE WARNING 'warned' USING HINT = 'calm'; RAISE NOTICE 'noted'; RAISE INFO 'informed'; END$$;
\set VERBOSITY terse
SELECT 1/0;
INSERT INTO t VALUES (1, NULL);
\set VERBOSITY sqlstate
SELECT 1/0;
SELECT FROM WHERE;
\set VERBOSITY default
\set SHOW_CONTEXT always
DO $$BEGIN RAISE NOTICE 'with context'; PERFORM 1/0; END$$;
\set SHOW_CONTEXT never
DO $$BEGIN RAISE NOTICE 'without context'; PERFORM 1/0; END$$;
\set SHOW_CONTEXT errors
SELECT 'a long line before the error', 'ü', nowhere, 'and behind';
SELECT 'lines'
,
  nowhere
;
SET client_min_messages = debug1;
CREATE TABLE u (n serial PRIMARY KEY, m int UNIQUE);
SET client_min_messages = error;
DROP TABLE IF EXISTS nowhere;
RESET client_min_messages;
DROP TABLE IF EXISTS nowhere;
\set ECHO_HIDDEN on
\dt t
\unset ECHO_HIDDEN
\echo :ERROR :SQLSTATE
SELECT 1/0;
\echo :ERROR :SQLSTATE :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE
SELECT 1;
\echo :ERROR :SQLSTATE :LAST_ERROR_SQLSTATE :ROW_COUNT
\nothing
\set ON_ERROR_STOP on
SELECT 1/0;
SELECT 'not reached';
