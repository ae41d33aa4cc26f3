"""Where applications connect, and watchers: what is known of who has been accepted."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Coroutine, Iterable

from pgamb.client.login import Peer
from pgamb.sockets.acceptor import Acceptor
from pgamb.sockets.binding import Listening
from pgamb.sockets.tcp import set_tcp_options


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def listen(
    listening: Iterable[Listening],
    serve: Callable[[socket.socket, Peer], Coroutine[object, object, None]],
    spawn: Callable[[Coroutine[object, object, None]], object],
) -> Acceptor:
    """Make what accepts there; `serve(sock, peer)` sees one accepted connection through."""

    def accepted(connection: socket.socket, address: object, at: Listening) -> None:
        if connection.family == socket.AF_UNIX:
            peer = Peer("unix", True)
        else:
            set_tcp_options(connection)
            assert isinstance(address, tuple)
            peer = Peer(f"{address[0]}:{address[1]}", at.is_local or _is_loopback(address[0]))
        spawn(serve(connection, peer))

    return Acceptor(listening, accepted)


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith(("127.", "::ffff:127."))
