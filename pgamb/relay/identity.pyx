# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Whom a process id means.

An application is told a number of pgamb's for its session (`session.process_ids`). A unit that looks at processes and
has such a number in it is held up (NAMING) until each session that it names has a backend, and keeps it from then on;
then it goes on with the process ids of those backends instead, as if the application had sent that.

So a session is pinned not because it knows its number, as all do, but because somebody makes use of it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from pgamb.relay.backend cimport Backend
from pgamb.relay.buffer cimport Buffer
from pgamb.relay.clock cimport now_s
from pgamb.relay.healer cimport Healer
from pgamb.relay.numbers cimport PIN_BACKEND_PID
from pgamb.relay.pool cimport Pool
from pgamb.relay.session cimport NAMING, READY, STALLED

from pgamb.session.process_ids import Mention, named, rewritten

cdef int OWN_TERMINATED = Mention.OWN_TERMINATED


cdef class Identity(Healer):
    """A session as others know it."""

    cdef bint _meant(self, const char* data, size_t size, list marks) except -1:
        """Tell whether a unit can be sent as it is, as far as process ids go; if not, `state` says for what it waits.

        `marks` are those of `session.process_ids.named`.
        """
        cdef bytes unit
        cdef set numbers
        if self.relay.on_named is None:
            return 1
        unit = PyBytes_FromStringAndSize(data, size)
        if any([mark & OWN_TERMINATED for mark in marks]):
            self.condemned_at_s = now_s()
        numbers = named(unit, marks) & self.relay.frontends.keys()
        if not numbers and rewritten(unit, marks, self.pid, {}) == unit:
            return 1
        if self.backend is not None and (self.backend.replies.count or self.pass_left):
            self.state = STALLED
            return 0
        self.namings += 1
        self.state = NAMING
        self.relay.on_named(self, self.namings, unit, marks, numbers)
        return 0

    def identify(self, bint condemned, bint ask):
        """Return the process id of the backend that this session has, and keeps from now on; 0: it has none yet.

        `condemned`: it may be terminated; `ask`: one more backend is to be opened if there is none for it.
        """
        cdef Pool pool
        cdef Backend backend = self.backend
        if condemned:
            self.condemned_at_s = now_s()
        if backend is None:
            pool = self.group.primary
            if pool is None or self.failed or (self.state != READY and self.state != NAMING):
                return 0
            backend = pool.acquire(self, self.parameters)
            if backend is None:
                if ask:
                    pool.want_one()
                return 0
            self.backend = backend
            self.pool = pool
            self.pins |= PIN_BACKEND_PID
            if self.state == NAMING:
                self.unfitted = True
            else:
                self._settle()
                if self.block is not None:
                    self._make_real()
        elif self.pool.replica:
            # What it does there ends soon.
            return 0
        self.pins |= PIN_BACKEND_PID
        return backend.pid

    cdef int _make_real(self) except -1:
        """Begin the transaction that is not real: a pinned session has no such."""
        self._tell_block(not self.block.failed)
        self.backend.flush()
        self.block = None
        self.shown = 0
        self.opened = True
        return 0

    def proceed(self, unsigned int number, bytes unit, size_t size):
        """Go on with `unit` in place of the one of `size` bytes that was held up as the session's `number`th."""
        cdef Buffer again
        if self.state != NAMING or self.namings != number:
            return
        again = Buffer()
        again.append(PyBytes_AS_STRING(unit), PyBytes_GET_SIZE(unit))
        again.append(self.pending.head() + size, self.pending.size() - size)
        self.pending = again
        self.state = READY
        if self.unfitted:
            self.unfitted = False
            if self.backend is not None and not self._settle():
                return
        self._resume()

    cdef int on_notification(self, Backend backend, int pid) except -1:
        """Return which process id the application is to hear in place of that of the backend that notified it."""
        if pid == backend.pid:
            return self.pid
        if self.relay.told_pid is None:
            return pid
        return self.relay.told_pid(pid) or pid
