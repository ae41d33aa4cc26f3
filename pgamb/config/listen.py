"""Where a process listens: `5432`, `:5432`, `host:5432`, `[::1]:5432`, `/folder`, `/folder:5432`."""

from __future__ import annotations

import errno
import os
import re
from typing import TypeAlias

import msgspec

from pgamb.errors import ConfigError

DEFAULT_PORT = 5432
LOOPBACK = "localhost"
EVERYWHERE = "*"
FORMS = (
    "5432 (this machine only), :5432 (all interfaces), HOST:PORT, [::1]:5432, "
    "or a unix socket folder such as /run/pgamb"
)

# Linux: sun_path has 108 bytes with its terminating zero (unix(7)).
UNIX_PATH_LIMIT_BYTES = 107

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")


class TcpTarget(msgspec.Struct, frozen=True):
    """One TCP socket to bind. `optional`: go on without it where this machine has no such address family."""

    host: str
    port: int
    optional: bool = False


class UnixTarget(msgspec.Struct, frozen=True):
    """One unix socket to bind, named as libpq looks for it."""

    path: str


BindTarget: TypeAlias = TcpTarget | UnixTarget


class ListenAddress(msgspec.Struct, frozen=True):
    """An address to listen at. `host`: a name or an IP, `localhost` (loopback, IPv4 and IPv6), `*` (all interfaces),
    or the folder of a unix socket. Port 0 takes a free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int = DEFAULT_PORT) -> ListenAddress:
        """Read one of the documented forms; `default_port` completes a unix socket folder. Raises ConfigError."""
        text = text.strip()
        if not text:
            raise ConfigError("a listen address is empty", hint=f"give {FORMS}")
        if text.startswith("/"):
            return cls._parse_unix(text, default_port)
        if text.isascii() and text.isdigit():
            return cls(LOOPBACK, _port(text, text))
        host, colon, port = text.rpartition(":")
        if not colon:
            raise ConfigError(f'"{text}" has no port', hint=f"give {FORMS}")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            if not _IPV6.fullmatch(host):
                raise ConfigError(f'"{host}" is not an IPv6 address', hint=f"give {FORMS}")
        elif ":" in host:
            raise ConfigError(f'"{text}" is ambiguous', hint="put an IPv6 address in brackets: [::1]:5432")
        elif host and host != EVERYWHERE and not all(map(_LABEL.fullmatch, host.rstrip(".").split("."))):
            raise ConfigError(f'"{host}" is neither a host name nor an IP address', hint=f"give {FORMS}")
        return cls(host or EVERYWHERE, _port(port, text))

    @classmethod
    def _parse_unix(cls, text: str, default_port: int) -> ListenAddress:
        folder, colon, port = text.rpartition(":")
        if not colon or "/" in port:
            folder, port = text, str(default_port)
        number = _port(port, text)
        if number == 0:
            raise ConfigError(f'"{text}": a unix socket needs a port for its name', hint="for example /run/pgamb:5432")
        address = cls(folder.rstrip("/") or "/", number)
        if len(os.fsencode(address.socket_path)) > UNIX_PATH_LIMIT_BYTES:
            raise ConfigError(
                f'"{address.socket_path}" is too long for a unix socket (at most {UNIX_PATH_LIMIT_BYTES} bytes)',
                hint="choose a shorter folder, for example /run/pgamb",
            )
        return address

    @property
    def is_unix(self) -> bool:
        return self.host.startswith("/")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: a loopback address or a unix socket."""
        return self.is_unix or self.host.lower() in (LOOPBACK, "::1") or _is_loopback_ipv4(self.host)

    @property
    def socket_path(self) -> str:
        """The unix socket's file, as PostgreSQL names it (meaningless for TCP)."""
        return f"{self.host.rstrip('/')}/.s.PGSQL.{self.port}"

    def targets(self) -> tuple[BindTarget, ...]:
        """Say what to bind. IPv6 sockets are to be bound with IPV6_V6ONLY: IPv4 has its own."""
        if self.is_unix:
            return (UnixTarget(self.socket_path),)
        if self.host.lower() == LOOPBACK:
            return TcpTarget("127.0.0.1", self.port), TcpTarget("::1", self.port, optional=True)
        if self.host == EVERYWHERE:
            return TcpTarget("0.0.0.0", self.port), TcpTarget("::", self.port, optional=True)
        return (TcpTarget(self.host, self.port),)

    def __str__(self) -> str:
        """Give back the shortest text that parses to the same address."""
        if self.is_unix:
            return f"{self.host}:{self.port}"
        if self.host.lower() == LOOPBACK:
            return str(self.port)
        if self.host == EVERYWHERE:
            return f":{self.port}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def bind_error(
    where: ListenAddress | TcpTarget | UnixTarget | str, error: OSError, *, flag: str = "--listen"
) -> ConfigError:
    """Explain why an address could not be bound, and what to do. `error` is what bind() raised."""
    place = _place(where)
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"{flag}: {place} is already in use",
            hint=f"another program listens there (see `ss -ltnp`): stop it, or choose another address with {flag}",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        advice = (
            "make the folder writable for this user, or choose another one"
            if "/" in place
            else "ports below 1024 are privileged: choose a higher one, or grant CAP_NET_BIND_SERVICE"
        )
        return ConfigError(f"{flag}: {place} is not permitted to this user", hint=advice)
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigError(
            f"{flag}: {place} is not an address of this machine", hint="see `ip address`, or give only a port"
        )
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return ConfigError(f"{flag}: the folder of {place} does not exist", hint="create it, or choose another one")
    return ConfigError(f"{flag}: cannot listen at {place}: {error.strerror or error}")


def _place(where: ListenAddress | TcpTarget | UnixTarget | str) -> str:
    if isinstance(where, UnixTarget):
        return where.path
    if isinstance(where, TcpTarget):
        return f"[{where.host}]:{where.port}" if ":" in where.host else f"{where.host}:{where.port}"
    if isinstance(where, ListenAddress) and where.host == LOOPBACK:
        return f"{LOOPBACK}:{where.port}"
    return str(where)


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text[:6]) > 65535 or len(text) > 5:
        raise ConfigError(f'"{whole}": "{text}" is not a port', hint="a port is a whole number up to 65535")
    return int(text)


def _is_loopback_ipv4(host: str) -> bool:
    parts = host.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(part.isdigit() and int(part) < 256 for part in parts)
