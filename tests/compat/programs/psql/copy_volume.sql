-- some megabytes each way
CREATE TABLE t (n int, t text);
\copy t from program 'seq -f "%.0f	some text that fills the line" 1 300000'
SELECT count(*), sum(n), min(t), max(t) FROM t;
\copy (table t order by n) to program 'cksum'
\copy (select n, repeat(t, 100) from t order by n limit 20000) to program 'cksum' csv
COPY t TO STDOUT (FORMAT binary) \g |wc -c
SELECT n, t FROM t ORDER BY n \g |cksum
