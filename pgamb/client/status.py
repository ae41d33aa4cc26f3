"""The status page of this process: its listening sockets, and the HTTP server behind them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from pgamb.client.listener import Listener
from pgamb.client.login import Peer
from pgamb.config import ListenAddress
from pgamb.observe.snapshot import Observed

if TYPE_CHECKING:
    from pgamb.observe.http import StatusServer


class StatusPage:
    """Serves what `observed` shows, at one address."""

    def __init__(self, address: ListenAddress, spawn: Callable[[Coroutine[object, object, None]], object]) -> None:
        self._listener = Listener([address], self._serve, spawn, flag="--status-listen")
        self._server: StatusServer | None = None

    def bind(self) -> list[str]:
        """Bind; returns where. Raises ConfigError that says what to do."""
        return self._listener.bind()

    async def start(self, observed: Observed) -> None:
        """Begin to answer."""
        # Imported late: an HTTP server is large, and most ambassadors have none.
        from pgamb.observe.http import StatusServer

        self._server = StatusServer(observed)
        await self._server.start()
        self._listener.start()

    async def close(self) -> None:
        """Stop listening, and close every connection."""
        self._listener.close()
        if self._server is not None:
            await self._server.close()

    async def _serve(self, sock: socket.socket, peer: Peer) -> None:
        assert self._server is not None
        await self._server.serve(sock)
