"""Where applications and watchers come in, and whose place that is: a predecessor's before, a successor's after."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence

from pgamb.client.cancel import Canceller
from pgamb.client.listener import listen
from pgamb.client.login import LoginDesk
from pgamb.client.predecessor import Predecessor, find_predecessor
from pgamb.client.status import StatusPage
from pgamb.client.succession import Succession
from pgamb.config import ClientOptions, ListenAddress
from pgamb.errors import ConfigError, PgambError
from pgamb.observe.snapshot import Observed
from pgamb.relay.freshness import Freshness
from pgamb.sockets.acceptor import Acceptor
from pgamb.sockets.activation import notify
from pgamb.sockets.binding import Listening, bind
from pgamb.sockets.control import prepare_folder, runtime_folder

log = logging.getLogger(__name__)

# Who takes the place of another process has to be of use by then; until then that one serves.
READY_TIMEOUT_S = 30.0
_READY_STEP_S = 0.1
# The predecessor completes log-ins after it has told its last process id: not this many.
_PIDS_APART = 1 << 20

_APPLICATIONS, _WATCHERS = "--listen", "--status-listen"


class Entrance:
    """All listening sockets of a process. `given` are used instead of binding, by the option that each is for."""

    def __init__(
        self,
        options: ClientOptions,
        given: Mapping[str, Sequence[Listening]],
        desk: LoginDesk,
        canceller: Canceller,
        freshness: Freshness,
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        self._options = options
        self._given = given
        self._desk = desk
        self._canceller = canceller
        self._freshness = freshness
        self._spawn = spawn
        self._acceptors: dict[str, Acceptor] = {}
        self._status: StatusPage | None = None
        self._predecessor: Predecessor | None = None
        # The unix sockets that are still a predecessor's.
        self._borrowed: tuple[str, ...] = ()
        self._succession = Succession(lambda: self._acceptors, canceller, lambda: desk.last_pid, spawn)
        self.succeeded = self._succession.succeeded

    async def bind(self) -> list[str]:
        """Listen, but for accepting; returns where applications connect. Raises ConfigError that says what to do."""
        options = self._options
        if options.takeover:
            await self._find_predecessor()
        self._acceptors[_APPLICATIONS] = listen(
            self._sockets(_APPLICATIONS, options.listen), self._desk.serve, self._spawn
        )
        watched = () if options.status_listen is None else (options.status_listen,)
        if status := self._sockets(_WATCHERS, watched):
            self._status = StatusPage(status, self._spawn)
            self._acceptors[_WATCHERS] = self._status.acceptor
        return [str(each) for each in self._acceptors[_APPLICATIONS].listening]

    async def open(self, observed: Observed) -> None:
        """Accept: in place of a predecessor, as soon as we are ready. Raises PgambError, and then it goes on."""
        if self._status is not None:
            await self._status.prepare(observed)
        predecessor = self._predecessor
        if predecessor is not None:
            await self._wait_until_ready(observed, predecessor)
            await predecessor.stop(self._borrowed)
        for acceptor in self._acceptors.values():
            acceptor.start()
        if predecessor is not None:
            await predecessor.serving()
            self._borrowed = ()
            self._freshness.share(True)
            self._spawn(self._outlive(predecessor))
        self._listen_for_successors()
        notify("READY=1", f"MAINPID={os.getpid()}")

    def is_needed(self) -> bool:
        """Tell whether a predecessor is there whose sessions can be cancelled through us only."""
        return self._predecessor is not None and not self._predecessor.gone.is_set()

    def described(self) -> dict[str, object]:
        """Say where all this is, for the log."""
        names = {_APPLICATIONS: "at", _WATCHERS: "status"}
        described: dict[str, object] = {names[flag]: str(acceptor) for flag, acceptor in self._acceptors.items()}
        return described | ({"in_place_of": self._predecessor} if self._predecessor is not None else {})

    async def close(self) -> None:
        """Let in no application more. Watchers may see how it ends, unless a successor answers them now."""
        await self._succession.settle()
        self._succession.close()
        self._acceptors[_APPLICATIONS].close(self._borrowed)

    async def leave(self) -> None:
        """End what is left, at once."""
        self._succession.close()
        for acceptor in self._acceptors.values():
            acceptor.close(self._borrowed)
        if self._predecessor is not None:
            self._predecessor.close()
        if self._status is not None:
            await self._status.close()

    async def _find_predecessor(self) -> None:
        folder = runtime_folder(self._options.runtime_folder)
        prepare_folder(folder)
        found = await find_predecessor(folder, self._options.listen, self._given.get(_APPLICATIONS, ()))
        if found is None:
            kv = {"folder": folder, "what": "no process there listens at any of our addresses: a start like any other"}
            log.warning("takeover.nobody", extra={"kv": kv})
            return
        self._predecessor = self._canceller.predecessor = found
        self._desk.number_from(found.last_pid + _PIDS_APART)

    def _sockets(self, flag: str, addresses: Sequence[ListenAddress]) -> list[Listening]:
        if given := self._given.get(flag):
            return list(given)
        if self._predecessor is None:
            return bind(addresses, flag=flag)
        inherited = self._predecessor.inherited(flag)
        bound = bind(addresses, flag=flag, inherited=inherited)
        self._borrowed += tuple(each.path for each in bound if each.path is not None and each in inherited.taken)
        # What we do not go on with is closed when it stops.
        inherited.close()
        return bound

    async def _wait_until_ready(self, observed: Observed, predecessor: Predecessor) -> None:
        """Wait until an application would be served; raises PgambError when that takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READY_TIMEOUT_S
        while not (readiness := await observed.readiness()).ready:
            if loop.time() > deadline:
                raise PgambError(
                    f"not taking over from {predecessor}, which goes on: not ready within {READY_TIMEOUT_S:g} s, "
                    f"{readiness.reason}",
                    hint="See `pgamb check` with the same options.",
                )
            await asyncio.sleep(_READY_STEP_S)

    async def _outlive(self, predecessor: Predecessor) -> None:
        await predecessor.follow()
        self._freshness.share(False)

    def _listen_for_successors(self) -> None:
        """Make it possible to take our place. Where that cannot be, we serve all the same, unless it was asked for."""
        folder = runtime_folder(self._options.runtime_folder)
        try:
            prepare_folder(folder)
            self._succession.open(folder)
        except ConfigError as error:
            if self._options.runtime_folder and self._predecessor is None:
                raise
            kv = {"error": error.message, "what": "nobody can take over from this process", "hint": error.hint}
            log.warning("takeover.impossible", extra={"kv": kv})
