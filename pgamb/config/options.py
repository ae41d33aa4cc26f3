"""The options of each command: name, type, default and help of every one, and the only home of defaults.

A field's name is the option's: `pool_timeout_s` is `--pool-timeout`, `PGAMB_POOL_TIMEOUT` and, in TOML, `pool_timeout`.
`pgamb.config.table` derives the rest: flags, variables, TOML keys, help and docs/configuration.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

import msgspec

from pgamb.config import choices, kinds
from pgamb.config.listen import ListenAddress
from pgamb.observe.logs import mask_dsn
from pgamb.registry.model import Address, OnLoss


@dataclass(frozen=True, slots=True)
class Option:
    """What is said about a field besides its type and default. `secret` values are masked, and may come from a file."""

    group: str
    kind: kinds.Kind
    help: str
    secret: bool = False


REGISTRY = "Registry"
LISTENING = "Applications"
LOGIN = "Log-in"
POOLING = "Pooling"
ROUTING = "Routing"
MEMBERS = "Members"
EXPOSING = "Exposing"
TLS = "TLS"
OBSERVING = "Logs and status"
# The order in which help and documentation show them.
GROUPS = (REGISTRY, LISTENING, LOGIN, POOLING, ROUTING, MEMBERS, EXPOSING, TLS, OBSERVING)

_DSN = kinds.Url(("postgresql", "postgres"), "postgresql://USER:PASSWORD@HOST:5432/postgres", "DSN")
_REGISTRY = kinds.Url(
    ("etcd", "etcds", "static", "patroni+etcd", "patroni+etcds"),
    "etcd://127.0.0.1:2379 or static://HOST:5432,HOST2:5432",
)
_DAY_S = 86400.0

# Those that `pgamb explain` shares with `pgamb client`.
MaxLag: TypeAlias = Annotated[
    float, Option(ROUTING, kinds.Seconds(0.001, _DAY_S), "Replicas that are further behind are not read from.")
]
MaxLagBytes: TypeAlias = Annotated[
    int, Option(ROUTING, kinds.Whole(1, 1 << 50), "Replicas that are more bytes of WAL behind are not read from.")
]
TransactionsMode: TypeAlias = Annotated[
    choices.Transactions,
    Option(
        ROUTING,
        kinds.Choice(choices.TRANSACTIONS),
        "lazy: BEGIN is sent when a statement needs it, and reads before that go to replicas. exact: at once.",
    ),
]
OwnZone: TypeAlias = Annotated[
    str, Option(MEMBERS, kinds.Name(), "Our zone: replicas in the same one are read from first.")
]


class RegistryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How any command finds the members of a service."""

    def __repr__(self) -> str:
        return mask_dsn(super().__repr__())

    registry: Annotated[
        str,
        Option(
            REGISTRY,
            _REGISTRY,
            "Where members are registered: etcd://HOST:2379[,HOST2:2379], or, for a Patroni cluster, "
            "patroni+etcd://HOST:2379/NAMESPACE/SCOPE (etcds:// and patroni+etcds:// with TLS), or "
            "static://HOST:5432,HOST2:5432, which asks the servers themselves.",
            secret=True,
        ),
    ]
    service: Annotated[str, Option(REGISTRY, kinds.Name(), "The service: all members of one PostgreSQL cluster.")] = (
        "db"
    )
    registry_ca: Annotated[
        str | None,
        Option(REGISTRY, kinds.File(), "CA certificates (PEM) that the registry's certificate is checked with."),
    ] = None
    registry_cert: Annotated[
        str | None, Option(REGISTRY, kinds.File(), "Our certificate (PEM) towards the registry.")
    ] = None
    registry_key: Annotated[str | None, Option(REGISTRY, kinds.File(), "The key of --registry-cert (PEM).")] = None


class ProcessOptions(RegistryOptions, frozen=True, kw_only=True):
    """What every command that keeps running has besides: how it speaks of itself, on stderr."""

    log_format: Annotated[
        choices.LogFormat,
        Option(OBSERVING, kinds.Choice(choices.LOG_FORMATS), "One line an event: key=value text, or JSON."),
    ] = "text"
    log_level: Annotated[
        choices.LogLevel,
        Option(OBSERVING, kinds.Choice(choices.LOG_LEVELS), "The least important events that are logged."),
    ] = "info"


class ClientOptions(ProcessOptions, frozen=True, kw_only=True):
    """`pgamb client`: PostgreSQL to applications."""

    listen: Annotated[
        tuple[ListenAddress, ...],
        Option(
            LISTENING,
            kinds.ListenList(),
            "Where applications connect: 5432 (this machine, IPv4 and IPv6), :5432 (all interfaces), HOST:PORT, "
            "[::1]:5432, or a unix socket folder, /run/pgamb or /run/pgamb:5432. Repeatable.",
        ),
    ] = (ListenAddress("localhost", 5432),)
    max_connections: Annotated[
        int, Option(LISTENING, kinds.Whole(1, 1_000_000), "Applications' connections at one time.")
    ] = 10_000
    login_timeout_s: Annotated[
        float, Option(LISTENING, kinds.Seconds(0.1, 3600), "How long an application may take to log in.")
    ] = 60.0
    takeover: Annotated[
        bool,
        Option(
            LISTENING,
            kinds.Switch(),
            "Take the place, and the listening sockets, of the process that serves at one of these addresses, once we "
            "are ready; it lets its transactions end. Where there is none, start as without.",
        ),
    ] = False
    runtime_folder: Annotated[
        str,
        Option(
            LISTENING,
            kinds.Folder(),
            "Where a process that serves can be found by its successor: RUNTIME_DIRECTORY by default (systemd's), else "
            "XDG_RUNTIME_DIR/pgamb, else /tmp/pgamb-UID.",
        ),
    ] = ""
    drain_timeout_s: Annotated[
        float,
        Option(
            LISTENING, kinds.Seconds(0, _DAY_S), "How long running transactions may take to end when we are to stop."
        ),
    ] = 10.0

    auth: Annotated[
        choices.Auth,
        Option(
            LOGIN,
            kinds.Choice(choices.AUTH_WORDS),
            "How applications log in. scram: against the verifier that PostgreSQL holds (needs --auth-dsn or "
            "--auth-file). password: sent over loopback, unix socket or TLS only, and checked by PostgreSQL. "
            "trust: not at all. auto: scram where a look-up is configured, else password.",
        ),
    ] = "auto"
    auth_dsn: Annotated[
        str | None,
        Option(
            LOGIN,
            _DSN,
            "A log-in that may read pg_authid, to look up verifiers with; several hosts may be given.",
            secret=True,
        ),
    ] = None
    auth_file: Annotated[
        str | None, Option(LOGIN, kinds.File(), 'Users and verifiers in PgBouncer\'s form: "user" "SCRAM-SHA-256$...".')
    ] = None
    trust_remote: Annotated[
        bool, Option(LOGIN, kinds.Switch(), "Allow --auth trust also where other machines can connect.")
    ] = False

    pool_mode: Annotated[
        choices.PoolMode,
        Option(
            POOLING,
            kinds.Choice(choices.POOL_MODES),
            "When a backend goes back to its pool: after a transaction or a session.",
        ),
    ] = "transaction"
    pool_size: Annotated[int, Option(POOLING, kinds.Whole(1, 10_000), "Backends per member, database and user.")] = 20
    pool_timeout_s: Annotated[
        float, Option(POOLING, kinds.Seconds(0, _DAY_S), "How long a statement waits for a free backend.")
    ] = 30.0
    hold_timeout_s: Annotated[
        float, Option(POOLING, kinds.Seconds(0, _DAY_S), "How long new work is held while there is no primary.")
    ] = 30.0
    idle_timeout_s: Annotated[
        float,
        Option(POOLING, kinds.Seconds(1, 30 * _DAY_S), "How long a pooled backend may be idle before it is closed."),
    ] = 600.0
    backend_lifetime_s: Annotated[
        float,
        Option(POOLING, kinds.Seconds(1, 30 * _DAY_S), "The age at which a backend is closed when next returned."),
    ] = 3600.0
    prepared_statements: Annotated[
        int, Option(POOLING, kinds.Whole(1, 1_000_000), "Prepared statements kept per backend.")
    ] = 500

    consistency: Annotated[
        choices.Consistency,
        Option(
            ROUTING,
            kinds.Choice(choices.CONSISTENCIES),
            "What a read on a replica must not be older than. ambassador: any commit through this process. session: "
            "the session's own commits. eventual: nothing. The first two never read older than the session has read.",
        ),
    ] = "ambassador"
    replica_wait_s: Annotated[
        float,
        Option(
            ROUTING,
            kinds.Seconds(0, 60),
            "How long a read waits for a replica that is about to be new enough, before the primary serves it.",
        ),
    ] = 0.02
    max_lag_s: MaxLag = 60.0
    max_lag_bytes: MaxLagBytes = 1 << 30
    transactions: TransactionsMode = "lazy"

    on_registry_loss: Annotated[
        OnLoss,
        Option(
            MEMBERS,
            kinds.Choice(choices.ON_REGISTRY_LOSS),
            "While the registry is out of reach. failsafe and serve: go on with what is known, ask the members "
            "themselves, and follow a primary with a higher timeline. fence: reads go on, writes are held.",
        ),
    ] = "failsafe"
    connect_timeout_s: Annotated[
        float, Option(MEMBERS, kinds.Seconds(0.1, 3600), "How long connecting and logging in to a member may take.")
    ] = 5.0
    silence_timeout_s: Annotated[
        float,
        Option(
            MEMBERS,
            kinds.Seconds(1, 3600),
            "How long a member that owes an answer may say nothing, nor that it is there when it is asked that, before "
            "its connections are given up.",
        ),
    ] = 10.0
    zone: OwnZone = ""

    tls_cert: Annotated[
        str | None, Option(TLS, kinds.File(), "Certificate (PEM) towards applications; with it they may use TLS.")
    ] = None
    tls_key: Annotated[str | None, Option(TLS, kinds.File(), "The key of --tls-cert (PEM).")] = None
    tls_required: Annotated[
        bool, Option(TLS, kinds.Switch(), "Refuse applications that connect over TCP without TLS.")
    ] = False
    server_tls: Annotated[
        choices.SslMode, Option(TLS, kinds.Choice(choices.SSL_MODES), "TLS towards members: libpq's sslmode.")
    ] = "prefer"
    server_ca: Annotated[
        str | None, Option(TLS, kinds.File(), "CA certificates (PEM) that members' certificates are checked with.")
    ] = None
    server_cert: Annotated[str | None, Option(TLS, kinds.File(), "Our certificate (PEM) towards members.")] = None
    server_key: Annotated[str | None, Option(TLS, kinds.File(), "The key of --server-cert (PEM).")] = None

    status_listen: Annotated[
        ListenAddress | None,
        Option(
            OBSERVING, kinds.Listen(8432), "Where the status page and metrics are served over HTTP; nowhere by default."
        ),
    ] = None


class ServerOptions(ProcessOptions, frozen=True, kw_only=True):
    """`pgamb server`: the agent beside one PostgreSQL."""

    registry: Annotated[
        str,
        Option(
            REGISTRY,
            kinds.Url(("etcd", "etcds", "static", "patroni+etcd", "patroni+etcds"), "etcd://127.0.0.1:2379"),
            "Where to register: etcd://HOST:2379[,HOST2:2379], or etcds:// with TLS.",
            secret=True,
        ),
    ]
    dsn: Annotated[
        str,
        Option(
            MEMBERS,
            _DSN,
            "The PostgreSQL beside us, with a log-in that has pg_monitor.",
            secret=True,
        ),
    ]
    node: Annotated[
        str | None,
        Option(MEMBERS, kinds.Name(), "This member's name; by default its cluster_name, else HOSTNAME-PORT."),
    ] = None
    zone: Annotated[str, Option(MEMBERS, kinds.Name(), "The zone this member is in.")] = ""
    weight: Annotated[int, Option(MEMBERS, kinds.Whole(1, 1000), "This member's share of reads.")] = 1
    probe_interval_s: Annotated[
        float, Option(MEMBERS, kinds.Seconds(0.05, 3600), "How often PostgreSQL is asked for its role and positions.")
    ] = 1.0
    ttl_s: Annotated[
        int, Option(REGISTRY, kinds.Whole(2, 3600), "Seconds after which a silent agent's registration ends.")
    ] = 5
    on_registry_loss: Annotated[
        OnLoss,
        Option(
            MEMBERS,
            kinds.Choice(choices.ON_REGISTRY_LOSS),
            "What a primary does while the registry is out of reach. failsafe: goes on while every other member "
            "answers and none is ahead. serve: goes on unless one is ahead. fence: stops relaying.",
        ),
    ] = "failsafe"
    fence_command: Annotated[
        str | None,
        Option(
            MEMBERS,
            kinds.Text(),
            "A shell command that keeps everybody from writing to this PostgreSQL; it is run when the agent of a "
            "primary has to stop relaying. PGAMB_NODE and PGAMB_FENCE_REASON tell it more.",
        ),
    ] = None
    listen: Annotated[
        ListenAddress | None,
        Option(EXPOSING, kinds.Listen(), "Expose PostgreSQL here; without it, its own address is announced."),
    ] = None
    advertise: Annotated[
        Address | None,
        Option(EXPOSING, kinds.HostPort(), "The address to announce, where it is not the one of --listen or --dsn."),
    ] = None
    drain_timeout_s: Annotated[
        float,
        Option(
            EXPOSING,
            kinds.Seconds(0, _DAY_S),
            "How long exposed connections may take to end when we are to stop; those of `pgamb client` end themselves.",
        ),
    ] = 10.0


class DrainOptions(RegistryOptions, frozen=True, kw_only=True):
    """`pgamb server drain`; registry, service, dsn and node are to be those of the agent."""

    dsn: Annotated[
        str,
        Option(MEMBERS, _DSN, "The PostgreSQL that is to be drained, with a log-in that has pg_monitor.", secret=True),
    ]
    node: Annotated[
        str | None,
        Option(MEMBERS, kinds.Name(), "The member's name; by default its cluster_name, else HOSTNAME-PORT."),
    ] = None
    drain_timeout_s: Annotated[
        float, Option(MEMBERS, kinds.Seconds(0, 3600), "How long to wait for running transactions to end.")
    ] = 10.0
    drain_hold_s: Annotated[
        int, Option(MEMBERS, kinds.Whole(1, 86400), "Seconds after which new work goes there again by itself.")
    ] = 60


class StatusOptions(RegistryOptions, frozen=True, kw_only=True):
    """`pgamb status`."""

    timeout_s: Annotated[float, Option(REGISTRY, kinds.Seconds(0.1, 3600), "How long to wait for the registry.")] = 5.0
    auth_dsn: Annotated[
        str | None,
        Option(
            LOGIN,
            _DSN,
            "With static://, the log-in that servers are asked by; without it, PGUSER, PGPASSWORD and so on count.",
            secret=True,
        ),
    ] = None


class ExplainOptions(StatusOptions, frozen=True, kw_only=True):
    """`pgamb explain`; its options of routing are to be those of the `pgamb client` that is asked about."""

    registry: Annotated[
        str,
        Option(
            REGISTRY,
            _REGISTRY,
            "With it, also tell where the statement would go now: etcd://HOST:2379[,HOST2:2379], or static://HOST:5432.",
            secret=True,
        ),
    ] = ""
    max_lag_s: MaxLag = 60.0
    max_lag_bytes: MaxLagBytes = 1 << 30
    transactions: TransactionsMode = "lazy"
    zone: OwnZone = ""
