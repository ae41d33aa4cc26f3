"""Takes the place of another `pgamb client`: its listening sockets first, and what is left to it, cancel requests.

The other process goes on as if nothing had happened until we accept; whatever goes wrong before that ends us, not it
(`sockets.control` has the conversation).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pgamb import __version__
from pgamb.config import ListenAddress
from pgamb.errors import ConnectionFailure, PgambError
from pgamb.sockets.binding import Inherited, Listening
from pgamb.sockets.control import (
    PROTOCOL,
    Cancel,
    Cancelled,
    Control,
    Draining,
    Hello,
    Message,
    Offer,
    Refused,
    Serving,
    Stop,
    Stopped,
    adopted,
    place_of,
    predecessors,
)

log = logging.getLogger(__name__)

# A process that serves answers at once; one that is stopped, or hangs, never.
ANSWER_TIMEOUT_S = 5.0


class Predecessor:
    """The process whose place is taken."""

    def __init__(self, control: Control, offer: Offer, sockets: dict[str, Inherited]) -> None:
        self._control = control
        self._offer = offer
        self._sockets = sockets
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.gone = asyncio.Event()

    def __str__(self) -> str:
        return f"process {self._offer.pid}, pgamb {self._offer.release}"

    @property
    def pid(self) -> int:
        return self._offer.pid

    @property
    def last_pid(self) -> int:
        """The process id that an application was told last."""
        return self._offer.last_pid

    def inherited(self, flag: str) -> Inherited:
        """Return what it listens at for one option."""
        return self._sockets.get(flag, Inherited())

    async def stop(self, keep: Iterable[str]) -> None:
        """Let it accept no more: from now on we have to. `keep` are unix sockets that we go on with.

        Raises PgambError, and it goes on.
        """
        answer = await self._ask(Stop(tuple(keep)))
        if not isinstance(answer, Stopped):
            raise self._failure(answer)

    async def serving(self) -> None:
        """Say that we accept; raises PgambError when it was too late, and it accepts again."""
        try:
            answer = await self._ask(Serving())
        except PgambError as error:
            # It is gone, or hangs: we are the one that serves.
            log.warning("takeover.unconfirmed", extra={"kv": {"predecessor": self, "error": error.message}})
            return
        if not isinstance(answer, Draining):
            raise self._failure(answer)

    async def follow(self) -> None:
        """Stay in touch until it has ended."""
        with suppress(ConnectionFailure):
            while True:
                message, _ = await self._control.receive()
                waiting = self._waiting.get(message.number) if isinstance(message, Cancelled) else None
                if waiting is not None and not waiting.done():
                    waiting.set_result(None)
        self.close()
        log.info("takeover.predecessor_gone", extra={"kv": {"predecessor": self}})

    async def cancel(self, pid: int, secret: bytes) -> None:
        """Cancel what a session that still is there runs; returns when that has been dealt with, or there is none."""
        if self.gone.is_set():
            return
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            await self._control.send(Cancel(number, pid, secret))
            await waiting
        except ConnectionFailure:
            return
        finally:
            del self._waiting[number]

    def close(self) -> None:
        """Leave it alone; before it was told that we serve, it goes on."""
        for sockets in self._sockets.values():
            sockets.close()
        self._control.close()
        self.gone.set()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_result(None)

    async def _ask(self, message: Message) -> Message:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await self._control.send(message)
                return (await self._control.receive())[0]
        except TimeoutError:
            raise PgambError(f"{self} does not answer") from None

    def _failure(self, answer: Message) -> PgambError:
        why = answer.message if isinstance(answer, Refused) else f"it answers {type(answer).__name__}"
        return PgambError(
            f"cannot take over from {self}: {why}", hint=answer.hint if isinstance(answer, Refused) else None
        )


async def find_predecessor(
    folder: Path, addresses: Iterable[ListenAddress], given: Iterable[Listening] = ()
) -> Predecessor | None:
    """Find the process that listens at any of these addresses, or at the sockets `given`; None if there is none.

    Raises PgambError where one refuses, or two would have to be succeeded.
    """
    wanted = {place_of(target) for address in addresses for target in address.targets()}
    wanted |= {place_of(listening.target) for listening in given}
    found: list[Predecessor] = []
    try:
        for control in predecessors(folder):
            predecessor = await _greet(control, wanted)
            if predecessor is not None:
                found.append(predecessor)
        if len(found) > 1:
            raise PgambError(
                f"cannot take over from {' and '.join(map(str, found))} at the same time: both listen where we should",
                hint="Stop all but one of them.",
            )
    except BaseException:
        for predecessor in found:
            predecessor.close()
        raise
    return found[0] if found else None


async def _greet(control: Control, wanted: set[str]) -> Predecessor | None:
    """Ask a process for its sockets; None if it is not the one, or not there any more."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await control.send(Hello(PROTOCOL, __version__, os.getpid()))
            answer, fds = await control.receive()
    except (ConnectionFailure, TimeoutError) as error:
        log.warning("takeover.unanswered", extra={"kv": {"error": str(error) or f"within {ANSWER_TIMEOUT_S:g} s"}})
        control.close()
        return None
    except BaseException:
        control.close()
        raise
    if isinstance(answer, Refused) and wanted.intersection(answer.at):
        control.close()
        raise PgambError(f"cannot take over: {answer.message}", hint=answer.hint or None)
    if not isinstance(answer, Offer) or len(fds) != len(answer.sockets) or not wanted.intersection(answer.at):
        for fd in fds:
            os.close(fd)
        control.close()
        return None
    sockets: dict[str, list[Listening]] = {}
    for offer, fd in zip(answer.sockets, fds, strict=True):
        sockets.setdefault(offer.flag, []).append(adopted(offer, fd))
    return Predecessor(control, answer, {flag: Inherited(listening) for flag, listening in sockets.items()})
