"""`pgamb client`: puts the parts together, and takes them apart again."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Coroutine, Mapping, Sequence

from pgamb.client.authenticator import Authenticator
from pgamb.client.cancel import Canceller
from pgamb.client.catalogue_reader import CatalogueReader
from pgamb.client.catalogues import Catalogues
from pgamb.client.drain import Drain
from pgamb.client.entrance import Entrance
from pgamb.client.identities import Identities
from pgamb.client.listener import raise_descriptor_limit
from pgamb.client.login import LoginDesk
from pgamb.client.monitor import MemberProber, asker_from_dsn
from pgamb.client.occupancy import Occupancy
from pgamb.client.opener import Opener
from pgamb.client.pools import Pools
from pgamb.client.positions import Positions
from pgamb.client.reach import Reach, unlisted_members
from pgamb.client.replication import Replications
from pgamb.client.silence import Silence
from pgamb.client.snapshot import Observer
from pgamb.client.timekeeper import Timekeeper
from pgamb.client.waiting import Patience
from pgamb.client.welcome import Welcomer
from pgamb.config import ClientOptions
from pgamb.errors import AdminShutdown, ConfigError, PgambError
from pgamb.registry.model import Topology
from pgamb.registry.source import Registry, StaticSource, open_registry, parse_registry_url
from pgamb.registry.witness import Witness
from pgamb.relay.backend import Backend
from pgamb.relay.frontend import Frontend
from pgamb.relay.reactor import Reactor, Source
from pgamb.relay.replication import Replication, Walsender
from pgamb.relay.session import Relay
from pgamb.relay.statement import Plan
from pgamb.session.parameters import ParameterSets
from pgamb.session.reported import ReportedSets
from pgamb.sockets.activation import notify
from pgamb.sockets.binding import Listening

log = logging.getLogger(__name__)

# How long a batch that may be a read waits for its Sync. PostgreSQL would carry out at once what has come of it; who
# asks for answers sends Sync or Flush in the same breath.
_UNFINISHED_S = 0.02


class Service:
    """One worker: its loop, its data plane, and what they are made of."""

    def __init__(self, options: ClientOptions, given: Mapping[str, Sequence[Listening]]) -> None:
        """`given` are listening sockets to use instead of binding, by the option that each is for."""
        self._options = options
        self._tasks: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        self._failure: asyncio.Future[None] = loop.create_future()
        parameter_sets, reported_sets = ParameterSets(), ReportedSets()
        self.reactor = Reactor(loop, self._source_failed)
        opener = Opener(options)
        self._authenticator = Authenticator(options)
        asker = asker_from_dsn(options.auth_dsn) if options.auth_dsn else None
        self._catalogues = Catalogues(CatalogueReader(opener, asker, self._authenticator.credentials))
        self.pools = Pools(
            options,
            self.reactor,
            opener,
            self._authenticator.credentials,
            self._spawn,
            self._catalogues.statements,
            reported_sets,
        )
        self._timekeeper = Timekeeper(self.pools.tally)
        self._occupancy = Occupancy(self.pools.pools, entered=self._catalogues.entered)
        self._prober = MemberProber(opener, asker)
        registry = open_registry(
            options.registry,
            options.service,
            prober=self._prober,
            ca_file=options.registry_ca,
            cert_file=options.registry_cert,
            key_file=options.registry_key,
        )
        source = parse_registry_url(options.registry)
        # static:// has nobody else to ask than the members.
        self._registry: Registry = (
            registry
            if isinstance(source, StaticSource)
            else Witness(registry, self._prober, on_loss=options.on_registry_loss, release=self._prober.close)
        )
        self.pools.refresh = self._registry.refresh
        self._positions = Positions(
            options,
            self.reactor,
            opener,
            asker,
            self._spawn,
            activity=lambda: self.relay.to_primary + self.relay.to_replica,
            refresh=self._registry.refresh,
        )
        self.pools.position = self._positions.position
        identities = Identities(lambda: self.relay.frontends, self.pools, self._spawn)
        self.relay = Relay(
            parameter_sets,
            self._positions.freshness,
            session_mode=options.pool_mode == "session",
            prepared_limit=options.prepared_statements,
            on_frontend_closed=self._frontend_closed,
            lazy=options.transactions == "lazy",
            on_repeated=self._repeated,
            on_changed=self._catalogues.changed,
            on_unfinished=lambda frontend: loop.call_later(_UNFINISHED_S, frontend.hurry),
            on_named=identities.named,
            told_pid=identities.told_pid,
            on_limited=self._timekeeper.watch,
        )
        self._silence = Silence(
            self.pools, opener, lambda: self.relay.frontends.values(), self._spawn, options.silence_timeout_s
        )
        self._positions.on_silent = self._fallen_silent
        static = source.addresses if isinstance(source, StaticSource) else ()
        # Without a registry nothing is known of these before somebody has logged in to one of them.
        unlisted = unlisted_members(static)
        self._reach = Reach(opener, asker, self.pools.used, verified=bool(static), unlisted=unlisted)
        self._replications = Replications(
            self.reactor,
            opener,
            hold_timeout_s=options.hold_timeout_s,
            topology=lambda: self.pools.topology,
            static=unlisted,
            refresh=self._registry.refresh,
        )
        self._welcomer = Welcomer(opener, parameter_sets, reported_sets)
        canceller = Canceller(self.relay, self.pools, self._replications, opener, self._spawn)
        self._desk = LoginDesk(
            options,
            reactor=self.reactor,
            relay=self.relay,
            pools=self.pools,
            authenticator=self._authenticator,
            welcomer=self._welcomer,
            canceller=canceller,
            prober=self._prober,
            positions=self._positions,
            occupancy=self._occupancy,
            replications=self._replications,
            static=unlisted,
            refresh=self._registry.refresh,
            tls=_application_tls(options),
        )
        self._drain = Drain(self._desk, self.relay, self._replications, options.drain_timeout_s)
        self._entrance = Entrance(options, given, self._desk, canceller, self._positions.freshness, self._spawn)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or until a successor does, then drain; raises why it cannot serve."""
        limit = raise_descriptor_limit()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled, stop)
        try:
            where = await self._entrance.bind()
            self._spawn(self._follow())
            self._spawn(Patience(self._options, self.pools).tick_forever())
            self._spawn(self._occupancy.sweep_forever())
            self._spawn(self._positions.tick_forever())
            self._spawn(self._silence.tick_forever())
            self._spawn(self._catalogues.keep_forever(self.pools.welcomers, self._occupancy.is_present))
            await self._first(self._entrance.open(self._observer(where)), stop)
            if not stop.is_set():
                self._log_start(limit)
                await self._first(self._entrance.succeeded.wait(), stop)
            await self._end()
        finally:
            await self._close()

    async def _first(self, work: Coroutine[object, object, object], stop: asyncio.Event) -> None:
        """Wait for `work`, unless we are to stop before it ends. Raises what it, or the service, fails with."""
        working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait((working, stopping, self._failure), return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            if working.done():
                working.result()
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.wait((working, stopping))

    def _log_start(self, descriptors: int) -> None:
        log.info(
            "client.listening",
            extra={
                "kv": {
                    **self._entrance.described(),
                    "service": self._options.service,
                    "auth": self._authenticator.method,
                    "pool_mode": self._options.pool_mode,
                    "pool_size": self._options.pool_size,
                    "descriptors": descriptors,
                }
            },
        )

    def _observer(self, where: list[str]) -> Observer:
        return Observer(
            self._options,
            relay=self.relay,
            pools=self.pools,
            positions=self._positions,
            desk=self._desk,
            replications=self._replications,
            registry=self._registry,
            reach=self._reach,
            listening=tuple(where),
        )

    def _signalled(self, stop: asyncio.Event) -> None:
        self._drain.gently = False
        if stop.is_set():
            # The second signal does not wait.
            self._drain.hurry()
        stop.set()

    async def _end(self) -> None:
        """Take no new work, let running transactions end, and stay for as long as a predecessor may need us."""
        await self._entrance.close()
        if self._entrance.succeeded.is_set():
            self._drain.gently = True
            self._positions.freshness.share(True)
        else:
            notify("STOPPING=1")
        await self._drain.run(self._entrance.is_needed)

    async def _close(self) -> None:
        await self._entrance.leave()
        goodbye = AdminShutdown("terminating connection due to administrator command")
        for frontend in list(self.relay.frontends.values()):
            frontend.close(goodbye)
        self._replications.close()
        for pool in self.pools.pools():
            pool.retire()
        self._positions.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._registry.close()
        self._prober.close()
        await self._authenticator.close()
        self.reactor.close()
        log.info("client.stopped", extra={"kv": {}})

    async def _follow(self) -> None:
        """Apply every new topology."""
        async for topology in self._registry.topologies():
            self._log_topology(self.pools.topology, topology)
            self._welcomer.forget()
            self._positions.apply(topology)
            self.pools.apply(topology)
            self._replications.apply(topology)

    def _log_topology(self, before: Topology | None, now: Topology) -> None:
        primary = now.primary_member()
        log.info(
            "topology",
            extra={
                "kv": {
                    "primary": primary.node if primary is not None else None,
                    "timeline": primary.timeline if primary is not None else None,
                    "replicas": ", ".join(member.node for member in now.replicas()),
                    **({"conflict": ", ".join(now.conflict)} if now.conflict else {}),
                }
            },
        )
        if before is not None and primary is None and before.primary_member() is not None:
            log.warning("primary.lost", extra={"kv": {"held_for_s": self._options.hold_timeout_s}})

    def _fallen_silent(self, node: str) -> None:
        """A member has not said in time where it is in the WAL."""
        self.pools.forsake_reads(node)
        self._silence.suspect(node)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        """Run `work` as a task of this service; what it raises ends the service."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        # It may have been wanted in the middle of the data plane's turn.
        self.reactor.give_way()
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    def _source_failed(self, source: Source, error: Exception) -> None:
        """One connection met a defect of ours: it is closed, and nobody else is harmed."""
        log.error("connection.defect", exc_info=error, extra={"kv": {"connection": repr(source)}})
        failure = PgambError(f"internal error of pgamb: {error!r}")
        if isinstance(source, Frontend):
            source.close(failure)
        elif isinstance(source, Replication | Walsender):
            source.close()
        elif isinstance(source, Backend):
            source.fail(failure)

    def _repeated(self, frontend: Frontend, plan: Plan | None) -> None:
        """A read is asked again elsewhere; `plan` is that of one that no replica will be asked for any more."""
        if plan is not None:
            log.info(
                "read.refused",
                extra={
                    "kv": {
                        "database": frontend.group.database,
                        "seemed": plan.intent.reason,
                        "from_now_on": "it goes to the primary",
                    }
                },
            )

    def _frontend_closed(self, frontend: Frontend) -> None:
        """An application has left; nothing of it stays."""
        self._occupancy.leave(frontend.group.database)
        self._timekeeper.forget(frontend)


async def serve(options: ClientOptions, given: Mapping[str, Sequence[Listening]]) -> None:
    """Run `pgamb client` until it is told to stop, at the listening sockets `given` for some options, if any.

    Raises ConfigError for what cannot be.
    """
    await Service(options, given).run()


def _application_tls(options: ClientOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["postgresql"])
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"cannot load the certificate towards applications: {error}", hint="check --tls-cert and --tls-key"
        ) from error
    return context
