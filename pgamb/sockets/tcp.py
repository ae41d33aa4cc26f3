"""What every TCP connection of ours is set to."""

from __future__ import annotations

import socket

# A peer whose machine has vanished is noticed after so long: a probe after half of it, and then three more.
SILENCE_S = 30.0


def set_tcp_options(sock: socket.socket, silence_s: float = SILENCE_S) -> None:
    """Send small packets at once, and find out about a machine that has been silent for `silence_s`.

    Keepalive acts while nothing is on its way. TCP_USER_TIMEOUT would act at other times too, but it also ends a
    connection whose peer is there and takes nothing for so long: an application that reads slowly, a COPY that waits
    for a lock (docs/decisions/0017-silent-members.md).
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, round(silence_s / 2)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, round(silence_s / 6)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
