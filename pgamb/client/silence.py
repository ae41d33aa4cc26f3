"""Finds the members that have fallen silent: their machine is gone, or cut off, and no packet says so.

What is known of a place (an address that a name led to when we connected; where it leads now is another question):

* bytes of any of its backends have come: it is there;
* it owes an answer and has sent nothing for half of `--silence-timeout`: it is asked, over another connection, whether
  it is there. A long query is no reason to say nothing to that;
* it has not answered for SUSPECT_S: its idle backends are closed, so that what comes next needs a new connection;
* it has not answered for the other half: all its backends are lost, and who waits at them hears what that means for
  what was under way.

Besides, a single connection is lost whose packets have not been acknowledged for `--silence-timeout`: something on the
way may have forgotten it. So is an application's that holds a backend. Connections on which nothing is on its way are
the kernel's concern (keepalive, `sockets.tcp`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from pgamb.client.opener import Opener
from pgamb.client.pools import Pools
from pgamb.errors import AdminShutdown, ConnectionFailure
from pgamb.relay.backend import Backend
from pgamb.relay.frontend import Frontend
from pgamb.relay.pool import Pool
from pgamb.sockets.unheard import Unheard

log = logging.getLogger(__name__)

# How often all this is looked at, at most.
TICK_S = 0.5
# A process that is there takes a connection and answers a packet within this, unless the machine is out of breath.
SUSPECT_S = 1.0

Place: TypeAlias = tuple[int, str | tuple[Any, ...]]


@dataclass(slots=True)
class _Watched:
    """A place: what its backends had received when it was heard last, and whether it is being asked."""

    received_bytes: int
    heard_at: float
    asking: bool = False


class Silence:
    """Watches over the places where backends are."""

    def __init__(
        self,
        pools: Pools,
        opener: Opener,
        frontends: Callable[[], Iterable[Frontend]],
        spawn: Callable[[Coroutine[object, object, None]], object],
        silence_timeout_s: float,
    ) -> None:
        self._pools = pools
        self._opener = opener
        self._frontends = frontends
        self._spawn = spawn
        self._timeout_s = silence_timeout_s
        self._watched: dict[Place, _Watched] = {}
        self._unheard = Unheard(silence_timeout_s)

    async def tick_forever(self) -> None:
        """Look at all places now and then, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(TICK_S, self._timeout_s / 10))
            self._look(loop.time())
            self._give_up_unheard(loop.time())

    def suspect(self, node: str) -> None:
        """Ask the places of a member at once: something else of it has been silent."""
        now = asyncio.get_running_loop().time()
        for place, backends in self._places().items():
            if self._pools.node_of(backends[0]) == node:
                self._ask_about(place, self._watch(place, backends, now), backends)

    def _places(self) -> dict[Place, list[Backend]]:
        places: dict[Place, list[Backend]] = {}
        for backend in self._pools.backends():
            opened = self._pools.address_of(backend)
            if opened is not None:
                places.setdefault(opened.reached, []).append(backend)
        return places

    def _watch(self, place: Place, backends: list[Backend], now: float) -> _Watched:
        received = sum(backend.received_bytes for backend in backends)
        watched = self._watched.get(place)
        if watched is None or watched.received_bytes != received:
            # A backend that has gone, or come, is news of the place as well.
            asking = watched is not None and watched.asking
            watched = self._watched[place] = _Watched(received, now, asking)
        return watched

    def _look(self, now: float) -> None:
        places = self._places()
        for place in [place for place in self._watched if place not in places]:
            del self._watched[place]
        for place, backends in places.items():
            watched = self._watch(place, backends, now)
            if not any(backend.owed for backend in backends):
                watched.heard_at = now
            elif now - watched.heard_at >= self._timeout_s / 2:
                self._ask_about(place, watched, backends)

    def _ask_about(self, place: Place, watched: _Watched, backends: list[Backend]) -> None:
        opened = self._pools.address_of(backends[0])
        if not watched.asking and opened is not None:
            watched.asking = True
            self._spawn(self._ask(place, watched.received_bytes, str(opened.address)))

    async def _ask(self, place: Place, received: int, name: str) -> None:
        """Ask whether anybody is there, and draw the conclusions."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        asking = asyncio.ensure_future(self._opener.ask_presence(place))
        try:
            done, _ = await asyncio.wait([asking], timeout=min(SUSPECT_S, self._timeout_s / 4))
            if not done and self._is_silent_since(place, received):
                log.warning(
                    "member.suspect", extra={"kv": {"address": name, "what": "it does not say whether it is there"}}
                )
                self._close_idle(place)
                done, _ = await asyncio.wait([asking], timeout=self._timeout_s / 2 - (loop.time() - began))
            # Refused is an answer too: the machine is there, and resets what it does not know.
            if not done and self._is_silent_since(place, received):
                unanswered_s = round(loop.time() - began, 1)
                log.warning("member.silent", extra={"kv": {"address": name, "unanswered_s": unanswered_s}})
                message = f"{name} has fallen silent, and not answered for {unanswered_s:g} s whether it is there"
                self._pools.give_up_at(place, ConnectionFailure(message))
        finally:
            asking.cancel()
            watched = self._watched.get(place)
            if watched is not None:
                watched.asking = False
                watched.heard_at = loop.time()

    def _close_idle(self, place: Place) -> None:
        for home in {backend.home for backend in self._places().get(place, ())}:
            if isinstance(home, Pool):
                home.close_idle(float("inf"))

    def _is_silent_since(self, place: Place, received: int) -> bool:
        backends = self._places().get(place)
        # Idle backends may have been closed meanwhile: less has been received by those that are left.
        return backends is not None and sum(backend.received_bytes for backend in backends) <= received

    def _give_up_unheard(self, now: float) -> None:
        backends = list(self._pools.backends())
        holders = [frontend for frontend in self._frontends() if frontend.backend is not None]
        gone = f"nothing has been acknowledged for {self._timeout_s:g} s"
        for source in self._unheard.overdue([*backends, *holders], now):
            if isinstance(source, Backend):
                source.fail(ConnectionFailure(gone))
            elif isinstance(source, Frontend):
                source.close(AdminShutdown(f"terminating connection: {gone}"))
