"""Who we are to etcd, and whom we believe."""

from __future__ import annotations

import msgspec


class Tls(msgspec.Struct, frozen=True):
    """PEM files; without `ca_file` the authorities that grpc brings along are trusted."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


class Credentials(msgspec.Struct, frozen=True):
    user: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r})"
