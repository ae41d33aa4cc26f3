"""Runs a command as systemd would: with sockets bound before it, and again when it has ended, by the same sockets.

    python -m tests.support.activation NAME=PLACE [NAME=PLACE ...] -- COMMAND [WORD ...]

PLACE is a port of 127.0.0.1, or the path of a unix socket. Ends with a command that fails.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

FIRST_FD = 3


def bound(place: str) -> socket.socket:
    if place.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(place)
        sock.listen(128)
        return sock
    return socket.create_server(("127.0.0.1", int(place)), backlog=128)


def main(words: list[str]) -> int:
    split = words.index("--")
    named = [word.partition("=") for word in words[:split]]
    sockets = [bound(place) for _, _, place in named]
    names = ":".join(name for name, _, _ in named)
    sys.stdout.write("bound\n")
    sys.stdout.flush()
    stopping = False
    child: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        if child is not None:
            child.send_signal(number)

    signal.signal(signal.SIGTERM, stop)
    # What has to stand at FIRST_FD and behind must not be overwritten on the way.
    high = [os.dup2(sock.fileno(), 100 + index) for index, sock in enumerate(sockets)]
    script = 'export LISTEN_PID=$$; exec "$@"'

    def place_sockets() -> None:
        for index, fd in enumerate(high):
            os.dup2(fd, FIRST_FD + index)

    while not stopping:
        child = subprocess.Popen(
            ["/bin/sh", "-c", script, "sh", *words[split + 1 :]],
            env={**os.environ, "LISTEN_FDS": str(len(high)), "LISTEN_FDNAMES": names},
            preexec_fn=place_sockets,
            close_fds=False,
        )
        status = child.wait()
        if status:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
