"""`pgamb server` through failures: PostgreSQL stops, another is promoted, the old one comes back, etcd forgets."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import psycopg
import pytest

from pgamb.demo.cluster import Cluster
from pgamb.demo.query import query
from pgamb.errors import ConnectionFailure
from tests.e2e.conftest import MakeCluster
from tests.support.agent import DEADLINE_S, AgentProcess, Registered
from tests.support.waiting import wait_for


class Failing:
    """A cluster of two that may be broken, with our own agents beside both."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        assert cluster.etcd is not None
        self.cluster = cluster
        self.etcd = cluster.etcd
        self.registered = Registered(cluster.etcd, "db")
        self.agents = {
            server.name: AgentProcess(
                server, cluster.registry_url, folder, service="db", options=["--ttl", "2", "--probe-interval", "0.5"]
            )
            for server in cluster.servers
        }
        for agent in self.agents.values():
            agent.start()
        self.registered.wait_for_primary("pg1", 1)
        self.registered.wait_for_role("pg2", "replica")
        for agent in self.agents.values():
            agent.wait_for_log("server.port.relaying")

    def ask(self, node: str, sql: str = "SELECT pg_is_in_recovery()") -> object:
        """Ask through the exposed port."""
        return query(self.agents[node].dsn(), sql)[0][0]

    def refused(self, node: str) -> str:
        """Return what the exposed port says instead of relaying; empty when it relays or nobody listens."""
        try:
            self.ask(node)
        except asyncpg.CannotConnectNowError as error:
            return str(error)
        except (ConnectionFailure, asyncpg.PostgresConnectionError):
            return ""
        return ""


@contextmanager
def hammering(dsn: str, sql: str) -> Iterator[list[str]]:
    """Try to run a statement all the time, from several threads; each success is one entry of the list."""
    accepted: list[str] = []
    stop = threading.Event()

    def hammer() -> None:
        while not stop.is_set():
            with suppress(psycopg.Error), psycopg.connect(dsn, connect_timeout=2) as connection:
                connection.execute(sql)
                accepted.append(sql)

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield accepted
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def failing(make_cluster: MakeCluster, tmp_path: Path) -> Iterator[Failing]:
    """A cluster of the test's own, for what cannot be undone."""
    made = Failing(make_cluster(agents=False, client=False, replicas=1), tmp_path)
    try:
        yield made
    finally:
        for agent in made.agents.values():
            agent.kill()


@pytest.fixture(scope="module")
def healed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Failing]:
    """A cluster that tests share: each leaves it as it was, pg1 primary on timeline 1 and all running."""
    with Cluster(agents=False, client=False, replicas=1) as cluster:
        made = Failing(cluster, tmp_path_factory.mktemp("agents"))
        try:
            yield made
        finally:
            for agent in made.agents.values():
                agent.kill()


def test_a_stopped_postgresql_is_withdrawn_at_once_and_announced_when_it_is_back(healed: Failing) -> None:
    server = healed.cluster.server("pg2")
    server.stop()
    healed.registered.wait_for_role("pg2", None)
    assert "cannot connect to PostgreSQL at" in healed.refused("pg2")
    server.start()
    healed.registered.wait_for_role("pg2", "replica")
    wait_for(lambda: healed.refused("pg2") == "", DEADLINE_S, "pg2 is relayed to again")
    assert healed.ask("pg2") is True


def test_a_crashed_postgresql_is_withdrawn_and_comes_back_after_recovery(healed: Failing) -> None:
    server = healed.cluster.server("pg1")
    server.kill()
    healed.registered.wait_for_role("pg1", None)
    assert healed.registered.primary() == ("pg1", 1)
    server.start()
    healed.registered.wait_for_role("pg1", "primary")
    wait_for(lambda: healed.refused("pg1") == "", DEADLINE_S, "pg1 is relayed to again")
    assert healed.ask("pg1") is False


def test_a_frozen_postgresql_is_withdrawn_after_a_few_probes(healed: Failing) -> None:
    server = healed.cluster.server("pg2")
    server.pause()
    healed.registered.wait_for_role("pg2", None, 12)
    assert "no answer within" in healed.agents["pg2"].text()
    server.resume()
    healed.registered.wait_for_role("pg2", "replica")


def test_primary_moves_up_and_no_write_reaches_the_old_one_when_it_comes_back(failing: Failing) -> None:
    cluster, registered = failing.cluster, failing.registered
    old = cluster.server("pg1")
    old.query("CREATE TABLE written (who text)")
    old.kill()
    cluster.promote("pg2")
    registered.wait_for_primary("pg2", 2, 5)
    registered.wait_for_role("pg2", "primary", 5)
    assert failing.ask("pg2") is False

    with hammering(failing.agents["pg1"].dsn(), "INSERT INTO written VALUES ('stale')") as accepted:
        old.start()  # as the primary that it was
        registered.wait_for_role("pg1", "stale-primary")
        wait_for(lambda: "stale primary" in failing.refused("pg1"), DEADLINE_S, "pg1's port says that it is stale")
    assert accepted == []
    assert old.query("SELECT count(*) FROM written") == [(0,)]
    assert registered.primary() == ("pg2", 2)
    assert registered.read("members/pg1")["timeline"] == 1
    refusal = failing.refused("pg1")
    assert refusal.startswith("pg1 is a stale primary: it is on timeline 1, and pg2 is primary on timeline 2\n")
    # psycopg asks for encryption first, and has to see the same.
    with pytest.raises(psycopg.OperationalError, match=r"FATAL:.*stale primary"):
        psycopg.connect(failing.agents["pg1"].dsn(), connect_timeout=5)

    cluster.rejoin("pg1")
    registered.wait_for_role("pg1", "replica")
    wait_for(lambda: failing.refused("pg1") == "", DEADLINE_S, "pg1 is relayed to again")
    wait_for(lambda: registered.read("members/pg1")["timeline"] == 2, DEADLINE_S, "pg1 follows timeline 2")


def test_a_primary_that_is_overtaken_is_cut_off_and_stays_so_when_etcd_forgets(failing: Failing) -> None:
    """pg2 is promoted behind the back of a pg1 that goes on: two primaries, and one of them is stale.

    Then etcd is wiped while the rightful one's agent is frozen. The stale one must not use the gap: what was recorded
    once is remembered by its agent.
    """
    registered = failing.registered
    with psycopg.connect(failing.agents["pg1"].dsn(), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        failing.cluster.server("pg2").promote()
        registered.wait_for_primary("pg2", 2, 5)
        registered.wait_for_role("pg1", "stale-primary", 5)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("INSERT INTO kept VALUES (1)")
    assert "stale primary" in failing.refused("pg1")
    assert failing.ask("pg2") is False

    failing.agents["pg2"].pause()
    failing.etcd.stop()
    failing.etcd.wipe()
    failing.etcd.start()
    registered.wait_for_role("pg1", "stale-primary")
    assert registered.primary() == (None, None)
    assert "stale primary" in failing.refused("pg1")
    failing.agents["pg2"].resume()
    registered.wait_for_primary("pg2", 2)
    registered.wait_for_role("pg2", "primary")
    registered.wait_for_role("pg1", "stale-primary")


def test_an_etcd_that_restarts_changes_nothing(healed: Failing) -> None:
    keys = {key for key in healed.registered.stored() if not key.startswith("stats/")}
    with psycopg.connect(healed.agents["pg1"].dsn(), autocommit=True) as connection:
        healed.etcd.servers[0].kill()
        assert healed.ask("pg2") is True
        healed.agents["pg1"].wait_for_log("registry.lost")
        healed.etcd.start()
        wait_for(lambda: keys <= set(healed.registered.stored()), DEADLINE_S, "all keys are there again")
        connection.execute("SELECT 1")
    healed.registered.wait_for_primary("pg1", 1)


def test_without_a_registry_a_primary_goes_on_only_while_all_others_answer(healed: Failing) -> None:
    healed.etcd.servers[0].kill()
    healed.agents["pg1"].wait_for_log("registry.lost")
    # Its lease has ended, and pg2 answers as a replica on the same timeline.
    for _ in range(3):
        assert healed.ask("pg1") is False
    healed.cluster.server("pg2").stop()
    wait_for(lambda: "does not answer" in healed.refused("pg1"), DEADLINE_S, "pg1 is fenced")
    healed.cluster.server("pg2").start()
    wait_for(lambda: healed.refused("pg1") == "", DEADLINE_S, "pg1 is relayed to again")
    healed.etcd.start()
    healed.registered.wait_for_role("pg1", "primary")


def test_what_agents_do_without_a_registry_if_they_are_told(healed: Failing, tmp_path: Path) -> None:
    """One goes on though pg2 does not answer, one stops; whoever stops says so to a command, once."""
    told = tmp_path / "told"
    command = f'test -e {told} || {{ touch {told}; echo "not yet"; exit 3; }}; '
    command += f'echo "$PGAMB_NODE: $PGAMB_FENCE_REASON" >> {told}'
    policies = {"serve": ["--on-registry-loss", "serve"], "fence": ["--on-registry-loss", "fence"]}
    agents = {
        policy: AgentProcess(
            healed.cluster.server("pg1"),
            healed.cluster.registry_url,
            tmp_path,
            service=policy,
            options=["--ttl", "2", "--probe-interval", "0.5", "--fence-command", command, *options],
        )
        for policy, options in policies.items()
    }
    try:
        for agent in agents.values():
            agent.start()
            agent.wait_for_log("server.port.relaying")
        healed.etcd.servers[0].kill()
        agents["fence"].wait_for_log("server.port.refusing")
        # A command that fails is run again.
        agents["fence"].wait_for_log("server.fence-failed")
        assert "not yet" in agents["fence"].text()
        agents["fence"].wait_for_log("server.fenced")
        assert told.read_text() == "pg1: pg1 may not be the primary: the registry is out of reach\n"
        with pytest.raises(asyncpg.CannotConnectNowError, match="registry is out of reach"):
            query(agents["fence"].dsn(), "SELECT 1")
        assert query(agents["serve"].dsn(), "SELECT 1") == [(1,)]
        healed.etcd.start()
        agents["fence"].wait_for_log("server.port.relaying", count=2)
        assert query(agents["fence"].dsn(), "SELECT 1") == [(1,)]
        assert "server.fence" not in agents["serve"].text()
        assert told.read_text().count("\n") == 1
    finally:
        for agent in agents.values():
            agent.kill()
    healed.registered.wait_for_role("pg1", "primary")
    wait_for(lambda: healed.refused("pg1") == "", DEADLINE_S, "pg1 is relayed to again")


def test_a_renamed_agent_takes_primary_over_once_the_old_one_is_gone(healed: Failing, tmp_path: Path) -> None:
    """The node that `primary` names is gone, and nobody answers where it was: only then its timeline is claimed."""

    def replace(old: str, new: str) -> None:
        agent = AgentProcess(
            healed.cluster.server("pg1"),
            healed.cluster.registry_url,
            tmp_path,
            service="db",
            options=["--node", new, "--ttl", "2"],
        )
        previous, healed.agents[new] = healed.agents[old], agent
        agent.start()
        agent.wait_for_log(f"{old} is the recorded primary on timeline 1 too, and is one")
        assert "may not be the primary" in healed.refused(new)
        previous.kill()
        healed.registered.wait_for_primary(new, 1)
        wait_for(lambda: healed.refused(new) == "", DEADLINE_S, f"{new} is relayed to")

    replace("pg1", "renamed")
    replace("renamed", "pg1")
