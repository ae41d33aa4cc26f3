"""`pgamb client`: puts the parts together, and takes them apart again."""

from __future__ import annotations

import asyncio
import logging
import signal
import ssl
from collections.abc import Coroutine

from pgamb.client.authenticator import Authenticator
from pgamb.client.cancel import Canceller
from pgamb.client.catalogue_reader import CatalogueReader
from pgamb.client.catalogues import Catalogues
from pgamb.client.identities import Identities
from pgamb.client.listener import Listener, raise_descriptor_limit
from pgamb.client.login import LoginDesk
from pgamb.client.monitor import MemberProber, asker_from_dsn
from pgamb.client.occupancy import Occupancy
from pgamb.client.opener import Opener
from pgamb.client.pools import Pools
from pgamb.client.positions import Positions
from pgamb.client.reach import Reach, unlisted_members
from pgamb.client.replication import Replications
from pgamb.client.snapshot import Observer
from pgamb.client.status import StatusPage
from pgamb.client.timekeeper import Timekeeper
from pgamb.client.waiting import Patience
from pgamb.client.welcome import Welcomer
from pgamb.config import ClientOptions
from pgamb.errors import AdminShutdown, ConfigError, PgambError
from pgamb.registry.model import Topology
from pgamb.registry.source import Registry, StaticSource, open_registry, parse_registry_url
from pgamb.relay.backend import Backend
from pgamb.relay.frontend import Frontend
from pgamb.relay.reactor import Reactor, Source
from pgamb.relay.replication import Replication, Walsender
from pgamb.relay.session import Relay
from pgamb.relay.statement import Plan
from pgamb.session.parameters import ParameterSets
from pgamb.session.reported import ReportedSets

log = logging.getLogger(__name__)

# How long running transactions may take to end after SIGTERM.
DRAIN_S = 10.0
_DRAIN_STEP_S = 0.05
# How long a batch that may be a read waits for its Sync. PostgreSQL would carry out at once what has come of it; who
# asks for answers sends Sync or Flush in the same breath.
_UNFINISHED_S = 0.02
# As ReadyForQuery says it.
_IDLE_STATUS = ord("I")


class Service:
    """One worker: its loop, its data plane, and what they are made of."""

    def __init__(self, options: ClientOptions) -> None:
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
        self._registry: Registry = open_registry(
            options.registry,
            options.service,
            prober=self._prober,
            ca_file=options.registry_ca,
            cert_file=options.registry_cert,
            key_file=options.registry_key,
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
        self._positions.on_silent = self.pools.forsake_reads
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
        source = parse_registry_url(options.registry)
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
        self._desk = LoginDesk(
            options,
            reactor=self.reactor,
            relay=self.relay,
            pools=self.pools,
            authenticator=self._authenticator,
            welcomer=self._welcomer,
            canceller=Canceller(self.relay, self.pools, self._replications, opener, self._spawn),
            prober=self._prober,
            positions=self._positions,
            occupancy=self._occupancy,
            replications=self._replications,
            static=unlisted,
            refresh=self._registry.refresh,
            tls=_application_tls(options),
        )
        self._listener = Listener(options.listen, self._desk.serve, self._spawn)
        self._status = StatusPage(options.status_listen, self._spawn) if options.status_listen is not None else None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then drain; raises what makes serving impossible."""
        limit = raise_descriptor_limit()
        where = self._listener.bind()
        try:
            status_at = self._status.bind() if self._status is not None else []
        except BaseException:
            self._listener.close()
            raise
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, stop)
        self._spawn(self._follow())
        self._spawn(Patience(self._options, self.pools).tick_forever())
        self._spawn(self._occupancy.sweep_forever())
        self._spawn(self._positions.tick_forever())
        self._spawn(self._catalogues.keep_forever(self.pools.welcomers, self._occupancy.is_present))
        if self._status is not None:
            await self._status.start(self._observer(where))
        self._listener.start()
        log.info(
            "client.listening",
            extra={
                "kv": {
                    "at": ", ".join(where),
                    "service": self._options.service,
                    "auth": self._authenticator.method,
                    "pool_mode": self._options.pool_mode,
                    "pool_size": self._options.pool_size,
                    "descriptors": limit,
                    **({"status": ", ".join(status_at)} if status_at else {}),
                }
            },
        )
        try:
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait((stopping, self._failure), return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if self._failure.done():
                self._failure.result()
            await self._drain()
        finally:
            await self._close()

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
        if stop.is_set():
            # The second signal does not wait.
            self._desk.draining = True
            self._hurry = True
        stop.set()

    _hurry = False

    async def _drain(self) -> None:
        """Take no new work, let running transactions end, then say goodbye."""
        self._listener.close()
        self._desk.draining = True
        log.info("client.draining", extra={"kv": {"connections": self._desk.sessions}})
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DRAIN_S
        goodbye = AdminShutdown("terminating connection due to administrator command")
        while self._desk.sessions and not self._hurry:
            last = loop.time() >= deadline
            self._replications.drain(last=last)
            for frontend in list(self.relay.frontends.values()):
                if last or _is_idle(frontend):
                    frontend.close(goodbye)
            if self._desk.sessions:
                await asyncio.sleep(_DRAIN_STEP_S)

    async def _close(self) -> None:
        self._listener.close()
        if self._status is not None:
            await self._status.close()
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


def _is_idle(frontend: Frontend) -> bool:
    """Tell whether nothing is under way in a session; one that is pinned may be idle, and has a backend."""
    backend = frontend.backend
    if backend is None:
        return frontend.state_name == "idle"
    return frontend.state_name == "active" and backend.owed == 0 and backend.status == _IDLE_STATUS


async def serve(options: ClientOptions) -> None:
    """Run `pgamb client` until it is told to stop. Raises ConfigError for what cannot be."""
    await Service(options).run()


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
