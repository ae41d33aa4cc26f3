"""What a database's catalogue adds to the text: functions, operators, relations and types, to the fix point."""

from __future__ import annotations

import pytest

from pgamb.routing.assembly import assemble
from pgamb.routing.catalog import Effect
from pgamb.routing.catalog_rows import LONGEST_TEXT, CatalogRows, DomainRow, FunctionRow, FunctionUse, RelationRow
from pgamb.routing.classify import classify
from pgamb.routing.intent import Intent, Need, Pin
from pgamb.routing.server_catalog import ServerCatalog


def made(rows: CatalogRows) -> ServerCatalog:
    steps = assemble(rows)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            catalog: ServerCatalog = end.value
            return catalog


def catalog(
    *functions: FunctionRow,
    relations: tuple[RelationRow, ...] = (),
    operators: tuple[FunctionUse, ...] = (),
    domains: tuple[DomainRow, ...] = (),
    casts: tuple[FunctionUse, ...] = (),
    version: int = 17,
) -> ServerCatalog:
    return made(CatalogRows(version, "db", functions, operators, relations, domains, casts))


_oids = iter(range(20_000, 30_000))


def function(name: str, source: str = "", language: str = "sql", **more: object) -> FunctionRow:
    given = {"oid": next(_oids), "schema": "public", "volatile": False, **more}
    return FunctionRow(name=name, language=language, source=source, **given)  # type: ignore[arg-type]


def plpgsql(name: str, body: str) -> FunctionRow:
    return function(name, body, "plpgsql")


def view(name: str, definition: str, schema: str = "public") -> RelationRow:
    return RelationRow(schema, name, "view", definition)


VOL = function("vol", volatile=True)


def judged(sql: str, known: ServerCatalog) -> Intent:
    return classify(sql.encode(), catalog=known)


def is_read(sql: str, known: ServerCatalog) -> bool:
    return bool(judged(sql, known).need & Need.READ)


# Functions


@pytest.mark.parametrize(
    "made_so",
    [
        function("f", "SELECT 1"),
        function("f", "SELECT lower($1); SELECT now() IS NULL FROM t"),
        function("f", ""),
        function("f", "BEGIN ATOMIC\n SELECT count(*) FROM t;\n SELECT 1;\nEND"),
        function("f", "RETURN lower('x')"),
        function("f", "f_in_c", "c"),
        function("f", "rtrim1", "internal"),
        plpgsql("f", "BEGIN RETURN 1; END"),
        plpgsql("f", "DECLARE a int; b numeric(10, 2); BEGIN SELECT 1, 2 INTO STRICT a, b FROM t; RETURN (a); END"),
        plpgsql("f", "BEGIN IF (a > 1) THEN RETURN QUERY (SELECT 1); ELSIF (b) THEN RAISE EXCEPTION 'no'; END IF; END"),
        plpgsql("f", "<<l>> BEGIN FOR key IN 1..10 LOOP EXIT l WHEN (key > 3); END LOOP; WHILE (x) LOOP END LOOP; END"),
        plpgsql("f", "BEGIN FOR r IN SELECT * FROM t LOOP RETURN NEXT (r); END LOOP; END"),
        plpgsql("f", "DECLARE r t%ROWTYPE; x t.a%TYPE; BEGIN EXECUTE 'SELECT * FROM t' INTO r USING x; END"),
        function("f", "BEGIN EXECUTE 'SELECT ' || given INTO x; END", "plpgsql", arguments=("given",)),
        plpgsql("f", "DECLARE c CURSOR FOR SELECT 1; BEGIN OPEN c; FETCH c INTO x; CLOSE c; PERFORM lower('x'); END"),
        function("f", "return len(args[0].update({1: 2}))", "plpython3u"),
        function("f", "return lc($_[0]);", "plperl"),
    ],
    ids=lambda row: row.source[:40],
)
def test_harmless_functions_are_reads(made_so: FunctionRow) -> None:
    known = catalog(made_so)
    assert is_read('SELECT f(1), public.f(1), "f"(1) FROM t', known)
    # Another schema's, or another name, proves nothing.
    assert judged("SELECT other.f(1)", known).writes
    assert judged("SELECT g(1)", known).writes


@pytest.mark.parametrize(
    ("made_so", "effect", "reason"),
    [
        (function("f", volatile=True), Effect.UNKNOWN, "function f is declared volatile"),
        (function("f", "SELECT nextval('s')"), Effect.WRITES, "function f: function nextval is volatile"),
        (function("f", "SELECT set_config('a.b', '1', false)"), Effect.SETTING, "changes a parameter"),
        (function("f", "SELECT currval('s')"), Effect.SEQUENCE, "got from a sequence"),
        (function("f", "SELECT pg_advisory_lock(1)"), Effect.ADVISORY_LOCK, "takes a lock"),
        (function("f", "SELECT pg_is_in_recovery()"), Effect.PRIMARY, "asked of the primary"),
        (function("f", "SELECT pg_advisory_lock(1), set_config('a.b', '1', false)"), Effect.SETTING, ""),
        (function("f", "SELECT * FROM pg_locks"), Effect.PRIMARY, "pg_locks tells of one server"),
        (function("f", "SELECT now()"), Effect.TRANSACTION_TIME, "time of its transaction"),
        (function("f", "SELECT 'today'::date"), Effect.TRANSACTION_TIME, "time of its transaction"),
        (function("f", "BEGIN ATOMIC\n SELECT nextval('s'::regclass);\nEND"), Effect.WRITES, "nextval"),
        (function("f", "RETURN nextval('s'::regclass)"), Effect.WRITES, "nextval"),
        (function("f", "SELECT unknown(1)"), Effect.UNKNOWN, "unknown is not known"),
        (function("f", "SELECT 'unfinished"), Effect.UNKNOWN, "not SQL"),
        (function("f", "SELECT 1", settings="standard_conforming_strings=off"), Effect.UNKNOWN, "how strings are read"),
        (function("f", "SELECT 1", defaults="1, nextval('s')"), Effect.WRITES, "a default of function f"),
        (function("f", "x" * (LONGEST_TEXT + 1)), Effect.UNKNOWN, "too long"),
        (function("f", "now", "internal"), Effect.TRANSACTION_TIME, "PostgreSQL's now"),
        (function("f", "crosstab", "c"), Effect.UNKNOWN, "runs SQL that it is given"),
        (function("f", "x", "plsh"), Effect.UNKNOWN, "written in plsh"),
        (plpgsql("f", "BEGIN RETURN nextval('s'); END"), Effect.WRITES, "nextval"),
        (
            plpgsql("f", "BEGIN RETURN 1; EXCEPTION WHEN others THEN RETURN 0; END"),
            Effect.UNKNOWN,
            "handles exceptions",
        ),
        (plpgsql("f", "BEGIN PERFORM pg_export_snapshot(); END"), Effect.WRITES, "pg_export_snapshot"),
        (plpgsql("f", "BEGIN PERFORM dblink('x', 'y'); END"), Effect.UNKNOWN, "dblink"),
        (plpgsql("f", "BEGIN RETURN if(a, b, c); END"), Effect.UNKNOWN, "function if is not known"),
        (plpgsql("f", "BEGIN RETURN current_timestamp; END"), Effect.TRANSACTION_TIME, ""),
        (plpgsql("f", "BEGIN EXECUTE 'SELECT pg_try_advisory_lock(' || i || ')'; END"), Effect.ADVISORY_LOCK, ""),
        (plpgsql("f", "BEGIN RETURN QUERY EXECUTE ($1) USING 1; END"), Effect.UNKNOWN, "runs SQL that it is given"),
        (
            function("f", "BEGIN EXECUTE Given INTO x; END", "plpgsql", arguments=("a", "given")),
            Effect.UNKNOWN,
            "runs SQL that it is given",
        ),
        (plpgsql("f", "BEGIN EXECUTE $q$SELECT now()$q$ INTO x; END"), Effect.TRANSACTION_TIME, ""),
        (plpgsql("f", "BEGIN EXECUTE 'SELECT * FROM pg_stat_activity'; END"), Effect.PRIMARY, "pg_stat_activity"),
        (function("f", "plpy.execute('select nextval(1)')", "plpython3u"), Effect.WRITES, "nextval"),
        (function("f", "try:\n x()\nexcept Exception: pass", "plpython3u"), Effect.UNKNOWN, "handles exceptions"),
        (function("f", "eval { spi_exec_query('x') };", "plperl"), Effect.UNKNOWN, "handles exceptions"),
    ],
    ids=lambda value: value.source[:40] if isinstance(value, FunctionRow) else None,
)
def test_what_a_function_does_by_its_declaration_or_body(made_so: FunctionRow, effect: Effect, reason: str) -> None:
    known = catalog(made_so)
    assert known.function(None, "f") is effect, known.evidence(None, "f")
    assert reason in known.evidence("public", "f")
    assert is_read("SELECT f(1)", known) is (effect is Effect.TRANSACTION_TIME)
    assert bool(judged("SELECT f(1)", known).need & Need.TRANSACTION_TIME) is (effect is Effect.TRANSACTION_TIME)


def test_an_unqualified_or_overloaded_name_counts_as_the_strongest() -> None:
    known = catalog(
        function("f", "SELECT 1"),
        function("f", volatile=True, schema="other"),
        function("g", "SELECT 1"),
        function("g", volatile=True),
        function("lower", volatile=True, schema="other"),
        function("upper", "SELECT 1", schema="other"),
        function("substring", volatile=True, schema="other"),
        function("now", "SELECT 1", schema="other"),
    )
    assert judged("SELECT f(1)", known).writes
    assert is_read("SELECT public.f(1)", known)
    assert judged("SELECT other.f(1)", known).writes
    assert judged("SELECT public.g(1)", known).writes
    assert judged("SELECT lower('A')", known).writes
    assert is_read("SELECT pg_catalog.lower('A'), upper('a'), other.upper('a')", known)
    # A keyword in front of a parenthesis is not taken for a function, but for a name.
    assert judged("SELECT substring('abc', 1, 2)", known).writes
    assert judged("SELECT now()", known).need == Need.READ | Need.TRANSACTION_TIME


def test_effects_that_leave_different_things_behind_make_the_name_unknown() -> None:
    known = catalog(function("f", "SELECT pg_advisory_lock(1)"), function("f", "SELECT set_config('a.b', '1', true)"))
    assert known.function(None, "f") is Effect.UNKNOWN
    assert judged("SELECT f(1)", known).need & Need.SETTINGS
    assert judged("SELECT f(1)", catalog(function("f", "SELECT pg_advisory_lock(1)"))).pins == Pin.ADVISORY_LOCK


def test_what_is_called_counts_however_deep_and_in_any_order() -> None:
    chain = [function(f"f{number}", f"SELECT f{number + 1}()") for number in range(5)]
    last = plpgsql("f5", "BEGIN RETURN nextval('s'); END")
    loop = [function("a", "SELECT b()"), function("b", "SELECT a()")]
    for order in ([*chain, last, *loop], [*loop, last, *reversed(chain)]):
        known = catalog(*order, relations=(view("v", "SELECT f0()"), view("w", 'SELECT * FROM public."v"')))
        assert [known.function(None, f"f{number}") for number in range(6)] == [Effect.WRITES] * 6
        assert judged("SELECT * FROM w", known).writes
        assert is_read("SELECT a()", known)


def test_an_aggregate_counts_as_its_functions() -> None:
    own_step = function("own_step", "SELECT 1")
    known = catalog(
        VOL,
        own_step,
        function("vol_sum", "aggregate_dummy", "internal", support=(1234, VOL.oid)),
        function("own_sum", "aggregate_dummy", "internal", support=(1234, own_step.oid)),
        function("odd_sum", "aggregate_dummy", "internal", support=(1234,), volatile_support=True),
    )
    assert judged("SELECT vol_sum(a) FROM t", known).writes
    assert judged("SELECT odd_sum(a) FROM t", known).writes
    assert is_read("SELECT own_sum(a) FILTER (WHERE a > 1) FROM t", known)


def test_a_function_may_be_written_like_a_column() -> None:
    known = catalog(function("note", volatile=True, attribute=True), function("calm", "SELECT 1", attribute=True))
    for sql in ("SELECT t.note FROM t", "SELECT (t).note FROM t", 'SELECT t."note" FROM t', "SELECT s.t.note FROM s.t"):
        assert judged(sql, known).writes, sql
    assert is_read("SELECT note, t.calm, 'note' FROM t", known)


# Operators


def test_operators_of_users_count_as_their_functions() -> None:
    calm = function("calm", "SELECT 1")
    operators = (
        FunctionUse("<##>", calm.oid, "calm", volatile=False),
        FunctionUse("<=>", 351, "btint4cmp", volatile=False),
        FunctionUse("<%%>", VOL.oid, "vol", volatile=True),
        FunctionUse("<<|", VOL.oid, "vol", volatile=True),
        FunctionUse("=", VOL.oid, "vol", volatile=True),
    )
    known = catalog(VOL, calm, operators=operators[:4])
    assert is_read("SELECT a <##> b, a <=> b, a OPERATOR(public.<##>) b, a OPERATOR(<##>) b, a <=>-1 FROM t", known)
    assert is_read("SELECT a = b FROM t WHERE a IN (1)", known)
    for sql in (
        "a <%%> b",
        "a <<| b",
        "a <<|-1",
        "a OPERATOR(public.<%%>) b",
        "a OPERATOR(public.<) b",
        "a <=#> b",
    ):
        assert judged(f"SELECT {sql} FROM t", known).writes, sql
    known = catalog(VOL, operators=operators[4:])
    for sql in ("a = b", "a=-1", "a IN (1)", "a = ANY (b)", "nullif(a, b)", "a OPERATOR(pg_catalog.=) b"):
        assert judged(f"SELECT {sql} FROM t", known).writes, sql
    assert is_read("SELECT a < b FROM t", known)


# Relations and types


ODD = (
    view("Vol", "SELECT public.vol() AS n"),
    view("calm", "SELECT lower('x'::text) AS n"),
    view("dated", "SELECT CURRENT_DATE AS d"),
    view("locking", "SELECT pg_advisory_lock(1)"),
    view("rewritten", " SELECT n FROM other.unlogged"),
    RelationRow("other", "unlogged", "unlogged"),
    RelationRow("public", "seq", "a sequence"),
    RelationRow("public", "guarded", "policy", "(id = public.vol())"),
    RelationRow("public", "tenants", "policy", "(id = current_setting('app.tenant'::text, true))"),
    RelationRow("public", "timed", "policy", "(at > now())"),
    view("long", "SELECT '" + "x" * LONGEST_TEXT + "'"),
)
# With names like these every statement is looked at word by word.
ELUSIVE = (view("över", "SELECT public.vol() AS n"), view("n" * 63, "SELECT public.vol() AS n"))


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ('SELECT * FROM "Vol"', "view Vol: function vol is declared volatile"),
        ('SELECT * FROM public."Vol" AS v', "view Vol"),
        ('SELECT * FROM "public" . "Vol"', "view Vol"),
        ('COPY "Vol" TO STDOUT', "view Vol"),
        ('TABLE "Vol"', "view Vol"),
        ('WITH x AS (SELECT * FROM "Vol") SELECT * FROM x', "view Vol"),
        ("SELECT * FROM rewritten", "view rewritten: unlogged is unlogged"),
        ("SELECT * FROM unlogged", "unlogged is unlogged"),
        ("SELECT * FROM other.UNLOGGED", "unlogged is unlogged"),
        ("SELECT * FROM db.other.unlogged", "unlogged is unlogged"),
        ("SELECT * FROM other . unlogged", "unlogged is unlogged"),
        ("EXPLAIN SELECT * FROM unlogged", "unlogged is unlogged"),
        ("SELECT * FROM seq", "seq is a sequence"),
        ("SELECT * FROM guarded", "a policy of guarded: function vol is declared volatile"),
        ("SELECT * FROM long", "view long is too long"),
    ],
)
def test_suspicious_relations_are_no_reads(sql: str, reason: str) -> None:
    for relations in (ODD, ODD + ELUSIVE):
        intent = judged(sql, catalog(VOL, relations=relations))
        assert not intent.need & Need.READ
        assert reason in intent.reason


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t",
        'SELECT * FROM vol, "VOL"',
        "SELECT * FROM public.unlogged",
        "SELECT t.unlogged, 'seq', $$guarded$$ FROM t",
        "SELECT * FROM calm",
        "SELECT * FROM tenants",
        "SELECT * FROM ober",
    ],
)
def test_other_relations_are_read_anywhere(sql: str) -> None:
    assert judged(sql, catalog(VOL, relations=ODD)).need == Need.READ
    assert judged(sql, catalog(VOL, relations=ODD + ELUSIVE)).need == Need.READ


def test_names_may_be_cut_or_written_in_another_encoding() -> None:
    known = catalog(VOL, relations=ELUSIVE)
    assert "view nnn" in judged("SELECT * FROM " + "n" * 70, known).reason
    assert "view över" in judged("SELECT * FROM över", known).reason
    assert classify("SELECT * FROM över".encode("latin-1"), catalog=known).writes
    assert is_read("SELECT 'över', ober FROM nnn", known)


def test_what_a_view_needs_besides_is_told() -> None:
    known = catalog(VOL, relations=ODD)
    assert judged("SELECT * FROM dated", known).need == Need.READ | Need.TRANSACTION_TIME
    assert judged("SELECT * FROM timed", known).need == Need.READ | Need.TRANSACTION_TIME
    assert judged("SELECT * FROM locking", known).pins == Pin.ADVISORY_LOCK


def test_types_with_code_behind_them_are_suspicious() -> None:
    known = catalog(
        VOL,
        domains=(
            DomainRow("public", "checked", "(VALUE = public.vol())"),
            DomainRow("public", "positive", "VALUE > 0"),
        ),
        casts=(FunctionUse("pair", VOL.oid, "vol", True), FunctionUse("int4", VOL.oid, "vol", True)),
    )
    for sql in (
        "SELECT 1::checked",
        "SELECT CAST(a AS public.checked) FROM t",
        "SELECT a::pair FROM t",
        "SELECT '1'::int",
    ):
        assert judged(sql, known).writes, sql
    assert is_read("SELECT 1::positive, '1'::bigint", known)


def test_catalogues_are_equal_when_they_say_the_same() -> None:
    one = catalog(VOL, relations=ODD)
    assert one == catalog(VOL, relations=tuple(reversed(ODD)))
    assert one != catalog(VOL, relations=ODD[1:])
    assert one != catalog(VOL, relations=ODD, version=13)


@pytest.mark.parametrize("word", ["table_to_xml('t', true, true, '')", "f$(1)"])
def test_what_reads_by_name_or_has_a_dollar_in_its_name_is_no_read(word: str) -> None:
    """`f$` was taken for the end of a dollar quote, and its call for none."""
    assert judged(f"SELECT {word}", catalog()).writes
