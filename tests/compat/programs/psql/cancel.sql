-- Ctrl-C at what runs, in psql itself and in others that go on
\! psql -X -c "SELECT pg_sleep(60)" -c "SELECT 'usable'" & sleep 1; kill -INT $!; wait $!
\! psql -X -c BEGIN -c "SELECT pg_sleep(60)" -c "SELECT 'failed'" -c ROLLBACK -c "SELECT 'usable'" & sleep 1; kill -INT $!; wait $!
\! psql -X -c "COPY (SELECT pg_sleep(60)) TO STDOUT" -c "SELECT 'usable'" & sleep 1; kill -INT $!; wait $!
CREATE TABLE locked (n int);
BEGIN;
LOCK TABLE locked;
\! psql -X -c "\copy locked from program 'seq 1 10'" -c "SELECT 'usable'" & sleep 1; kill -INT $!; wait $!
COMMIT;
SELECT count(*) FROM locked;
\! (sleep 1; kill -INT $PPID) &
SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b;
SELECT 'not reached';
