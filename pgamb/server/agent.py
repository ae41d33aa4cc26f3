"""The agent's loop: probe, decide, do. All judgement is in `decide`; this carries it out.

What is shut is shut before anything is written, and opened only after: a port that must not relay does not wait for
the registry. Nothing here waits longer than its deadlines, and no failure of PostgreSQL or the registry ends the loop.

Each change of state is one line in the log; a try that fails as the one before it did is none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Protocol

import msgspec

from pgamb.errors import RegistryError, RegistryMismatch
from pgamb.registry.model import Member, MemberState, PrimaryRecord, RegistryView, Role, Stats
from pgamb.server.decide import (
    Announce,
    Decision,
    History,
    Hold,
    Identity,
    PeerAnswer,
    Refusal,
    Withdraw,
    announcing,
    claimed,
    decide,
    peers_to_ask,
    remember,
    withdrawn,
)
from pgamb.server.reading import Probe, Reading

log = logging.getLogger(__name__)

# While something is awaited (PostgreSQL, the registry, a new primary) a second is long, and a probe costs nothing much.
EAGER_INTERVAL_S = 0.05
# However many events wake us, this much lies between two probes.
MIN_PAUSE_S = 0.02
# How long a registration says that it is about to go.
FAREWELL_S = 0.3


class Registration(Protocol):
    """What the agent needs of the registry; see `registry.announcer.Announcer`."""

    async def announce(self, member: Member, stats: Stats | None = None) -> bool: ...

    async def withdraw(self) -> bool: ...

    async def claim_primary(self, record: PrimaryRecord, expected_revision: int) -> bool: ...

    def view(self) -> RegistryView | None: ...

    def views(self) -> AsyncGenerator[RegistryView, None]: ...


class Asking(Protocol):
    """Asks the PostgreSQL beside us; see `server.probe.Prober`."""

    async def probe(self) -> Probe: ...


class Peers(Protocol):
    """Asks another member itself; see `server.peers.PeerProber`."""

    async def ask(self, member: Member, own: Reading) -> PeerAnswer: ...


class Fencing(Protocol):
    """Keeps everybody from writing to the server; see `server.fence.Fence`."""

    def see(self, reason: str | None) -> None: ...


class Port(Protocol):
    """The exposed port; see `server.expose.Exposure`."""

    def set_refusal(self, refusal: Refusal | None) -> None: ...


class Agent:
    """Keeps one PostgreSQL's registration, and its exposed port, truthful."""

    def __init__(
        self,
        identity: Identity,
        postgres: Asking,
        registration: Registration,
        peers: Peers,
        *,
        port: Port | None = None,
        fence: Fencing | None = None,
        interval_s: float = 1.0,
        wake: asyncio.Event | None = None,
    ) -> None:
        self._identity = identity
        self._postgres = postgres
        self._registration = registration
        self._peers = peers
        self._port = port
        self._fence = fence
        self._interval_s = interval_s
        self._wake = wake or asyncio.Event()
        self._history = History()
        self._said: dict[str, tuple[str, ...]] = {}
        self._member: Member | None = None

    async def run(self) -> None:
        """Go on for ever; ends by cancellation, or by a ConfigError."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_registry())
            while True:
                self._wake.clear()
                decision = await self.step()
                await self._rest(decision)

    async def step(self) -> Decision:
        """Probe, decide and do, once."""
        probe = await self._postgres.probe()
        view = self._registration.view()
        history = remember(self._history, probe, view)
        answers: dict[str, PeerAnswer] = {}
        if isinstance(probe, Reading) and (asked := peers_to_ask(probe, history, view, self._identity)):
            answers = await self._ask(asked, probe)
            history = remember(history, probe, view, answers)
        self._history = history
        decision = decide(probe, history, view, self._identity, answers)
        self._note(decision)
        await self._do(decision, probe, view)
        return decision

    async def withdraw(self) -> bool:
        """Remove the registration, and say that it is meant to be gone; what cannot be removed now ends with its lease.

        A registration that just ends is that of an agent in trouble, and its server is used on.
        """
        if self._member is not None and self._history.announced:
            leaving = msgspec.structs.replace(self._member, state=MemberState.LEAVING)
            with suppress(RegistryError):
                if await self._registration.announce(leaving):
                    # Who watches may be shown only what is left of several changes that come at once.
                    await asyncio.sleep(FAREWELL_S)
        done = await self._registration.withdraw()
        if done:
            self._say("member", "server.withdrawn", logging.INFO, reason="stopping")
        else:
            self._say("member", "server.not-withdrawn", logging.WARNING, reason="the registration ends with its lease")
        return done

    async def _ask(self, members: tuple[Member, ...], own: Reading) -> dict[str, PeerAnswer]:
        async with asyncio.TaskGroup() as group:
            asked = {member.node: group.create_task(self._peers.ask(member, own)) for member in members}
        return {node: task.result() for node, task in asked.items()}

    async def _do(self, decision: Decision, probe: Probe, view: RegistryView | None) -> None:
        refusal = decision.refusal
        if refusal is not None:
            self._set_port(refusal)
        if self._fence is not None:
            self._fence.see(refusal.message if refusal is not None and refusal.fence else None)
        if isinstance(decision, Announce) and isinstance(probe, Reading):
            refusal = await self._announce(decision, probe, view) or refusal
        elif isinstance(decision, Withdraw) and self._history.announced:
            self._history = withdrawn(self._history)
            await self._registration.withdraw()
        if refusal is None and not (isinstance(decision, Hold) and decision.keeps_port):
            self._set_port(None)

    async def _announce(self, decision: Announce, reading: Reading, view: RegistryView | None) -> Refusal | None:
        """Write what was decided; what the registry refuses altogether is not relayed to either."""
        member = self._member = decision.member
        self._history = announcing(self._history)
        try:
            if await self._registration.announce(member, stats_of(reading, member.node)):
                self._say_announced(decision)
            else:
                self._said.pop("member", None)
            if decision.claim is None or view is None:
                return None
            if await self._registration.claim_primary(decision.claim, view.primary_revision):
                self._history = claimed(self._history, decision.claim, member)
            self._said.pop("registry", None)
        except RegistryMismatch as error:
            self._say("member", "server.not-announced", logging.ERROR, error=error.message, hint=error.hint)
            refusal = Refusal(error.message, error.hint or "Give the agent the --service of its own cluster.")
            self._set_port(refusal)
            return refusal
        except RegistryError as error:
            self._say("registry", "server.claim-waits", logging.WARNING, error=error.message)
        return None

    def _set_port(self, refusal: Refusal | None) -> None:
        if self._port is None:
            return
        self._port.set_refusal(refusal)
        if refusal is None:
            self._say("port", "server.port.relaying", logging.INFO)
        else:
            self._say("port", "server.port.refusing", logging.WARNING, reason=refusal.message)

    def _note(self, decision: Decision) -> None:
        if isinstance(decision, Withdraw):
            if self._history.announced:
                self._say("member", "server.withdrawn", logging.WARNING, reason=decision.reason)
            elif self._said.get("member") != ("server.withdrawn", decision.reason):
                self._say("member", "server.waiting", logging.WARNING, reason=decision.reason)
        elif isinstance(decision, Hold):
            self._say("member", "server.waiting", logging.WARNING, reason=decision.reason)

    def _say_announced(self, decision: Announce) -> None:
        member = decision.member
        self._say(
            "member",
            "server.announced",
            logging.INFO if decision.refusal is None else logging.WARNING,
            role=member.role.value,
            timeline=member.timeline,
            address=",".join(map(str, member.addresses)),
            reason=decision.reason,
        )

    def _say(self, about: str, event: str, level: int, **values: object) -> None:
        """Log a state of one thing, unless it is the state that was logged last."""
        state = (event, *(str(value) for value in values.values()))
        if self._said.get(about) != state:
            self._said[about] = state
            log.log(level, event, extra={"kv": {"node": self._identity.node, **values}})

    async def _rest(self, decision: Decision) -> None:
        await asyncio.sleep(MIN_PAUSE_S)
        interval_s = self._interval_s
        if self._awaits_something(decision):
            interval_s = min(interval_s, EAGER_INTERVAL_S)
        try:
            async with asyncio.timeout(interval_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _awaits_something(self, decision: Decision) -> bool:
        """Tell whether the next second may bring what everybody waits for: a server, a registry, a new primary."""
        if not isinstance(decision, Announce) or decision.claim is not None:
            return True
        view = self._registration.view()
        if view is None or view.primary is None:
            return True
        named = view.primary
        return not any(
            member.node == named.node and member.role is Role.PRIMARY and member.timeline == named.timeline
            for member in view.members
        )

    async def _follow_registry(self) -> None:
        """Look at once when somebody else changed something: who is primary decides what our port may do."""
        async with aclosing(self._registration.views()) as views:
            async for _ in views:
                self._wake.set()


def stats_of(reading: Reading, node: str) -> Stats:
    """Say what changes every second."""
    return Stats(
        node=node,
        wal_lsn=reading.wal_lsn,
        replay_lsn=reading.replay_lsn,
        lag_bytes=reading.lag_bytes,
        lag_s=reading.lag_s,
        connections=reading.connections,
    )
