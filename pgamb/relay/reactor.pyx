# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The data plane's share of the event loop: descriptors that are served in C.

Responsibility: know which descriptor belongs to which `Source`, and call its `on_ready`.

There are two ways to wait. In `pgamb client` the asyncio loop's own selector is `relay.selector.Selector`: one epoll
instance holds the descriptors of both planes, and those of the data plane are served before asyncio hears of a turn.
On any other loop the reactor has an epoll instance of its own, nested in the loop's.

Invariants:
* a descriptor is registered for exactly one live `Source`, and is closed only after it was removed;
* an exception in one source's `on_ready` closes that source alone (through `on_error`) and never the reactor.
"""

from libc.errno cimport errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport malloc, free
from posix.unistd cimport close
import os

from pgamb.relay.epoll cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, MAX_BATCH, epoll_create1, epoll_ctl, epoll_event,
    epoll_wait,
)


cdef extern from "<netinet/tcp.h>" nogil:
    enum:
        TCP_INFO
    struct tcp_info:
        uint32_t tcpi_unacked           # segments sent and not acknowledged
        uint32_t tcpi_last_ack_recv     # milliseconds since the last acknowledgement

cdef extern from "<netinet/in.h>" nogil:
    enum:
        IPPROTO_TCP

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size)


cdef class Source:
    """Something with one file descriptor that a `Reactor` waits for."""

    def __cinit__(self):
        self.fd = -1

    def __dealloc__(self):
        # A source that was dropped without `close_fd` must not leak its descriptor.
        if self.fd >= 0:
            close(self.fd)

    cdef int on_ready(self, uint32_t events) except -1:
        raise NotImplementedError

    cdef int attach(self, Reactor reactor, int fd) except -1:
        """Own `fd` from now on, waiting for nothing yet."""
        self.fd = fd
        self.reactor = reactor
        return 0

    cdef int watch(self, uint32_t interest) except -1:
        """Wait for these epoll events from now on; 0 waits for nothing but errors and hang-ups."""
        if self.fd < 0 or interest == self.interest:
            return 0
        return self.reactor.modify(self, interest)

    cpdef double unheard_s(self) noexcept:
        """Return for how many seconds the peer's machine has acknowledged nothing, -1 if it owes no acknowledgement."""
        cdef tcp_info info
        cdef socklen_t size = sizeof(info)
        info.tcpi_unacked = 0
        if self.fd < 0 or getsockopt(self.fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 or info.tcpi_unacked == 0:
            return -1
        return info.tcpi_last_ack_recv / 1000.0

    cdef int close_fd(self) except -1:
        """Stop waiting and close the descriptor. Harmless when done already."""
        if self.fd < 0:
            return 0
        if self.reactor is not None:
            self.reactor.remove(self)
        close(self.fd)
        self.fd = -1
        return 0


cdef class Reactor:
    """Serves sources on an asyncio loop.

    `on_error(source, exception)` hears of a source whose `on_ready` raised; it must close that source.
    """

    def __cinit__(self):
        self.epoll_fd = -1
        self.scratch = <char*> malloc(SCRATCH_BYTES)
        self.staging = <char*> malloc(STAGING_BYTES)
        if self.scratch == NULL or self.staging == NULL:
            raise MemoryError

    def __init__(self, loop, on_error):
        self.loop = loop
        self.on_error = on_error
        self.slots = []
        self.deferred = []
        selector = getattr(loop, "selector", None)
        if selector is not None:
            self.epoll_fd = selector.share(self)
            return
        self.nested = True
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno))
        loop.add_reader(self.epoll_fd, self.poll)

    def __dealloc__(self):
        free(self.scratch)
        free(self.staging)
        if self.nested and self.epoll_fd >= 0:
            close(self.epoll_fd)

    def close(self):
        """Stop waiting; sources that are still registered are forgotten, not closed."""
        if self.epoll_fd < 0:
            return
        if self.nested:
            self.loop.remove_reader(self.epoll_fd)
            close(self.epoll_fd)
        else:
            self.loop.selector.unshare()
        self.epoll_fd = -1
        self.slots = []

    cdef int add(self, Source source, uint32_t interest) except -1:
        cdef epoll_event event
        while len(self.slots) <= source.fd:
            self.slots.append(None)
        event.events = interest
        event.data.u64 = 0
        event.data.fd = source.fd
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_ADD, source.fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        self.slots[source.fd] = source
        source.interest = interest
        return 0

    cdef int modify(self, Source source, uint32_t interest) except -1:
        cdef epoll_event event
        event.events = interest
        event.data.u64 = 0
        event.data.fd = source.fd
        if epoll_ctl(self.epoll_fd, EPOLL_CTL_MOD, source.fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        source.interest = interest
        return 0

    cdef int remove(self, Source source) except -1:
        cdef epoll_event event
        if self.epoll_fd >= 0 and source.fd < len(self.slots) and self.slots[source.fd] is source:
            epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, source.fd, &event)
            self.slots[source.fd] = None
        return 0

    cdef int defer(self, object callback) except -1:
        """Call `callback()` when the sources of this round have been served, or soon, outside a round."""
        self.deferred.append(callback)
        if not self.deferred_scheduled:
            self.deferred_scheduled = True
            self.loop.call_soon(self.run_deferred)
        return 0

    def call_soon(self, callback):
        """Call `callback()` when what is being done now is done."""
        self.defer(callback)

    def run_deferred(self):
        cdef list callbacks
        self.deferred_scheduled = False
        while self.deferred:
            callbacks = self.deferred
            self.deferred = []
            for callback in callbacks:
                callback()

    def give_way(self):
        """Let the asyncio loop have its turn as soon as what is being served is done."""
        self.yielding = True

    cdef Source source_of(self, int fd):
        """Return the source behind a descriptor, None if there is none (any more)."""
        return <Source> self.slots[fd] if fd < len(self.slots) else None

    cdef int serve(self, Source source, uint32_t events) except -1:
        """Tell one source that it is ready."""
        self.events += 1
        try:
            source.on_ready(events)
        except Exception as error:
            self.on_error(source, error)
        return 0

    cdef int end_batch(self) except -1:
        """Do what had to wait until all sources of a batch were served."""
        if self.deferred:
            self.run_deferred()
        return 0

    cpdef int poll(self) except -1:
        """Serve what is ready in an epoll instance of our own."""
        cdef epoll_event[MAX_BATCH] events
        cdef int count, i
        cdef Source source
        self.wakeups += 1
        count = epoll_wait(self.epoll_fd, events, MAX_BATCH, 0)
        for i in range(count):
            # A source closed, or even replaced, earlier in this round has left or changed its slot.
            source = self.source_of(events[i].data.fd)
            if source is not None:
                self.serve(source, events[i].events)
        return self.end_batch()
