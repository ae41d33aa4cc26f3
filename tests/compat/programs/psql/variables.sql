-- variables, conditions, includes
\set number 42
\set text 'it''s'
\set name 'My Table'
CREATE TABLE :"name" (n int, t text);
INSERT INTO :"name" VALUES (:number, :'text');
SELECT * FROM "My Table" WHERE n = :number;
SELECT :'text' AS t, :number + 1 AS n, :'nowhere';
SELECT EXISTS (SELECT FROM "My Table") AS found, count(*) > 5 AS many FROM "My Table" \gset
\if :found
  SELECT 'found it';
  \if :many
    SELECT 'not reached' \g
  \elif true
    SELECT 'few';
  \else
    SELECT 1/0;
  \endif
\else
  SELECT 1/0;
\endif
\if nonsense
\endif
\if :{?number}
\echo :number :{?unknown}
\endif
\! echo "SELECT 'included', :number;" > included.sql
\i included.sql
\ir included.sql
\set QUIET on
\t on
\a
SELECT 1, 2;
\t off
\a
\set QUIET off
\set SINGLELINE on
SELECT 'one line'
\unset SINGLELINE
\encoding
\encoding LATIN1
SHOW client_encoding;
SELECT convert_to('ü', 'UTF8'), length('ü');
\encoding UTF8
SHOW client_encoding;
\encoding nowhere
\setenv PGAMB_SET value
\getenv got PGAMB_SET
\echo :got
\pset format unaligned
SELECT * FROM "My Table";
\pset format html
SELECT * FROM "My Table";
\pset format wrapped
SELECT repeat('x', 100);
SET TimeZone = 'Asia/Kolkata';
SELECT '2020-01-01 00:00+00'::timestamptz;
SET DateStyle = 'SQL, DMY';
SELECT '2020-01-02'::date;
SET standard_conforming_strings = off;
SELECT 'a\nb';
RESET ALL;
SELECT 'a\nb', '2020-01-01 00:00+00'::timestamptz = '2020-01-01 00:00+00';
\echo :SERVER_VERSION_NUM :ENCODING :HOST
PREPARE p (int) AS SELECT $1 + 1;
EXECUTE p (1);
EXECUTE p ('x');
DEALLOCATE p;
EXECUTE p (1);
