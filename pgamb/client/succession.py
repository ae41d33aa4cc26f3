"""Lets another `pgamb client` take our place: gives it our listening sockets, and stops when it serves.

Nothing changes here before the successor says that it is ready, and what it does not complete is undone: then we
accept again (`sockets.control` has the conversation).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from pathlib import Path

from pgamb import __version__
from pgamb.client.cancel import Canceller
from pgamb.errors import ConnectionFailure
from pgamb.sockets.acceptor import Acceptor
from pgamb.sockets.control import (
    MOST_SOCKETS,
    PROTOCOL,
    Cancel,
    Cancelled,
    Control,
    Draining,
    Hello,
    Offer,
    Refused,
    Serving,
    Stop,
    Stopped,
    listen_for_successors,
    offered,
    place_of,
)

log = logging.getLogger(__name__)

# Between two messages of a successor that has nothing left to do but to accept; who comes meanwhile waits.
SERVING_TIMEOUT_S = 5.0


class Succession:
    """Listens for a successor. `succeeded` is set when one serves in our place."""

    def __init__(
        self,
        acceptors: Callable[[], Mapping[str, Acceptor]],
        canceller: Canceller,
        last_pid: Callable[[], int],
        spawn: Callable[[Coroutine[object, object, None]], object],
    ) -> None:
        """`acceptors` are by the option that each is for; `last_pid` tells what process id was given out last."""
        self._acceptors = acceptors
        self._canceller = canceller
        self._last_pid = last_pid
        self._spawn = spawn
        self._listening: socket.socket | None = None
        self._path = ""
        self._heir: Control | None = None
        self._settled = asyncio.Event()
        self._settled.set()
        self.succeeded = asyncio.Event()

    def open(self, folder: Path) -> None:
        """Listen for a successor; raises ConfigError."""
        self._listening = listen_for_successors(folder)
        self._path = self._listening.getsockname()
        asyncio.get_running_loop().add_reader(self._listening.fileno(), self._accept)

    async def settle(self) -> None:
        """Wait until nobody is about to take our place."""
        await self._settled.wait()

    def close(self) -> None:
        """Be succeeded by nobody from now on."""
        if self._listening is None:
            return
        asyncio.get_running_loop().remove_reader(self._listening.fileno())
        self._listening.close()
        self._listening = None
        with suppress(OSError):
            os.unlink(self._path)

    def _accept(self) -> None:
        assert self._listening is not None
        with suppress(OSError):
            sock, _ = self._listening.accept()
            self._spawn(self._serve(Control(sock)))

    async def _serve(self, control: Control) -> None:
        try:
            if not control.is_own_user:
                log.warning(
                    "takeover.stranger", extra={"kv": {"what": "a process of another user asks for our sockets"}}
                )
                return
            if await self._offer(control):
                await self._follow(control)
        except ConnectionFailure as error:
            log.debug("takeover.left", extra={"kv": {"error": error.message}})
        finally:
            if self._heir is control and not self.succeeded.is_set():
                self._heir = None
                for acceptor in self._acceptors().values():
                    acceptor.start()
                self._settled.set()
                log.warning("takeover.undone", extra={"kv": {"what": "the successor did not begin to serve: we go on"}})
            control.close()

    async def _offer(self, control: Control) -> bool:
        """Answer a Hello; tell whether there is anything to go on with."""
        hello, _ = await control.receive()
        if not isinstance(hello, Hello):
            return False
        sockets = [(flag, each) for flag, acceptor in self._acceptors().items() for each in acceptor.listening]
        at = tuple(place_of(each.target) for _, each in sockets)
        refusal = None
        if hello.protocol != PROTOCOL:
            refusal = (
                f"process {os.getpid()}, pgamb {__version__}, hands over by protocol {PROTOCOL}, "
                f"pgamb {hello.release} takes over by {hello.protocol}"
            )
        elif len(sockets) > MOST_SOCKETS:
            refusal = f"process {os.getpid()} listens at {len(sockets)} addresses, {MOST_SOCKETS} can be handed over"
        if refusal is not None:
            log.warning("takeover.refused", extra={"kv": {"successor": hello.pid, "reason": refusal}})
            await control.send(Refused(refusal, "Stop it, then start this one.", at))
            return False
        log.info("takeover.asked", extra={"kv": {"successor": hello.pid, "release": hello.release}})
        described = tuple(offered(flag, each) for flag, each in sockets)
        offer = Offer(__version__, os.getpid(), described, self._last_pid(), at)
        await control.send(offer, [each.sock.fileno() for _, each in sockets])
        return True

    async def _follow(self, control: Control) -> None:
        """See a successor through to its serving, then do what it cannot do for our sessions."""
        stop, _ = await control.receive()
        if not isinstance(stop, Stop):
            return
        if self._heir is not None or self._listening is None:
            await control.send(Refused("it is being taken over, or stopped, already"))
            return
        self._heir = control
        self._settled.clear()
        for acceptor in self._acceptors().values():
            acceptor.pause()
        await control.send(Stopped())
        try:
            async with asyncio.timeout(SERVING_TIMEOUT_S):
                serving, _ = await control.receive()
        except TimeoutError:
            await control.send(Refused(f"it has not heard within {SERVING_TIMEOUT_S:g} s that we serve"))
            return
        if not isinstance(serving, Serving):
            return
        self.succeeded.set()
        for acceptor in self._acceptors().values():
            acceptor.close(stop.keep)
        self.close()
        self._settled.set()
        await control.send(Draining())
        while True:
            message, _ = await control.receive()
            if isinstance(message, Cancel):
                self._spawn(self._cancel(control, message))

    async def _cancel(self, control: Control, request: Cancel) -> None:
        await self._canceller.cancel(request.pid, request.secret)
        with suppress(ConnectionFailure):
            await control.send(Cancelled(request.number))
