# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A pipe: two sockets whose bytes go across as they are, in both directions.

Responsibility: carry bytes between an application and PostgreSQL once both are connected, at the price of one `recv`
and one `send` a chunk, and end when both directions have ended.

Invariants:
* an end is read only while its peer is owed nothing, so an overflow buffer never holds more than one read;
* an end of file is passed on (half-close) only behind the last byte that came before it;
* an end that can no longer be written to is still read to its end, and what is for it is dropped: what PostgreSQL said
  last is not lost because the application was sending;
* an end that has hung up and is not to be read now leaves epoll, which would report it for ever.

A reset counts as the end of both directions of that socket.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from pgamb.relay.reactor cimport SCRATCH_BYTES, Reactor, Source


cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SHUT_WR
    ssize_t recv(int fd, void* data, size_t size, int flags)
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int shutdown(int fd, int how)


cdef enum:
    # Reads in one turn of one end, so that a bulk transfer shares the loop with everybody else.
    MAX_READS = 4


cdef class End(Source):
    """One of a pipe's two sockets."""

    def __dealloc__(self):
        free(self.owed)

    def abort(self):
        """End the whole pipe, whatever is still under way."""
        if self.pipe is not None:
            self.pipe.close()

    cdef int on_ready(self, uint32_t events) except -1:
        cdef Pipe pipe = self.pipe
        if pipe is None:
            return 0
        if self.owed != NULL and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            self.flush()
        if self.in_open and self.peer.owed == NULL and events & (EPOLLIN | EPOLLERR | EPOLLHUP):
            self.receive()
        pipe.settle()
        if events & (EPOLLERR | EPOLLHUP) and self.fd >= 0 and not self.interest & EPOLLIN and not self.parked:
            self.parked = True
            self.reactor.remove(self)
        return 0

    cdef int receive(self) except -1:
        """Read a few chunks, as long as the peer takes them."""
        cdef char* scratch = self.reactor.scratch
        cdef ssize_t count
        cdef int _
        for _ in range(MAX_READS):
            count = recv(self.fd, scratch, SCRATCH_BYTES, MSG_DONTWAIT)
            if count < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    break
                self.in_open = False
                self.lose()
                break
            if count == 0:
                self.in_open = False
                break
            if self is self.pipe.front:
                self.pipe.bytes_up += count
            else:
                self.pipe.bytes_down += count
            self.peer.take(scratch, count)
            # A short read emptied the socket: asking again would only cost a system call.
            if self.peer.owed != NULL or not self.in_open or count < SCRATCH_BYTES:
                break
        return 0

    cdef int take(self, char* data, Py_ssize_t size) except -1:
        """Send `data` now, and keep what the socket does not take."""
        cdef Py_ssize_t sent
        if not self.out_open:
            return 0
        sent = self.offer(data, size)
        if sent < size and self.out_open:
            self.owed = <char*> malloc(size - sent)
            if self.owed == NULL:
                raise MemoryError
            memcpy(self.owed, data + sent, size - sent)
            self.owed_start = 0
            self.owed_stop = size - sent
        return 0

    cdef Py_ssize_t offer(self, char* data, Py_ssize_t size) except -1:
        """Send as much as the socket takes now; answer how much that was."""
        cdef Py_ssize_t sent = 0
        cdef ssize_t count
        while sent < size:
            count = send(self.fd, data + sent, size - sent, MSG_DONTWAIT | MSG_NOSIGNAL)
            if count < 0:
                if errno == EINTR:
                    continue
                if errno != EAGAIN:
                    self.lose()
                break
            sent += count
        return sent

    cdef int flush(self) except -1:
        """Send what is owed."""
        self.owed_start += self.offer(self.owed + self.owed_start, self.owed_stop - self.owed_start)
        if self.owed_start == self.owed_stop or not self.out_open:
            self.drop_owed()
        return 0

    cdef int lose(self) except -1:
        """Take note that nothing can be sent here any more; what is read for it from now on is dropped.

        It is read all the same: closing a socket with something unread resets it, and takes with it what its peer
        has not received yet.
        """
        self.out_open = False
        return 0

    cdef int drop_owed(self) except -1:
        free(self.owed)
        self.owed = NULL
        self.owed_start = 0
        self.owed_stop = 0
        return 0

    cdef int settle(self) except -1:
        """Pass an end of file on where it is due, and wait for what is wanted now."""
        cdef uint32_t wanted = 0
        if not self.out_open and self.owed != NULL:
            self.drop_owed()
        if self.out_open and not self.peer.in_open and self.owed == NULL:
            shutdown(self.fd, SHUT_WR)
            self.out_open = False
        if self.in_open and self.peer.owed == NULL:
            wanted |= EPOLLIN
        if self.owed != NULL:
            wanted |= EPOLLOUT
        if not self.parked:
            return self.watch(wanted)
        if wanted:
            self.parked = False
            self.reactor.add(self, wanted)
        return 0


cdef class Pipe:
    """Relay between two connected, non-blocking sockets until both directions have ended.

    Both descriptors are owned from the call on, also when it raises. `on_close(pipe)` is called once, when both are
    closed.
    """

    def __init__(self, Reactor reactor not None, int front_fd, int back_fd, on_close):
        self.on_close = on_close
        self.front = End()
        self.back = End()
        self.front.attach(reactor, front_fd)
        self.back.attach(reactor, back_fd)
        cdef End end
        try:
            for end in (self.front, self.back):
                end.pipe = self
                end.peer = self.back if end is self.front else self.front
                end.in_open = True
                end.out_open = True
                reactor.add(end, EPOLLIN)
        except BaseException:
            self.on_close = None
            self.close()
            raise

    def __repr__(self):
        if self.front is None:
            return f"<Pipe closed, {self.bytes_up} bytes up, {self.bytes_down} down>"
        return f"<Pipe {self.front.fd} -> {self.back.fd}, {self.bytes_up} bytes up, {self.bytes_down} down>"

    @property
    def closed(self):
        return self.front is None

    @property
    def ends(self):
        """Both ends, as long as they are open."""
        return () if self.front is None else (self.front, self.back)

    cdef int settle(self) except -1:
        """Bring both ends in step with what is open and owed; close when nothing is."""
        cdef End front = self.front, back = self.back
        if front is None:
            return 0
        front.settle()
        back.settle()
        # Each direction: nothing more comes from its source, or nothing more can reach its target. `settle` made
        # these the same: `out_open` falls last, behind the last byte.
        if not front.out_open and not back.out_open:
            self.close()
        return 0

    cpdef int close(self) except -1:
        """Close both sockets at once. Harmless when done already."""
        cdef End front = self.front, back = self.back
        if front is None:
            return 0
        self.front = None
        self.back = None
        for end in (front, back):
            (<End> end).close_fd()
            (<End> end).drop_owed()
            (<End> end).in_open = False
            (<End> end).out_open = False
            (<End> end).pipe = None
            (<End> end).peer = None
        if self.on_close is not None:
            on_close = self.on_close
            self.on_close = None
            on_close(self)
        return 0
