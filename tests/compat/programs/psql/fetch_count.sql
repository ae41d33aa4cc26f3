-- results by cursors
\set FETCH_COUNT 7
SELECT g, 'text ' || g AS t FROM generate_series(1, 30) g;
SELECT 1 / (20 - g) AS x FROM generate_series(1, 30) g;
CREATE TABLE t (n int);
INSERT INTO t SELECT generate_series(1, 15) RETURNING n;
WITH changed AS (UPDATE t SET n = n + 100 WHERE n < 4 RETURNING n) SELECT n FROM changed ORDER BY n;
BEGIN;
SELECT n FROM t ORDER BY n;
DECLARE mine CURSOR FOR SELECT n FROM t ORDER BY n;
FETCH 3 FROM mine;
SELECT n FROM t ORDER BY n DESC;
FETCH 3 FROM mine;
MOVE LAST mine;
FETCH BACKWARD 2 FROM mine;
CLOSE mine;
COMMIT;
SELECT g FROM generate_series(1, 100000) g \g |cksum
SELECT g FROM generate_series(1, 20) g \gx |cksum
SELECT count(*) FROM t \gset
\echo :count
\set FETCH_COUNT 0
DECLARE held CURSOR WITH HOLD FOR SELECT n FROM t ORDER BY n;
BEGIN;
DECLARE held CURSOR WITH HOLD FOR SELECT n FROM t ORDER BY n;
COMMIT;
FETCH 2 FROM held;
SELECT count(*) FROM pg_cursors;
CLOSE held;
FETCH 2 FROM held;
