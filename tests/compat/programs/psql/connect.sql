-- \c to other databases and users
\set password `echo $PGPASSWORD`
CREATE TABLE here (n int);
DROP DATABASE IF EXISTS compat_other;
DROP ROLE IF EXISTS compat_somebody;
CREATE DATABASE compat_other;
CREATE ROLE compat_somebody LOGIN PASSWORD :'password' CONNECTION LIMIT 5;
ALTER ROLE compat_somebody SET work_mem = '7MB';
ALTER DATABASE compat_other SET search_path = other, public;
GRANT CREATE ON DATABASE compat_other TO compat_somebody;
SET work_mem = '9MB';
\set mine 'a variable'
\c compat_other
SELECT current_database(), current_user, session_user;
SHOW work_mem;
SHOW search_path;
\echo :DBNAME :USER :mine
\dt
\c - compat_somebody
SELECT current_database(), current_user, session_user;
SHOW work_mem;
SHOW search_path;
SHOW is_superuser;
CREATE SCHEMA other CREATE TABLE theirs (n int);
\dt
SELECT * FROM pg_authid;
SET ROLE compat_nobody;
\c compat postgres
\dt
SELECT current_database(), current_user;
REVOKE ALL ON here FROM PUBLIC;
\c compat compat_somebody
SELECT * FROM here;
\c compat postgres
SET SESSION AUTHORIZATION compat_somebody;
SELECT session_user, current_user;
SELECT * FROM here;
RESET SESSION AUTHORIZATION;
SET ROLE compat_somebody;
SELECT session_user, current_user;
RESET ROLE;
\c "dbname=compat_other user=compat_somebody application_name=fromhere options='-c work_mem=3MB'"
SHOW application_name;
SHOW work_mem;
\c compat postgres
DROP DATABASE compat_other WITH (FORCE);
DROP ROLE compat_somebody;
\c compat_other
SELECT 1;
