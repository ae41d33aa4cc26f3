"""A service as its registry tells it, for the commands that show or check one: opened, followed and closed here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

from pgamb.cli.picture import Picture, picture
from pgamb.config import RegistryOptions
from pgamb.errors import ConnectionFailure, PgambError, RegistryError, RegistryUnavailable
from pgamb.observe.logs import mask_dsn
from pgamb.registry.model import Address, Role, Stats, Topology
from pgamb.registry.source import Registry, open_registry
from pgamb.registry.static import Observation
from pgamb.server.probe import Prober
from pgamb.server.reading import Unreachable
from pgamb.server.target import Target

# With no log-in given, libpq's own variables (PGUSER, PGPASSWORD, ...) and defaults say who we are.
_DEFAULT_DSN = "postgresql:///postgres"


class ServiceView:
    """`newest` is the last topology known. To be used by one task."""

    def __init__(self, registry: Registry, first: Topology, *, timeout_s: float) -> None:
        self.newest = first
        self._registry = registry
        self._timeout_s = timeout_s
        self._changed = asyncio.Event()
        self._stats: tuple[Stats, ...] = ()

    async def picture(self) -> Picture:
        """Put together what is known now; members' stats that cannot be read are left as they were last."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._stats = await self._registry.stats()
        except (TimeoutError, RegistryError):
            pass  # the registry's state, with its error, is part of the picture
        return picture(self.newest, self._stats, self._registry.status())

    async def wait(self, timeout_s: float) -> None:
        """Wait for a change, at most so long."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    async def follow(self, topologies: AsyncGenerator[Topology, None]) -> None:
        async for topology in topologies:
            self.newest = topology
            self._changed.set()


@asynccontextmanager
async def open_view(
    options: RegistryOptions, *, timeout_s: float, login_dsn: str | None
) -> AsyncGenerator[ServiceView, None]:
    """Open the registry and wait for the first topology; `login_dsn` is who asks the servers, with static://.

    Raises RegistryUnavailable, naming the endpoint, when nothing is known within `timeout_s`.
    """
    registry = open_registry(
        options.registry,
        options.service,
        prober=StaticProber(login_dsn or _DEFAULT_DSN, timeout_s=timeout_s),
        ca_file=options.registry_ca,
        cert_file=options.registry_cert,
        key_file=options.registry_key,
    )
    try:
        async with aclosing(registry.topologies()) as topologies:
            first = await _first(registry, topologies, options, timeout_s)
            view = ServiceView(registry, first, timeout_s=timeout_s)
            following = asyncio.create_task(view.follow(topologies), name="status-follow")
            try:
                yield view
            finally:
                following.cancel()
                await asyncio.wait([following])
                if not following.cancelled() and (error := following.exception()) is not None:
                    raise error
    finally:
        await registry.close()


class StaticProber:
    """Asks one server after the other, each by a connection of its own."""

    def __init__(self, dsn: str, *, timeout_s: float) -> None:
        self._dsn = dsn
        self._timeout_s = timeout_s

    async def probe(self, address: Address) -> Observation:
        """Return what the server says; raises ConnectionFailure."""
        prober = Prober(Target(address, self._dsn), timeout_s=self._timeout_s)
        try:
            reading = await prober.probe()
        finally:
            prober.close()
        if isinstance(reading, Unreachable):
            raise ConnectionFailure(reading.reason)
        node = reading.cluster_name or str(address)
        return Observation(
            node=node,
            role=Role.REPLICA if reading.in_recovery else Role.PRIMARY,
            timeline=reading.timeline,
            system_identifier=reading.system_identifier,
            server_version=reading.server_version,
            stats=Stats(
                node,
                wal_lsn=reading.wal_lsn,
                replay_lsn=reading.replay_lsn,
                lag_bytes=reading.lag_bytes,
                lag_s=reading.lag_s,
                connections=reading.connections,
            ),
        )


async def _first(
    registry: Registry, topologies: AsyncGenerator[Topology, None], options: RegistryOptions, timeout_s: float
) -> Topology:
    try:
        async with asyncio.timeout(timeout_s):
            async for topology in topologies:
                return topology
    except TimeoutError:
        pass
    raise unreachable(registry, options, timeout_s)


def unreachable(registry: Registry, options: RegistryOptions, timeout_s: float) -> PgambError:
    """Say which endpoint did not answer, and what to look at."""
    status = registry.status()
    return RegistryUnavailable(
        f"the registry {mask_dsn(options.registry)} did not answer within {timeout_s:g} s",
        detail=status.last_error or (f"last tried {status.endpoint}" if status.endpoint else None),
        hint="is it running, is the address right, and may this machine connect to it? (--registry, --registry-ca)",
    )
