"""The event loop of the data plane: one epoll instance, nested in asyncio's.

`Reactor` waits for many `Source`s; a `Source` is anything with one file descriptor. A source is told of readiness
by `on_ready` and changes what it waits for by `Source.watch`. Everything runs on the thread of the asyncio loop.
"""

from libc.stdint cimport uint32_t


cdef class Source:
    cdef readonly int fd            # -1 once closed
    cdef readonly Reactor reactor   # None until attached
    cdef uint32_t interest          # the epoll events asked for

    cdef int on_ready(self, uint32_t events) except -1
    cdef int attach(self, Reactor reactor, int fd) except -1
    cdef int watch(self, uint32_t interest) except -1
    cdef int close_fd(self) except -1


cdef class Reactor:
    cdef readonly int epoll_fd
    cdef object loop
    cdef list slots                 # fd -> Source, None where there is none
    cdef list deferred              # callables to run after the current batch
    cdef object on_error
    cdef bint deferred_scheduled
    cdef bint yielding              # the asyncio loop has something to do
    cdef char* scratch              # what a source reads into; valid within one `on_ready`
    cdef char* staging              # where a source puts together what it sends; likewise
    cdef readonly unsigned long long wakeups
    cdef readonly unsigned long long events

    cdef int add(self, Source source, uint32_t interest) except -1
    cdef int modify(self, Source source, uint32_t interest) except -1
    cdef int remove(self, Source source) except -1
    cpdef int poll(self) except -1
    cdef int defer(self, object callback) except -1


cdef enum:
    SCRATCH_BYTES = 65536
    STAGING_BYTES = 131072
