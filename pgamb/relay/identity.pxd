"""Whom a process id means."""

from pgamb.relay.backend cimport Backend
from pgamb.relay.healer cimport Healer


cdef class Identity(Healer):
    cdef bint _meant(self, const char* data, size_t size, list marks) except -1
    cdef int on_notification(self, Backend backend, int pid) except -1
    cdef int _make_real(self) except -1
