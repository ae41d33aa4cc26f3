"""Free TCP ports for servers that want to know theirs before they start."""

from __future__ import annotations

import errno
import random
import socket

# Below Linux's first ephemeral port (32768): a port above can be taken, any time, by somebody's outgoing connection.
FIRST, LAST = 15000, 32767
ATTEMPTS = 200


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port of `host` that nobody listens on now, at random. Raises OSError if there is none."""
    for _ in range(ATTEMPTS):
        port = random.randint(FIRST, LAST)
        if is_free(host, port):
            return port
    raise OSError(f"no free port between {FIRST} and {LAST} on {host}")


def is_free(host: str, port: int) -> bool:
    """Say whether a server could listen on this port now; an address family this machine lacks counts as free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
    except PermissionError:
        raise
    except OSError as error:
        return error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return True
