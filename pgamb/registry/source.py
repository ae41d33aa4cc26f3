"""Which registry a URL names, and the one seam that a proxy reads it by.

    etcd://[user:password@]host:2379,host2:2379[/prefix][?ca=FILE&cert=FILE&key=FILE]
    etcds://...                                    the same, over TLS (as any of ca, cert, key says too)
    patroni+etcd://...[/namespace]/scope           the keys of a Patroni cluster; patroni+etcds:// over TLS
    static://host:5432,host2:5432                  no registry: the servers are asked

grpc is imported only when an etcd is opened: it is large, and `static://` does without it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol
from urllib.parse import unquote

import msgspec

from pgamb.errors import ConfigError
from pgamb.registry.announcer import Announcer
from pgamb.registry.drain import Drains
from pgamb.registry.etcd.security import Credentials, Tls
from pgamb.registry.keys import DEFAULT_PREFIX, check_name
from pgamb.registry.model import DEFAULT_PORT, Address, RegistryStatus, Stats, Topology, parse_address
from pgamb.registry.patroni import DEFAULT_NAMESPACE
from pgamb.registry.patroni_watcher import PatroniRegistry
from pgamb.registry.static import Prober, StaticRegistry
from pgamb.registry.store import Store
from pgamb.registry.watcher import EtcdRegistry

ETCD_PORT = 2379
FORMS = (
    "etcd://host:2379,host2:2379 (etcds:// for TLS), patroni+etcd://host:2379,host2:2379/namespace/scope "
    "(patroni+etcds:// for TLS) or static://host:5432,host2:5432"
)
# A call to one endpoint; an agent's are shorter, so that two hung endpoints of three do not cost it its lease.
CALL_TIMEOUT_S = 2.0


class Registry(Protocol):
    """Where a proxy learns the topology of one service."""

    def topologies(self) -> AsyncGenerator[Topology, None]:
        """Yield the newest snapshot as soon as one is known, then again on every change.

        Does not end while the registry is away: the last snapshot stays true until a newer one is known.
        """

    async def stats(self) -> tuple[Stats, ...]:
        """Read once what the members last said of their WAL positions and load; raises RegistryError."""

    def refresh(self) -> None:
        """Look again soon, without waiting for the ordinary time; to be called when a member was lost."""

    def status(self) -> RegistryStatus: ...

    async def close(self) -> None: ...


class EtcdSource(msgspec.Struct, frozen=True):
    """An etcd, as a URL names it; its text has no password."""

    endpoints: tuple[Address, ...]
    prefix: str = DEFAULT_PREFIX
    credentials: Credentials | None = None
    tls: Tls | None = None

    def __str__(self) -> str:
        user = "" if self.credentials is None else f"{self.credentials.user}@"
        prefix = "" if self.prefix == DEFAULT_PREFIX else self.prefix
        return f"etcd{'s' if self.tls else ''}://{user}{','.join(map(str, self.endpoints))}{prefix}"


class PatroniSource(msgspec.Struct, frozen=True):
    """A Patroni cluster; the etcd's prefix is its namespace and scope."""

    etcd: EtcdSource

    def __str__(self) -> str:
        return f"patroni+{self.etcd}"


class StaticSource(msgspec.Struct, frozen=True):
    """The servers themselves."""

    addresses: tuple[Address, ...]

    def __str__(self) -> str:
        return "static://" + ",".join(map(str, self.addresses))


def parse_registry_url(
    url: str, *, ca_file: str | None = None, cert_file: str | None = None, key_file: str | None = None
) -> EtcdSource | PatroniSource | StaticSource:
    """Read a registry URL; the files given beside it come before those in it. Raises ConfigError."""
    scheme, separator, rest = url.strip().partition("://")
    scheme = scheme.lower()
    if not separator:
        raise ConfigError("the registry URL has no scheme", hint=f"Write {FORMS}.")
    if scheme == "static":
        if ca_file or cert_file or key_file:
            raise ConfigError("static:// has no registry, so there is none to show certificates to")
        return StaticSource(_addresses(scheme, rest, DEFAULT_PORT))
    given = Tls(ca_file, cert_file, key_file)
    if scheme in ("etcd", "etcds"):
        return _etcd_source(scheme, rest, given)
    if scheme in ("patroni+etcd", "patroni+etcds"):
        return PatroniSource(_etcd_source(scheme, rest, given))
    if scheme.startswith("patroni"):
        raise ConfigError(
            f"{scheme}:// is not supported: pgamb follows a Patroni that keeps its keys in etcd v3 (`etcd3:`)",
            hint="Write patroni+etcd://host:2379,host2:2379/namespace/scope, or run `pgamb server` beside each "
            "PostgreSQL and use etcd://, or list the servers with static://.",
        )
    raise ConfigError(f'"{scheme}://" is no registry that pgamb knows', hint=f"Write {FORMS}.")


def open_registry(
    url: str,
    service: str,
    *,
    prober: Prober | None = None,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    interval_s: float = 1.0,
) -> Registry:
    """Open what a proxy reads; nothing is connected before the first use. Raises ConfigError.

    `prober` asks the servers: all of them, each `interval_s`, with static://, and one that is being promoted with
    patroni+etcd://.
    """
    source = parse_registry_url(url, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    if isinstance(source, EtcdSource):
        return EtcdRegistry(_open_etcd(source), service, source=str(source), prefix=source.prefix)
    if isinstance(source, PatroniSource):
        return PatroniRegistry(_open_etcd(source.etcd), service, source.etcd.prefix, source=str(source), prober=prober)
    if prober is None:
        raise ConfigError(f"{source} cannot be used here: it needs somebody who asks the servers")
    return StaticRegistry(source.addresses, prober, interval_s, service=service)


def open_store(
    url: str,
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
    call_timeout_s: float = CALL_TIMEOUT_S,
) -> Store:
    """Open the etcd that `url` names; raises ConfigError, for static:// too."""
    source = parse_registry_url(url, ca_file=ca_file, cert_file=cert_file, key_file=key_file)
    return _open_etcd(_only_etcd(source), call_timeout_s=call_timeout_s)


def open_announcer(
    url: str,
    service: str,
    node: str,
    ttl_s: int = 5,
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
) -> Announcer:
    """Open what an agent writes with; the announcer's `close` closes its store. Raises ConfigError."""
    source = _only_etcd(parse_registry_url(url, ca_file=ca_file, cert_file=cert_file, key_file=key_file))
    if ttl_s < 1:
        raise ConfigError(f"a TTL of {ttl_s} s is too short", hint="The TTL is a whole number of seconds, at least 1.")
    store = _open_etcd(source, call_timeout_s=min(CALL_TIMEOUT_S, ttl_s / 4), heartbeat_s=min(5.0, ttl_s / 3))
    return Announcer(store, service, node, ttl_s, prefix=source.prefix)


def open_drains(
    url: str,
    service: str,
    *,
    ca_file: str | None = None,
    cert_file: str | None = None,
    key_file: str | None = None,
) -> Drains:
    """Open what a drain is asked for with; its `close` closes its store. Raises ConfigError."""
    source = _only_etcd(parse_registry_url(url, ca_file=ca_file, cert_file=cert_file, key_file=key_file))
    return Drains(_open_etcd(source), service, prefix=source.prefix)


def _only_etcd(source: EtcdSource | PatroniSource | StaticSource) -> EtcdSource:
    if isinstance(source, PatroniSource):
        raise ConfigError(f"{source} is Patroni's: pgamb announces no member there", hint="Use etcd://host:2379.")
    if isinstance(source, StaticSource):
        raise ConfigError(f"{source} has no registry to announce a member in", hint="Use etcd://host:2379.")
    return source


def _open_etcd(source: EtcdSource, *, call_timeout_s: float = CALL_TIMEOUT_S, heartbeat_s: float = 5.0) -> Store:
    from pgamb.registry.etcd.connection import Connection
    from pgamb.registry.etcd.store import EtcdStore
    from pgamb.registry.etcd.watch import Heartbeat

    connection = Connection(
        tuple(map(str, source.endpoints)),
        credentials=source.credentials,
        tls=source.tls,
        call_timeout_s=call_timeout_s,
    )
    return EtcdStore(connection, heartbeat=Heartbeat(heartbeat_s, call_timeout_s))


def _etcd_source(scheme: str, rest: str, given: Tls) -> EtcdSource:
    rest, _, query = rest.partition("?")
    hosts, _, path = rest.partition("/")
    login, at, hosts = hosts.rpartition("@")
    credentials = None
    if at:
        user, colon, password = login.partition(":")
        if not user or not colon:
            raise ConfigError(
                "the registry URL has a log-in without a password", hint=f"Write {scheme}://user:password@host."
            )
        credentials = Credentials(unquote(user), unquote(password))
    options = _query(query)
    tls = Tls(
        given.ca_file or options.get("ca"), given.cert_file or options.get("cert"), given.key_file or options.get("key")
    )
    endpoints = _addresses(scheme, hosts, ETCD_PORT)
    prefix = "/" + unquote(path).strip("/") if path.strip("/") else DEFAULT_PREFIX
    return EtcdSource(
        endpoints=endpoints,
        prefix=_cluster_path(scheme, unquote(path)) if scheme.startswith("patroni+") else prefix,
        credentials=credentials,
        tls=tls if scheme.endswith("etcds") or tls != Tls() else None,
    )


def _cluster_path(scheme: str, path: str) -> str:
    """Return where Patroni keeps the keys of one cluster: its namespace, as many parts as it has, and its scope."""
    parts = [part for part in path.split("/") if part]
    if not parts:
        raise ConfigError(
            f"{scheme}:// names no scope",
            hint=f"Write {scheme}://host:2379/namespace/scope, as Patroni's own configuration has them (where it names "
            f"no namespace, that is {DEFAULT_NAMESPACE}).",
        )
    for part in parts:
        check_name("namespace or scope", part)
    # "//scope" names the namespace "/".
    if len(parts) == 1 and not path.startswith("/"):
        parts = [DEFAULT_NAMESPACE, *parts]
    return "/" + "/".join(parts)


def _query(text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        name, equals, value = part.partition("=")
        if name not in ("ca", "cert", "key") or not equals or not value:
            raise ConfigError(
                f'"{part}" in the registry URL is not understood',
                hint="Behind the ? there can be ca=, cert=, key=FILE.",
            )
        options[name] = unquote(value)
    return options


def _addresses(scheme: str, text: str, default_port: int) -> tuple[Address, ...]:
    if not text.strip():
        raise ConfigError(f"{scheme}:// names no host", hint=f"Write {FORMS}.")
    addresses = tuple(parse_address(part, default_port) for part in text.split(","))
    twice = next((address for address in addresses if addresses.count(address) > 1), None)
    if twice is not None:
        raise ConfigError(f"{scheme}:// names {twice} twice", hint="Name each server once.")
    if scheme != "static" and any(address.is_unix for address in addresses):
        raise ConfigError(f"{scheme}:// takes host:port, not a unix socket")
    return addresses
