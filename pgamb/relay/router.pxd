"""Where a session's units go."""

from pgamb.relay.backend cimport Backend
from pgamb.relay.freshness cimport Position
from pgamb.relay.pool cimport Pool
from pgamb.relay.session cimport Session
from pgamb.relay.statement cimport Plan


cdef class Router(Session):
    cdef bint _attach(self, int need, Plan plan) except -1
    cdef bint _attach_any(self, int need, Plan plan) except -1
    cdef int _wait(self) except -1
    cdef Pool _route(self, int need, Plan plan)
    cdef bint _reads_snapshot(self) noexcept
    cdef Pool _choose(self)
    cdef Pool _balanced(self, Pool pool, unsigned long long floor)
    cdef int _park(self, Position position, unsigned long long floor) except -1
    cdef int _unpark(self) except -1
    cdef int on_fresher(self, bint last) except -1
    cdef bint _knows_floor(self) except -1
    cdef int _saw(self, Backend backend) except -1
    cdef int _note_route(self, Plan plan, Pool pool, int reason) except -1
    cdef bint _has_snapshot(self) noexcept
    cdef int backend_granted(self, Backend backend) except -1
    cdef int on_requeued(self) except -1
    cdef int checkout_failed(self, object error) except -1
