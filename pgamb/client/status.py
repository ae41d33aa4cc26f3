"""The status page of this process: its listening sockets, and the HTTP server behind them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING

from pgamb.client.listener import listen
from pgamb.client.login import Peer
from pgamb.observe.snapshot import Observed
from pgamb.sockets.binding import Listening

if TYPE_CHECKING:
    from pgamb.observe.http import StatusServer


class StatusPage:
    """Serves what `observed` shows."""

    def __init__(
        self, listening: Iterable[Listening], spawn: Callable[[Coroutine[object, object, None]], object]
    ) -> None:
        self.acceptor = listen(listening, self._serve, spawn)
        self._server: StatusServer | None = None

    async def prepare(self, observed: Observed) -> None:
        """Get ready to answer; who has connected is answered once `acceptor` accepts."""
        # Imported late: an HTTP server is large, and most ambassadors have none.
        from pgamb.observe.http import StatusServer

        self._server = StatusServer(observed)
        await self._server.start()

    async def close(self) -> None:
        """Close every connection."""
        if self._server is not None:
            await self._server.close()

    async def _serve(self, sock: socket.socket, peer: Peer) -> None:
        assert self._server is not None
        await self._server.serve(sock)
