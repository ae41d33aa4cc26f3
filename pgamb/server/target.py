"""Which PostgreSQL the agent stands beside: the one address in its DSN.

asyncpg reads the rest of the DSN (user, password, TLS). The address is read here, because it is relayed to and
advertised too, and is handed to asyncpg beside the DSN, so that the two can not disagree.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from pgamb.errors import ConfigError
from pgamb.registry.model import DEFAULT_PORT, Address, parse_address

# Where libpq and asyncpg look when a DSN names no host, in this order (asyncpg, `connect_utils.py`).
SOCKET_FOLDERS = ("/run/postgresql", "/var/run/postgresql", "/tmp", "/private/tmp")

_EXAMPLE = "postgresql://monitor:PASSWORD@127.0.0.1:5432/postgres"


@dataclass(frozen=True, slots=True)
class Target:
    """A PostgreSQL, and the DSN to log in to it with. Never print `dsn`: it may hold a password."""

    address: Address
    dsn: str

    def __repr__(self) -> str:
        return f"Target({self.address})"

    def at(self, address: Address) -> Target:
        """Return the same log-in at another server."""
        return replace(self, address=address)


def parse_target(dsn: str, environ: Mapping[str, str] = os.environ) -> Target:
    """Read the one address in `dsn`; what it leaves out is taken from `environ` and libpq's defaults.

    Raises ConfigError, which never shows the password.
    """
    try:
        parts = urlsplit(dsn)
        query = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    except ValueError as error:
        raise ConfigError(f"--dsn: not a URL ({error})", hint=f"For example {_EXAMPLE}") from None
    if parts.scheme not in ("postgresql", "postgres"):
        raise ConfigError("--dsn: not a postgresql:// URL", hint=f"For example {_EXAMPLE}")
    if "service" in query:
        raise ConfigError("--dsn: a connection service is not read", hint=f"Write the address: {_EXAMPLE}")
    place = parts.netloc.partition("@")[2] if "@" in parts.netloc else parts.netloc
    host, port = _split(unquote(place))
    host = host or query.get("host", "") or environ.get("PGHOST", "")
    port = port or query.get("port", "") or environ.get("PGPORT", "") or str(DEFAULT_PORT)
    if "," in host or "," in port:
        raise ConfigError(
            "--dsn: names several servers",
            hint="An agent stands beside one PostgreSQL: start one `pgamb server` for each.",
        )
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError(f'--dsn: "{port}" is not a port', hint=f"For example {_EXAMPLE}")
    return Target(_address(host, int(port)), dsn)


def _split(place: str) -> tuple[str, str]:
    """Split "host:port", "[::1]:port" or "/folder:port"; either part may be missing."""
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        return host, rest.removeprefix(":")
    host, colon, port = place.rpartition(":")
    return (host, port) if colon else (place, "")


def _address(host: str, port: int) -> Address:
    if not host:
        candidates = [Address(folder, port) for folder in SOCKET_FOLDERS]
        return next((a for a in candidates if Path(a.socket_path).exists()), Address("localhost", port))
    if host.startswith("/"):
        return Address(host, port)
    # Checks the characters; the port is known to be good.
    return parse_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
