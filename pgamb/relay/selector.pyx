# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""asyncio's selector, which serves the data plane on the way.

asyncio asks its selector what is ready, and runs the callbacks. This one holds the descriptors of the data plane,
too, and serves those in C as they become ready, without a turn of the asyncio loop: a query costs no Python at all,
and no second epoll instance. It goes back to asyncio when something of asyncio's own is ready, when its next timer
is due, when the data plane has called for it (`Reactor.give_way`), and after TURN_S in any case.

It has the methods of `selectors.BaseSelector` (see the standard library's manual, "selectors").
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport uint32_t
from posix.unistd cimport close
import os
import selectors

from pgamb.relay.epoll cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD, EPOLLIN, EPOLLOUT, MAX_BATCH, epoll_create1, epoll_ctl,
    epoll_event, epoll_wait,
)
from pgamb.relay.reactor cimport Reactor, Source


cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec* into)


cdef int EVENT_READ = selectors.EVENT_READ
cdef int EVENT_WRITE = selectors.EVENT_WRITE

# However busy the data plane is, the control plane has its turn this often (seconds). Its own descriptors, its timers
# and `give_way` do not wait for that; it is for what nobody has told us of.
cdef double TURN_S = 0.01


cdef double _now_s() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC, &moment)
    return moment.tv_sec + moment.tv_nsec * 1e-9


cdef class Selector:
    """A selector for `asyncio.SelectorEventLoop`, and the data plane's epoll instance."""

    def __cinit__(self):
        self.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.keys = {}

    def __dealloc__(self):
        if self.epoll_fd >= 0:
            close(self.epoll_fd)

    def share(self, Reactor reactor):
        """Serve this reactor's sources from now on; returns the epoll descriptor that they are to be added to."""
        if self.reactor is not None:
            raise RuntimeError("this loop has a reactor already")
        self.reactor = reactor
        return self.epoll_fd

    def unshare(self):
        """Forget the reactor."""
        self.reactor = None

    def register(self, fileobj, int events, data=None):
        """Wait for a descriptor of asyncio's; raises KeyError if it is known already."""
        cdef int fd = _descriptor(fileobj)
        if fd in self.keys:
            raise KeyError(f"{fileobj!r} (FD {fd}) is already registered")
        self._control(EPOLL_CTL_ADD, fd, events)
        key = self.keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj):
        cdef epoll_event event
        cdef int fd = _descriptor(fileobj)
        key = self.keys.pop(fd)
        # It may have been closed already, which has removed it.
        epoll_ctl(self.epoll_fd, EPOLL_CTL_DEL, fd, &event)
        return key

    def modify(self, fileobj, int events, data=None):
        cdef int fd = _descriptor(fileobj)
        key = self.keys[fd]
        if events != key.events:
            self._control(EPOLL_CTL_MOD, fd, events)
        key = self.keys[fd] = selectors.SelectorKey(key.fileobj, fd, events, data)
        return key

    def _control(self, int operation, int fd, int events):
        cdef epoll_event event
        event.events = (EPOLLIN if events & EVENT_READ else 0) | (EPOLLOUT if events & EVENT_WRITE else 0)
        event.data.u64 = 0
        event.data.fd = fd
        if epoll_ctl(self.epoll_fd, operation, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))

    def get_key(self, fileobj):
        """Return the key of a descriptor; raises KeyError."""
        return self.keys[_descriptor(fileobj)]

    def get_map(self):
        return self.keys

    def close(self):
        if self.epoll_fd >= 0:
            close(self.epoll_fd)
            self.epoll_fd = -1
        self.keys.clear()

    def select(self, timeout=None):
        """Return what is ready of asyncio's within `timeout` seconds (None: whenever), and serve what is of ours."""
        cdef epoll_event[MAX_BATCH] events
        cdef int count, i, wait_ms
        cdef bint served
        cdef double deadline_s = 0, turn_end_s = 0, now_s, left_s
        cdef Source source
        cdef uint32_t flags
        cdef list ready = []
        if timeout is None:
            wait_ms = -1
        elif timeout <= 0:
            wait_ms = 0
        else:
            left_s = timeout
            deadline_s = _now_s() + left_s
            wait_ms = _milliseconds(left_s)
        if self.reactor is not None:
            self.reactor.wakeups += 1
        while True:
            # Threads (of grpc, a name's look-up, the status page) run while this one sleeps.
            with nogil:
                count = epoll_wait(self.epoll_fd, events, MAX_BATCH, wait_ms)
            if count < 0:
                if errno == EINTR:
                    return ready
                raise OSError(errno, os.strerror(errno))
            served = False
            for i in range(count):
                # A source closed, or even replaced, earlier in this round has left or changed its slot.
                source = self.reactor.source_of(events[i].data.fd) if self.reactor is not None else None
                if source is not None:
                    served = True
                    self.reactor.serve(source, events[i].events)
                    continue
                key = self.keys.get(events[i].data.fd)
                if key is not None:
                    flags = events[i].events
                    # As `selectors`: an error or a hang-up makes both ready.
                    ready.append((
                        key,
                        ((EVENT_READ if flags & ~(<uint32_t> EPOLLOUT) else 0)
                         | (EVENT_WRITE if flags & ~(<uint32_t> EPOLLIN) else 0)) & key.events,
                    ))
            if self.reactor is None or not served:
                return ready
            self.reactor.end_batch()
            if ready or wait_ms == 0 or self.reactor is None or self.reactor.yielding:
                if self.reactor is not None:
                    self.reactor.yielding = False
                return ready
            now_s = _now_s()
            if turn_end_s == 0:
                turn_end_s = now_s + TURN_S
            elif now_s >= turn_end_s:
                return ready
            if wait_ms > 0:
                left_s = deadline_s - now_s
                if left_s <= 0:
                    return ready
                wait_ms = _milliseconds(left_s)


cdef int _milliseconds(double seconds) noexcept:
    """Round up, as `selectors` does: a timer that is nearly due must not make the loop spin."""
    cdef double milliseconds = seconds * 1000
    cdef int whole
    if milliseconds > 0x7fffffff:
        return 0x7fffffff
    whole = <int> milliseconds
    return whole if whole == milliseconds else whole + 1


cdef int _descriptor(fileobj) except -1:
    cdef int fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
    if fd < 0:
        raise ValueError(f"Invalid file descriptor: {fd}")
    return fd
