"""The one exception tree. Every class knows its SQLSTATE.

SQLSTATEs are those of PostgreSQL's appendix "Error Codes"; `wire.messages.error_response` turns any of
these into an ErrorResponse.
"""

from __future__ import annotations

from collections.abc import Mapping


class PgambError(Exception):
    """What went wrong, for a person; `hint` says what to do about it."""

    sqlstate = "XX000"

    def __init__(self, message: str, *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class ConfigError(PgambError):
    """An option, variable or file says something that cannot be."""

    sqlstate = "F0000"


class ProtocolViolation(PgambError):
    """A peer sent bytes that the protocol does not allow."""

    sqlstate = "08P01"


class FeatureNotSupported(PgambError):
    sqlstate = "0A000"


class InvalidAuthorization(PgambError):
    """Not allowed to log in this way at all."""

    sqlstate = "28000"


class InvalidPassword(PgambError):
    sqlstate = "28P01"


class ConnectionFailure(PgambError):
    """A peer could not be reached, or was lost."""

    sqlstate = "08006"


class TooManyConnections(PgambError):
    sqlstate = "53300"


class CannotConnectNow(PgambError):
    """No member can take this work now."""

    sqlstate = "57P03"


class AdminShutdown(PgambError):
    sqlstate = "57P01"


class RegistryError(PgambError):
    """The registry cannot be reached, or holds something that contradicts us."""

    sqlstate = "08001"


class RegistryUnavailable(RegistryError):
    """The registry does not answer now; trying again later is right."""


class RegistryMismatch(RegistryError):
    """The registry, or another server, belongs to a different PostgreSQL cluster."""


class PostgresError(PgambError):
    """An ErrorResponse that PostgreSQL sent; `fields` maps its field letters (`S`, `C`, `M`, ...) to text.

    A server need not send every field, so every read of one has a fallback.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(fields.get("M", "unknown error"), hint=fields.get("H"), detail=fields.get("D"))
        self.fields = dict(fields)
        self.sqlstate = fields.get("C", "XX000")
