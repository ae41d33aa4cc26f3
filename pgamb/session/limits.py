"""How long a session may take, as far as no PostgreSQL can see to it: while it has no backend.

A session that waits for a statement has given its backend back, and a transaction that has only read is none to any
PostgreSQL. Its time limits count all the same, whoever has set them: SET, a startup option, the role, the database or
the configuration.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from pgamb.errors import (
    IdleInTransactionTimeout,
    IdleSessionTimeout,
    PgambError,
    QueryCanceled,
    TransactionTimeout,
)


class Doing(enum.Enum):
    """What a session does, as far as pgamb has to see to its limits."""

    IDLE = "idle"
    """It has no backend, and no transaction."""
    IN_TRANSACTION = "in_transaction"
    """It is idle in a transaction that PostgreSQL does not know of, or no more."""
    WAITING = "waiting"
    """Its statement waits for a backend, or for a primary."""
    BUSY = "busy"
    """It has a backend: PostgreSQL sees to it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a session in milliseconds, 0 for none; each is named as PostgreSQL's parameter."""

    idle_session_timeout: int = 0
    idle_in_transaction_session_timeout: int = 0
    transaction_timeout: int = 0
    statement_timeout: int = 0

    @classmethod
    def of(cls, rows: Iterable[Sequence[str | None]]) -> Limits:
        """Read names and values as pg_settings has them."""
        return cls(**{name: int(value) for name, value in rows if name in LIMITS and value is not None})

    def with_parameters(self, items: Mapping[bytes, bytes]) -> Limits:
        """Return the limits of a session that has set these parameters."""
        given = {name: items[name.encode()] for name in LIMITS if name.encode() in items}
        return replace(self, **{name: int(value) for name, value in given.items()}) if given else self

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in LIMITS)

    def exceeded(self, doing: Doing, for_s: float, in_transaction_for_s: float) -> PgambError | None:
        """Return PostgreSQL's words if the session has done this for too long; only those of `WAITING` are no end."""
        match doing:
            case Doing.WAITING if _over(self.statement_timeout, for_s):
                return QueryCanceled("canceling statement due to statement timeout")
            case Doing.IDLE if _over(self.idle_session_timeout, for_s):
                return IdleSessionTimeout("terminating connection due to idle-session timeout")
            case Doing.IN_TRANSACTION if _over(self.idle_in_transaction_session_timeout, for_s):
                return IdleInTransactionTimeout("terminating connection due to idle-in-transaction timeout")
            case Doing.IN_TRANSACTION if _over(self.transaction_timeout, in_transaction_for_s):
                return TransactionTimeout("terminating connection due to transaction timeout")
        return None

    def next_look_s(self, doing: Doing, for_s: float, in_transaction_for_s: float) -> float:
        """Return in how many seconds, at the earliest, a limit can be exceeded, whatever happens until then."""
        return min(
            (
                limit_ms / 1000 - spent
                for limit_ms, spent in self._spent(doing, for_s, in_transaction_for_s)
                if limit_ms
            ),
            default=0.0,
        )

    def _spent(self, doing: Doing, for_s: float, in_transaction_for_s: float) -> tuple[tuple[int, float], ...]:
        in_transaction = doing is Doing.IN_TRANSACTION
        return (
            (self.idle_session_timeout, for_s if doing is Doing.IDLE else 0.0),
            (self.idle_in_transaction_session_timeout, for_s if in_transaction else 0.0),
            (self.transaction_timeout, in_transaction_for_s if in_transaction else 0.0),
            (self.statement_timeout, for_s if doing is Doing.WAITING else 0.0),
        )


def _over(limit_ms: int, seconds: float) -> bool:
    return 0 < limit_ms <= seconds * 1000


LIMITS = tuple(field.name for field in fields(Limits))
"""The names of the parameters."""
