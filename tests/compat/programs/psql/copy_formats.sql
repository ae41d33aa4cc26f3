-- \copy both ways, in text, CSV and binary, by files and programs
CREATE TABLE t (n int PRIMARY KEY, t text, b bytea, at timestamptz, a int[]);
INSERT INTO t SELECT g, repeat(chr(96 + g % 26) || E'\t\\"'',\n', g % 5), decode(md5(g::text), 'hex'),
  '2020-01-01 00:00+00'::timestamptz + g * interval '1 hour', ARRAY[g, NULL, -g] FROM generate_series(1, 500) g;
INSERT INTO t VALUES (0);
\copy t to 'text.copy'
\copy t to 'csv.copy' with (format csv, header, force_quote *)
\copy t to 'binary.copy' (format binary)
\copy (select n, t from t where n < 4 order by n) to stdout
\copy (select n, t from t where n < 4 order by n) to stdout with (format csv, header true, delimiter ';', null 'none')
\copy t (n, b) to program 'cksum'
\! cksum < text.copy
\! cksum < csv.copy
\! cksum < binary.copy
CREATE TABLE back (LIKE t INCLUDING ALL);
\copy back from 'text.copy'
SELECT count(*) FROM (TABLE back EXCEPT TABLE t) x;
TRUNCATE back;
\copy back from 'csv.copy' with (format csv, header)
SELECT count(*) FROM (TABLE back EXCEPT TABLE t) x;
TRUNCATE back;
\copy back from 'binary.copy' (format binary)
SELECT count(*) FROM (TABLE t EXCEPT TABLE back) x;
TRUNCATE back;
\copy back (n) from program 'seq 1 1000'
\copy back (n) from program 'seq 1001 1003' where n <> 1002
\copy back (n, t) from stdin
2000	two thousand
2001	\N
2002	tab\tand\nnewline
\.
\copy back (n, t) from stdin csv
3000,"three, thousand"
3001,
3002,"a
line"
\.
COPY back (n, t) FROM STDIN;
4000	by the server's command
\.
SELECT n, t FROM back WHERE n >= 2000 ORDER BY n;
COPY (SELECT n FROM back ORDER BY n LIMIT 3) TO STDOUT;
COPY back TO STDOUT (FORMAT csv) \g csv2.copy
\! wc -l < csv2.copy
COPY (SELECT 1, 'x') TO STDOUT \; SELECT 'behind it' \; COPY (SELECT 2) TO STDOUT;
COPY (SELECT 'on the server') TO PROGRAM 'cat > /dev/null';
COPY back (n) FROM PROGRAM 'seq 5000 5002';
SELECT count(*), sum(n) FROM back;
