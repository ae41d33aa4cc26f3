"""The status page, its JSON, the metrics and the health checks, over HTTP.

It is for people and machines that may see everything: there is no log-in, nothing can be changed, and every answer is
made from one snapshot. Whoever owns the listening socket hands accepted connections over.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from pgamb.observe.metrics import CONTENT_TYPE, Exposition
from pgamb.observe.page import render_page
from pgamb.observe.snapshot import Observed, Snapshot

T = TypeVar("T")

# Whoever opens connections and says nothing must not use up the descriptors that applications need.
MOST_CONNECTIONS = 256
# How long requests under way may take when the process stops.
SHUTDOWN_S = 1.0

_PAGES = "There is /, /status.json, /metrics, /healthz and /readyz.\n"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # The page needs nothing but its own style; whatever else a name could smuggle in is not run.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
}


class StatusServer:
    """Answers HTTP requests about `observed`."""

    def __init__(self, observed: Observed) -> None:
        self._observed = observed
        self._exposition = Exposition()
        self._writing = asyncio.Lock()
        # Those that are open, and some that were; `_arriving` are on their way to be among them.
        self._transports: set[asyncio.Transport] = set()
        self._arriving = 0
        application = web.Application(middlewares=[_explain])
        application.router.add_get("/", self._page)
        application.router.add_get("/status.json", self._json)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)

    async def start(self) -> None:
        await self._runner.setup()

    async def serve(self, sock: socket.socket) -> None:
        """Take over an accepted, non-blocking connection; one too many is closed at once."""
        server = self._runner.server
        if server is None or not self._has_room():
            sock.close()
            return
        self._arriving += 1
        try:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(server, sock)
            self._transports.add(transport)
        except OSError:
            # It left already.
            sock.close()
        finally:
            self._arriving -= 1

    def _has_room(self) -> bool:
        if len(self._transports) + self._arriving >= MOST_CONNECTIONS:
            self._transports = {transport for transport in self._transports if not transport.is_closing()}
        return len(self._transports) + self._arriving < MOST_CONNECTIONS

    async def close(self) -> None:
        """Close every connection."""
        await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n", headers=_HEADERS)

    async def _readyz(self, request: web.Request) -> web.Response:
        readiness = await self._observed.readiness()
        words = "ready" if readiness.ready else "not ready"
        return web.Response(
            text=f"{words}: {readiness.reason}\n", status=200 if readiness.ready else 503, headers=_HEADERS
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        text = await self._write(self._exposition.render)
        return web.Response(body=text, headers={**_HEADERS, "Content-Type": CONTENT_TYPE})

    async def _json(self, request: web.Request) -> web.Response:
        text = msgspec.json.encode(await self._observed.snapshot())
        return web.Response(body=text, content_type="application/json", headers=_HEADERS)

    async def _page(self, request: web.Request) -> web.Response:
        text = await self._write(render_page)
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)

    async def _write(self, write: Callable[[Snapshot], T]) -> T:
        """Let a thread write a snapshot down: a thousand pools take a quarter of a second, in which queries go on."""
        async with self._writing:
            return await asyncio.to_thread(write, await self._observed.snapshot())


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Say what there is to whoever asked for something else."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return web.Response(text=f"There is nothing at this path. {_PAGES}", status=404, headers=_HEADERS)
    except web.HTTPMethodNotAllowed as error:
        headers = {**_HEADERS, "Allow": ", ".join(sorted(error.allowed_methods))}
        return web.Response(text=f"Nothing can be changed here: use GET. {_PAGES}", status=405, headers=headers)
