"""A topology without a registry: the servers themselves are asked what they are.

The decision is `resolve`, a pure function of what each address answered and of what was known before. Its only fence is
the timeline:

* The highest timeline that anyone was ever seen on rules. A primary below it is a stale primary, also when the server
  that proved the higher timeline is gone again, and never gets work while this process lives.
* Two primaries on that timeline: no primary at all, and a conflict that names both. One that stops answering goes on
  counting for `SILENT_ROUNDS`, so that a server which answers every other time does not make the other one primary.
* Servers of another PostgreSQL cluster than the first one seen are left out, with an error that says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from pgamb.errors import ConfigError, PgambError, RegistryMismatch
from pgamb.registry.latest import Latest
from pgamb.registry.model import Address, Member, PrimaryRecord, RegistryStatus, Role, Stats, Topology

log = logging.getLogger(__name__)

# A member stays for one round without an answer: a server under full load is late now and then, and is no better lost.
PATIENCE_ROUNDS = 1
# A claim outlives this many rounds of silence: shorter than an operator's patience, longer than a restart's noise.
SILENT_ROUNDS = 3


class Observation(msgspec.Struct, frozen=True):
    """What one server said of itself. `node` is its `cluster_name`, or host:port when it has none."""

    node: str
    role: Role
    timeline: int
    system_identifier: str
    server_version: int
    stats: Stats | None = None


class Prober(Protocol):
    """Asks one server what it is."""

    async def probe(self, address: Address) -> Observation:
        """Return what the server says; raises ConnectionFailure or PostgresError."""


class Heard(msgspec.Struct, frozen=True):
    """What a server said last, and for how many rounds it has been silent since."""

    address: Address
    said: Observation
    silent_rounds: int = 0


class Memory(msgspec.Struct, frozen=True):
    """What has to be remembered from round to round; `timeline` is the highest ever seen."""

    system_identifier: str | None = None
    timeline: int = 0
    heard: tuple[Heard, ...] = ()


class Resolution(msgspec.Struct, frozen=True):
    topology: Topology
    memory: Memory
    errors: tuple[str, ...] = ()


def resolve(service: str, answers: Mapping[Address, Observation], memory: Memory) -> Resolution:
    """Turn one round of answers (addresses that did not answer are missing) into a topology.

    Raises RegistryMismatch when the first servers ever seen belong to different clusters.
    """
    identifier, answers, errors = _one_cluster(answers, memory)
    heard = _heard(answers, memory)
    names = _names(heard, errors)
    timeline = max([memory.timeline, *(server.said.timeline for server in heard)])
    claims = [server for server in heard if server.said.role is Role.PRIMARY and server.said.timeline == timeline]
    conflict = tuple(sorted(names[server.address] for server in claims))
    primary = None
    if len(conflict) == 1:
        primary, conflict = PrimaryRecord(conflict[0], timeline), ()
    elif conflict:
        errors.append(
            f"{' and '.join(conflict)} are both primary on timeline {timeline}: no writes until one is stopped"
        )
    members = [_member(names[s.address], s, timeline) for s in heard if s.silent_rounds <= PATIENCE_ROUNDS]
    topology = Topology(
        service=service,
        members=tuple(sorted(members, key=lambda member: member.node)),
        primary=primary,
        cluster=identifier,
        conflict=conflict,
    )
    return Resolution(topology, Memory(identifier, timeline, heard), tuple(errors))


def _one_cluster(
    answers: Mapping[Address, Observation], memory: Memory
) -> tuple[str | None, dict[Address, Observation], list[str]]:
    identifier = memory.system_identifier
    if identifier is None:
        first: dict[str, Address] = {}
        for address, answer in answers.items():
            first.setdefault(answer.system_identifier, address)
        if len(first) > 1:
            named = ", ".join(f"{address} is of {found}" for found, address in first.items())
            raise RegistryMismatch(
                f"the servers belong to different PostgreSQL clusters: {named}",
                hint="List only servers of one cluster (the same system identifier) in static://.",
            )
        identifier = next(iter(first), None)
    errors = [
        f"{address} belongs to cluster {answer.system_identifier}, not to {identifier}: not used"
        for address, answer in answers.items()
        if answer.system_identifier != identifier
    ]
    return identifier, {a: o for a, o in answers.items() if o.system_identifier == identifier}, errors


def _heard(answers: Mapping[Address, Observation], memory: Memory) -> tuple[Heard, ...]:
    silent = (
        Heard(server.address, server.said, server.silent_rounds + 1)
        for server in memory.heard
        if server.address not in answers and server.silent_rounds < SILENT_ROUNDS
    )
    return (*(Heard(address, said) for address, said in answers.items()), *silent)


def _names(heard: Sequence[Heard], errors: list[str]) -> dict[Address, str]:
    """Name each server; two of one name keep apart by their address."""
    given = [server.said.node for server in heard]
    twice = {name for name in given if given.count(name) > 1}
    errors.extend(
        f'several servers have the cluster_name "{name}": they are told apart by address' for name in sorted(twice)
    )
    return {s.address: f"{s.said.node}@{s.address}" if s.said.node in twice else s.said.node for s in heard}


def _member(node: str, server: Heard, timeline: int) -> Member:
    said = server.said
    return Member(
        node=node,
        role=said.role,
        addresses=(server.address,),
        timeline=said.timeline,
        system_identifier=said.system_identifier,
        server_version=said.server_version,
    ).judged(timeline)


class StaticRegistry:
    """Asks every address each `interval_s` and yields what follows; implements `Registry`.

    A refresh can be asked for earlier, by `refresh()`, when a backend is lost.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        prober: Prober,
        interval_s: float = 1.0,
        *,
        service: str = "static",
        probe_timeout_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not addresses:
            raise ConfigError("static:// names no server", hint="Write static://host:port,host2:port2.")
        self._addresses = tuple(addresses)
        self._prober = prober
        self._interval_s = interval_s
        self._service = service
        self._probe_timeout_s = probe_timeout_s
        self._clock = clock
        self._memory = Memory()
        self._latest: Latest[Topology] = Latest()
        self._stats: tuple[Stats, ...] = ()
        self._round_at: float | None = None
        self._answered: Address | None = None
        self._errors: tuple[str, ...] = ()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def topologies(self) -> AsyncGenerator[Topology, None]:
        """Yield the newest topology, then each one that differs; raises RegistryMismatch (see `resolve`)."""
        self._start()
        async for topology in self._latest.values():
            yield topology

    async def stats(self) -> tuple[Stats, ...]:
        """Return what the last round saw; an address that does not answer is missing."""
        self._start()
        await self._latest.first()
        return self._stats

    def refresh(self) -> None:
        """Ask again now."""
        self._wake.set()

    def status(self) -> RegistryStatus:
        return RegistryStatus(
            source="static://" + ",".join(map(str, self._addresses)),
            endpoint=None if self._answered is None else str(self._answered),
            connected=self._answered is not None,
            age_s=None if self._round_at is None else self._clock() - self._round_at,
            last_error="; ".join(self._errors) or None,
        )

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._latest.end()

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="registry-static")
            self._task.add_done_callback(self._latest.follow)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            await self._round()
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _round(self) -> None:
        async with asyncio.TaskGroup() as group:
            probes = {address: group.create_task(self._probe(address)) for address in self._addresses}
        results = {address: probe.result() for address, probe in probes.items()}
        answers = {address: result for address, result in results.items() if isinstance(result, Observation)}
        silent = [f"{address}: {result}" for address, result in results.items() if isinstance(result, str)]
        resolution = resolve(self._service, answers, self._memory)
        self._memory = resolution.memory
        self._stats = tuple(
            msgspec.structs.replace(answer.stats, node=answer.node) for answer in answers.values() if answer.stats
        )
        self._answered = next(iter(answers), None)
        if answers:
            self._round_at = self._clock()
        self._note((*resolution.errors, *silent))
        topology = resolution.topology
        known = self._latest.value
        if known is None or msgspec.structs.replace(topology, revision=known.revision) != known:
            self._latest.set(msgspec.structs.replace(topology, revision=1 if known is None else known.revision + 1))

    async def _probe(self, address: Address) -> Observation | str:
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                return await self._prober.probe(address)
        except PgambError as error:
            return error.message
        except TimeoutError:
            return f"no answer within {self._probe_timeout_s:g} s"

    def _note(self, errors: tuple[str, ...]) -> None:
        """Log what is new, once."""
        for error in errors:
            if error not in self._errors:
                log.warning("registry.static", extra={"kv": {"error": error}})
        if self._errors and not errors:
            log.info("registry.static.well", extra={"kv": {"servers": len(self._addresses)}})
        self._errors = errors
