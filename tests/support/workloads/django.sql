-- What Django 5.2 with its PostgreSQL backend sends, each text once: log-in, sessions, permissions, the admin's lists,
-- the usual queries, introspection. Recorded.

-- schema
CREATE TABLE auth_user (id int PRIMARY KEY, password text, last_login timestamptz, is_superuser bool, username text,
    first_name text, last_name text, email text, is_staff bool, is_active bool, date_joined timestamptz);
CREATE TABLE auth_group (id int PRIMARY KEY, name text);
CREATE TABLE auth_permission (id int PRIMARY KEY, name text, content_type_id int, codename text);
CREATE TABLE auth_user_groups (id int, user_id int, group_id int);
CREATE TABLE auth_user_user_permissions (id int, user_id int, permission_id int);
CREATE TABLE auth_group_permissions (id int, group_id int, permission_id int);
CREATE TABLE django_content_type (id int PRIMARY KEY, app_label text, model text);
CREATE TABLE django_session (session_key text PRIMARY KEY, session_data text, expire_date timestamptz);
CREATE TABLE django_admin_log (id int PRIMARY KEY, action_time timestamptz, user_id int, content_type_id int,
    object_id text, object_repr text, action_flag smallint, change_message text);
CREATE TABLE shop_product (id bigint PRIMARY KEY, name varchar(50), price numeric(10, 2), stock int, tags jsonb,
    created timestamptz, active bool);
CREATE TABLE shop_order (id bigint PRIMARY KEY, customer_id int, placed timestamptz, total numeric(10, 2), note text);
CREATE TABLE shop_order_products (id bigint, order_id bigint, product_id bigint);
INSERT INTO auth_user SELECT i, 'x', NULL, false, 'user' || i, 'a', 'b', 'a@b.c', false, true, '2024-01-01'
    FROM generate_series(1, 5) i;
INSERT INTO shop_product SELECT i, 'p' || i, i, i, '{"a": 1}', '2024-01-01', true FROM generate_series(1, 5) i;
INSERT INTO shop_order SELECT i, i % 5, '2024-01-01', i, '' FROM generate_series(1, 9) i;

-- read
SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."is_superuser",
"auth_user"."username", "auth_user"."first_name", "auth_user"."last_name", "auth_user"."email",
"auth_user"."is_staff", "auth_user"."is_active", "auth_user"."date_joined" FROM "auth_user" WHERE
"auth_user"."username" = 'admin' LIMIT 21

-- read
SELECT "django_content_type"."app_label" AS "content_type__app_label", "auth_permission"."codename" AS "codename"
FROM "auth_permission" INNER JOIN "auth_user_user_permissions" ON ("auth_permission"."id" =
"auth_user_user_permissions"."permission_id") INNER JOIN "django_content_type" ON
("auth_permission"."content_type_id" = "django_content_type"."id") WHERE "auth_user_user_permissions"."user_id" = 2

-- read
SELECT "django_content_type"."app_label" AS "content_type__app_label", "auth_permission"."codename" AS "codename"
FROM "auth_permission" INNER JOIN "auth_group_permissions" ON ("auth_permission"."id" =
"auth_group_permissions"."permission_id") INNER JOIN "django_content_type" ON ("auth_permission"."content_type_id" =
"django_content_type"."id") WHERE "auth_group_permissions"."group_id" IN (SELECT U0."id" FROM "auth_group" U0 INNER
JOIN "auth_user_groups" U1 ON (U0."id" = U1."group_id") WHERE U1."user_id" = 2)

-- read
SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."is_superuser",
"auth_user"."username", "auth_user"."first_name", "auth_user"."last_name", "auth_user"."email",
"auth_user"."is_staff", "auth_user"."is_active", "auth_user"."date_joined" FROM "auth_user" WHERE
"auth_user"."username" = 'bob' LIMIT 21

-- read
SELECT "django_session"."session_key", "django_session"."session_data", "django_session"."expire_date" FROM
"django_session" WHERE ("django_session"."expire_date" > '2026-11-25 01:40:00+00:00'::timestamptz AND
"django_session"."session_key" = 'x') LIMIT 21

-- read
SELECT 1 AS "a" FROM "django_session" WHERE "django_session"."session_key" = 'x' LIMIT 1

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" ORDER BY
"shop_product"."id" DESC LIMIT 100

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" ORDER BY
"shop_product"."name" ASC LIMIT 100 OFFSET 100

-- read
SELECT COUNT(*) AS "__count" FROM "shop_product"

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
(UPPER("shop_product"."name"::text) LIKE UPPER('%a%') AND "shop_product"."price" >= 1 AND NOT
("shop_product"."stock" = 0))

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
UPPER("shop_product"."name"::text) LIKE UPPER('a%')

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
"shop_product"."name"::text ~* '^a'

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
UPPER("shop_product"."name"::text) = UPPER('A')

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
"shop_product"."id" IN (1, 2, 3)

-- read
SELECT 1 AS "a" FROM "shop_product" WHERE "shop_product"."active" LIMIT 1

-- read
SELECT "shop_order"."id", "shop_order"."customer_id", "shop_order"."placed", "shop_order"."total",
"shop_order"."note", "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."is_superuser",
"auth_user"."username", "auth_user"."first_name", "auth_user"."last_name", "auth_user"."email",
"auth_user"."is_staff", "auth_user"."is_active", "auth_user"."date_joined" FROM "shop_order" INNER JOIN "auth_user"
ON ("shop_order"."customer_id" = "auth_user"."id")

-- read
SELECT "shop_order"."id", "shop_order"."customer_id", "shop_order"."placed", "shop_order"."total",
"shop_order"."note" FROM "shop_order"

-- read
SELECT SUM("shop_order"."total") AS "total__sum", AVG("shop_order"."total") AS "total__avg", COUNT(DISTINCT
"shop_order"."id") AS "id__count", MAX("shop_order"."placed") AS "placed__max" FROM "shop_order"

-- read
SELECT DATE_TRUNC('day', "shop_order"."placed" AT TIME ZONE 'America/Chicago') AS "d", COUNT("shop_order"."id") AS
"n" FROM "shop_order" GROUP BY 1 ORDER BY 1 ASC

-- read
SELECT DATE_TRUNC('month', "shop_order"."placed" AT TIME ZONE 'UTC') AS "d", COUNT("shop_order"."id") AS "n" FROM
"shop_order" GROUP BY 1

-- read
SELECT "shop_order"."id", "shop_order"."customer_id", "shop_order"."placed", "shop_order"."total",
"shop_order"."note" FROM "shop_order" WHERE (("shop_order"."placed" AT TIME ZONE 'America/Chicago')::date =
'2024-01-01'::date AND EXTRACT(MONTH FROM "shop_order"."placed" AT TIME ZONE 'America/Chicago') = 5 AND
"shop_order"."placed" BETWEEN '2024-01-01 00:00:00-06:00'::timestamptz AND '2024-12-31
23:59:59.999999-06:00'::timestamptz)

-- read
SELECT EXTRACT(WEEK FROM "shop_order"."placed" AT TIME ZONE 'America/Chicago') AS "w" FROM "shop_order"

-- read
SELECT DISTINCT DATE_TRUNC('month', "shop_order"."placed" AT TIME ZONE 'America/Chicago') AS "datefield" FROM
"shop_order" WHERE "shop_order"."placed" IS NOT NULL ORDER BY 1 ASC

-- read
SELECT DISTINCT DATE_TRUNC('day', "shop_order"."placed" AT TIME ZONE 'America/Chicago') AS "datetimefield" FROM
"shop_order" WHERE "shop_order"."placed" IS NOT NULL ORDER BY 1 ASC

-- read
SELECT "shop_order"."id", "shop_order"."customer_id", "shop_order"."placed", "shop_order"."total",
"shop_order"."note" FROM "shop_order" WHERE "shop_order"."placed" < (STATEMENT_TIMESTAMP())

-- read
SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."is_superuser",
"auth_user"."username", "auth_user"."first_name", "auth_user"."last_name", "auth_user"."email",
"auth_user"."is_staff", "auth_user"."is_active", "auth_user"."date_joined", (SELECT U0."total" AS "total" FROM
"shop_order" U0 WHERE U0."customer_id" = ("auth_user"."id") ORDER BY U0."placed" DESC LIMIT 1) AS "last" FROM
"auth_user"

-- read
SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."is_superuser",
"auth_user"."username", "auth_user"."first_name", "auth_user"."last_name", "auth_user"."email",
"auth_user"."is_staff", "auth_user"."is_active", "auth_user"."date_joined" FROM "auth_user" WHERE EXISTS(SELECT 1 AS
"a" FROM "shop_order" U0 WHERE U0."customer_id" = ("auth_user"."id") LIMIT 1)

-- read
SELECT "shop_order"."id", "shop_order"."customer_id", "shop_order"."placed", "shop_order"."total",
"shop_order"."note", ROW_NUMBER() OVER (PARTITION BY "shop_order"."customer_id" ORDER BY "shop_order"."placed" DESC)
AS "r" FROM "shop_order"

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active", CASE WHEN "shop_product"."price" > 5 THEN
'high' ELSE 'low' END AS "k" FROM "shop_product"

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
"shop_product"."stock" > ("shop_product"."price" * 2)

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
(("shop_product"."tags" -> 'color') = '"red"'::jsonb AND "shop_product"."tags" @> '{"a": 1}'::jsonb AND
"shop_product"."tags" ? 'x')

-- read
SELECT ("shop_product"."tags" -> 'color') AS "tags__color" FROM "shop_product" WHERE ("shop_product"."tags" #>
'{a,b,0}') = '"x"'::jsonb

-- read
(SELECT "shop_product"."id" AS "id" FROM "shop_product" WHERE "shop_product"."id" = 1) UNION (SELECT
"shop_product"."id" AS "id" FROM "shop_product" WHERE "shop_product"."id" = 2)

-- read
SELECT DISTINCT ON ("shop_order"."customer_id") "shop_order"."id", "shop_order"."customer_id",
"shop_order"."placed", "shop_order"."total", "shop_order"."note" FROM "shop_order" ORDER BY
"shop_order"."customer_id" ASC, "shop_order"."placed" DESC

-- read
SELECT DISTINCT "shop_product"."name" AS "name" FROM "shop_product"

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" ORDER BY RANDOM() ASC
LIMIT 3

-- read
SELECT (COALESCE("auth_user"."first_name", '') || COALESCE((COALESCE(' ', '') || COALESCE("auth_user"."last_name",
'')), '')) AS "f" FROM "auth_user"

-- read
SELECT "auth_user"."id", "auth_user"."password", "auth_user"."last_login", "auth_user"."is_superuser",
"auth_user"."username", "auth_user"."first_name", "auth_user"."last_name", "auth_user"."email",
"auth_user"."is_staff", "auth_user"."is_active", "auth_user"."date_joined", LOWER("auth_user"."username") AS "f",
LENGTH("auth_user"."email") AS "g", STRPOS("auth_user"."email", '@') AS "h", SUBSTRING("auth_user"."email", 1, 3) AS
"i", TRIM("auth_user"."username") AS "t", REPLACE("auth_user"."email", 'a', 'b') AS "rep",
LPAD("auth_user"."username", 10, ' ') AS "lp", MD5("auth_user"."email") AS "md", ("auth_user"."id")::varchar AS "c"
FROM "auth_user"

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active",
ts_rank(to_tsvector(COALESCE("shop_product"."name", '')), plainto_tsquery('a')) AS "r" FROM "shop_product" WHERE
ts_rank(to_tsvector(COALESCE("shop_product"."name", '')), plainto_tsquery('a')) >= 0.1

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active", to_tsvector('english'::regconfig,
COALESCE("shop_product"."name", '')) AS "s" FROM "shop_product" WHERE to_tsvector('english'::regconfig,
COALESCE("shop_product"."name", '')) @@ (websearch_to_tsquery('a'))

-- read
SELECT "auth_group"."id", "auth_group"."name" FROM "auth_group" WHERE "auth_group"."name" = 'x' LIMIT 21

-- read
EXPLAIN SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
"shop_product"."id" = 1

-- read
EXPLAIN (ANALYZE true) SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price",
"shop_product"."stock", "shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product"
WHERE "shop_product"."id" = 1

-- read
SELECT "django_admin_log"."id", "django_admin_log"."action_time", "django_admin_log"."user_id",
"django_admin_log"."content_type_id", "django_admin_log"."object_id", "django_admin_log"."object_repr",
"django_admin_log"."action_flag", "django_admin_log"."change_message", "auth_user"."id", "auth_user"."password",
"auth_user"."last_login", "auth_user"."is_superuser", "auth_user"."username", "auth_user"."first_name",
"auth_user"."last_name", "auth_user"."email", "auth_user"."is_staff", "auth_user"."is_active",
"auth_user"."date_joined", "django_content_type"."id", "django_content_type"."app_label",
"django_content_type"."model" FROM "django_admin_log" INNER JOIN "auth_user" ON ("django_admin_log"."user_id" =
"auth_user"."id") LEFT OUTER JOIN "django_content_type" ON ("django_admin_log"."content_type_id" =
"django_content_type"."id") ORDER BY "django_admin_log"."action_time" DESC LIMIT 10

-- read
SELECT "django_content_type"."id", "django_content_type"."app_label", "django_content_type"."model" FROM
"django_content_type" WHERE "django_content_type"."app_label" = 'auth'

-- read
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" LIMIT 1

-- read
SELECT c.relname, CASE WHEN c.relispartition THEN 'p' WHEN c.relkind IN ('m', 'v') THEN 'v' ELSE 't' END,
obj_description(c.oid, 'pg_class') FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_namespace n ON n.oid =
c.relnamespace WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND
pg_catalog.pg_table_is_visible(c.oid)

-- read
SELECT a.attname AS column_name, NOT (a.attnotnull OR (t.typtype = 'd' AND t.typnotnull)) AS is_nullable,
pg_get_expr(ad.adbin, ad.adrelid) AS column_default, CASE WHEN collname = 'default' THEN NULL ELSE collname END AS
collation, a.attidentity != '' AS is_autofield, col_description(a.attrelid, a.attnum) AS column_comment FROM
pg_attribute a LEFT JOIN pg_attrdef ad ON a.attrelid = ad.adrelid AND a.attnum = ad.adnum LEFT JOIN pg_collation co
ON a.attcollation = co.oid JOIN pg_type t ON a.atttypid = t.oid JOIN pg_class c ON a.attrelid = c.oid JOIN
pg_namespace n ON c.relnamespace = n.oid WHERE c.relkind IN ('f', 'm', 'p', 'r', 'v') AND c.relname = 'auth_user'
AND n.nspname NOT IN ('pg_catalog', 'pg_toast') AND pg_catalog.pg_table_is_visible(c.oid)

-- read
SELECT * FROM "auth_user" LIMIT 1

-- read
SELECT c.conname, array( SELECT attname FROM unnest(c.conkey) WITH ORDINALITY cols(colid, arridx) JOIN pg_attribute
AS ca ON cols.colid = ca.attnum WHERE ca.attrelid = c.conrelid ORDER BY cols.arridx ), c.contype, (SELECT
fkc.relname || '.' || fka.attname FROM pg_attribute AS fka JOIN pg_class AS fkc ON fka.attrelid = fkc.oid WHERE
fka.attrelid = c.confrelid AND fka.attnum = c.confkey[1]), cl.reloptions FROM pg_constraint AS c JOIN pg_class AS cl
ON c.conrelid = cl.oid WHERE cl.relname = 'auth_user' AND pg_catalog.pg_table_is_visible(cl.oid)

-- read
SELECT indexname, array_agg(attname ORDER BY arridx), indisunique, indisprimary, array_agg(ordering ORDER BY
arridx), amname, exprdef, s2.attoptions FROM ( SELECT c2.relname as indexname, idx.*, attr.attname, am.amname, CASE
WHEN idx.indexprs IS NOT NULL THEN pg_get_indexdef(idx.indexrelid) END AS exprdef, CASE am.amname WHEN 'btree' THEN
CASE (option & 1) WHEN 1 THEN 'DESC' ELSE 'ASC' END END as ordering, c2.reloptions as attoptions FROM ( SELECT *
FROM pg_index i, unnest(i.indkey, i.indoption) WITH ORDINALITY koi(key, option, arridx) ) idx LEFT JOIN pg_class c
ON idx.indrelid = c.oid LEFT JOIN pg_class c2 ON idx.indexrelid = c2.oid LEFT JOIN pg_am am ON c2.relam = am.oid
LEFT JOIN pg_attribute attr ON attr.attrelid = c.oid AND attr.attnum = idx.key WHERE c.relname = 'auth_user' AND
pg_catalog.pg_table_is_visible(c.oid) ) s2 GROUP BY indexname, indisunique, indisprimary, amname, exprdef,
attoptions;

-- read
SELECT s.relname AS sequence_name, a.attname AS colname FROM pg_class s JOIN pg_depend d ON d.objid = s.oid AND
d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass JOIN pg_attribute a ON d.refobjid =
a.attrelid AND d.refobjsubid = a.attnum JOIN pg_class tbl ON tbl.oid = d.refobjid AND tbl.relname = 'auth_user' AND
pg_catalog.pg_table_is_visible(tbl.oid) WHERE s.relkind = 'S';

-- primary: INSERT writes
INSERT INTO "auth_user" ("password", "last_login", "is_superuser", "username", "first_name", "last_name", "email",
"is_staff", "is_active", "date_joined") VALUES ('!XVCvoMCPPK0egXpDHoHW3TmPJrZ6UVwsOXeJriqt', NULL, false, 'bob', '',
'', '', false, true, '2026-11-25 01:40:00+00:00'::timestamptz) RETURNING "auth_user"."id"

-- primary: BEGIN of a transaction that may write
BEGIN

-- primary: locks rows: FOR UPDATE
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
"shop_product"."id" = 1 LIMIT 21 FOR UPDATE

-- primary: COMMIT
COMMIT

-- primary: locks rows: FOR UPDATE
SELECT "shop_product"."id", "shop_product"."name", "shop_product"."price", "shop_product"."stock",
"shop_product"."tags", "shop_product"."created", "shop_product"."active" FROM "shop_product" WHERE
"shop_product"."id" = 1 FOR UPDATE OF "shop_product" SKIP LOCKED

-- primary: INSERT writes
INSERT INTO "auth_group" ("name") VALUES ('x') RETURNING "auth_group"."id"

-- primary: UPDATE writes
UPDATE "shop_product" SET "stock" = ("shop_product"."stock" + 1) WHERE "shop_product"."id" = 1

-- primary: UPDATE writes
UPDATE "shop_product" SET "name" = 'a', "price" = 1, "stock" = 0, "tags" = '{}'::jsonb, "created" = '2026-11-25
01:40:00+00:00'::timestamptz, "active" = true WHERE "shop_product"."id" = 1

-- primary: INSERT writes
INSERT INTO "shop_product" ("name", "price", "stock", "tags", "created", "active") SELECT * FROM
UNNEST(('{q,r}')::varchar[], ('{1,2}'::numeric[])::numeric[], ('{0,0}'::int4[])::integer[],
('{"{}","{}"}'::jsonb[])::jsonb[], ('{"2026-11-25 01:39:40.446204+00:00","2026-11-25
01:39:40.446228+00:00"}'::timestamptz[])::timestamp with time zone[], ('{t,t}'::bool[])::boolean[]) ON CONFLICT DO
NOTHING

-- primary: DELETE writes
DELETE FROM "shop_product" WHERE "shop_product"."name" = 'q'

-- primary: DECLARE CURSOR WITH HOLD needs its own backend
DECLARE "_django_curs_1_sync_1" NO SCROLL CURSOR WITH HOLD FOR SELECT "shop_product"."id", "shop_product"."name",
"shop_product"."price", "shop_product"."stock", "shop_product"."tags", "shop_product"."created",
"shop_product"."active" FROM "shop_product"

-- primary: SAVEPOINT
SAVEPOINT "s1_x1"

-- primary: RELEASE
RELEASE SAVEPOINT "s1_x1"
