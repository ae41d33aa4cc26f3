"""The data plane's share of the event loop: descriptors that are served in C.

A `Source` is anything with one file descriptor; a `Reactor` calls its `on_ready` when that is ready. A source changes
what it waits for by `Source.watch`. Everything runs on the thread of the asyncio loop.
"""

from libc.stdint cimport uint32_t

from pgamb.relay.epoll cimport epoll_event


cdef class Source:
    cdef readonly int fd            # -1 once closed
    cdef readonly Reactor reactor   # None until attached
    cdef uint32_t interest          # the epoll events asked for

    cdef int on_ready(self, uint32_t events) except -1
    cdef int attach(self, Reactor reactor, int fd) except -1
    cdef int watch(self, uint32_t interest) except -1
    cdef int close_fd(self) except -1
    cpdef double unheard_s(self) noexcept


cdef class Reactor:
    cdef readonly int epoll_fd
    cdef object loop
    cdef bint nested                # the epoll instance is our own, and asyncio's waits for it
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
    cdef Source source_of(self, int fd)
    cdef int serve(self, Source source, uint32_t events) except -1
    cdef int end_batch(self) except -1
    cpdef int poll(self) except -1
    cdef int defer(self, object callback) except -1


cdef enum:
    SCRATCH_BYTES = 65536
    STAGING_BYTES = 131072
