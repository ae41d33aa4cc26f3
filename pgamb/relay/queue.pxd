"""Who waits, in the order of arrival."""

from pgamb.relay.backend cimport Owner


cdef class Queue:
    cdef list items
    cdef Py_ssize_t first
    cdef readonly Py_ssize_t count

    cdef int push(self, Owner owner) except -1
    cdef Owner pop(self)
    cdef Owner peek(self)
    cdef list take_all(self)
    cdef int remove(self, Owner owner) except -1

    cdef int _advance(self) except -1
