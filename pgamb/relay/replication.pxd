"""A replication connection: an application and the walsender that is its own."""

from libc.stdint cimport uint8_t, uint32_t

from pgamb.relay.reactor cimport Reactor
from pgamb.relay.stream cimport Stream


cdef struct Framing:
    size_t left         # what is still to come of the message under way
    uint8_t kind        # of the last message that began
    uint8_t head_size   # how much of the next header has come
    char[5] head
    bint lost           # what came is no protocol: nobody knows where messages begin


cdef class Side(Stream):
    cdef int heard(self, const char* data, size_t size) except -1
    cdef int gone(self) except -1
    cdef int relieved(self) except -1
    cdef int on_ready(self, uint32_t events) except -1


cdef class Walsender(Side):
    cdef Replication session        # None once closed


cdef class Replication(Side):
    cdef Walsender walsender        # None once that connection is gone
    cdef readonly int pid           # what the application was told; key of its cancel requests
    cdef readonly bytes secret
    cdef readonly object origin     # whatever the control plane wants to know of it
    cdef object on_closed           # called as (session) once
    cdef Framing up                 # towards PostgreSQL
    cdef Framing down               # towards the application
    cdef bint answered              # PostgreSQL owes nothing: its last word was ReadyForQuery, or a stream runs
    cdef bint streaming             # ... it is a stream, COPY BOTH
    cdef bint leaving               # the application has gone: what it said last is still carried over
    cdef bint ended                 # the walsender has gone: what it said last is still carried over
    cdef bytes last_word            # to be said at the next message boundary; None, most often
    cdef readonly unsigned long long sent_bytes         # from the application
    cdef readonly unsigned long long received_bytes     # from PostgreSQL

    cdef int from_application(self, const char* data, size_t size) except -1
    cdef int from_walsender(self, const char* data, size_t size) except -1
    cdef int walsender_gone(self) except -1
    cdef int _application_gone(self) except -1
    cdef int _end(self) except -1
    cdef int _close(self) except -1
