-- LISTEN, NOTIFY and when psql tells
LISTEN here;
NOTIFY here;
NOTIFY here, 'with a payload';
SELECT pg_notify('here', 'by a function');
NOTIFY elsewhere, 'not heard';
BEGIN;
NOTIFY here, 'a';
NOTIFY here, 'a';
NOTIFY here, 'b';
SELECT 'not yet';
COMMIT;
BEGIN;
NOTIFY here, 'never';
ROLLBACK;
LISTEN "Other One";
NOTIFY "Other One", 'quoted';
SELECT pg_listening_channels() ORDER BY 1;
UNLISTEN here;
NOTIFY here, 'not any more';
SELECT pg_listening_channels();
\! psql -qXc "NOTIFY \"Other One\", 'from another'"
SELECT 'any' AS statement;
UNLISTEN *;
SELECT pg_listening_channels();
LISTEN here;
DISCARD ALL;
SELECT count(*) FROM pg_listening_channels();
