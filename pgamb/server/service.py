"""`pgamb server`: wires the parts together, and ends them in the right order.

Start: the exposed port is bound first (a taken port is an error at once, not when PostgreSQL happens to be up) and
refuses until the first decision. The member's name may be PostgreSQL's own `cluster_name`, so without --node the
registry waits for PostgreSQL.

End: the first SIGTERM or SIGINT withdraws, for a bounded time, lets exposed connections end, likewise, then stops; the
second one ends the process at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress

import pgamb
from pgamb.config.options import ServerOptions
from pgamb.errors import ConfigError
from pgamb.registry.announcer import Announcer
from pgamb.registry.source import EtcdSource, open_announcer, parse_registry_url
from pgamb.server.advertise import Advertised, advertised_address, node_name
from pgamb.server.agent import EAGER_INTERVAL_S, Agent
from pgamb.server.decide import Identity, Refusal
from pgamb.server.expose import Exposure
from pgamb.server.fence import Fence
from pgamb.server.peers import PeerProber
from pgamb.server.probe import Prober
from pgamb.server.reading import Reading
from pgamb.server.target import Target, parse_target
from pgamb.sockets.activation import notify
from pgamb.sockets.binding import Listening

log = logging.getLogger(__name__)

# What cannot be withdrawn by then ends with its lease; whoever stops us (systemd, Docker) waits 10 s at least.
WITHDRAW_TIMEOUT_S = 3.0


async def serve(options: ServerOptions, given: Mapping[str, Sequence[Listening]]) -> None:
    """Run the agent until SIGTERM or SIGINT, at the listening sockets `given` for --listen, if any.

    Raises ConfigError for what waiting would not mend.
    """
    target = parse_target(options.dsn)
    source = parse_registry_url(
        options.registry, ca_file=options.registry_ca, cert_file=options.registry_cert, key_file=options.registry_key
    )
    if not isinstance(source, EtcdSource):
        raise ConfigError(f"{source} has no registry to announce a member in", hint="Use etcd://host:2379.")
    wake = asyncio.Event()
    prober = Prober(target, on_lost=wake.set)
    exposure = None
    if options.listen is not None:
        exposure = Exposure(options.listen, target.address, wake.set, given.get("--listen", ()))
    if exposure is not None:
        exposure.bind()
    try:
        await _until_signal(lambda stop: _run(options, source, target, prober, exposure, wake, stop))
    finally:
        prober.close()
    log.info("server.stopped", extra={"kv": {}})


async def _run(
    options: ServerOptions,
    source: EtcdSource,
    target: Target,
    prober: Prober,
    exposure: Exposure | None,
    wake: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    async with asyncio.TaskGroup() as group:
        notify("READY=1")
        exposing = None if exposure is None else group.create_task(exposure.run(), name="server-exposure")
        working = group.create_task(_work(options, source, target, prober, exposure, wake, stop), name="server-work")
        await stop.wait()
        # The port stays open until the registry says no more that it is there.
        await asyncio.wait([working], timeout=WITHDRAW_TIMEOUT_S + 1)
        working.cancel()
        if exposure is not None and exposing is not None:
            await exposure.drain(options.drain_timeout_s)
            exposing.cancel()


async def _work(
    options: ServerOptions,
    source: EtcdSource,
    target: Target,
    prober: Prober,
    exposure: Exposure | None,
    wake: asyncio.Event,
    stop: asyncio.Event,
) -> None:
    """Find out who we are, announce it for as long as nobody stops us, then withdraw."""
    advertised = await _advertised(options, source, target, exposure)
    if advertised.warning is not None:
        log.warning("server.address", extra={"kv": {"warning": advertised.warning}})
    cluster_name = "" if options.node is not None else await _cluster_name(target, prober, exposure, wake, stop)
    if cluster_name is None:
        return
    identity = Identity(
        node=node_name(options.node, cluster_name, socket.gethostname(), target.address.port),
        addresses=(advertised.address,),
        postgres=target.address,
        zone=options.zone,
        weight=options.weight,
        agent_version=pgamb.__version__,
        ttl_s=options.ttl_s,
        on_loss=options.on_registry_loss,
    )
    values = {"node": identity.node, "service": options.service, "postgres": target.address, "registry": source}
    if exposure is not None:
        values |= {"listen": options.listen, "port": exposure.port}
    log.info("server.started", extra={"kv": values | {"advertise": advertised.address}})
    announcer = open_announcer(
        options.registry,
        options.service,
        identity.node,
        options.ttl_s,
        ca_file=options.registry_ca,
        cert_file=options.registry_cert,
        key_file=options.registry_key,
    )
    fence = None if options.fence_command is None else Fence(options.fence_command, identity.node)
    agent = Agent(
        identity,
        prober,
        announcer,
        PeerProber(target),
        port=exposure,
        fence=fence,
        interval_s=options.probe_interval_s,
        wake=wake,
    )
    try:
        await _announce_until(stop, agent, announcer)
    finally:
        if fence is not None:
            await fence.close()
        await announcer.close()


async def _announce_until(stop: asyncio.Event, agent: Agent, announcer: Announcer) -> None:
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(announcer.run(), name="server-announcer")
        looping = group.create_task(agent.run(), name="server-agent")
        await stop.wait()
        # A step under way must not announce again what is being withdrawn.
        looping.cancel()
        await asyncio.wait([looping])
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHDRAW_TIMEOUT_S):
                await agent.withdraw()
        keeping.cancel()


async def _cluster_name(
    target: Target, prober: Prober, exposure: Exposure | None, wake: asyncio.Event, stop: asyncio.Event
) -> str | None:
    """Wait for PostgreSQL and return its cluster_name; None when stopped meanwhile."""
    said = ""
    while not stop.is_set():
        probe = await prober.probe()
        if isinstance(probe, Reading):
            return probe.cluster_name
        if probe.reason != said:
            said = probe.reason
            values = {
                "address": target.address,
                "reason": said,
                "hint": "waiting for it; --node NAME registers earlier",
            }
            log.warning("server.postgres.waiting", extra={"kv": values})
        if exposure is not None:
            exposure.set_refusal(
                Refusal(
                    f"cannot connect to PostgreSQL at {target.address}: {said}", "Is PostgreSQL running?", cut=False
                )
            )
        wake.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(EAGER_INTERVAL_S):
                await stop.wait()
    return None


async def _advertised(
    options: ServerOptions, source: EtcdSource, target: Target, exposure: Exposure | None
) -> Advertised:
    hosts = tuple(endpoint.host for endpoint in source.endpoints)
    return advertised_address(
        advertise=options.advertise,
        listen=options.listen,
        listen_port=0 if exposure is None else exposure.port,
        postgres=target.address,
        own_ip=await _own_ip(source),
        registry_hosts=hosts,
    )


async def _own_ip(source: EtcdSource) -> str:
    """Return the address that this machine has towards the registry; its host name where that cannot be known.

    Connecting a datagram socket only asks the routing table: nothing is sent.
    """
    loop = asyncio.get_running_loop()
    endpoint = source.endpoints[0]
    try:
        places = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, place = places[0]
        with socket.socket(family, kind, protocol) as asking:
            asking.connect(place)
            ip: str = asking.getsockname()[0]
            return ip
    except OSError:
        return socket.gethostname()


async def _until_signal(run: Callable[[asyncio.Event], Coroutine[object, object, None]]) -> None:
    """Run with an event that the first SIGTERM or SIGINT sets; the second one finds the handler of the system."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def stopping(number: signal.Signals) -> None:
        log.info("server.stopping", extra={"kv": {"signal": number.name}})
        notify("STOPPING=1")
        for each in signals:
            loop.remove_signal_handler(each)
            signal.signal(each, signal.SIG_DFL)
        stop.set()

    for number in signals:
        loop.add_signal_handler(number, stopping, number)
    try:
        await run(stop)
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
