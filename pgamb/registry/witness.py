"""What the members say themselves, where the registry cannot be asked, or is silent about one of them.

A registry tells in a moment who is primary; it can be away, and so can an agent. Then the members are asked:

* A member whose registration ended without a word is used on for as long as it answers, and as a primary only if the
  registry's `primary` still names it with the timeline that it answers. One whose agent was stopped has said so.
* While the registry is out of reach, a primary with a higher timeline than any known one is followed. The lower one is
  never used again, also when the registry comes back and still names it.
* With `fence` nothing is written while the registry is out of reach.

The decision is `judge`, a pure function; `Witness` puts it between a registry and whoever reads it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

import msgspec

from pgamb.errors import PgambError
from pgamb.registry.latest import Latest
from pgamb.registry.model import Member, MemberState, OnLoss, PrimaryRecord, RegistryStatus, Role, Stats, Topology
from pgamb.registry.source import Registry
from pgamb.registry.static import Observation, Prober

log = logging.getLogger(__name__)

# A registry that does not answer for this long is out of reach: the lease of an agent, if nothing else is asked for.
LOSS_S = 5.0
# How often members are asked while there is a primary, and while there is none.
CALM_S = 1.0
EAGER_S = 0.1
# A log-in takes long on a busy machine, and a member that is late must not be lost for that.
PROBE_TIMEOUT_S = 3.0
# So often in a row a member may be too late with its answer; one that refuses to, or is not there, has answered.
PATIENCE_ROUNDS = 2


class Memory(msgspec.Struct, frozen=True):
    """What has to be remembered: the highest timeline that was ever primary, and who is followed by its own word."""

    timeline: int = 0
    followed: PrimaryRecord | None = None


class Judgement(msgspec.Struct, frozen=True):
    """The topology to go by; `problems` are for the log."""

    topology: Topology
    memory: Memory
    problems: tuple[str, ...] = ()


def judge(
    said: Topology,
    departed: Iterable[Member],
    answers: Mapping[str, Observation],
    memory: Memory,
    *,
    lost: bool,
    fenced: bool,
) -> Judgement:
    """Make a topology of what the registry said last and of what members answer now.

    `departed` are those that left the registry without a word, `lost` says that it cannot be asked, `fenced` that
    nothing may be written then.
    """
    problems: list[str] = []
    known = {member.node: member for member in (*departed, *said.members)}
    heard = {node: answer for node, answer in answers.items() if node in known and _is_of(answer, said, problems)}
    named = said.primary
    followed = memory.followed
    if named is not None and followed is not None and named.timeline >= followed.timeline:
        followed = None
    timeline = max(memory.timeline, named.timeline if named is not None else 0)
    conflict = said.conflict
    if lost:
        newest = _newest_claims(heard, timeline)
        if len(newest) == 1:
            followed = newest[0]
            timeline = followed.timeline
        elif newest:
            conflict = tuple(claim.node for claim in newest)
            problems.append(f"{' and '.join(conflict)} are both primary on timeline {newest[0].timeline}: no writes")
    elif named is None:
        # It answers, and names nobody: that counts.
        followed = None
    # A registry that was restored from a backup may name one of the past.
    primary = followed or (named if named is not None and named.timeline >= timeline else None)
    current = {member.node for member in said.members}
    members = []
    for node in sorted(known):
        member = known[node]
        if node in current and not (lost and node in heard):
            members.append(member.judged(timeline))
        elif node in heard:
            answered = _as_answered(member, heard[node], primary, timeline, problems)
            if answered is not None:
                members.append(answered)
    topology = msgspec.structs.replace(
        said, members=tuple(members), primary=None if fenced or conflict else primary, conflict=conflict
    )
    return Judgement(topology, Memory(timeline, followed), tuple(problems))


def _newest_claims(heard: Mapping[str, Observation], above: int) -> list[PrimaryRecord]:
    """Return who says to be primary on the highest timeline, if that is above the one known."""
    claims = [PrimaryRecord(node, answer.timeline) for node, answer in heard.items() if answer.role is Role.PRIMARY]
    highest = max((claim.timeline for claim in claims), default=0)
    if highest <= above:
        return []
    return sorted((claim for claim in claims if claim.timeline == highest), key=lambda claim: claim.node)


def _is_of(answer: Observation, said: Topology, problems: list[str]) -> bool:
    if said.cluster is None or answer.system_identifier == said.cluster:
        return True
    problems.append(f"{answer.node} belongs to cluster {answer.system_identifier}, not to {said.cluster}: not used")
    return False


def _as_answered(
    member: Member, answer: Observation, primary: PrimaryRecord | None, timeline: int, problems: list[str]
) -> Member | None:
    """Return the member as it says it is; None for a primary that nobody has named."""
    role = answer.role
    if role is Role.PRIMARY and primary != PrimaryRecord(member.node, answer.timeline):
        if answer.timeline >= timeline:
            problems.append(f"{member.node} says primary on timeline {answer.timeline}, and nobody names it: not used")
            return None
        role = Role.STALE_PRIMARY
    return msgspec.structs.replace(member, role=role, timeline=answer.timeline)


class Witness:
    """Implements `Registry` over another one, which it owns."""

    def __init__(
        self,
        registry: Registry,
        prober: Prober,
        *,
        on_loss: OnLoss = "failsafe",
        release: Callable[[], object] = lambda: None,
    ) -> None:
        """`release` is called while nobody has to be asked: a connection that is kept would hold up who wants to go."""
        self._registry = registry
        self._prober = prober
        self._on_loss = on_loss
        self._release = release
        self._said: Topology | None = None
        self._departed: dict[str, Member] = {}
        self._answers: dict[str, Observation] = {}
        self._late: dict[str, int] = {}
        self._memory = Memory()
        self._problems: tuple[str, ...] = ()
        self._latest: Latest[Topology] = Latest()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def topologies(self) -> AsyncGenerator[Topology, None]:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="registry-witness")
            self._task.add_done_callback(self._latest.follow)
        async for topology in self._latest.values():
            yield topology

    async def stats(self) -> tuple[Stats, ...]:
        return await self._registry.stats()

    def refresh(self) -> None:
        self._registry.refresh()
        self._wake.set()

    def status(self) -> RegistryStatus:
        status = self._registry.status()
        if not self._problems:
            return status
        return msgspec.structs.replace(status, last_error="; ".join(filter(None, (status.last_error, *self._problems))))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._latest.end()
        await self._registry.close()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._look())

    async def _listen(self) -> None:
        """Take in what the registry says; who is missing in it without having said goodbye has departed."""
        async for topology in self._registry.topologies():
            for member in self._said.members if self._said is not None else ():
                if member.state is not MemberState.LEAVING and topology.member(member.node) is None:
                    # Until it has been asked, it is what it was.
                    self._departed[member.node] = member
                    self._answers.setdefault(member.node, _last_words(member))
            for member in topology.members:
                self._departed.pop(member.node, None)
            self._said = topology
            self._judge()
            self._wake.set()

    async def _look(self) -> None:
        """Ask the members whenever there is a reason to."""
        while True:
            await self._pause()
            if self._said is None:
                continue
            asked = self._to_ask(self._said)
            for node in self._answers.keys() - {member.node for member in asked}:
                del self._answers[node]
            await self._ask(asked)
            self._judge()
            if not self._to_ask(self._said):
                self._release()

    async def _pause(self) -> None:
        known = self._latest.value
        searching = known is not None and known.primary_member() is None
        try:
            async with asyncio.timeout(EAGER_S if searching else CALM_S):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    def _to_ask(self, said: Topology) -> list[Member]:
        departed = list(self._departed.values())
        return [*said.members, *departed] if not self._registry.status().connected else departed

    async def _ask(self, members: Iterable[Member]) -> None:
        async with asyncio.TaskGroup() as group:
            for member in members:
                group.create_task(self._ask_one(member))

    async def _ask_one(self, member: Member) -> None:
        """Keep the member's answer; without one it is forgotten, at once or when it has been late too often."""
        late = 0
        for address in member.addresses:
            try:
                async with asyncio.timeout(PROBE_TIMEOUT_S):
                    self._answers[member.node] = await self._prober.probe(address)
                self._late.pop(member.node, None)
                # It may be what everybody waits for: another one may be silent for long.
                self._judge()
                return
            except TimeoutError:
                late = self._late.get(member.node, 0) + 1
            except PgambError as error:
                log.debug("witness.silent", extra={"kv": {"member": member.node, "error": error.message}})
        if 0 < late <= PATIENCE_ROUNDS:
            self._late[member.node] = late
            return
        self._late.pop(member.node, None)
        self._answers.pop(member.node, None)
        if self._departed.pop(member.node, None) is not None:
            log.info("witness.gone", extra={"kv": {"member": member.node}})

    def _judge(self) -> None:
        assert self._said is not None
        status = self._registry.status()
        lost = not status.connected
        judgement = judge(
            self._said,
            self._departed.values(),
            self._answers,
            self._memory,
            lost=lost and self._on_loss != "fence",
            fenced=lost and self._on_loss == "fence" and (status.age_s is None or status.age_s > LOSS_S),
        )
        self._note(judgement)
        if judgement.topology != self._latest.value:
            self._latest.set(judgement.topology)

    def _note(self, judgement: Judgement) -> None:
        followed = judgement.memory.followed
        if followed is not None and followed != self._memory.followed:
            log.warning("witness.follows", extra={"kv": {"primary": followed.node, "timeline": followed.timeline}})
        self._memory = judgement.memory
        for problem in judgement.problems:
            if problem not in self._problems:
                log.warning("witness.problem", extra={"kv": {"problem": problem}})
        self._problems = judgement.problems


def _last_words(member: Member) -> Observation:
    return Observation(member.node, member.role, member.timeline, member.system_identifier, member.server_version)
