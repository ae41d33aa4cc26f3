-- bad rows in the middle, files that are not there, refusals; the session goes on after each
CREATE TABLE t (n int PRIMARY KEY, t text CHECK (t <> 'bad'));
\copy t from program 'seq 1 100; echo oops; seq 101 200'
\copy t (n) from program 'seq 1 20000; echo oops; seq 20001 90000'
\copy t (n) from program 'seq 1 20000; echo 7; seq 20001 90000'
SELECT count(*) FROM t;
\copy t from stdin
1	good
2	bad
3	good
\.
\copy t from stdin csv
1,good
2,"not ended
\.
\copy t from stdin
1	good	too many
\.
\copy t from 'no such file'
\copy t from program 'exit 3'
\copy t (n) from program 'seq 1 5; exit 3'
SELECT count(*) FROM t;
\copy t to '/no/such/folder/file'
\copy nowhere to stdout
\copy t (nothing) to stdout
\copy t from program 'echo this is not binary' (format binary)
\copy (select 1 / (1000 - g) from generate_series(1, 2000) g) to program 'wc -l'
\copy (select 1 / (3 - g) from generate_series(1, 5) g) to stdout
\copy t to program 'head -n 1 > /dev/null; exit 1'
\! seq 101 105 > rows.txt
BEGIN;
INSERT INTO t VALUES (1, 'kept?');
\copy t from 'rows.txt'
SELECT 1;
COMMIT;
BEGIN;
\copy t (n) from 'rows.txt'
SAVEPOINT a;
\copy t (n) from 'rows.txt'
\copy t (n) from 'rows.txt'
ROLLBACK TO a;
\copy t (n) from program 'seq 106 108'
COMMIT;
SELECT count(*) FROM t;
COPY t FROM STDIN; SELECT 'the line goes on';
50	x
\.
COPY t FROM STDIN \; SELECT 'never' \; COPY t FROM STDIN;
oops	x
\.
SELECT count(*) FROM t;
\set ON_ERROR_STOP on
\copy t from program 'echo x'
SELECT 'not reached';
