"""PostgreSQL is the oracle: what is called a read runs on a real replica, and writes nothing on the primary."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest

from pgamb.demo.binaries import find_postgres
from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.routing.catalog import BUILT_IN, Effect
from pgamb.routing.classify import classify
from pgamb.routing.intent import Need
from tests.support.oracle import EFFECTS, NO_EFFECT, Backend, create_database
from tests.support.workloads import NAMES, workload
from tests.unit.routing import corpus
from tests.unit.routing.test_manual import COMMANDS

DATABASE = "classify"
READS = [sql for sql in corpus.EVERYTHING if classify(sql.encode()).need & Need.READ]
# Their answers differ from call to call, or from transaction to transaction, and rightly.
DIFFERING = re.compile(
    r"(?i:random)\(|uuid\(|(clock|statement|transaction)_timestamp|timeofday|now\(\)|'now'|current_time|CURRENT_TIME"
    r"|localtime|cluster_name|(?i:tablesample)|EXPLAIN.*ANALYZE|\bage\b|(?i:timetz)"
)


@pytest.fixture(scope="module")
def members(bare_cluster: Cluster) -> tuple[PostgresServer, PostgresServer]:
    return create_database(bare_cluster, DATABASE, corpus.SCHEMA)


@pytest.fixture
def on_primary(members: tuple[PostgresServer, PostgresServer]) -> Iterator[Backend]:
    with closing(Backend(members[0], DATABASE)) as backend:
        yield backend


@pytest.fixture
def on_replica(members: tuple[PostgresServer, PostgresServer]) -> Iterator[Backend]:
    with closing(Backend(members[1], DATABASE)) as backend:
        yield backend


def differences(on_primary: Backend, on_replica: Backend, statements: list[str]) -> list[str]:
    """Tell what a replica refuses, or answers otherwise than the primary. Parameters are NULL."""
    found: list[str] = []
    for sql in statements:
        parameters = max(map(int, re.findall(r"\$([0-9]+)", sql)), default=0)
        try:
            wanted = on_primary.rows(sql, parameters)
            given = on_replica.rows(sql, parameters)
        except psycopg.Error as error:
            found.append(f"{sql}: {error.sqlstate} {error}")
            continue
        if wanted != given and not DIFFERING.search(sql):
            found.append(f"{sql}: {given} instead of {wanted}")
    return found


def test_a_replica_answers_every_proven_read_as_the_primary_does(on_primary: Backend, on_replica: Backend) -> None:
    assert len(READS) >= 150
    same = [sql for sql in READS if not DIFFERING.search(sql)]
    assert len(same) >= 0.8 * len(READS)
    found = differences(on_primary, on_replica, READS)
    assert not found, "\n".join(found)


def test_answers_are_compared(on_primary: Backend, on_replica: Backend) -> None:
    assert differences(on_primary, on_replica, ["SELECT pg_is_in_recovery()"])


@pytest.mark.parametrize("name", NAMES)
def test_a_replica_answers_the_reads_of_applications_as_the_primary_does(bare_cluster: Cluster, name: str) -> None:
    found = workload(name)
    primary, replica = create_database(bare_cluster, f"workload_{name}", found.schema)
    with (
        closing(Backend(primary, f"workload_{name}")) as on_primary,
        closing(Backend(replica, f"workload_{name}")) as on_replica,
    ):
        unlike = differences(on_primary, on_replica, found.reads)
    assert not unlike, "\n".join(unlike)


def test_no_proven_read_has_an_effect_on_the_primary(on_primary: Backend) -> None:
    harmful: list[str] = []
    for sql in READS:
        on_primary.run("BEGIN")
        on_primary.run(sql)
        effects = on_primary.run(EFFECTS)
        if effects != NO_EFFECT:
            harmful.append(f"{sql}: {effects}")
        on_primary.run("ROLLBACK")
    assert not harmful, "\n".join(harmful)


def test_functions_that_are_called_as_attributes_are_seen(on_primary: Backend) -> None:
    """`('seq'::regclass).nextval` was called a read. All functions of one argument that are none are seen by name."""
    functions = on_primary.rows(
        """
        SELECT DISTINCT proname FROM pg_proc
        WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f' AND pronargs >= 1
          AND pronargs - pronargdefaults <= 1 AND prorettype NOT IN ('trigger'::regtype, 'internal'::regtype)
        """
    )
    unseen: list[str] = []
    for (name,) in functions:
        assert name is not None
        effect = BUILT_IN.function(None, name.decode())
        if effect in (Effect.HARMLESS, Effect.UNKNOWN):
            continue
        need = classify(b"SELECT (x.y).%s, r.%s FROM CAST('z' AS text) r" % (name, name)).need
        if need & Need.READ and not (effect is Effect.TRANSACTION_TIME and need & Need.TRANSACTION_TIME):
            unseen.append(name.decode())
    assert len(functions) > 500
    assert not unseen


@pytest.mark.parametrize("sql", ["INSERT INTO t VALUES (99)", "SELECT nextval('seq')", "SELECT * FROM t FOR UPDATE"])
def test_the_oracle_can_say_no(on_primary: Backend, on_replica: Backend, sql: str) -> None:
    """Without this, the tests above could pass because nothing is ever refused or seen."""
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        on_replica.run(sql)
    on_primary.run("BEGIN")
    on_primary.run(sql)
    assert on_primary.run(EFFECTS) != NO_EFFECT
    on_primary.run("ROLLBACK")
    on_primary.run("ALTER SEQUENCE seq RESTART")


def test_the_list_of_commands_is_that_of_psql(bare_cluster: Cluster) -> None:
    psql = find_postgres().tool("psql")
    if not psql.exists():
        pytest.skip("these binaries come without psql")
    command = [str(psql), "-X", "-d", bare_cluster.primary.dsn(), "-c", r"\h"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    lines = listing.splitlines()[1:]
    # Two columns, with ABORT at the top of the first.
    middle = re.search(r"ABORT +", lines[0]).end()  # type: ignore[union-attr]
    listed = {name.strip() for line in lines for name in (line[:middle], line[middle:]) if name.strip()}
    assert len(listed) > 150
    assert listed - set(COMMANDS) == set()
