"""SQL that is proven to read, one statement a line, and the schema that it runs on."""

from __future__ import annotations

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
SELECT b, pg_sleep(0) FROM t
SELECT a FROM pg_sleep(0), LATERAL (SELECT a FROM t) AS q
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
SELECT has_table_privilege('t', 'insert'), obj_description('t'::regclass), 't'::regclass
SELECT * FROM pg_stats LIMIT 1
SELECT * FROM v
SELECT substr(b, 1, 1) COLLATE "C" FROM t
SELECT count(*) FROM t, LATERAL (SELECT 1) AS l(x), u z(y)
SELECT a AS "into", b AS for_update FROM t
SELECT a insertion, b AS updated FROM t
SELECT 1 AS "INSERT INTO"
SELECT a, b, count(*) FROM t GROUP BY a, ROLLUP (b)
SELECT a, b FROM t GROUP BY CUBE (a, b), ()
SELECT a, b FROM t GROUP BY GROUPING SETS (CUBE (a), ROLLUP (b), (a, b))
SELECT a FROM t GROUP BY DISTINCT ROLLUP (a)
SELECT * FROM t JOIN (u JOIN v ON true) ON u.t_a = t.a
SELECT * FROM t x LEFT OUTER JOIN (u y JOIN t z ON y.t_a = z.a) ON y.id = x.a
SELECT * FROM (SELECT 1) q(a) JOIN (VALUES (1)) r(b) ON a = b INNER JOIN (WITH w AS (SELECT 1 c) TABLE w) s ON c = b
SELECT * FROM s.t JOIN (u JOIN v ON true) ON true
SELECT * FROM "Order" JOIN (u JOIN v ON true) ON true
SELECT a FROM t WHERE b ILIKE ('x%') AND b NOT ILIKE ('y%') AND lower(b) ILIKE ('x%') AND t.b NOT ILIKE ('z')
SELECT x.* FROM xmltable('/r/i' PASSING ('<r><i><a>1</a></i></r>'::xml) COLUMNS n FOR ORDINALITY, a int PATH 'a', b varchar(3) PATH 'b' DEFAULT 'x', c numeric(5, 2) PATH 'a') x
SELECT x.a FROM t, xmltable(XMLNAMESPACES ('http://x' AS y), '/r' PASSING BY REF ('<r/>'::xml) COLUMNS a text PATH '.') AS x
SELECT xmlexists('/r' PASSING ('<r/>'::xml)), xpath('/r', '<r/>'::xml)
SELECT age(c, c), age(c, '2024-02-01') FROM t
SELECT age('2000-01-01'::date) IS NULL
SELECT ('x'::text).length, (t.b).upper FROM t
SELECT count(*) OVER (PARTITION BY b ORDER BY a RANGE BETWEEN UNBOUNDED PRECEDING AND 1 FOLLOWING EXCLUDE TIES) FROM t
SELECT ntile(2) OVER (ORDER BY a), dense_rank() OVER (ORDER BY a), lead(a, 1, 0) OVER (ORDER BY a) FROM t
SELECT mode() WITHIN GROUP (ORDER BY b), bool_and(a > 0), every(a > 0), bit_or(a), corr(a, a), stddev(a) FROM t
SELECT jsonb_path_query(j, '$.k[*]'), jsonb_set(j, '{k}', '1'), jsonb_pretty(j), j - 'k', j || '{}' FROM t
SELECT * FROM jsonb_to_recordset('[{"a": 1}]') AS x(a int, b text), jsonb_each('{"a": 1}') e
SELECT array_remove(r, 1), r || 4, r @> ARRAY[1], r && ARRAY[2], unnest(r) FROM t
SELECT int4range(1, 5) @> 3, int4range(1, 5) * int4range(2, 9), lower(int4range(1, 5)), '{[1,2]}'::int4multirange
SELECT '10.0.0.1'::inet << '10.0.0.0/8'::inet, host('10.0.0.1'), point(1, 2) <-> point(3, 4)
SELECT to_tsvector('english', b), ts_rank(to_tsvector('simple', b), to_tsquery('simple', 'x')), ts_headline('a b', to_tsquery('a')) FROM t
SELECT CASE a WHEN 1 THEN 'x' END, a IS NOT DISTINCT FROM 1, b IS NOT NULL, (a > 1) IS UNKNOWN, b IS NORMALIZED FROM t
SELECT a FROM t WHERE a > SOME (SELECT 1) AND a BETWEEN SYMMETRIC 5 AND 1 ORDER BY a USING >, b DESC NULLS LAST FETCH NEXT ROW ONLY
SELECT COLLATION FOR (b), b COLLATE "C" < 'x' FROM t
 WITH RECURSIVE g(a, p) AS (SELECT 1, ARRAY[1] UNION ALL SELECT a + 1, p || a FROM g WHERE a < 3) SEARCH DEPTH FIRST BY a SET o CYCLE a SET c USING q SELECT * FROM g
EXPLAIN SELECT 1
EXPLAIN (ANALYZE) SELECT 1
EXPLAIN ANALYZE VERBOSE SELECT count(*) FROM t
EXPLAIN (SELECT 1)
EXPLAIN (ANALYZE off) SELECT 1
EXPLAIN (FORMAT json) SELECT lower(b) FROM t
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
