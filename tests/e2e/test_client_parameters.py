"""Session parameters over one single backend: each session sees its own, always, and never another's.

Every test runs on PostgreSQL itself, too: what is expected is what PostgreSQL does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador, running_ambassador

Session = psycopg.Connection[tuple[object, ...]]
Connect = Callable[..., Session]


@pytest.fixture(scope="module")
def narrow(postgres: PostgresServer) -> Iterator[Ambassador]:
    """One ambassador with a single backend per database and user."""
    postgres.query("DROP ROLE IF EXISTS tenant")
    postgres.query("CREATE ROLE tenant")
    postgres.query("DROP ROLE IF EXISTS landlord")
    postgres.query("CREATE ROLE landlord LOGIN PASSWORD 'keys' IN ROLE tenant")
    postgres.query("CREATE SCHEMA IF NOT EXISTS parameters_a")
    postgres.query("CREATE SCHEMA IF NOT EXISTS parameters_b")
    postgres.query("CREATE TABLE IF NOT EXISTS parameters_a.place AS SELECT 'a' AS name")
    postgres.query("CREATE TABLE IF NOT EXISTS parameters_b.place AS SELECT 'b' AS name")
    with running_ambassador([postgres], "--pool-size", "1") as ambassador:
        yield ambassador


@pytest.fixture(params=["direct", "through"])
def connect(request: pytest.FixtureRequest, postgres: PostgresServer, narrow: Ambassador) -> Iterator[Connect]:
    where = postgres if request.param == "direct" else narrow
    with ExitStack() as stack:

        def open_session(*, user: str = "postgres", password: str | None = None, **parameters: object) -> Session:
            dsn = where.dsn(user=user, password=password)
            session = psycopg.connect(dsn, autocommit=True, **parameters)  # type: ignore[arg-type]
            return stack.enter_context(session)

        yield open_session


def ask(session: Session, sql: str) -> object:
    row = session.execute(sql).fetchone()
    assert row is not None
    return row[0]


def setting(session: Session, name: str) -> object:
    return ask(session, f"SELECT current_setting('{name}', true)")


def agree(one: Session, two: Session, name: str, first: object, second: object) -> None:
    """Ask both in turn, twice: each must go on seeing its own."""
    for _ in range(2):
        assert setting(one, name) == first
        assert setting(two, name) == second


def test_set_and_reset(connect: Connect) -> None:
    one, two = connect(), connect()
    default = setting(two, "work_mem")
    one.execute("SET work_mem = '7MB'")
    agree(one, two, "work_mem", "7MB", default)
    two.execute("SET SESSION work_mem TO '9MB'")
    agree(one, two, "work_mem", "7MB", "9MB")
    one.execute("RESET work_mem")
    agree(one, two, "work_mem", default, "9MB")
    two.execute("SET work_mem = DEFAULT")
    agree(one, two, "work_mem", default, default)


@pytest.mark.parametrize(
    "value", ["it's", r"back\slash", r"'\'", '"quoted"', "", "$$", "a,b", "täglich", "%d", "E'x'", "line\nfeed"]
)
def test_values_that_need_quoting(connect: Connect, value: str) -> None:
    one, two = connect(), connect()
    default = setting(two, "application_name")
    one.execute("SELECT set_config('application_name', %s, false)", (value,))
    shown = setting(one, "application_name")
    agree(one, two, "application_name", shown, default)
    one.execute("SELECT set_config('tenant.note', %s, false)", (value,))
    two.execute("SELECT set_config('tenant.note', 'of two', false)")
    agree(one, two, "tenant.note", value, "of two")


def test_lists_and_quoted_names(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("""SET search_path = parameters_a, "odd, schema", "$user", public""")
    two.execute("SET search_path = ''")
    agree(one, two, "search_path", """parameters_a, "odd, schema", "$user", public""", '""')
    assert one.execute("SHOW search_path").fetchone() == ("""parameters_a, "odd, schema", "$user", public""",)


def test_search_path_decides_which_table_is_meant(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("SET search_path = parameters_a")
    two.execute("SET search_path = parameters_b")
    for _ in range(3):
        # Prepared under the same text: the plan must be each session's own.
        assert one.execute("SELECT name FROM place", prepare=True).fetchone() == ("a",)
        assert two.execute("SELECT name FROM place", prepare=True).fetchone() == ("b",)
    three = connect()
    with pytest.raises(psycopg.errors.UndefinedTable):
        three.execute("SELECT name FROM place", prepare=True)
    assert one.execute("SELECT name FROM place", prepare=True).fetchone() == ("a",)


def test_set_in_a_transaction(connect: Connect) -> None:
    one, two = connect(), connect()
    default = setting(two, "work_mem")
    one.execute("BEGIN")
    one.execute("SET work_mem = '7MB'")
    assert setting(one, "work_mem") == "7MB"
    one.execute("ROLLBACK")
    agree(one, two, "work_mem", default, default)
    one.execute("BEGIN; SET work_mem = '8MB'")
    one.execute("COMMIT")
    agree(one, two, "work_mem", "8MB", default)
    one.execute("BEGIN; RESET work_mem; ROLLBACK")
    agree(one, two, "work_mem", "8MB", default)
    one.execute("BEGIN; SAVEPOINT s; SET work_mem = '9MB'; ROLLBACK TO s; COMMIT")
    agree(one, two, "work_mem", "8MB", default)


def test_set_local_ends_with_its_transaction(connect: Connect) -> None:
    one, two = connect(), connect()
    default = setting(two, "work_mem")
    one.execute("SET work_mem = '7MB'")
    with one.transaction():
        one.execute("SET LOCAL work_mem = '9MB'")
        one.execute("SELECT set_config('tenant.id', '42', true)")
        assert setting(one, "work_mem") == "9MB"
        assert setting(one, "tenant.id") == "42"
    agree(one, two, "work_mem", "7MB", default)
    assert setting(one, "tenant.id") in (None, "")
    assert setting(two, "tenant.id") in (None, "")


def test_a_failed_transaction_keeps_what_was_before(connect: Connect) -> None:
    one, two = connect(), connect()
    default = setting(two, "work_mem")
    one.execute("SET work_mem = '7MB'")
    one.execute("BEGIN")
    one.execute("SET work_mem = '8MB'")
    with pytest.raises(psycopg.errors.DivisionByZero):
        one.execute("SELECT 1/0")
    one.execute("COMMIT")  # which rolls back
    agree(one, two, "work_mem", "7MB", default)
    with pytest.raises(psycopg.errors.DivisionByZero):
        one.execute("SET work_mem = '9MB'; SELECT 1/0")
    agree(one, two, "work_mem", "7MB", default)
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        one.execute("SET work_mem = 'plenty'")
    agree(one, two, "work_mem", "7MB", default)


def test_custom_parameters(connect: Connect) -> None:
    """What row-level security of tenants stands on: another session's value would show another tenant's rows."""
    one, two, three = connect(), connect(), connect()
    one.execute("SET tenant.id = '1'")
    two.execute("SELECT set_config('tenant.id', '2', false)")
    agree(one, two, "tenant.id", "1", "2")
    assert setting(three, "tenant.id") in (None, "")
    one.execute("RESET tenant.id")
    assert setting(one, "tenant.id") in (None, "")
    agree(one, two, "tenant.id", setting(one, "tenant.id"), "2")
    two.execute("DISCARD ALL")
    assert setting(two, "tenant.id") in (None, "")
    three.execute("SET tenant.id = '3'; SET \"Tenant\".\"Name\" = 'x'")
    assert setting(one, "tenant.name") in (None, "")
    agree(one, three, "tenant.id", setting(one, "tenant.id"), "3")
    assert setting(three, "tenant.name") == "x"
    three.execute("RESET ALL")
    assert setting(three, "tenant.id") in (None, "")


def test_custom_parameters_rolled_back(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("SET tenant.id = '1'")
    one.execute("BEGIN; SET tenant.id = '2'; SET tenant.other = 'x'; ROLLBACK")
    agree(one, two, "tenant.id", "1", setting(two, "tenant.id"))
    assert setting(two, "tenant.id") in (None, "")
    assert setting(one, "tenant.other") in (None, "")


@pytest.mark.parametrize(
    "statement",
    [
        "DO $$ BEGIN PERFORM set_config('tenant.' || 'hidden', 'mine', false); END $$",
        "SELECT set_config(name, 'mine', false) FROM (VALUES ('tenant.hidden')) AS v (name)",
    ],
)
def test_custom_parameters_whose_names_no_text_shows(connect: Connect, statement: str) -> None:
    # Such a session keeps its backend: of another one nobody knows what would have to be set there.
    one = connect()
    one.execute(statement)
    for _ in range(2):
        assert setting(one, "tenant.hidden") == "mine"
    one.close()
    assert setting(connect(), "tenant.hidden") in (None, "")


def test_a_bound_name_of_a_custom_parameter(connect: Connect) -> None:
    one = connect()
    one.execute("SELECT set_config(%s, 'mine', false)", ("tenant.bound",))
    assert setting(one, "tenant.bound") == "mine"
    one.execute("DISCARD ALL")
    two = connect()
    assert setting(two, "tenant.bound") in (None, "")
    with one.transaction():
        one.execute("SELECT set_config(%s, 'mine', true)", ("tenant.bound",))
        assert setting(one, "tenant.bound") == "mine"
    for session in (one, two):
        assert setting(session, "tenant.bound") in (None, "")


def test_functions_that_set(connect: Connect) -> None:
    one, two = connect(), connect()
    default = setting(two, "work_mem")
    one.execute("DO $$ BEGIN SET work_mem = '6MB'; END $$")
    agree(one, two, "work_mem", "6MB", default)
    two.execute("SELECT set_config('work_mem', '5MB', false) FROM pg_settings WHERE name = 'work_mem'")
    agree(one, two, "work_mem", "6MB", "5MB")
    one.execute("UPDATE pg_settings SET setting = '4MB' WHERE name = 'work_mem'")
    agree(one, two, "work_mem", "4MB", "5MB")


def test_set_role(connect: Connect) -> None:
    one = connect(user="landlord", password="keys")
    two = connect(user="landlord", password="keys")
    one.execute("SET ROLE tenant")
    for _ in range(2):
        assert ask(one, "SELECT current_user::text || ' ' || session_user::text") == "tenant landlord"
        assert ask(two, "SELECT current_user::text || ' ' || session_user::text") == "landlord landlord"
    one.execute("SET work_mem = '7MB'")
    assert ask(one, "SELECT current_user::text") == "tenant"
    two.execute("SET work_mem = '6MB'")
    assert ask(one, "SELECT current_user::text || current_setting('work_mem')") == "tenant7MB"
    assert ask(two, "SELECT current_user::text || current_setting('work_mem')") == "landlord6MB"
    one.execute("RESET ROLE")
    assert ask(one, "SELECT current_user::text") == "landlord"
    one.execute("BEGIN; SET LOCAL ROLE tenant")
    assert ask(one, "SELECT current_user::text") == "tenant"
    one.execute("COMMIT")
    assert ask(one, "SELECT current_user::text") == "landlord"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        one.execute("SET ROLE postgres")
    assert ask(two, "SELECT current_user::text") == "landlord"


def test_session_authorization(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("SET SESSION AUTHORIZATION tenant")
    assert ask(one, "SELECT session_user::text") == "tenant"
    one.execute("RESET SESSION AUTHORIZATION")
    assert ask(two, "SELECT session_user::text") == "postgres"
    assert ask(one, "SELECT session_user::text") == "postgres"


def test_discard_all_and_reset_all(connect: Connect) -> None:
    one = connect(options="-c work_mem=11MB", application_name="with options")
    two = connect()
    one.execute("SET work_mem = '7MB'; SET statement_timeout = '99s'")
    two.execute("SET statement_timeout = '98s'")
    one.execute("DISCARD ALL")
    for _ in range(2):
        # Both return to what the session asked for when it connected.
        assert setting(one, "work_mem") == "11MB"
        assert setting(one, "statement_timeout") == "0"
        assert setting(one, "application_name") == "with options"
        assert setting(two, "statement_timeout") == "98s"
    one.execute("SET work_mem = '7MB'")
    one.execute("RESET ALL")
    assert setting(two, "statement_timeout") == "98s"
    assert setting(one, "work_mem") == "11MB"
    one.execute("RESET work_mem")
    assert setting(one, "work_mem") == "11MB"


def test_startup_options(connect: Connect) -> None:
    one = connect(options="-c work_mem=11MB -c search_path=parameters_a -c tenant.id=17 --statement-timeout=90s")
    two = connect(application_name="second", client_encoding="LATIN1", options="-c TimeZone=Asia/Tokyo")
    for _ in range(2):
        assert setting(one, "work_mem") == "11MB"
        assert setting(one, "search_path") == "parameters_a"
        assert setting(one, "tenant.id") == "17"
        assert setting(one, "statement_timeout") == "90s"
        assert setting(two, "tenant.id") in (None, "")
        assert setting(two, "application_name") == "second"
        assert setting(two, "TimeZone") == "Asia/Tokyo"
        assert ask(two, "SELECT 'grün'") == "grün"
        assert ask(one, "SELECT 'grün€'") == "grün€"
    one.execute("DISCARD ALL")
    assert setting(one, "tenant.id") == "17"
    with pytest.raises(psycopg.OperationalError, match='unrecognized configuration parameter "no_such"'):
        connect(options="-c no_such=1")


def test_parameter_status_agrees(connect: Connect) -> None:
    one, two = connect(application_name="one"), connect(application_name="two")
    names = ["application_name", "TimeZone", "DateStyle", "client_encoding", "standard_conforming_strings"]

    def reported(session: Session) -> dict[str, str | None]:
        return {name: session.info.parameter_status(name) for name in names}

    def told(session: Session) -> dict[str, object]:
        return {name: setting(session, name) for name in names}

    one.execute("SET TimeZone = 'Asia/Tokyo'; SET DateStyle = 'German'")
    two.execute("SET application_name = 'renamed'")
    for session in (one, two, one, two):
        assert reported(session) == told(session)
    two.execute("SET TimeZone = 'America/New_York'")
    for session in (one, two):
        assert reported(session) == told(session)
    assert one.info.parameter_status("application_name") == "one"
    one.execute("BEGIN; SET TimeZone = 'UTC'; ROLLBACK")
    one.execute("DISCARD ALL")
    two.execute("RESET ALL")
    for session in (one, two):
        # What is put back is told with the next answer at the latest.
        assert setting(session, "DateStyle") == "ISO, MDY"
        assert reported(session) == told(session)
    assert two.info.parameter_status("application_name") == "two"


def test_parameters_that_change_how_text_is_read(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("SET standard_conforming_strings = off")
    one.execute("SET escape_string_warning = off")
    for _ in range(2):
        assert ask(one, r"SELECT 'a\nb'") == "a\nb"
        assert ask(two, r"SELECT 'a\nb'") == r"a\nb"
    one.execute(r"SELECT set_config('application_name', 'a\\b', false)")
    assert setting(one, "application_name") == r"a\b"
    assert setting(two, "application_name") != r"a\b"
    assert setting(one, "application_name") == r"a\b"


def test_transaction_defaults(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE")
    for _ in range(2):
        assert setting(one, "transaction_read_only") == "on"
        assert setting(one, "transaction_isolation") == "serializable"
        assert setting(two, "transaction_read_only") == "off"
        assert setting(two, "transaction_isolation") == "read committed"
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        one.execute("CREATE TABLE never ()")
    two.execute("SET default_transaction_read_only = on")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        two.execute("CREATE TABLE never ()")
    one.execute("RESET ALL")
    assert setting(one, "transaction_read_only") == "off"


def test_statement_timeout_is_the_sessions_own(connect: Connect) -> None:
    one, two = connect(), connect()
    one.execute("SET statement_timeout = '50ms'")
    with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
        one.execute("SELECT pg_sleep(5)")
    two.execute("SELECT pg_sleep(0.2)")
    with pytest.raises(psycopg.errors.QueryCanceled, match="statement timeout"):
        one.execute("SELECT pg_sleep(5)")


def test_who_leaves_takes_its_parameters_along(connect: Connect) -> None:
    one = connect()
    one.execute("SET work_mem = '7MB'; SET tenant.id = '5'")
    one.execute("BEGIN")
    one.execute("SET work_mem = '8MB'; SET LOCAL statement_timeout = '7s'; SET tenant.id = '6'")
    one.close()
    two = connect()
    assert setting(two, "work_mem") == "4MB"
    assert setting(two, "statement_timeout") == "0"
    assert setting(two, "tenant.id") in (None, "")
