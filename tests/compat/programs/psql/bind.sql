-- needs 16
-- \bind: the extended protocol
CREATE TABLE t (n int, t text);
SELECT $1::int + 1, $2 \bind 41 'text' \g
INSERT INTO t VALUES ($1, $2) \bind 1 'one' \g
SELECT * FROM t WHERE n = $1 \bind 1 \gx
SELECT $1 \bind \g
SELECT $1::int \bind x \g
SELECT 1/0 \bind \g
BEGIN \bind \g
INSERT INTO t VALUES ($1, $2) \bind 2 'two' \g
SELECT count(*) FROM t WHERE n >= $1 \bind 1 \gset
\echo :count
ROLLBACK \bind \g
SELECT count(*) FROM t \bind \g
