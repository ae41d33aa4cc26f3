"""Resolves names by a file that a test may change at any time: for a process with this folder in PYTHONPATH.

Each line of the file that TEST_HOSTS names is a name and its addresses; a name without any cannot be resolved.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

_resolve = socket.getaddrinfo


def getaddrinfo(host: Any, port: Any, *rest: Any, **more: Any) -> list[Any]:
    known = {}
    for line in Path(os.environ["TEST_HOSTS"]).read_text().splitlines():
        name, *addresses = line.split()
        known[name] = addresses
    if host not in known:
        return _resolve(host, port, *rest, **more)
    if more.get("flags", 0) & socket.AI_NUMERICHOST or not known[host]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    return [found for address in known[host] for found in _resolve(address, port, *rest, **more)]


socket.getaddrinfo = getaddrinfo
