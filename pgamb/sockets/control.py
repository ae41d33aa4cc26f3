"""The hand-over of listening sockets: where processes of one user find one another, and the messages they exchange.

A process that serves listens at a unix socket in its runtime folder. A successor connects there:

    successor                         process that serves
    Hello                       ->
                                <-    Offer, with its listening sockets; or Refused
      ... gets ready, without accepting ...
    Stop                        ->    accepts no more: who comes now waits in the kernel
                                <-    Stopped; or Refused
    (accepts) Serving           ->    closes its copies of the sockets
                                <-    Draining; or Refused, and it accepts again
    Cancel                      ->    while it drains; answered by Cancelled
                                      (ends: the connection is closed)

Until Stop nothing has happened, until Serving it is undone when the connection ends. `Hello`, `Refused` and the number
of the protocol in them are for all time; everything else belongs to one version.

Messages are packets (SOCK_SEQPACKET) of JSON. The peer has to be of the same user (SO_PEERCRED), besides the folder's
and the socket's permissions.
"""

from __future__ import annotations

import array
import asyncio
import os
import secrets
import socket
import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from pgamb.config.listen import UNIX_PATH_LIMIT_BYTES, BindTarget, TcpTarget, UnixTarget
from pgamb.errors import ConfigError, ConnectionFailure
from pgamb.sockets.binding import Listening, is_abandoned

PROTOCOL = 1
# The kernel passes this many descriptors at once (SCM_MAX_FD).
MOST_SOCKETS = 253
_PACKET_BYTES = 1 << 17
_PREFIX, _SUFFIX = "client-", ".control"


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """The first message of a successor."""

    protocol: int
    release: str
    pid: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """It cannot be, and why; `at` is where the process listens that says so, and goes on."""

    message: str
    hint: str = ""
    at: tuple[str, ...] = ()


class Offered(msgspec.Struct, frozen=True):
    """One listening socket: the option that it belongs to, and what was asked for. `port` is None for a unix socket."""

    flag: str
    place: str
    port: int | None
    is_local: bool
    lent: bool


class Offer(msgspec.Struct, frozen=True, tag="offer"):
    """The descriptors that come with it are those of `sockets`. `last_pid` was told to an application last, `at` is
    as in Refused."""

    release: str
    pid: int
    sockets: tuple[Offered, ...]
    last_pid: int
    at: tuple[str, ...]


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """The successor is ready. It goes on with the unix sockets at `keep`, so that their files have to stay."""

    keep: tuple[str, ...]


class Stopped(msgspec.Struct, frozen=True, tag="stopped"):
    """Nothing is accepted any more."""


class Serving(msgspec.Struct, frozen=True, tag="serving"):
    """The successor accepts."""


class Draining(msgspec.Struct, frozen=True, tag="draining"):
    """The hand-over is complete."""


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """A cancel request for a session that the successor does not have."""

    number: int
    pid: int
    secret: bytes


class Cancelled(msgspec.Struct, frozen=True, tag="cancelled"):
    """Cancel `number` has been dealt with."""

    number: int


Message: TypeAlias = Hello | Refused | Offer | Stop | Stopped | Serving | Draining | Cancel | Cancelled


def place_of(target: BindTarget) -> str:
    """Name what was asked for: by that a successor knows whose place it takes."""
    return target.path if isinstance(target, UnixTarget) else f"{target.host}:{target.port}"


def offered(flag: str, listening: Listening) -> Offered:
    """Describe a socket to a successor."""
    target = listening.target
    place, port = (target.path, None) if isinstance(target, UnixTarget) else (target.host, target.port)
    return Offered(flag, place, port, listening.is_local, listening.lent)


def adopted(offered: Offered, fd: int) -> Listening:
    """Take a socket over; its descriptor is ours from now on."""
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    target: BindTarget = UnixTarget(offered.place) if offered.port is None else TcpTarget(offered.place, offered.port)
    return Listening(sock, target, offered.is_local, offered.lent)


class Control:
    """One connection between two processes. Raises ConnectionFailure at its end, or for what is no message."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    @property
    def is_own_user(self) -> bool:
        """Whether the other process is of our user."""
        credentials = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        uid: int = struct.unpack("3i", credentials)[1]
        return uid == os.geteuid()

    async def send(self, message: Message, fds: Iterable[int] = ()) -> None:
        """Send one message, with descriptors, which are copied."""
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        data = [msgspec.json.encode(message)]
        loop = asyncio.get_running_loop()
        while True:
            try:
                self._sock.sendmsg(data, ancillary)
                return
            except BlockingIOError:
                await _ready(self._sock, loop.add_writer, loop.remove_writer)
            except OSError as error:
                raise ConnectionFailure(f"the other process is gone: {error.strerror}") from error

    async def receive(self) -> tuple[Message, list[int]]:
        """Return the next message, and the descriptors that came with it, which are ours from now on."""
        loop = asyncio.get_running_loop()
        size = socket.CMSG_SPACE(MOST_SOCKETS * array.array("i").itemsize)
        while True:
            try:
                data, ancillary, flags, _ = self._sock.recvmsg(_PACKET_BYTES, size, socket.MSG_CMSG_CLOEXEC)
                break
            except BlockingIOError:
                await _ready(self._sock, loop.add_reader, loop.remove_reader)
            except OSError as error:
                raise ConnectionFailure(f"the other process is gone: {error.strerror}") from error
        fds = array.array("i")
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
        try:
            if not data:
                raise ConnectionFailure("the other process has closed the connection")
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ConnectionFailure("the other process sends more than can be understood")
            return msgspec.json.decode(data, type=Message), list(fds)
        except (ConnectionFailure, msgspec.DecodeError) as error:
            for fd in fds:
                os.close(fd)
            if isinstance(error, ConnectionFailure):
                raise
            raise ConnectionFailure(f"the other process sends what is no message: {error}") from error

    def close(self) -> None:
        self._sock.close()


async def _ready(sock: socket.socket, add: Callable[..., object], remove: Callable[[socket.socket], object]) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    add(sock, lambda: None if ready.done() else ready.set_result(None))
    try:
        await ready
    finally:
        # It may have been closed meanwhile.
        if sock.fileno() >= 0:
            remove(sock)


# Where they find one another.


def runtime_folder(given: str, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder for control sockets: `given`, else what systemd or the session provides, else our own."""
    if given:
        return Path(given)
    # Several, separated by colons, if the unit names several.
    if provided := environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(provided)
    if session := environ.get("XDG_RUNTIME_DIR", ""):
        return Path(session) / "pgamb"
    return Path(tempfile.gettempdir()) / f"pgamb-{os.geteuid()}"


def prepare_folder(folder: Path) -> None:
    """Make the folder, or see that nobody else can put anything into it; raises ConfigError."""
    flag = f"--runtime-folder {folder}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        state = folder.stat(follow_symlinks=False)
    except OSError as error:
        raise ConfigError(
            f"{flag}: {error.strerror}", hint="name a folder that this user can make, or write to"
        ) from error
    if not folder.is_dir() or state.st_uid != os.geteuid() or state.st_mode & 0o022:
        raise ConfigError(
            f"{flag}: it is not a folder of this user's that nobody else can write to",
            hint="change its owner and mode, or name another one",
        )


def listen_for_successors(folder: Path) -> socket.socket:
    """Bind our own control socket, and clear away those of processes that are no more. Raises ConfigError."""
    path = folder / f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
    if len(os.fsencode(path)) > UNIX_PATH_LIMIT_BYTES:
        raise ConfigError(f"--runtime-folder {folder}: too long for a unix socket", hint="choose a shorter one")
    for other in _sockets(folder):
        if is_abandoned(str(other)):
            other.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(8)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"--runtime-folder {folder}: cannot listen at {path.name}: {error.strerror}",
            hint="name a folder that this user can write to",
        ) from error
    return sock


def predecessors(folder: Path) -> list[Control]:
    """Connect to every process of our user's that could be succeeded."""
    found = []
    for path in _sockets(folder):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(str(path))
        except OSError:
            # It is gone.
            sock.close()
            continue
        control = Control(sock)
        if control.is_own_user:
            found.append(control)
        else:
            control.close()
    return found


def _sockets(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob(f"{_PREFIX}*{_SUFFIX}"))
    except OSError:
        return []
