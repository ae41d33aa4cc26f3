"""What becomes of a unit whose member refuses it, or is lost."""

from pgamb.relay.backend cimport Backend
from pgamb.relay.router cimport Router
from pgamb.relay.statement cimport Plan


cdef class Healer(Router):
    cdef bint _may_keep(self, int need, size_t size) noexcept
    cdef bint _may_repeat(self) noexcept
    cdef int _learn(self, Plan plan) except -1
    cdef bint on_refused(self, Backend backend, bytes state, bint reshaped) except -1
    cdef int _take_back(self, Backend backend) except -1
    cdef int _repeat(self, int reason) except -1
    cdef bytes on_error(self, Backend backend, bytes payload)
    cdef int backend_lost(self, Backend backend, object error) except -1
