# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A transaction that PostgreSQL does not know of yet.

BEGIN is answered at once. As long as only proven reads follow, each runs by itself, and what controls the transaction
(savepoints, COMMIT, ROLLBACK, a second BEGIN) is answered here, as PostgreSQL would. The first statement that is
anything else opens the real transaction: `texts` is what PostgreSQL has to be told before it. When a read has failed,
so has the transaction; then, too, PostgreSQL itself is asked what it has to say to anything but its end (a syntax error
comes before 25P02), in a transaction that was made to fail.

Invariant: telling PostgreSQL `texts` gives a transaction that nothing tells from this one, but for the time at which
it began. So whatever `take` does not understand whole, it leaves to PostgreSQL (OPEN).
"""

from pgamb.relay.numbers cimport (
    CONTROL_BEGIN, CONTROL_COMMIT, CONTROL_COMMIT_CHAIN, CONTROL_PREPARE_TRANSACTION, CONTROL_RELEASE, CONTROL_ROLLBACK,
    CONTROL_ROLLBACK_CHAIN, CONTROL_ROLLBACK_TO, CONTROL_SAVEPOINT, CONTROL_SET_TRANSACTION, ISOLATION_DEFAULT,
)
from pgamb.relay.statement cimport Plan


# More than this is not kept: PostgreSQL keeps it better.
cdef enum:
    MODES = 16
    SAVEPOINTS = 256

cdef bytes CHAIN = b"COMMIT AND CHAIN"
cdef bytes FAILURE = b"SELECT 1/0 /* pgamb: the transaction has failed already */"


cdef class Block:
    """One virtual transaction; `plan` is that of its BEGIN, and `sql` the text."""

    def __init__(self, Plan plan, bytes sql):
        self.begin = sql
        self.modes = []
        self.savepoints = []
        self.read_only = -1
        self.plain = plan.command.plain
        self._modes(plan.command)

    def _modes(self, command):
        if command.isolation != ISOLATION_DEFAULT:
            self.isolation = int(command.isolation)
        if command.read_only is not None:
            self.read_only = int(command.read_only)

    cdef Step take(self, Plan plan, bytes sql) except *:
        """Do what a statement of transaction control says, if that can be done here."""
        cdef int control = plan.control
        cdef Py_ssize_t index
        if control == CONTROL_COMMIT or control == CONTROL_ROLLBACK or (
            control == CONTROL_PREPARE_TRANSACTION and self.failed
        ):
            self.tag = b"COMMIT" if control == CONTROL_COMMIT and not self.failed else b"ROLLBACK"
            return ENDED
        if len(self.modes) > MODES or len(self.savepoints) > SAVEPOINTS:
            return OPEN
        if control == CONTROL_COMMIT_CHAIN or control == CONTROL_ROLLBACK_CHAIN:
            if self.failed and not (self.plain or self.savepoints):
                # Whether its modes outlast the failure, only PostgreSQL knows.
                return OPEN
            self.tag = b"COMMIT" if control == CONTROL_COMMIT_CHAIN and not self.failed else b"ROLLBACK"
            self.savepoints.clear()
            self.failed = self.has_read = False
            # A transaction that a chain began is not quite like one with a BEGIN: its modes outlast its failure.
            if not self.modes or self.modes[len(self.modes) - 1] is not CHAIN:
                self.modes.append(CHAIN)
            return DONE
        if control == CONTROL_ROLLBACK_TO:
            index = self._find(plan.command.savepoint)
            if index < 0:
                return OPEN
            del self.savepoints[index + 1:]
            self.failed = False
            self.tag = b"ROLLBACK"
            return DONE
        if self.failed:
            return OPEN
        if control == CONTROL_SAVEPOINT:
            self.savepoints.append((plan.command.savepoint, sql))
            self.tag = b"SAVEPOINT"
            return DONE
        if control == CONTROL_RELEASE:
            index = self._find(plan.command.savepoint)
            if index < 0:
                return OPEN
            del self.savepoints[index:]
            self.tag = b"RELEASE"
            return DONE
        if control == CONTROL_BEGIN and plan.command.plain:
            self.tag = b"START TRANSACTION" if plan.command.start else b"BEGIN"
            return WARNED
        if (control == CONTROL_SET_TRANSACTION or control == CONTROL_BEGIN) and not (self.has_read or self.savepoints):
            # A second BEGIN sets what it says, for all its warning.
            self.modes.append(sql)
            self.plain = False
            self._modes(plan.command)
            if control == CONTROL_SET_TRANSACTION:
                self.tag = b"SET"
                return DONE
            self.tag = b"START TRANSACTION" if plan.command.start else b"BEGIN"
            return WARNED
        return OPEN

    cdef list texts(self):
        """Return what PostgreSQL has to be told to be where this transaction is."""
        cdef list texts = [self.begin, *self.modes, *[text for _, text in self.savepoints]]
        if self.failed:
            texts.append(FAILURE)
        return texts

    cdef Py_ssize_t _find(self, object name):
        """Return where the newest savepoint of that name is, -1 if there is none."""
        cdef Py_ssize_t index
        for index in range(len(self.savepoints) - 1, -1, -1):
            if self.savepoints[index][0] == name:
                return index
        return -1
