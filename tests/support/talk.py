"""What sessions say, by theme: statements, function calls, messages that are not what they should be.

`{k}` is the session's number, from 1: what two sessions would wait for each other for, each has of its own. `{own}`
is part of the name of a table that no other conversation has.
"""

from __future__ import annotations

from tests.support.exchanges import Exchange, broken, call, copy_data, copy_done, copy_fail, fatal, terminate

TRANSACTIONS = (
    *(
        "BEGIN",
        "BEGIN",
        "BEGIN",
        "COMMIT",
        "COMMIT",
        "ROLLBACK",
        "BEGIN READ ONLY",
        "BEGIN ISOLATION LEVEL REPEATABLE READ",
    ),
    *("START TRANSACTION", "END", "ABORT", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN", "SAVEPOINT a", "SAVEPOINT a"),
    *(
        "SAVEPOINT b",
        "RELEASE a",
        "RELEASE b",
        "ROLLBACK TO a",
        "ROLLBACK TO a",
        "ROLLBACK TO b",
        "SET TRANSACTION READ ONLY",
    ),
    *("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SHOW transaction_isolation", "SELECT 'same:' || now()"),
)
READS = (
    *(
        "SELECT n, t FROM lazy WHERE n <= 3 ORDER BY n",
        "SELECT count(*), max(n) FROM lazy",
        "SELECT 1",
        "VALUES (1), (2)",
    ),
    *(
        "SELECT t FROM seen WHERE n = 2",
        "SELECT n, t FROM lazy WHERE n = $1",
        "SELECT $1::int + $2::int",
        "SELECT loud(1)",
    ),
    *("SELECT n FROM lazy ORDER BY n", "SELECT pg_is_in_recovery()", "", "-- nothing", "SELECT"),
    *("SELECT length($1::text)", "EXPLAIN (COSTS OFF) SELECT 1", "SELECT t, n FROM lazy WHERE n < 4 ORDER BY n DESC"),
)
WRITES = (
    *("INSERT INTO lazy VALUES ({k}1, 'new')", "INSERT INTO lazy VALUES ({k}2, 'new') RETURNING n", "SELECT sly()"),
    *(
        "INSERT INTO lazy VALUES ($1::int + {k}00, 'p')",
        "UPDATE lazy SET t = t || '!' WHERE n = {k}",
        "INSERT INTO due VALUES ({k})",
    ),
    *("DELETE FROM lazy WHERE n = {k}", "SELECT nextval('counter')", "SELECT n FROM lazy WHERE n = {k} FOR UPDATE"),
    *("DO 'BEGIN RAISE NOTICE ''do''; END'", "WITH w AS (DELETE FROM lazy WHERE n = {k}2 RETURNING n) SELECT n FROM w"),
    *("PREPARE TRANSACTION 'two{k}'", "ROLLBACK PREPARED 'two{k}'", "COMMIT PREPARED 'two{k}'"),
)
FAILURES = (
    *(
        "SELECT 1/0",
        "SELECT 1/0",
        "SELECT * FROM nowhere",
        "SELEC",
        "SELECT broken()",
        "SELECT $1::int / 0",
        "BEGIN BEGIN",
    ),
    *(
        "SELECT 1/(n - 3) FROM generate_series(1, 5) AS n",
        "INSERT INTO lazy VALUES (10, 'taken')",
        "SELECT nothing($1)",
    ),
)
SETTINGS = (
    *(
        "SET work_mem = '3MB'",
        "SET LOCAL work_mem = '5MB'",
        "RESET work_mem",
        "SHOW work_mem",
        "RESET ALL",
        "DISCARD ALL",
    ),
    *(
        "SELECT set_config('work_mem', '6MB', true)",
        "SELECT set_config('work_mem', $1, false)",
        "SET work_mem = 'nonsense'",
    ),
    *("SET application_name = 'me {k}'", "SHOW application_name", "SET TimeZone = 'UTC'", "SET datestyle = 'German'"),
    *("SELECT date '2001-02-03'", "SET search_path = pg_catalog", "SET search_path = public", "RESET search_path"),
    *("SET my.own = '{k}'", "SET ROLE pg_read_all_data", "RESET ROLE", "SELECT current_user"),
    *("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET default_transaction_isolation = serializable"),
    *("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "SET client_encoding = 'LATIN1'", "SELECT 'ä'"),
)
CURSORS = (
    *(
        "DECLARE c CURSOR FOR SELECT n FROM lazy ORDER BY n",
        "DECLARE h CURSOR WITH HOLD FOR SELECT n FROM lazy ORDER BY n",
    ),
    *(
        "FETCH 2 FROM c",
        "FETCH c",
        "FETCH 2 FROM h",
        "MOVE 1 IN h",
        "FETCH BACKWARD 1 FROM h",
        "FETCH 1 FROM p",
        "CLOSE p",
    ),
    *("CLOSE c", "CLOSE h", "CLOSE ALL", "SELECT name, is_holdable FROM pg_cursors WHERE name > '' ORDER BY 1"),
    *("DECLARE c SCROLL CURSOR FOR SELECT n FROM lazy ORDER BY n", "FETCH LAST FROM c"),
)
TEMPORARY = (
    *(
        "CREATE TEMP TABLE mine (n int, t text)",
        "INSERT INTO mine VALUES ({k}, 'x')",
        "SELECT * FROM mine",
        "DROP TABLE mine",
    ),
    *(
        "CREATE TEMP TABLE mine ON COMMIT DROP AS SELECT {k} AS n",
        "SELECT count(*) FROM mine",
        "DISCARD TEMP",
        "DISCARD ALL",
    ),
    *(
        "ALTER TABLE mine ADD COLUMN u int",
        "SELECT n FROM mine",
        "CREATE TEMP TABLE lazy (n int)",
        "DROP TABLE IF EXISTS mine",
    ),
)
NAMES = (
    *(
        "PREPARE n0 AS SELECT n, t FROM lazy WHERE n = 1",
        "PREPARE n1 (int) AS SELECT $1 + {k}",
        "PREPARE n2 AS SELECT nothing",
    ),
    *(
        "PREPARE n2 AS UPDATE lazy SET t = t || '?' WHERE n = {k} RETURNING t",
        "EXECUTE n0",
        "EXECUTE n1(1)",
        "EXECUTE n2",
    ),
    *(
        "EXECUTE n0(1)",
        "EXECUTE n1('x')",
        "DEALLOCATE n0",
        "DEALLOCATE n1",
        "DEALLOCATE n2",
        "DEALLOCATE ALL",
        "DISCARD ALL",
    ),
    *("EXPLAIN (COSTS OFF) EXECUTE n0", "EXECUTE n1(1/0)", "DEALLOCATE nothing", "PREPARE n0 AS SELECT 'other'"),
    "SELECT name, statement, parameter_types::text[], from_sql FROM pg_prepared_statements ORDER BY name",
)
LISTENING = (
    *("LISTEN news", "NOTIFY news, 'from {k}'", "UNLISTEN news", "UNLISTEN *", "SELECT pg_notify('news', 'said')"),
    *("SELECT * FROM pg_listening_channels()", "NOTIFY news"),
)
LOCKS = (
    *("SELECT pg_advisory_lock({k})", "SELECT pg_advisory_unlock({k})", "SELECT pg_advisory_xact_lock({k})"),
    *("SELECT pg_try_advisory_lock(7)", "SELECT pg_advisory_unlock(7)", "SELECT pg_advisory_unlock_all()"),
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
)
LARGE_OBJECTS = (
    *(
        "SELECT lo_create(470{k})",
        "SELECT lo_open(470{k}, 393216)",
        "SELECT lowrite(0, 'text')",
        "SELECT loread(0, 10)",
    ),
    *("SELECT lo_lseek(0, 0, 0)", "SELECT lo_close(0)", "SELECT lo_unlink(470{k})", "SELECT lo_get(470{k})"),
)
SHAPES = (
    *("CREATE TABLE made{own} (n int, t text)", "ALTER TABLE made{own} ADD COLUMN u int", "DROP TABLE made{own}"),
    *("ALTER TABLE made{own} DROP COLUMN u", "ALTER TABLE made{own} ALTER n TYPE bigint", "SELECT * FROM made{own}"),
    *(
        "SELECT * FROM made{own}",
        "SELECT n FROM made{own}",
        "INSERT INTO made{own} VALUES ({k}, 'x')",
        "SELECT 1 AS n INTO made{own}",
    ),
    *(
        "CREATE TABLE made{own} AS SELECT n, t FROM lazy WHERE n < 3",
        "UPDATE made{own} SET n = $1",
        "TRUNCATE made{own}",
    ),
)
THEMES = {
    "settings": SETTINGS,
    "cursors": CURSORS,
    "temporary": TEMPORARY,
    "names": NAMES,
    "listening": LISTENING,
    "locks": LOCKS,
    "large objects": LARGE_OBJECTS,
    "shapes": SHAPES,
}
COPIES_IN = (
    "COPY lazy FROM STDIN",
    "COPY lazy FROM STDIN",
    "COPY nowhere FROM STDIN",
    "COPY lazy (n) FROM STDIN (FORMAT csv)",
)
COPIES_OUT = (
    *("COPY (SELECT n FROM lazy ORDER BY n) TO STDOUT", "COPY lazy TO STDOUT (FORMAT binary)"),
    "COPY (SELECT 1/(n - 4) FROM generate_series(1, 5) AS n) TO STDOUT",
)


def feeds(k: int) -> tuple[Exchange, ...]:
    """What may feed a COPY, up to its end."""
    return (
        copy_data(b"%d5\ta\n" % k, b"%d6\tb\n" % k) + copy_done(),
        copy_data(b"%d5\ta\n%d6" % (k, k), b"\tb\n") + copy_done(),
        copy_data(b"%d7\n" % k) + copy_done(),
        copy_data(b"bad\n") + copy_data(b"%d5\ta\n" % k) + copy_done(),
        copy_data(b"%d5\ta\n" % k) + copy_fail("enough"),
        copy_done(),
        copy_fail("none"),
    )


def calls(k: int) -> tuple[Exchange, ...]:
    """abs, pg_advisory_lock and its undoing, lo_create, lo_open, lowrite, loread, lo_close; and what there is not."""
    key, oid = b"%d" % k, b"47%d" % k
    return (
        *(call(1397, b"-7"), call(1397, b"x"), call(1397, b"-2147483648"), call(2880, key), call(2884, key)),
        *(call(715, oid), call(952, oid, b"393216"), call(955, b"0", b"data"), call(954, b"0", b"4"), call(953, b"0")),
        call(4294967295),
    )


BROKEN = (
    *(
        broken("Q", b"SELECT 1"),
        broken("Q", b""),
        broken("Q", b"SELECT 1\0more\0"),
        broken("P", b"x"),
        broken("P", b"n0\0SELECT 1"),
    ),
    *(
        broken("P", b"n0\0SELECT 1\0\0\1"),
        broken("B", b""),
        broken("B", b"\0n0\0\0\1"),
        broken("B", b"\0nothing"),
        broken("D", b"X\0"),
    ),
    *(
        broken("D", b"Sn0"),
        broken("E", b"p"),
        broken("E", b"\0\0"),
        broken("C", b"X\0"),
        broken("C", b"Sn0"),
        broken("C", b"Sn0\0x"),
    ),
    *(broken("H", b"x"), broken("F", b"")),
)
LAST_WORDS = (terminate(), fatal("?", b"x\0"), fatal("\0", b""), fatal("p", b"x\0"))
