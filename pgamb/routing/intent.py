"""What a piece of SQL needs, and what it leaves behind in the session: the vocabulary of `classify`.

`READ` and `NEUTRAL` exclude each other. `READ` may run on any replica; `NEUTRAL` writes no data but belongs on the
primary or on the attached backend; with neither, the SQL has to be taken for a write.
"""

from __future__ import annotations

import enum

import msgspec


class Need(enum.IntFlag):
    """What a router has to know; zero is "may write, one statement"."""

    READ = 1
    """Every statement is a proven read: alone, it may run on a replica."""
    NEUTRAL = 2
    """No statement can write data, but at least one does not belong on a replica (SET, LISTEN, `pg_backend_pid()`)."""
    BEGIN = 4
    """A single BEGIN or START TRANSACTION."""
    READ_ONLY = 8
    """With BEGIN: READ ONLY was given and not SERIALIZABLE, so a replica can run it."""
    END = 16
    """A single COMMIT, END, ROLLBACK or ABORT without AND CHAIN."""
    SETTINGS = 32
    """May change session parameters otherwise than by a SET, RESET or DISCARD tag (`set_config`, DO, CALL, ...)."""
    COPY_IN = 64
    """Contains COPY ... FROM STDIN."""
    MULTIPLE = 128
    """More than one statement."""
    EMPTY = 256
    """No statement at all; always with NEUTRAL."""
    DEALLOCATE = 512
    """A single DEALLOCATE of one statement: `Intent.name`."""
    DEALLOCATE_ALL = 1024
    """DEALLOCATE ALL or DISCARD ALL is among the statements."""
    COMMITS = 2048
    """COMMIT, END, PREPARE TRANSACTION or COMMIT PREPARED is among the statements."""
    CONTROL = 4096
    """Any transaction control is among the statements, savepoints and SET TRANSACTION included."""
    READ_WRITE = 8192
    """With BEGIN: READ WRITE was given."""
    SNAPSHOT = 16384
    """With BEGIN: REPEATABLE READ or SERIALIZABLE was given."""
    TRANSACTION_TIME = 32768
    """Looks at the start time of its transaction: `now()`, CURRENT_DATE, `'today'`."""
    EXECUTE = 65536
    """A single EXECUTE of the prepared statement `Intent.name`; without SETTINGS, its arguments are proven reads."""
    SET = 131072
    """A single SET or RESET of the parameter `Intent.name` for the session (RESET ALL: the name is `all`)."""
    SHOW = 262144
    """A single SHOW of the parameter `Intent.name`."""
    SEQUENCE = 524288
    """Asks what this session has got from a sequence: `currval()`, `lastval()`."""
    NAMES = 1048576
    """Speaks of prepared statements by name (PREPARE, EXECUTE, several DEALLOCATE), or asks which there are."""


class Pin(enum.IntFlag):
    """Session state that only one backend has."""

    TEMPORARY = 1
    """A temporary table, view, sequence or function."""
    LISTEN = 2
    ADVISORY_LOCK = 4
    """A session-level advisory lock; those of a transaction end with it."""
    HOLD_CURSOR = 8
    """A cursor WITH HOLD, which outlives its transaction."""
    PREPARE = 16
    """Prepared statements have to be there under the application's own names. No statement's text says so by itself."""
    LOAD = 32
    """A shared library loaded into one backend."""
    SESSION_AUTHORIZATION = 64
    PARAMETER = 256
    """A parameter whose name the text does not show, so that it cannot be told to another backend."""
    OTHER = 128
    """Something else that one backend alone knows; the reason says what."""


NO_NEED = Need(0)
NO_PIN = Pin(0)
EVERY_PIN = ~NO_PIN


class Intent(msgspec.Struct, frozen=True):
    """What one Query (or Parse) needs.

    `pins` may have been set and `unpins` may have been lifted when it has run: then PostgreSQL is asked what is left,
    where it can tell (`session.pins`). `reason` is the evidence, for a person. `name` is the one that a single SET,
    RESET, SHOW, PREPARE, EXECUTE, DEALLOCATE, SAVEPOINT, RELEASE, ROLLBACK TO or LISTEN names, folded and unquoted as
    PostgreSQL does.
    """

    need: Need
    pins: Pin
    unpins: Pin
    reason: str
    name: str | None = None

    @property
    def writes(self) -> bool:
        """Tell whether data may be written: true for everything that is not proven otherwise."""
        return not self.need & (Need.READ | Need.NEUTRAL)
