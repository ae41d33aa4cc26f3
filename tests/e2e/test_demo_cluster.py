"""The embedded cluster itself: without it no other test here means anything."""

from __future__ import annotations

import asyncpg
import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.etcd import EtcdServer
from pgamb.demo.postgres import MONITOR, REPLICATION, PostgresServer
from pgamb.errors import PgambError, ProcessFailed
from tests.e2e.conftest import MakeCluster
from tests.support import wait_for


def test_one_plain_server_takes_scram_log_ins(postgres: PostgresServer) -> None:
    assert postgres.query("SELECT current_setting('cluster_name')") == [("pg",)]
    assert postgres.query("SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'postgres'") == [
        (True,)
    ]


def test_members_stream_from_the_primary_and_know_their_names(bare_cluster: Cluster) -> None:
    primary = bare_cluster.primary
    assert primary.name == "pg1"
    assert [server.name for server in bare_cluster.replicas] == ["pg2", "pg3"]
    for server in bare_cluster.servers:
        rows = server.query("SELECT current_setting('cluster_name'), pg_is_in_recovery(), current_setting('port')")
        assert rows == [(server.name, server is not primary, str(server.port))]
    streaming = primary.query("SELECT application_name FROM pg_stat_replication WHERE state = 'streaming' ORDER BY 1")
    assert streaming == [("pg2",), ("pg3",)]


def test_roles_have_what_they_need_and_no_more(bare_cluster: Cluster) -> None:
    rows = bare_cluster.primary.query(
        "SELECT rolname::text, rolsuper, rolreplication, pg_has_role(rolname, 'pg_monitor', 'USAGE')"
        " FROM pg_roles WHERE rolname IN ($1, $2) ORDER BY 1",
        MONITOR,
        REPLICATION,
    )
    assert rows == [(MONITOR, False, False, True), (REPLICATION, False, True, False)]


def test_promote_rejoin_and_base_backup(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(agents=False, client=False, etcd=False)
    cluster.primary.query("CREATE TABLE before_it AS SELECT 1 AS n")
    old = cluster.primary
    old.kill()
    new = cluster.promote("pg2")
    assert cluster.primary is new
    new.query("CREATE TABLE after_it AS SELECT 2 AS n")
    cluster.rejoin("pg1")
    cluster.server("pg3").stop()
    cluster.server("pg3").base_backup(new)
    cluster.server("pg3").start()
    for server in cluster.replicas:
        wait_for(
            lambda server=server: server.query("SELECT to_regclass('after_it') IS NOT NULL") == [(True,)],  # type: ignore[misc]
            10,
            f"{server.name} has what the new primary wrote",
        )
        assert server.query("SELECT n FROM before_it") == [(1,)]
    assert {server.name for server in cluster.replicas} == {"pg1", "pg3"}


def test_etcd_answers_and_forgets(etcd: EtcdServer) -> None:
    assert etcd.healthy()
    assert etcd.get_prefix("/no/such/prefix/") == {}


def test_the_whole_cluster_answers_as_one_postgresql(cluster: Cluster) -> None:
    cluster.query("CREATE TABLE demo_whole AS SELECT 5 AS n")
    wait_for(
        lambda: all(
            server.query("SELECT to_regclass('demo_whole') IS NULL") == [(False,)] for server in cluster.servers
        ),
        10,
        "every member has the table",
    )
    assert cluster.query("SELECT n FROM demo_whole") == [(5,)]
    assert cluster.etcd is not None
    keys = cluster.etcd.get_prefix("/pgamb/db/")
    assert {key for key in keys if "/members/" in key} == {f"/pgamb/db/members/pg{n}" for n in (1, 2, 3)}
    assert b'"pg1"' in keys["/pgamb/db/primary"]


def test_the_ambassador_follows_a_promotion(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(unix_sockets=True)
    assert cluster.etcd is not None
    assert (
        str(cluster.folder / "s").encode() in cluster.etcd.get_prefix("/pgamb/db/members/pg1")["/pgamb/db/members/pg1"]
    )
    cluster.primary.kill()
    cluster.promote("pg3")
    wait_for(lambda: _written(cluster), 20, "a write arrives at the new primary")
    assert cluster.server("pg3").query("SELECT count(*) > 0 FROM demo_after") == [(True,)]


def _written(cluster: Cluster) -> bool:
    try:
        cluster.query("CREATE TABLE IF NOT EXISTS demo_after AS SELECT 1 AS n")
    except (PgambError, asyncpg.PostgresError):
        return False
    return True


def test_without_etcd_the_ambassador_asks_the_servers(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(agents=False, etcd=False, replicas=1)
    assert cluster.registry_url.startswith("static://127.0.0.1:")
    cluster.query("CREATE TABLE demo_static AS SELECT 1 AS n")
    assert cluster.primary.query("SELECT n FROM demo_static") == [(1,)]


def test_a_cluster_that_does_not_start_says_why_and_leaves_nothing(template: PostgresServer) -> None:
    broken = Cluster(etcd=False, agents=False, replicas=0, client_options=["--no-such-option"], template=template)
    with pytest.raises(ProcessFailed, match="pgamb client ended with status 2 while waiting") as caught:
        broken.start()
    assert "--no-such-option" in str(caught.value)
    assert not any(server.process.running for server in broken.servers)
    assert not broken.folder.exists()
