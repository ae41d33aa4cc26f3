"""Runs --fence-command: the last word against a server that may write what nobody should see.

The exposed port has stopped relaying by then. The command is for those who reach PostgreSQL past it: it stops the
server, or demotes it. It is a shell's, and finds PGAMB_NODE and PGAMB_FENCE_REASON in its environment.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0
# A command that failed is run again, for as long as there is a reason to.
RETRY_S = 5.0
# Of what it said, for the log.
TAIL_BYTES = 500


class Fence:
    """Runs the command once for each time that there is a reason to; `see` is to be called with each decision."""

    def __init__(self, command: str, node: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._command = command
        self._node = node
        self._clock = clock
        self._done = False
        self._again_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def see(self, reason: str | None) -> None:
        """Take in why the server must not be written to now, None: it may."""
        if reason is None:
            self._done = False
            self._again_at = 0.0
        elif not self._done and self._clock() >= self._again_at and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._run(reason), name="server-fence")

    async def close(self) -> None:
        """Let a command that runs come to its end."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=TIMEOUT_S)

    async def _run(self, reason: str) -> None:
        log.warning("server.fence", extra={"kv": {"node": self._node, "reason": reason}})
        process = await asyncio.create_subprocess_shell(
            self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PGAMB_NODE": self._node, "PGAMB_FENCE_REASON": reason},
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                said, _ = await process.communicate()
            status = process.returncode
        except TimeoutError:
            process.kill()
            said, status = b"it did not end in time", None
        if status == 0:
            self._done = True
            log.info("server.fenced", extra={"kv": {"node": self._node}})
            return
        self._again_at = self._clock() + RETRY_S
        words = said[-TAIL_BYTES:].decode(errors="replace").strip()
        log.error("server.fence-failed", extra={"kv": {"node": self._node, "status": status, "said": words}})
