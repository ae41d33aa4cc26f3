-- \lo_import, \lo_export, \lo_list, \lo_unlink
\! seq 1 20000 > numbers.txt
\lo_import numbers.txt 'a comment'
\set number :LASTOID
SELECT :number > 0 AS has_a_number;
\lo_export :number copied.txt
\! cmp numbers.txt copied.txt && cksum < copied.txt
SELECT length(lo_get(:number)), md5(lo_get(:number));
SELECT count(*) FROM pg_largeobject_metadata;
SELECT obj_description(:number, 'pg_largeobject');
BEGIN;
\lo_import numbers.txt
\lo_unlink :LASTOID
SELECT lo_open(:number, CAST(x'20000' | x'40000' AS int)) AS descriptor \gset
SELECT lo_lseek(:descriptor, 10, 0), loread(:descriptor, 6), lo_tell(:descriptor);
SELECT lowrite(:descriptor, 'written');
SELECT lo_close(:descriptor);
COMMIT;
SELECT substr(lo_get(:number), 1, 30);
BEGIN;
\lo_unlink :number
ROLLBACK;
\lo_export :number again.txt
\! cksum < again.txt
\lo_import nowhere.txt
\lo_export 1 nothing.txt
\lo_unlink 1
\lo_unlink :number
SELECT count(*) FROM pg_largeobject_metadata;
SELECT loread(0, 1);
