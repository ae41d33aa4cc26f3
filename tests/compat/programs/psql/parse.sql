-- needs 18
-- \parse, \bind_named, \close_prepared, pipelines
CREATE TABLE t (n int, t text);
SELECT $1::int + 1 \parse plus
\bind_named plus 41 \g
\bind_named plus 1 \g
\bind_named nowhere \g
INSERT INTO t VALUES ($1, $2) \parse put
\bind_named put 1 'one' \g
\close_prepared plus
\bind_named plus 41 \g
\startpipeline
SELECT $1::int \bind 1 \sendpipeline
\bind_named put 2 'two' \sendpipeline
SELECT count(*) FROM t \bind \sendpipeline
\syncpipeline
SELECT 1/0 \bind \sendpipeline
SELECT 'skipped' \bind \sendpipeline
\syncpipeline
SELECT count(*) FROM t \bind \sendpipeline
\endpipeline
\startpipeline
\endpipeline
SELECT count(*) FROM t;
