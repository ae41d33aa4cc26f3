# cython: language_level=3
"""A session that only watches: what `relay.freshness` offers the data plane, for tests that are written in Python."""

from pgamb.relay.backend cimport Owner
from pgamb.relay.freshness cimport Freshness, Position


cdef class Watcher(Owner):
    """Calls of the data plane's; `told` has what `on_fresher` was called with, `react` is called then."""

    cdef Freshness freshness
    cdef readonly list told
    cdef public object react

    def __init__(self, Freshness freshness):
        self.freshness = freshness
        self.told = []

    cdef int on_fresher(self, bint last) except -1:
        self.told.append(last)
        if self.react is not None:
            self.react(last)
        return 0

    def moment(self):
        return self.freshness.moment()

    def committed(self):
        self.freshness.committed()

    def ask(self, moment):
        self.freshness.ask(moment)

    def known(self, moment):
        return self.freshness.known(moment)

    def floor_of(self, moment):
        return self.freshness.floor_of(moment)

    def moment_of(self, Position position):
        return position.moment()

    def behind(self, Position position):
        return position.behind()

    def ask_replica(self, Position position):
        self.freshness.ask_replica(position)

    def wait(self, Position position, lsn=0):
        self.freshness.wait(self, position, lsn)

    def forget(self):
        self.freshness.forget(self)
