"""What can be done to a running demo, so that anyone can watch their own application survive it.

Each action ends when the cluster is what it says; what the application makes of it is for the application to show.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import MONITOR
from pgamb.demo.process import clean_environment, run_to_end
from pgamb.errors import ProcessFailed

# What a failover manager takes to notice that a primary is gone.
NOTICE_S = 1.0

Say = Callable[[str], object]


def kill_replica(cluster: Cluster, say: Say) -> None:
    """Kill a replica and all its sessions, as a power cut would."""
    replicas = cluster.replicas
    if not replicas:
        raise ProcessFailed("no replica is running", hint="`pgamb demo mend` starts what was killed")
    replica = replicas[-1]
    replica.kill()
    say(f"{replica.name} was killed: its reads go elsewhere. `pgamb demo mend` starts it again.")


def kill_primary(cluster: Cluster, say: Say) -> None:
    """Kill the primary, and promote its newest replica a second later."""
    old = cluster.primary
    if not cluster.replicas:
        raise ProcessFailed("there is no replica to promote", hint="`pgamb demo mend` starts what was killed")
    old.kill()
    say(f"{old.name}, the primary, was killed: writes are held.")
    time.sleep(NOTICE_S)
    new = cluster.newest_replica()
    cluster.promote(new.name)
    say(f"{new.name} is primary. `pgamb demo mend` brings {old.name} back as its replica.")


def switchover(cluster: Cluster, say: Say) -> None:
    """Drain the primary, stop it in order, promote a replica, and let the old primary follow that."""
    old = cluster.primary
    if not cluster.replicas:
        raise ProcessFailed("there is no replica to promote", hint="`pgamb demo mend` starts what was killed")
    drain(cluster, old.name)
    say(f"{old.name} is drained: nothing new goes there.")
    old.stop()
    new = cluster.newest_replica()
    cluster.promote(new.name)
    say(f"{new.name} is primary.")
    old.follow(new)
    old.start()
    say(f"{old.name} follows it.")


def stop_etcd(cluster: Cluster, say: Say) -> None:
    """Stop etcd: everything goes on with what is known."""
    if cluster.etcd is None:
        raise ProcessFailed("this demo has no etcd")
    cluster.etcd.stop()
    say("etcd is stopped: the last known topology is used. `pgamb demo start-etcd` starts it again.")


def start_etcd(cluster: Cluster, say: Say) -> None:
    """Start etcd again, with all that it held."""
    if cluster.etcd is None:
        raise ProcessFailed("this demo has no etcd")
    for server in cluster.etcd.servers:
        if not server.process.running:
            server.start()
    say("etcd runs.")


def mend(cluster: Cluster, say: Say) -> None:
    """Start whatever does not run; a server that was primary once follows today's."""
    for server in cluster.servers:
        if server.process.running:
            continue
        if server.is_standby:
            server.start()
        elif any(other.process.running and not other.is_standby for other in cluster.servers):
            cluster.rejoin(server.name)
        else:
            server.start()
        say(f"{server.name} runs again.")
    if cluster.etcd is not None and not all(server.process.running for server in cluster.etcd.servers):
        start_etcd(cluster, say)
    say("Everything runs.")


def drain(cluster: Cluster, node: str) -> None:
    """Let the work of a member end, as an operator would. Raises ProcessFailed if it does not."""
    server = cluster.server(node)
    run_to_end(
        f"draining {node}",
        [
            *(sys.executable, "-m", "pgamb", "server", "drain"),
            *("--registry", cluster.registry_url, "--service", cluster.service, "--node", node),
        ],
        log=cluster.logs / f"{node}-drain.log",
        env={**clean_environment(), "PGAMB_DSN": server.dsn(user=MONITOR)},
    )


Action = Callable[[Cluster, Say], None]

ACTIONS: dict[str, Action] = {
    action.__name__.replace("_", "-"): action
    for action in (kill_replica, kill_primary, switchover, stop_etcd, start_etcd, mend)
}
