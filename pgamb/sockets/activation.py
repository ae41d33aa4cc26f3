"""systemd's side: sockets that it has bound for us (sd_listen_fds(3)), and what it is told (sd_notify(3)).

Both are a few variables and one datagram, so that no library is needed.
"""

from __future__ import annotations

import logging
import os
import re
import socket
from collections.abc import MutableMapping

from pgamb.config.listen import ListenAddress, TcpTarget, UnixTarget
from pgamb.errors import ConfigError
from pgamb.sockets.binding import Listening

log = logging.getLogger(__name__)

# sd_listen_fds(3): SD_LISTEN_FDS_START.
FIRST_FD = 3
_VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
_UNIX_NAME = re.compile(r"(?P<folder>.*)/\.s\.PGSQL\.(?P<port>[0-9]{1,5})")


def activated(environ: MutableMapping[str, str] = os.environ, first_fd: int = FIRST_FD) -> dict[str, list[Listening]]:
    """Return the listening sockets that systemd passes to this process, by the name of each.

    The variables are removed: they are not meant for our children. Raises ConfigError for what cannot be listened at.
    """
    pid, count, names = (environ.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    given: dict[str, list[Listening]] = {}
    parts = names.split(":") if names else []
    for index in range(int(count)):
        name = parts[index] if index < len(parts) else ""
        given.setdefault(name, []).append(_adopt(first_fd + index, name))
    return given


def address_of(listening: Listening) -> ListenAddress:
    """Return the address that a socket listens at, as `--listen` would have it."""
    if isinstance(listening.target, UnixTarget):
        found = _UNIX_NAME.fullmatch(listening.target.path)
        assert found is not None
        return ListenAddress(found["folder"] or "/", int(found["port"]))
    return ListenAddress(listening.target.host, listening.target.port)


def _adopt(fd: int, name: str) -> Listening:
    os.set_inheritable(fd, False)
    called = f'socket {fd} ("{name}")' if name else f"socket {fd}"
    try:
        sock = socket.socket(fileno=fd)
        accepts = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"{called} of LISTEN_FDS cannot be used: {error.strerror}") from error
    if sock.type != socket.SOCK_STREAM or not accepts:
        raise ConfigError(f"{called} of LISTEN_FDS does not listen", hint="Use ListenStream= and Accept=no.")
    sock.setblocking(False)
    place = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        if not isinstance(place, str) or _UNIX_NAME.fullmatch(place) is None:
            raise ConfigError(
                f"{called} of LISTEN_FDS is {place!r}, where no driver looks for PostgreSQL",
                hint="Name it as PostgreSQL would: ListenStream=/run/pgamb/.s.PGSQL.5432",
            )
        return Listening(sock, UnixTarget(place), is_local=True, lent=True)
    target = TcpTarget(place[0], place[1])
    return Listening(sock, target, is_local=ListenAddress(target.host, target.port).is_local, lent=True)


def notify(*lines: str, environ: MutableMapping[str, str] = os.environ) -> None:
    """Tell systemd, if it listens; what it does not hear is no reason not to serve."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.send("\n".join(lines).encode())
    except OSError as error:
        log.warning("notify.failed", extra={"kv": {"socket": path, "error": error}})
