-- the \d family
CREATE SCHEMA s;
CREATE TYPE s.color AS ENUM ('red', 'green');
CREATE TYPE s.pair AS (a int, b text);
CREATE DOMAIN s.positive AS int CHECK (VALUE > 0);
CREATE TABLE s.parent (id serial PRIMARY KEY, t text NOT NULL DEFAULT 'x' COLLATE "C", c s.color, p s.positive, UNIQUE (t, c));
COMMENT ON TABLE s.parent IS 'a comment';
COMMENT ON COLUMN s.parent.t IS 'of the column';
CREATE TABLE s.child (id int REFERENCES s.parent ON DELETE CASCADE, v numeric(7, 2), d daterange, EXCLUDE USING gist (d WITH &&));
CREATE INDEX child_v ON s.child (v DESC NULLS LAST) WHERE v > 0;
CREATE TABLE s.parts (n int, t text) PARTITION BY RANGE (n);
CREATE TABLE s.part1 PARTITION OF s.parts FOR VALUES FROM (1) TO (10);
CREATE TABLE s.rest PARTITION OF s.parts DEFAULT;
CREATE VIEW s.seen AS SELECT id, sum(v) FROM s.child GROUP BY id;
CREATE MATERIALIZED VIEW s.kept AS SELECT 1 AS one;
CREATE FUNCTION s.twice(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 * 2';
CREATE PROCEDURE s.proc(INOUT x int) LANGUAGE plpgsql AS $$BEGIN x := x + 1; END$$;
CREATE FUNCTION s.trig() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$;
CREATE TRIGGER tr BEFORE INSERT ON s.child FOR EACH ROW EXECUTE FUNCTION s.trig();
CREATE AGGREGATE s.mine(int) (sfunc = int4pl, stype = int);
CREATE OPERATOR s.+++ (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);
CREATE ROLE compat_described;
GRANT SELECT, INSERT (id) ON s.child TO compat_described;
ALTER DEFAULT PRIVILEGES IN SCHEMA s GRANT SELECT ON TABLES TO compat_described;
CREATE PUBLICATION pub FOR TABLE s.child;
CREATE STATISTICS s.stat ON id, t FROM s.parent;
CREATE POLICY pol ON s.child USING (id > 0);
ALTER TABLE s.child ENABLE ROW LEVEL SECURITY;
\d
\dn
\dn+ s
\d s.parent
\d+ s.parent
\d s.child
\d+ s.parts
\d s.part1
\d s.seen
\d+ s.seen
\d s.kept
\d s.parent_id_seq
\d s.child_v
\d s.pair
\dt s.*
\dti s.*
\dv s.*
\dm s.*
\ds s.*
\di s.*
\df s.*
\df+ s.twice
\da s.*
\do s.*
\dT s.*
\dT+ s.color
\dD s.*
\dp s.*
\ddp
\dRp+
\dX s.*
\dy
\dx
\dP s.*
\du compat_*
\drds
\dconfig work_mem
\dc s.*
\dC pg_catalog.int4
\sf s.twice
\sf+ s.proc
\sv s.seen
\l compat
\dO s.*
\dL
\d nowhere
\dt nowhere
\df nowhere.*
CALL s.proc(1);
DROP OWNED BY compat_described;
DROP ROLE compat_described;
