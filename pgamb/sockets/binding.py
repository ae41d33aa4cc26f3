"""Binds addresses: all of them, or none. What somebody else holds already (a process whose place is taken) is used."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from pgamb.config.listen import BindTarget, ListenAddress, TcpTarget, UnixTarget, bind_error
from pgamb.errors import ConfigError

# A burst of log-ins waits in the kernel.
BACKLOG = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Listening:
    """A listening socket. `target` is what was asked for, `is_local`: only this machine reaches it. `lent`: its file
    belongs to somebody else."""

    sock: socket.socket
    target: BindTarget
    is_local: bool
    lent: bool = False

    @property
    def path(self) -> str | None:
        """The file of a unix socket."""
        return self.target.path if isinstance(self.target, UnixTarget) else None

    @property
    def port(self) -> int | None:
        """The port, also where a free one was asked for; None for a unix socket."""
        if isinstance(self.target, UnixTarget):
            return None
        port: int = self.sock.getsockname()[1]
        return port

    def __str__(self) -> str:
        if isinstance(self.target, UnixTarget):
            return self.target.path
        host = f"[{self.target.host}]" if ":" in self.target.host else self.target.host
        return f"{host}:{self.port}"

    def close(self, *, unlink: bool = True) -> None:
        """Stop listening; the file of a unix socket goes too, unless another process goes on with it."""
        self.sock.close()
        if self.path is not None and unlink and not self.lent:
            with suppress(OSError):
                os.unlink(self.path)


class Inherited:
    """Listening sockets that another process has bound, to be taken by who wants the same addresses."""

    def __init__(self, offered: Iterable[Listening] = ()) -> None:
        self._offered = list(offered)
        self.taken: list[Listening] = []

    def take(self, target: BindTarget, place: object) -> Listening | None:
        """Return the socket for `target`, which resolves to `place`; None if there is none."""
        for offered in self._offered:
            if _is_same(offered, target, place):
                self._offered.remove(offered)
                self.taken.append(offered)
                return offered
        return None

    def close(self) -> None:
        """Let go of what nobody has taken; whoever bound it goes on."""
        for offered in self._offered:
            offered.sock.close()
        self._offered.clear()


def bind(addresses: Iterable[ListenAddress], *, flag: str, inherited: Inherited | None = None) -> list[Listening]:
    """Listen at every address; `flag` is the option that errors speak of. Raises ConfigError that says what to do."""
    bound: list[Listening] = []
    fresh: list[Listening] = []
    try:
        for address in addresses:
            port = address.port
            for target in address.targets():
                taken = _take(inherited, target, port, flag)
                listening = taken or _bind(address, target, port, flag)
                if listening is None:
                    continue
                bound.append(listening)
                if taken is None:
                    fresh.append(listening)
                # With port 0, IPv6 takes the port that IPv4 was given.
                port = listening.port or port
    except BaseException:
        for listening in bound:
            # What was taken stays with whom it came from.
            listening.close(unlink=listening in fresh)
        raise
    return bound


def _take(inherited: Inherited | None, target: BindTarget, port: int, flag: str) -> Listening | None:
    if inherited is None:
        return None
    if isinstance(target, UnixTarget):
        return inherited.take(target, target.path)
    return inherited.take(target, _resolve(target, port, flag)[1])


def _is_same(offered: Listening, target: BindTarget, place: object) -> bool:
    if isinstance(target, UnixTarget) or isinstance(offered.target, UnixTarget):
        return bool(offered.sock.getsockname() == place)
    if target.port == 0 and offered.target.port == 0 and offered.target.host == target.host:
        return True
    assert isinstance(place, tuple)
    # An IPv6 address has two more members.
    return tuple(offered.sock.getsockname()[:2]) == place[:2]


def _bind(address: ListenAddress, target: BindTarget, port: int, flag: str) -> Listening | None:
    """Bind one target; None where an optional address family does not exist."""
    family = socket.AF_UNIX
    try:
        if isinstance(target, UnixTarget):
            _remove_stale(target.path)
            place: object = target.path
            sock = socket.socket(family, socket.SOCK_STREAM)
        else:
            family, place = _resolve(target, port, flag)
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except OSError as error:
        if isinstance(target, TcpTarget) and target.optional:
            return None
        raise bind_error(target, error, flag=flag) from error
    try:
        sock.bind(place)  # type: ignore[arg-type]
        if isinstance(target, UnixTarget):
            # As PostgreSQL's unix_socket_permissions: who may log in is decided elsewhere.
            os.chmod(target.path, 0o777)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if isinstance(target, TcpTarget) and target.optional and error.errno != errno.EADDRINUSE:
            return None
        raise bind_error(target, error, flag=flag) from error
    return Listening(sock, target, address.is_local)


def _resolve(target: TcpTarget, port: int, flag: str) -> tuple[socket.AddressFamily, object]:
    try:
        found = socket.getaddrinfo(target.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(
            f"{flag}: {target.host} cannot be resolved: {error.strerror}", hint="give an address of this machine"
        ) from error
    family, _, _, _, sockaddr = found[0]
    return family, sockaddr


def is_abandoned(path: str) -> bool:
    """Tell whether a unix socket's file was left behind by a process that is no more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _remove_stale(path: str) -> None:
    """Remove what nobody listens at; a socket that answers is left alone, and bind() will say so."""
    if is_abandoned(path):
        with suppress(FileNotFoundError):
            os.unlink(path)
