"""The metrics of `pgamb client`, in Prometheus's words.

Nothing is counted here: a scrape reads a snapshot of what is counted anyway, so that a query costs nothing more for
being observed. `METRICS` is the whole list; the table in docs/operations.md is tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from pgamb.observe.snapshot import PoolUse, Snapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Samples = Iterable[tuple[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: a counter if its name ends in `_total`, else a gauge. `read` gives label values and a number."""

    name: str
    labels: tuple[str, ...]
    help: str
    read: Callable[[Snapshot], Samples]

    @property
    def kind(self) -> str:
        return "counter" if self.name.endswith("_total") else "gauge"

    def family(self, snapshot: Snapshot) -> Family:
        """Make what prometheus_client writes out; samples with equal labels are added up."""
        # A pool that is replaced, and lives until its last transaction ends, has the labels of the one that follows
        # it: a series that occurs twice would make Prometheus refuse the whole answer.
        values: dict[tuple[str, ...], float] = {}
        for labels, value in self.read(snapshot):
            values[labels] = values.get(labels, 0) + value
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = kind(self.name, self.help, labels=self.labels)
        for labels, value in values.items():
            family.add_metric(labels, value)
        return family


class Exposition:
    """Writes snapshots as the text that Prometheus reads. May be used by several threads at once."""

    def __init__(self) -> None:
        self._process = ProcessCollector(namespace="pgamb", registry=None)

    def render(self, snapshot: Snapshot) -> bytes:
        """Return the text, in the format of CONTENT_TYPE."""
        registry = CollectorRegistry()
        registry.register(_SnapshotCollector(snapshot))
        registry.register(self._process)
        return generate_latest(registry)


class _SnapshotCollector(Collector):
    """Gives prometheus_client what a snapshot says."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            yield metric.family(self._snapshot)


def _one(read: Callable[[Snapshot], float | None]) -> Callable[[Snapshot], Samples]:
    """Read a metric without labels; None is left out."""

    def samples(snapshot: Snapshot) -> Samples:
        value = read(snapshot)
        return [] if value is None else [((), value)]

    return samples


def _by_reason(read: Callable[[Snapshot], dict[str, int]]) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: [((reason,), count) for reason, count in sorted(read(snapshot).items())]


def _pools(read: Callable[[PoolUse], float]) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: [((p.member, p.role, p.database, p.user), read(p)) for p in snapshot.pools]


def _backends(snapshot: Snapshot) -> Samples:
    for pool in snapshot.pools:
        for state, count in (("active", pool.active), ("idle", pool.idle), ("opening", pool.opening)):
            yield (pool.member, pool.role, pool.database, pool.user, state), count


_POOL = ("member", "role", "database", "user")

METRICS: tuple[Metric, ...] = (
    Metric(
        "pgamb_info",
        ("version", "service"),
        "Always 1; says which pgamb this is.",
        lambda s: [((s.version, s.service), 1)],
    ),
    Metric(
        "pgamb_ready", (), "1 if new applications can be served, as /readyz says.", _one(lambda s: s.readiness.ready)
    ),
    Metric("pgamb_draining", (), "1 after SIGTERM, until the last application has left.", _one(lambda s: s.draining)),
    # The registry and what it tells.
    Metric("pgamb_registry_connected", (), "1 while the registry answers.", _one(lambda s: s.registry.connected)),
    Metric(
        "pgamb_topology_age_seconds",
        (),
        "Seconds since the registry last confirmed the topology; missing before the first time.",
        _one(lambda s: s.registry.age_s),
    ),
    Metric(
        "pgamb_primary_known",
        (),
        "1 if there is exactly one primary that writes can go to.",
        _one(lambda s: s.primary is not None),
    ),
    Metric(
        "pgamb_member_info",
        ("member", "role", "state"),
        "Always 1, for each member in the topology.",
        lambda s: [((m.node, m.role, m.state), 1) for m in s.members],
    ),
    Metric(
        "pgamb_member_up",
        ("member",),
        "0 while this process cannot open backends on the member.",
        lambda s: [((m.node,), m.down_s is None) for m in s.members],
    ),
    Metric(
        "pgamb_member_backends",
        ("member",),
        "Connections to the member that are open or being opened, over all pools.",
        lambda s: [((m.node,), m.backends) for m in s.members],
    ),
    Metric(
        "pgamb_member_backends_limit",
        ("member",),
        "Connections that the member's max_connections leaves; missing until it was asked.",
        lambda s: [((m.node,), m.backends_limit) for m in s.members if m.backends_limit is not None],
    ),
    Metric(
        "pgamb_member_walsenders",
        ("member",),
        "Replication connections to the member, which its max_wal_senders bounds; not among its backends.",
        lambda s: [((m.node,), m.walsenders) for m in s.members],
    ),
    Metric(
        "pgamb_backends_opened_total",
        ("member",),
        "Backends opened.",
        lambda s: [((m.node,), m.opened) for m in s.members],
    ),
    Metric(
        "pgamb_backends_refused_total",
        ("member",),
        "Attempts to open a backend that failed, for whatever reason.",
        lambda s: [((m.node,), m.refused) for m in s.members],
    ),
    Metric(
        "pgamb_backends_lost_total",
        ("member",),
        "Backends that the member closed, or that broke the protocol.",
        lambda s: [((m.node,), m.lost) for m in s.members],
    ),
    # Replicas.
    Metric(
        "pgamb_replica_usable",
        ("member",),
        "0 while a replica is not read from: no answer, another timeline, or beyond --max-lag.",
        lambda s: [((m.node,), not m.unread_because) for m in s.members if m.role == "replica"],
    ),
    Metric(
        "pgamb_replica_lag_seconds",
        ("member",),
        "How long ago the primary was where the replica is, at its last answer.",
        lambda s: [((m.node,), m.lag_s) for m in s.members if m.lag_s is not None],
    ),
    Metric(
        "pgamb_replica_lag_bytes",
        ("member",),
        "WAL that the primary had and the replica had not replayed, at its last answer.",
        lambda s: [((m.node,), m.lag_bytes) for m in s.members if m.lag_bytes is not None],
    ),
    Metric(
        "pgamb_freshness_questions_total",
        (),
        "Questions put to members about their position in the WAL.",
        _one(lambda s: s.freshness.questions),
    ),
    Metric("pgamb_replica_waiting", (), "Reads that wait for a replica.", _one(lambda s: s.freshness.waiting)),
    Metric("pgamb_replica_waits_total", (), "Reads that waited for a replica.", _one(lambda s: s.freshness.waits)),
    Metric(
        "pgamb_replica_waits_given_up_total",
        (),
        "Reads that waited for a replica in vain, for --replica-wait.",
        _one(lambda s: s.freshness.waits_ended_by_timeout),
    ),
    # Pools.
    Metric("pgamb_pool_backends", (*_POOL, "state"), "Backends of the pool: active, idle, or being opened.", _backends),
    Metric("pgamb_pool_backends_limit", _POOL, "The most backends that the pool may have.", _pools(lambda p: p.limit)),
    Metric("pgamb_pool_waiting", _POOL, "Sessions that wait for a backend of the pool.", _pools(lambda p: p.waiting)),
    Metric(
        "pgamb_pool_longest_wait_seconds",
        _POOL,
        "How long the first in the queue has been waiting.",
        _pools(lambda p: p.longest_wait_s),
    ),
    Metric(
        "pgamb_pool_longest_held_seconds",
        _POOL,
        "For how long one session has had the same backend, at most.",
        _pools(lambda p: p.longest_held_s),
    ),
    Metric("pgamb_pool_checkouts_total", _POOL, "Times a session was given a backend.", _pools(lambda p: p.checkouts)),
    Metric("pgamb_pool_waits_total", _POOL, "Times a session had to wait for one.", _pools(lambda p: p.waits)),
    Metric(
        "pgamb_pool_units_total",
        _POOL,
        "Units of work that PostgreSQL has ended with ReadyForQuery: queries, or batches up to Sync.",
        _pools(lambda p: p.units),
    ),
    Metric(
        "pgamb_pool_received_bytes_total",
        _POOL,
        "Bytes received from PostgreSQL, deciphered.",
        _pools(lambda p: p.received_bytes),
    ),
    Metric(
        "pgamb_pool_forwarded_bytes_total",
        _POOL,
        "Bytes of those that went on to applications.",
        _pools(lambda p: p.sent_bytes),
    ),
    # Those who wait for a primary.
    Metric(
        "pgamb_held_sessions",
        ("database", "user"),
        "Sessions that wait for a primary.",
        lambda s: [((h.database, h.user), h.sessions) for h in s.held],
    ),
    Metric(
        "pgamb_held_longest_seconds",
        ("database", "user"),
        "How long the first of them has been waiting.",
        lambda s: [((h.database, h.user), h.longest_s) for h in s.held],
    ),
    Metric(
        "pgamb_gave_up_total",
        ("reason",),
        "Statements that waited in vain, by SQLSTATE: 53300 for a backend, 57P03 for a member.",
        _by_reason(lambda s: s.gave_up),
    ),
    # Applications.
    Metric(
        "pgamb_sessions",
        ("state",),
        "Logged-in applications, by what they are doing.",
        lambda s: [((state,), count) for state, count in s.sessions.by_state.items()],
    ),
    Metric(
        "pgamb_sessions_limit",
        (),
        "The most that may be logged in (--max-connections).",
        _one(lambda s: s.sessions.limit),
    ),
    Metric(
        "pgamb_sessions_pinned",
        ("reason",),
        "Sessions that keep their backend between transactions; one with two reasons counts twice.",
        _by_reason(lambda s: s.sessions.pinned_by),
    ),
    Metric(
        "pgamb_routes_total",
        ("role",),
        "Units of work by what they were sent to.",
        lambda s: [(("primary",), s.routes.to_primary), (("replica",), s.routes.to_replica)],
    ),
    Metric(
        "pgamb_routes_by_reason_total",
        ("reason",),
        "Units of work by why they went where they went; docs/routing.md has the words.",
        _by_reason(lambda s: s.routes.by_reason),
    ),
    Metric(
        "pgamb_reads_repeated_total",
        ("reason",),
        "Reads asked again: a replica refused them, replay cancelled them (conflict), or their member was lost.",
        _by_reason(lambda s: s.routes.repeated),
    ),
    Metric("pgamb_logins_under_way", (), "Connections that are logging in.", _one(lambda s: s.logins.under_way)),
    Metric("pgamb_logins_accepted_total", (), "Applications that logged in.", _one(lambda s: s.logins.accepted)),
    Metric(
        "pgamb_logins_refused_total",
        ("reason",),
        "Applications that were refused, by SQLSTATE.",
        _by_reason(lambda s: s.logins.refused),
    ),
    Metric(
        "pgamb_logins_timed_out_total",
        (),
        "Connections closed because their log-in took longer than --login-timeout.",
        _one(lambda s: s.logins.timed_out),
    ),
    Metric(
        "pgamb_logins_left_total",
        (),
        "Connections that went away before they had logged in; port checks are among them.",
        _one(lambda s: s.logins.left),
    ),
    Metric("pgamb_cancel_requests_total", (), "Cancel requests received.", _one(lambda s: s.logins.cancel_requests)),
)
