"""The status page, its JSON, the metrics and the health checks, over HTTP.

It is for people and machines that may see everything: there is no log-in, nothing can be changed, and every answer is
made from one snapshot. Whoever owns the listening socket hands accepted connections over.
"""

from __future__ import annotations

import asyncio
import socket

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from pgamb.observe.metrics import CONTENT_TYPE, Exposition
from pgamb.observe.page import render_page
from pgamb.observe.snapshot import Observed

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
        """Take over an accepted, non-blocking connection; it is closed by itself."""
        server = self._runner.server
        if server is None:
            sock.close()
            return
        try:
            await asyncio.get_running_loop().connect_accepted_socket(server, sock)
        except OSError:
            # It left already.
            sock.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n", headers=_HEADERS)

    async def _readyz(self, request: web.Request) -> web.Response:
        readiness = (await self._observed.snapshot()).readiness
        words = "ready" if readiness.ready else "not ready"
        return web.Response(
            text=f"{words}: {readiness.reason}\n", status=200 if readiness.ready else 503, headers=_HEADERS
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        text = self._exposition.render(await self._observed.snapshot())
        return web.Response(body=text, headers={**_HEADERS, "Content-Type": CONTENT_TYPE})

    async def _json(self, request: web.Request) -> web.Response:
        text = msgspec.json.encode(await self._observed.snapshot())
        return web.Response(body=text, content_type="application/json", headers=_HEADERS)

    async def _page(self, request: web.Request) -> web.Response:
        text = render_page(await self._observed.snapshot())
        return web.Response(text=text, content_type="text/html", headers=_HEADERS)


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
