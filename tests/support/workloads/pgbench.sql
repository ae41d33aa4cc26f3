-- pgbench's three built-in scripts, and what it asks before it starts.

-- schema
CREATE TABLE pgbench_branches (bid int NOT NULL, bbalance int, filler char(88));
CREATE TABLE pgbench_tellers (tid int NOT NULL, bid int, tbalance int, filler char(84));
CREATE TABLE pgbench_accounts (aid int NOT NULL, bid int, abalance int, filler char(84));
CREATE TABLE pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));

-- read
SELECT abalance FROM pgbench_accounts WHERE aid = 4711;

-- read
SELECT abalance FROM pgbench_accounts WHERE aid = $1;

-- read
select count(*) from pgbench_branches

-- read
select o.n, p.partstrat, pg_catalog.count(i.inhparent) from pg_catalog.pg_class as c join pg_catalog.pg_namespace as
n on (n.oid = c.relnamespace) cross join lateral (select pg_catalog.array_position(pg_catalog.current_schemas(true),
n.nspname)) as o(n) left join pg_catalog.pg_partitioned_table as p on (p.partrelid = c.oid) left join
pg_catalog.pg_inherits as i on (c.oid = i.inhparent) where c.relname = 'pgbench_accounts' and o.n is not null group
by 1, 2 order by 1 asc limit 1

-- primary: BEGIN of a transaction that may write
BEGIN;

-- primary: UPDATE writes
UPDATE pgbench_accounts SET abalance = abalance + 42 WHERE aid = 4711;

-- primary: UPDATE writes
UPDATE pgbench_tellers SET tbalance = tbalance + 42 WHERE tid = 7;

-- primary: UPDATE writes
UPDATE pgbench_branches SET bbalance = bbalance + 42 WHERE bid = 1;

-- primary: INSERT writes
INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (7, 1, 4711, 42, CURRENT_TIMESTAMP);

-- primary: END
END;

-- primary: VACUUM belongs on the primary
vacuum pgbench_branches

-- primary: TRUNCATE belongs on the primary
truncate pgbench_history
