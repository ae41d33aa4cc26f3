-- what psql makes of queries: \gset, \gexec, \gdesc, \crosstabview, \gx, \g
SELECT format('CREATE TABLE made_%s (n int)', n) FROM generate_series(1, 3) n \gexec
SELECT 'INSERT INTO made_1 VALUES (1), (2)', 'SELECT sum(n) FROM made_1', NULL, 'SELECT 1/0', 'SELECT ''after''' \gexec
SELECT 1 AS one, 'two' AS two, NULL AS three \gset
\echo :one :two :{?three}
SELECT count(*) AS n FROM made_1 \gset found_
\echo :found_n :ROW_COUNT :ERROR :SQLSTATE
SELECT 1 AS one WHERE false \gset
SELECT n AS many FROM made_1 \gset
SELECT 1/0 AS x \gset
\echo :ERROR :SQLSTATE :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE
SELECT 1 AS i, 'x'::varchar(7) AS v, now() AS t, NULL AS u, ARRAY[1.5] AS a, made_1 AS r FROM made_1 \gdesc
INSERT INTO made_2 VALUES (1) RETURNING n, n * 1.5 AS more \gdesc
SELECT count(*) FROM made_2;
CREATE TABLE nothing () \gdesc
SELECT nowhere \gdesc
SELECT syntax error here \gdesc
SELECT 'usable' AS still \gdesc
SELECT a, b, a * b AS c FROM generate_series(1, 3) a, generate_series(1, 4) b \crosstabview
SELECT a, b, chr(64 + a * b) AS c, -b AS s FROM generate_series(1, 3) a, generate_series(1, 4) b \crosstabview a b c s
SELECT 1, 2, 3, 4 \crosstabview
SELECT 1 AS a, 1 AS b, 1 AS c UNION ALL SELECT 1, 1, 2 \crosstabview
SELECT 1/0, 2, 3 \crosstabview
SELECT 1 AS a, 'long text' AS b \gx
SELECT * FROM made_1 ORDER BY n \g (format=csv)
SELECT * FROM made_1 ORDER BY n \g result.txt
\! cat result.txt
SELECT * FROM made_1 ORDER BY n \g | sort -r
SELECT 1 \; SELECT 2 \; SELECT 1/0 \; SELECT 3;
SELECT 1 \; INSERT INTO made_3 VALUES (1) \; SELECT count(*) FROM made_3;
\pset null (none)
SELECT NULL AS n;
\o output.txt
SELECT 'into the file';
\o
\! cat output.txt
SELECT 'again' AS x
\g
\g
\p
\r
SELECT 'last';
