"""Checks of the addresses that a configuration listens at: whether each could be bound now."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from pgamb.cli.finding import Finding, failed, ok
from pgamb.config import ListenAddress, TcpTarget, UnixTarget, bind_error


def check_listen(flag: str, addresses: Iterable[ListenAddress]) -> Iterator[Finding]:
    """Try every address; nothing stays bound."""
    for address in addresses:
        yield _check(flag, address)


def _check(flag: str, address: ListenAddress) -> Finding:
    subject = f"{flag} {address}"
    for target in address.targets():
        finding = _check_unix(subject, target) if isinstance(target, UnixTarget) else _check_tcp(flag, subject, target)
        if finding is not None:
            return finding
    return ok(subject, "free")


def _check_tcp(flag: str, subject: str, target: TcpTarget) -> Finding | None:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        return failed(
            subject, f"{target.host} is not a known host: {error.strerror}", "give an address of this machine"
        )
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(place)
                trial.listen(1)
        except OSError as error:
            if target.optional and family == socket.AF_INET6 and not _is_taken(error):
                continue
            refusal = bind_error(target, error, flag=flag)
            return failed(subject, refusal.message.removeprefix(f"{flag}: "), refusal.hint)
    return None


def _check_unix(subject: str, target: UnixTarget) -> Finding | None:
    folder = Path(target.path).parent
    if not folder.is_dir():
        return failed(subject, f"there is no folder {folder}", f"mkdir -p {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        return failed(subject, f"{folder} is not writable for this user", "make it so, or choose another folder")
    if not Path(target.path).exists():
        return None
    # A file alone says nothing: one that a killed process left behind is replaced at start.
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(1.0)
        try:
            trial.connect(target.path)
        except OSError:
            return None
    return failed(subject, f"another process listens at {target.path}", "stop it, or choose another folder or port")


def _is_taken(error: OSError) -> bool:
    return error.errno in (errno.EADDRINUSE, errno.EACCES)
