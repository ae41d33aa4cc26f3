"""How `pgamb demo kill-primary` reaches the demo that runs in another terminal: a socket, and one line each way.

The socket has a name and no file (unix(7), "abstract"): it goes with its process, however that ends. Whoever asks has
to be the same user, or root.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pgamb.demo.cluster import Cluster
from pgamb.demo.failures import ACTIONS
from pgamb.errors import ConfigError, PgambError, ProcessFailed

_PREFIX = f"pgamb-demo-{os.getuid()}-"
_UCRED = struct.Struct("3i")
# What it ends with, on a line of its own.
_DONE, _FAILED = "done", "failed"
# An action that is under way when the demo is stopped.
LAST_ACTION_S = 15.0


class Control:
    """Carries out what it is asked for, one after the other, from `start` to `close`. Does nothing but on Linux."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._listening: socket.socket | None = None
        self._acting = threading.Lock()
        self._closed = False

    def start(self) -> None:
        if sys.platform != "linux":
            return
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listening.bind(f"\0{_PREFIX}{self._cluster.client_port}")
        self._listening.listen()
        threading.Thread(target=self._accept, name="demo-control", daemon=True).start()

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way: nothing may start a server that is being stopped."""
        self._closed = True
        if self._listening is not None:
            with suppress(OSError):
                # A close alone does not wake the thread in accept().
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
        self._acting.acquire(timeout=LAST_ACTION_S)

    def _accept(self) -> None:
        assert self._listening is not None
        while True:
            try:
                asking, _ = self._listening.accept()
            except OSError:
                return
            with asking, suppress(OSError):
                self._serve(asking)

    def _serve(self, asking: socket.socket) -> None:
        """Do what one caller asks for, and tell how it goes."""
        credentials = asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        _, uid, _ = _UCRED.unpack(credentials)
        if uid not in (os.getuid(), 0):
            return

        def say(text: str) -> None:
            # That nobody listens any more is no reason to stop in the middle.
            with suppress(OSError):
                asking.sendall(f"{text}\n".encode())

        word = asking.makefile("r").readline().strip()
        with self._acting:
            if self._closed or word not in ACTIONS:
                say(_FAILED)
                return
            try:
                ACTIONS[word](self._cluster, say)
            except PgambError as error:
                say("\n".join(filter(None, (error.message, error.detail, error.hint))))
                say(_FAILED)
            else:
                say(_DONE)


def ask(action: str, port: int | None, hear: Callable[[str], object]) -> None:
    """Let a running demo do something; `hear` gets each line of how it goes.

    `port` is where its application connects; None takes the only demo of ours. Raises ConfigError when there is none,
    ProcessFailed when it could not be done.
    """
    ports = running_demos()
    if port is None and len(ports) != 1:
        if not ports:
            raise ConfigError("no demo of yours is running", hint="start one in another terminal: pgamb demo")
        named = ", ".join(map(str, ports))
        raise ConfigError(f"several demos are running, on the ports {named}", hint="name one with --port")
    if port is not None and port not in ports:
        known = f"those that run have the ports {', '.join(map(str, ports))}" if ports else "none is running"
        raise ConfigError(f"no demo of yours is running on port {port}: {known}")
    last = ""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as calling:
        try:
            calling.connect(f"\0{_PREFIX}{port or ports[0]}")
            calling.sendall(f"{action}\n".encode())
            for line in calling.makefile("r"):
                last = line.rstrip("\n")
                if last not in (_DONE, _FAILED):
                    hear(last)
        except OSError as error:
            raise ProcessFailed(f"the demo does not answer: {error}") from error
    if last != _DONE:
        raise ProcessFailed(f"{action} did not succeed", hint="the demo's logs tell why")


def running_demos() -> list[int]:
    """Return the ports of the demos of this user that can be asked."""
    try:
        lines = Path("/proc/net/unix").read_text().splitlines()
    except OSError:
        raise ConfigError("a running demo can be reached on Linux only") from None
    names = {line.rpartition("@")[2] for line in lines if f"@{_PREFIX}" in line}
    return sorted(int(name.removeprefix(_PREFIX)) for name in names)
