"""What a database's own catalogue shows and the text of a query does not: where pgamb sends it, with real servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgamb.client.catalogue_reader import CatalogueReader
from pgamb.client.monitor import asker_from_dsn
from pgamb.client.opener import Opener
from pgamb.config import ClientOptions
from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import HOST
from pgamb.registry.model import Address, Member, Role
from pgamb.routing.classify import classify
from pgamb.session.backend_login import Credentials
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.waiting import wait_for

DATABASE = "catalogue"
REPLICAS = {"pg2", "pg3"}
PRIMARY = {"pg1"}
MEMBER = "SELECT current_setting('cluster_name') AS member"

SCHEMA = """
CREATE TABLE plain (id int, name text);
INSERT INTO plain SELECT i, 'name ' || i FROM generate_series(1, 10) AS i;
CREATE SCHEMA other;
CREATE SEQUENCE numbers;

CREATE FUNCTION vol() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION numbered() RETURNS bigint LANGUAGE plpgsql STABLE AS $$BEGIN RETURN nextval('numbers'); END$$;
CREATE FUNCTION numbered_inside() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT numbered()';
CREATE FUNCTION swallows() RETURNS text LANGUAGE plpgsql STABLE AS $$
    BEGIN RETURN nextval('numbers')::text; EXCEPTION WHEN read_only_sql_transaction THEN RETURN 'swallowed'; END$$;
CREATE FUNCTION locks() RETURNS text LANGUAGE plpgsql STABLE AS $$
    BEGIN PERFORM pg_advisory_xact_lock(77); RETURN 'locked'; END$$;
CREATE FUNCTION in_recovery() RETURNS boolean LANGUAGE sql STABLE AS 'SELECT pg_is_in_recovery()';
CREATE FUNCTION built(what text) RETURNS text LANGUAGE plpgsql STABLE AS $$
    DECLARE found text; BEGIN EXECUTE 'SELECT pg_advisory_xact_lock_shared(' || what || ')::text' INTO found; RETURN found; END$$;
CREATE FUNCTION runs(what text) RETURNS text LANGUAGE plpgsql STABLE AS $$
    DECLARE found text; BEGIN EXECUTE what INTO found; RETURN found; END$$;
CREATE FUNCTION by_default(n bigint DEFAULT nextval('numbers')) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION overloaded(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION overloaded(text) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION other.lower(int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION plain_note(plain) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE FUNCTION vol_step(int, int) RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
CREATE AGGREGATE vol_sum(int) (SFUNC = vol_step, STYPE = int, INITCOND = '0');
CREATE OPERATOR <%%> (LEFTARG = int, RIGHTARG = int, FUNCTION = vol_step);
CREATE OPERATOR <<| (LEFTARG = int, RIGHTARG = int, FUNCTION = vol_step);

CREATE FUNCTION doubled(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2';
CREATE FUNCTION counted(n int) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
    <<outer>> DECLARE found bigint; i int; BEGIN
        FOR i IN 1..n LOOP IF (i > 0) THEN found := i; END IF; END LOOP;
        SELECT count(*) INTO STRICT found FROM plain WHERE id <= n;
        IF found IS NULL THEN RAISE EXCEPTION 'none'; END IF;
        RETURN (found + 0);
    END$$;
CREATE FUNCTION by_table(name text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
    DECLARE found bigint; BEGIN EXECUTE format('SELECT count(*) FROM %I', name) INTO found; RETURN found; END$$;
CREATE AGGREGATE own_sum(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR <##> (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl);

CREATE VIEW harmless_view AS SELECT id, upper(name) AS name, now() AS at FROM plain;
CREATE VIEW vol_view AS SELECT vol() AS n;
CREATE VIEW "Vol View" AS SELECT * FROM vol_view;
CREATE VIEW locking_view AS SELECT locks() AS n;
CREATE UNLOGGED TABLE unlogged_table (id int);
CREATE VIEW unlogged_view AS SELECT * FROM unlogged_table;
CREATE TABLE partitioned (id int) PARTITION BY RANGE (id);
CREATE TABLE partition_1 PARTITION OF partitioned FOR VALUES FROM (0) TO (10);
CREATE UNLOGGED TABLE partition_2 PARTITION OF partitioned FOR VALUES FROM (10) TO (20);
CREATE TABLE parent (id int);
CREATE UNLOGGED TABLE child () INHERITS (parent);
CREATE TABLE guarded (id int);
ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
CREATE POLICY guard ON guarded USING (id = vol());
CREATE TABLE tenants (id text);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants USING (id = current_setting('app.tenant', true));
CREATE FUNCTION checks(int) RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT true';
CREATE DOMAIN checked AS int CHECK (checks(VALUE));
CREATE DOMAIN checked_again AS checked;
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TYPE pair AS (a int, b int);
CREATE FUNCTION as_pair(int) RETURNS pair LANGUAGE sql VOLATILE AS 'SELECT $1, $1';
CREATE CAST (int AS pair) WITH FUNCTION as_pair(int);
"""  # noqa: E501
ON_14 = "CREATE FUNCTION atomic() RETURNS bigint LANGUAGE sql STABLE BEGIN ATOMIC SELECT numbered(); END"

# Debian has them with the server, and so has the wheel.
EXTENSIONS = {"pg_trgm", "citext", "file_fdw", "tablefunc"}
WITH_EXTENSIONS = """
CREATE EXTENSION pg_trgm;
CREATE EXTENSION citext SCHEMA other;
CREATE EXTENSION tablefunc;
CREATE EXTENSION file_fdw;
CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE foreign_table (version text) SERVER files OPTIONS (filename 'PG_VERSION');
CREATE TABLE foreign_parent (version text) PARTITION BY LIST (version);
CREATE FOREIGN TABLE foreign_child PARTITION OF foreign_parent DEFAULT SERVER files OPTIONS (filename 'PG_VERSION');
CREATE TABLE accounts (name other.citext);
INSERT INTO accounts VALUES ('Ada');
"""

# Each answers with the member that it ran on.
TO_THE_PRIMARY = [
    f"{MEMBER}, vol()",
    f"{MEMBER}, numbered()",
    f"{MEMBER}, numbered_inside()",
    f"{MEMBER}, public.numbered()",
    f"{MEMBER}, locks()",
    f"{MEMBER}, built('5')",
    f"{MEMBER}, runs('SELECT pg_advisory_xact_lock_shared(5)::text')",
    f"{MEMBER}, by_default()",
    f"{MEMBER}, overloaded(1)",
    f"{MEMBER}, lower('A')",
    f"{MEMBER}, plain.plain_note FROM plain",
    f"{MEMBER}, (p).plain_note FROM plain AS p",
    "SELECT min(current_setting('cluster_name')), vol_sum(id) FROM plain",
    f"{MEMBER}, 1 <%%> 2",
    f"{MEMBER}, 1 OPERATOR(public.<%%>) 2",
    f"{MEMBER}, 1 <<| 2",
    f"{MEMBER}, n FROM vol_view",
    f"{MEMBER}, n FROM public.vol_view",
    f"{MEMBER}, n FROM catalogue.public.vol_view",
    f'{MEMBER}, n FROM "Vol View"',
    f'{MEMBER}, n FROM public . "Vol View" AS v',
    f"{MEMBER}, n FROM locking_view",
    f"{MEMBER} FROM numbers",
    f"{MEMBER} FROM (SELECT 1) AS x LEFT JOIN unlogged_table ON true",
    f"{MEMBER} FROM (SELECT 1) AS x LEFT JOIN unlogged_view ON true",
    f"{MEMBER} FROM (SELECT 1) AS x LEFT JOIN partitioned ON true",
    f"{MEMBER} FROM (SELECT 1) AS x LEFT JOIN parent ON true",
    f"{MEMBER} FROM (SELECT 1) AS x LEFT JOIN guarded ON true",
    f"{MEMBER} FROM foreign_table",
    f"{MEMBER} FROM foreign_parent",
    f"{MEMBER} FROM crosstab('SELECT 1, 2, 3') AS x (a int, b int)",
    f"{MEMBER}, normal_rand(1, 1, 1)",
    f"{MEMBER}, 1::checked",
    f"{MEMBER}, CAST(1 AS public.checked_again)",
    f"{MEMBER}, 1::pair",
]
TO_REPLICAS = [
    f"{MEMBER} FROM plain",
    f"{MEMBER}, doubled(2), public.doubled(2)",
    f"{MEMBER}, counted(3)",
    f"{MEMBER}, by_table('plain')",
    f"{MEMBER}, upper(name) FROM plain",
    "SELECT min(current_setting('cluster_name')), own_sum(id) FROM plain",
    f"{MEMBER}, 1 <##> 2",
    f"{MEMBER}, 1 OPERATOR(public.<##>) 2",
    f"{MEMBER} FROM harmless_view",
    f"{MEMBER} FROM partition_1 RIGHT JOIN (SELECT 1) AS x ON true",
    f"{MEMBER} FROM tenants RIGHT JOIN (SELECT 1) AS x ON true",
    f"{MEMBER}, 1::positive",
    f"{MEMBER}, similarity(name, 'nam'), name <-> 'x' FROM plain WHERE name % 'name 1'",
    f"{MEMBER} FROM plain WHERE name %> 'name 1' AND 'name 1' OPERATOR(public.<%) name",
    f"{MEMBER} FROM accounts WHERE name OPERATOR(other.=) 'ada'::other.citext AND name OPERATOR(other.~~) 'aD%'",
    f"{MEMBER}, p.name FROM plain AS p",
]


def on_all(cluster: Cluster, sql: str) -> None:
    """Run SQL in our database on the primary, and wait until the replicas have it."""
    with closing(psycopg.connect(cluster.primary.dsn(database=DATABASE), autocommit=True)) as session:
        session.execute(sql)
    (position,) = cluster.primary.query("SELECT pg_current_wal_insert_lsn()::text")[0]
    question = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
    wait_for(
        lambda: all(replica.query(question, position) == [(True,)] for replica in cluster.replicas),
        20,
        "the replicas have replayed it",
    )


@pytest.fixture(scope="module")
def database(bare_cluster: Cluster) -> Iterator[Cluster]:
    bare_cluster.primary.query(f"CREATE DATABASE {DATABASE}")
    bare_cluster.primary.query("CREATE ROLE catalogue_reader LOGIN PASSWORD 'reader'")
    on_all(bare_cluster, SCHEMA)
    available = {name for (name,) in bare_cluster.primary.query("SELECT name FROM pg_available_extensions")}
    missing = EXTENSIONS - available
    assert not missing, f"{bare_cluster.binaries} has no {missing}: install its contrib package (postgresql-contrib)"
    on_all(bare_cluster, WITH_EXTENSIONS)
    if int(str(bare_cluster.primary.query("SHOW server_version_num")[0][0])) >= 140000:
        on_all(bare_cluster, ON_14)
    yield bare_cluster
    bare_cluster.primary.query(f"DROP DATABASE {DATABASE} WITH (FORCE)")
    bare_cluster.primary.query("DROP ROLE catalogue_reader")


@pytest.fixture(scope="module")
def ambassador(database: Cluster) -> Iterator[Ambassador]:
    with running_ambassador(database.servers, "--pool-size", "5", "--replica-wait", "5") as running:
        wait_for(lambda: members(running, f"{MEMBER} FROM plain") <= REPLICAS, 30, "the catalogue has been read")
        yield running


def connect(ambassador: Ambassador, **login: Any) -> psycopg.Connection[Any]:
    return psycopg.connect(ambassador.dsn(database=DATABASE, **login), autocommit=True)


def members(ambassador: Ambassador, sql: str, times: int = 8) -> set[object]:
    """Tell which members answer a query."""
    with connect(ambassador) as session:
        rows = [session.execute(sql.encode()).fetchone() for _ in range(times)]
        assert all(row is not None for row in rows)
        return {row[0] for row in rows if row is not None}


@pytest.mark.parametrize("sql", TO_THE_PRIMARY)
def test_what_only_the_catalogue_shows_goes_to_the_primary(ambassador: Ambassador, sql: str) -> None:
    assert members(ambassador, sql) == PRIMARY


@pytest.mark.parametrize("sql", TO_REPLICAS)
def test_what_the_catalogue_shows_to_be_harmless_goes_to_replicas(ambassador: Ambassador, sql: str) -> None:
    assert members(ambassador, sql) <= REPLICAS


def test_a_function_that_swallows_its_own_refusal_is_right(ambassador: Ambassador) -> None:
    with connect(ambassador) as session:
        for _ in range(5):
            member, answer = session.execute(f"{MEMBER}, swallows()").fetchone() or ("", "")
            assert member == "pg1"
            assert answer.isdecimal()


def test_a_function_that_asks_where_it_is_says_the_primary(ambassador: Ambassador) -> None:
    with connect(ambassador) as session:
        assert {session.execute("SELECT in_recovery()").fetchone() for _ in range(6)} == {(False,)}


def test_a_body_in_standard_sql_is_looked_into(ambassador: Ambassador, database: Cluster) -> None:
    if database.primary.query("SELECT 1 FROM pg_proc WHERE proname = 'atomic'", database=DATABASE) == []:
        pytest.skip("this PostgreSQL is older than 14, and has no bodies in standard SQL")
    assert members(ambassador, f"{MEMBER}, atomic()") == PRIMARY


async def test_a_replica_has_the_same_to_say(database: Cluster) -> None:
    """Where there is no primary a replica is asked, and the primary need not be asked anew for what it said."""
    options = ClientOptions(registry="static://127.0.0.1:5432", server_tls="disable")
    reader = CatalogueReader(Opener(options), asker_from_dsn(database.primary.dsn()), {})
    readings = []
    for server in (database.primary, database.replicas[0]):
        member = Member(server.name, Role.REPLICA, (Address(HOST, server.port),), 1, "", 0)
        readings.append(await reader.read(DATABASE, [], [member]))
    assert readings[0].catalog == readings[1].catalog
    assert readings[0].state == readings[1].state


async def test_an_application_without_any_rights_may_read_it(database: Cluster) -> None:
    options = ClientOptions(registry="static://127.0.0.1:5432", server_tls="disable")
    reader = CatalogueReader(Opener(options), None, {"catalogue_reader": Credentials(password="reader")})
    primary = Member("pg1", Role.PRIMARY, (Address(HOST, database.primary.port),), 1, "", 0)
    reading = await reader.read(DATABASE, ["catalogue_reader"], [primary])
    assert reading.catalog is not None
    assert classify(b"SELECT * FROM vol_view", catalog=reading.catalog).writes


def test_postgresql_refuses_commands_in_functions_that_are_not_volatile(database: Cluster) -> None:
    """What bodies.py builds on: such a function can do nothing but call functions and read, on the primary too."""
    with closing(psycopg.connect(database.primary.dsn(database=DATABASE))) as session:
        for command in (
            "SET LOCAL work_mem = '5MB'",
            "LISTEN x",
            "UNLISTEN *",
            "NOTIFY x",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
            "LOCK TABLE plain",
            "INSERT INTO plain VALUES (1)",
            "CREATE TABLE never ()",
            "PERFORM 1 FROM plain FOR UPDATE",
            "CHECKPOINT",
        ):
            bodies = [f"BEGIN EXECUTE $x${command.replace('PERFORM', 'SELECT')}$x$; END"]
            if not command.startswith("DECLARE"):
                bodies.append(f"BEGIN {command}; END")
            for body in bodies:
                session.execute(
                    f"CREATE FUNCTION refused() RETURNS void LANGUAGE plpgsql STABLE AS $body$ {body} $body$".encode()
                )
                with pytest.raises(psycopg.errors.FeatureNotSupported, match="not allowed in a non-volatile function"):
                    session.execute("SELECT refused()")
                session.rollback()
