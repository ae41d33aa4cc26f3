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


class UnsupportedProtocol(FeatureNotSupported):
    """A first packet asks for a major version of the protocol that there is not. One below 3 knows other messages."""

    def __init__(self, major: int, message: str) -> None:
        super().__init__(message)
        self.major = major


class InvalidAuthorization(PgambError):
    """Not allowed to log in this way at all."""

    sqlstate = "28000"


class InvalidPassword(PgambError):
    sqlstate = "28P01"


class InvalidByteSequence(PgambError):
    """Text from a peer is not in the encoding that it must have."""

    sqlstate = "22021"


class InvalidParameterValue(PgambError):
    sqlstate = "22023"


class InvalidCommandLineOption(PgambError):
    """The startup parameter `options` holds something that is no setting."""

    sqlstate = "42601"


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


class SerializationFailure(PgambError):
    """What was under way has not happened; it may be repeated as it was."""

    sqlstate = "40001"


class TransactionResolutionUnknown(PgambError):
    """A commit, or a statement that commits by itself, was under way when its backend was lost."""

    sqlstate = "08007"


class InFailedTransaction(PgambError):
    """Nothing but the end of the transaction block is accepted."""

    sqlstate = "25P02"


class ActiveTransaction(PgambError):
    """A transaction block is open already: PostgreSQL's warning at a second BEGIN."""

    sqlstate = "25001"


class QueryCanceled(PgambError):
    sqlstate = "57014"


class IdleSessionTimeout(PgambError):
    """A session was idle for longer than it may."""

    sqlstate = "57P05"


class IdleInTransactionTimeout(PgambError):
    """A session was idle in a transaction for longer than it may."""

    sqlstate = "25P03"


class TransactionTimeout(PgambError):
    """A transaction took longer than it may."""

    sqlstate = "25P04"


class RegistryError(PgambError):
    """The registry cannot be reached, or holds something that contradicts us."""

    sqlstate = "08001"


class RegistryUnavailable(RegistryError):
    """The registry does not answer now; trying again later is right."""


class RegistryMismatch(RegistryError):
    """The registry, or another server, belongs to a different PostgreSQL cluster."""


class ProcessFailed(PgambError):
    """A server process of the embedded cluster did not start, ended early, or did not get ready in time."""

    sqlstate = "58000"

    def __str__(self) -> str:
        return f"{self.message}\n{self.detail}" if self.detail else self.message


class PostgresError(PgambError):
    """An ErrorResponse that PostgreSQL sent; `fields` maps its field letters (`S`, `C`, `M`, ...) to text.

    A server need not send every field, so every read of one has a fallback. `fields` keeps bytes that are not UTF-8
    as surrogate escapes, so that they can be passed on; `message`, `detail` and `hint` are always safe to print.
    """

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(
            _printable(fields.get("M", "unknown error")),
            hint=_printable(fields["H"]) if "H" in fields else None,
            detail=_printable(fields["D"]) if "D" in fields else None,
        )
        self.fields = dict(fields)
        self.sqlstate = _sqlstate(fields.get("C", ""))

    @property
    def is_fatal(self) -> bool:
        """Tell whether the server closes the connection behind it (`V` is never translated, `S` may be)."""
        return self.fields.get("V", self.fields.get("S")) in ("FATAL", "PANIC")


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _sqlstate(code: str) -> str:
    return code if len(code) == 5 and code.isascii() and code.isalnum() else "XX000"
