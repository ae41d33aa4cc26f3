# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The event loop of the data plane: one epoll instance, nested in asyncio's.

Responsibility: wait for many descriptors at the price of one wake-up of the asyncio loop, and call `on_ready` on
the sources behind them, in C.

Invariants:
* a descriptor is registered for exactly one live `Source`, and is closed only after it was removed;
* an exception in one source's `on_ready` closes that source alone (through `on_error`) and never the reactor;
* `poll` serves at most MAX_BATCH events a round, for TURN_S at most, so that asyncio's own work always has its turn.

While there is traffic, `poll` lingers: having served a batch, it waits LINGER_NS for the next one before it goes back
to the asyncio loop. A reply that arrives some tens of microseconds after its request then costs no second turn of that
loop, which is several times as dear as ours. Timers and the control plane are late by TURN_S at most for it, and
`give_way` spares them even that where something is known to wait.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport malloc, free
from posix.unistd cimport close
import os


cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
    ctypedef union epoll_data_t:
        uint64_t u64
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int flags)
    int epoll_ctl(int epfd, int op, int fd, epoll_event* event)
    int epoll_wait(int epfd, epoll_event* events, int maxevents, int timeout)

cdef extern from "<sys/syscall.h>" nogil:
    enum:
        SYS_epoll_pwait2
    long syscall(long number, ...)

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* into)


cdef enum:
    MAX_BATCH = 256
    # Longer than a short query takes, shorter than anybody notices.
    LINGER_NS = 200000

cdef double TURN_S = 0.001


cdef double _now_s() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return moment.tv_sec + moment.tv_nsec * 1e-9


cdef int _wait(int epoll_fd, epoll_event* events, long timeout_ns) noexcept nogil:
    """Wait with a finer clock than epoll_wait has; where the kernel (before 5.11) cannot, do not wait."""
    cdef timespec timeout
    cdef int count
    timeout.tv_sec = 0
    timeout.tv_nsec = timeout_ns
    count = <int> syscall(SYS_epoll_pwait2, epoll_fd, events, MAX_BATCH, &timeout, NULL, 0)
    if count < 0 and errno != EINTR:
        return epoll_wait(epoll_fd, events, MAX_BATCH, 0)
    return count


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
    """An epoll instance whose own descriptor the asyncio loop waits for.

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
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno))
        loop.add_reader(self.epoll_fd, self.poll)

    def __dealloc__(self):
        free(self.scratch)
        free(self.staging)
        if self.epoll_fd >= 0:
            close(self.epoll_fd)

    def close(self):
        """Stop waiting; sources that are still registered are forgotten, not closed."""
        if self.epoll_fd < 0:
            return
        self.loop.remove_reader(self.epoll_fd)
        close(self.epoll_fd)
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

    cpdef int poll(self) except -1:
        """Serve what is ready, then whatever becomes ready within a moment."""
        cdef epoll_event[MAX_BATCH] events
        cdef int count, i, fd
        cdef Source source
        cdef double end_s
        self.wakeups += 1
        self.yielding = False
        count = epoll_wait(self.epoll_fd, events, MAX_BATCH, 0)
        if count <= 0:
            return 0
        end_s = _now_s() + TURN_S
        while count > 0:
            self.events += count
            for i in range(count):
                fd = events[i].data.fd
                # A source closed, or even replaced, earlier in this round has left or changed its slot.
                source = <Source> self.slots[fd]
                if source is None:
                    continue
                try:
                    source.on_ready(events[i].events)
                except Exception as error:
                    self.on_error(source, error)
            if self.deferred:
                self.run_deferred()
            if self.yielding or self.epoll_fd < 0 or _now_s() >= end_s:
                break
            count = _wait(self.epoll_fd, events, LINGER_NS)
        return 0
