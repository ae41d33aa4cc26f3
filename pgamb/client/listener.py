"""Listening sockets: binds them all before anything is served, and accepts."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import stat
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress

from pgamb.client.login import Peer
from pgamb.client.opener import set_tcp_options
from pgamb.config import BindTarget, ListenAddress, TcpTarget, UnixTarget, bind_error
from pgamb.errors import ConfigError

log = logging.getLogger(__name__)

BACKLOG = 4096
# Connections accepted in one turn of the loop: others have their turn, too.
ACCEPT_BATCH = 64
# When descriptors have run out: closing one takes this long at most to be noticed.
_EXHAUSTED_PAUSE_S = 0.1
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def raise_descriptor_limit() -> int:
    """Let this process have as many descriptors as it may; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Listener:
    """All listening sockets of a process. `serve(sock, peer)` sees one accepted connection through."""

    def __init__(
        self,
        addresses: Iterable[ListenAddress],
        serve: Callable[[socket.socket, Peer], Coroutine[object, object, None]],
        spawn: Callable[[Coroutine[object, object, None]], object],
        *,
        flag: str = "--listen",
    ) -> None:
        """`flag` is the option that errors speak of."""
        self._addresses = tuple(addresses)
        self._flag = flag
        self._serve = serve
        self._spawn = spawn
        self._sockets: list[socket.socket] = []
        self._paths: list[str] = []
        self._local: dict[socket.socket, bool] = {}

    def bind(self) -> list[str]:
        """Bind every address; returns where, as text. Raises ConfigError that says what to do."""
        where: list[str] = []
        try:
            for address in self._addresses:
                port = address.port
                for target in address.targets():
                    sock = self._bind(address, target, port)
                    if sock is None:
                        continue
                    if isinstance(target, TcpTarget):
                        # With port 0, IPv6 takes the port that IPv4 was given.
                        port = sock.getsockname()[1]
                        where.append(f"[{target.host}]:{port}" if ":" in target.host else f"{target.host}:{port}")
                    else:
                        where.append(target.path)
        except BaseException:
            self.close()
            raise
        return where

    def start(self) -> None:
        """Begin to accept."""
        loop = asyncio.get_running_loop()
        for sock in self._sockets:
            loop.add_reader(sock.fileno(), self._accept, sock)

    def close(self) -> None:
        """Stop listening."""
        for sock in self._sockets:
            with suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()
        for path in self._paths:
            with suppress(OSError):
                os.unlink(path)
        self._paths.clear()

    def _bind(self, address: ListenAddress, target: BindTarget, port: int) -> socket.socket | None:
        family = socket.AF_UNIX
        try:
            if isinstance(target, UnixTarget):
                _remove_stale(target.path)
                sock = socket.socket(family, socket.SOCK_STREAM)
                place: object = target.path
            else:
                family, place = _resolve(target, port, self._flag)
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        except OSError as error:
            if isinstance(target, TcpTarget) and target.optional:
                return None
            raise bind_error(target, error, flag=self._flag) from error
        try:
            sock.bind(place)  # type: ignore[arg-type]
            sock.listen(BACKLOG)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            if isinstance(target, TcpTarget) and target.optional and error.errno != errno.EADDRINUSE:
                return None
            raise bind_error(target, error, flag=self._flag) from error
        if isinstance(target, UnixTarget):
            os.chmod(target.path, 0o777)
            self._paths.append(target.path)
        self._sockets.append(sock)
        self._local[sock] = address.is_local
        return sock

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    log.error("listener.exhausted", extra={"kv": {"error": error.strerror}})
                    loop = asyncio.get_running_loop()
                    loop.remove_reader(listening.fileno())
                    loop.call_later(_EXHAUSTED_PAUSE_S, self._resume, listening)
                    return
                # The peer was gone before we came.
                continue
            sock.setblocking(False)
            if sock.family == socket.AF_UNIX:
                peer = Peer("unix", True)
            else:
                set_tcp_options(sock)
                peer = Peer(f"{address[0]}:{address[1]}", self._local[listening] or _is_loopback(address[0]))
            self._spawn(self._serve(sock, peer))

    def _resume(self, listening: socket.socket) -> None:
        if listening in self._sockets:
            asyncio.get_running_loop().add_reader(listening.fileno(), self._accept, listening)


def _is_loopback(host: str) -> bool:
    return host == "::1" or host.startswith(("127.", "::ffff:127."))


def _resolve(target: TcpTarget, port: int, flag: str) -> tuple[socket.AddressFamily, object]:
    try:
        found = socket.getaddrinfo(target.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise ConfigError(
            f"{flag}: {target.host} cannot be resolved: {error.strerror}", hint="give an address of this machine"
        ) from error
    family, _, _, _, sockaddr = found[0]
    return family, sockaddr


def _remove_stale(path: str) -> None:
    """Remove the socket of a process that is no more; one that answers is left alone, and bind() will say so."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return
    except OSError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except OSError:
        pass
    finally:
        probe.close()
