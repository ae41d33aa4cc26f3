"""A pipe: two sockets whose bytes go across as they are, in both directions.

The two `End`s are `Source`s of one `Reactor`. Nothing is parsed. What an end is owed and did not take yet stands in
its overflow buffer, and as long as there is any, the other end is not read: memory is at most one read per
direction, and none while nothing is stuck.
"""

from libc.stdint cimport uint32_t

from pgamb.relay.reactor cimport Reactor, Source


cdef class End(Source):
    cdef readonly Pipe pipe     # None once closed
    cdef End peer               # None once closed
    cdef char* owed             # what this end must still take; NULL when nothing
    cdef Py_ssize_t owed_start, owed_stop
    cdef readonly bint in_open   # more may be read from here
    cdef readonly bint out_open  # more may be sent to here
    cdef bint parked            # taken out of epoll: it has hung up, and nothing can be done about that now

    cdef int receive(self) except -1
    cdef Py_ssize_t offer(self, char* data, Py_ssize_t size) except -1
    cdef int take(self, char* data, Py_ssize_t size) except -1
    cdef int flush(self) except -1
    cdef int lose(self) except -1
    cdef int settle(self) except -1
    cdef int drop_owed(self) except -1


cdef class Pipe:
    cdef End front              # towards the application
    cdef End back               # towards PostgreSQL
    cdef object on_close
    cdef readonly unsigned long long bytes_up    # read from the front
    cdef readonly unsigned long long bytes_down  # read from the back

    cpdef int close(self) except -1
    cdef int settle(self) except -1
