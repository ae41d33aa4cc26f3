# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""One connection's bytes: received into the reactor's scratch, sent at once, what is not taken kept.

`write` sends what the kernel takes and keeps the rest in `out`, to be sent when the descriptor is writable again.
The users of a stream bound what they write: they stop reading the other side while `backlogged()`.

TLS is an `ssl.SSLObject` between two memory BIOs; the plain path pays one comparison for it. With TLS, `out` holds
ciphertext.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from libc.errno cimport EAGAIN, EINTR, errno
import ssl


cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_NOSIGNAL
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    ssize_t send(int fd, const void* buffer, size_t size, int flags)


cdef class Stream(Source):
    """A connected, non-blocking socket that the reactor serves."""

    def __cinit__(self):
        self.out = Buffer()

    cdef int begin(self, Reactor reactor, int fd, object tls, object tls_in, object tls_out) except -1:
        self.tls = tls
        self.tls_in = tls_in
        self.tls_out = tls_out
        self.attach(reactor, fd)
        reactor.add(self, READABLE)
        self.reading = True
        return 0

    cdef ssize_t receive(self, char* into, size_t size) except? -3:
        """Return the number of bytes received, 0 at the end, WOULD_BLOCK, or LOST."""
        cdef ssize_t count
        if self.tls is None:
            while True:
                count = recv(self.fd, into, size, 0)
                if count >= 0:
                    return count
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    return WOULD_BLOCK
                return LOST
        return self._receive_tls(into, size)

    cdef ssize_t _receive_tls(self, char* into, size_t size) except? -3:
        cdef ssize_t count
        cdef bint ended = False
        # What was deciphered earlier comes first: no event will tell of it.
        while True:
            try:
                return self.tls.read(size, PyMemoryView_FromMemory(into, size, PyBUF_WRITE))
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                return 0
            except ssl.SSLError:
                return LOST
            # A renegotiation or a key update may have left something to send.
            self._drain_tls()
            if ended:
                return 0
            while True:
                count = recv(self.fd, into, size, 0)
                if count >= 0 or errno != EINTR:
                    break
            if count > 0:
                self.tls_in.write(PyMemoryView_FromMemory(into, count, PyBUF_READ))
            elif count == 0:
                self.tls_in.write_eof()
                ended = True
            elif errno == EAGAIN:
                return WOULD_BLOCK
            else:
                return LOST

    cdef bint pending_plaintext(self):
        """Tell whether input is waiting here, where epoll does not see it."""
        return self.tls is not None and (self.tls.pending() > 0 or self.tls_in.pending > 0)

    cdef int write(self, const char* data, size_t size) except -1:
        """Send, or keep for later, all of it. A lost peer is found out by the next `receive`."""
        cdef ssize_t sent
        if self.fd < 0 or size == 0:
            return 0
        if self.tls is not None:
            return self._write_tls(data, size)
        if self.corked or self.out.end != self.out.start:
            self.out.append(data, size)
            return 0 if self.corked else self.flush()
        sent = self._send(data, size)
        if <size_t> sent < size:
            self.out.append(data + sent, size - sent)
            self._want_writable()
        return 0

    cdef int collect(self, const char* data, size_t size) except -1:
        """Keep for the next `flush`, or `write`, so that both leave in one packet."""
        if self.fd < 0 or size == 0:
            return 0
        if self.tls is not None:
            self.tls.write(PyMemoryView_FromMemory(<char*> data, size, PyBUF_READ))
            return 0
        return self.out.append(data, size)

    cdef int flush(self) except -1:
        """Send what was collected."""
        cdef ssize_t sent
        if self.fd < 0:
            return 0
        if self.tls is not None:
            self._drain_tls()
        if self.out.end != self.out.start and not self.interest & WRITABLE:
            sent = self._send(self.out.head(), self.out.size())
            self.out.consume(sent)
            if self.out.end != self.out.start:
                self._want_writable()
        return 0

    cdef int finish(self) except -1:
        """Send what was collected, and that nothing follows: with TLS, an orderly end differs from a cut."""
        if self.tls is not None:
            try:
                self.tls.unwrap()
            except ssl.SSLError:
                # It would rather wait for the peer's goodbye.
                pass
        return self.flush()

    cdef int _write_tls(self, const char* data, size_t size) except -1:
        try:
            self.tls.write(PyMemoryView_FromMemory(<char*> data, size, PyBUF_READ))
        except ssl.SSLError:
            return 0    # the peer is gone; `receive` will say so
        if not self.corked:
            self.flush()
        return 0

    cdef int _drain_tls(self) except -1:
        cdef object ciphertext = self.tls_out.read()
        return self.out.append(PyBytes_AS_STRING(ciphertext), PyBytes_GET_SIZE(ciphertext))

    cdef ssize_t _send(self, const char* data, size_t size) except? -3:
        """Return how much was taken: 0 when nothing can be now, all of it when the peer is gone."""
        cdef ssize_t sent
        while True:
            sent = send(self.fd, data, size, MSG_NOSIGNAL)
            if sent >= 0:
                return sent
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                return 0
            return size

    cdef int _want_writable(self) except -1:
        return self.watch((READABLE if self.reading else 0) | WRITABLE)

    cdef int set_reading(self, bint reading) except -1:
        """Be told of input, or not. Backpressure is this and nothing else."""
        if self.fd < 0 or self.reading == reading:
            return 0
        self.reading = reading
        if reading and self.tls is not None and self.pending_plaintext():
            self.reactor.defer(self.read_pending)
        return self.watch((READABLE if reading else 0) | (self.interest & WRITABLE))

    def read_pending(self):
        """Read what TLS has deciphered already: no event will tell of it."""
        if self.fd >= 0 and self.reading:
            self.on_ready(READABLE)

    cdef int on_writable(self) except -1:
        """Send what waits. Call it when epoll reports WRITABLE; afterwards `backlogged()` tells whether all left."""
        cdef ssize_t sent
        if self.out.end != self.out.start:
            sent = self._send(self.out.head(), self.out.size())
            self.out.consume(sent)
        if self.out.end == self.out.start:
            self.watch(READABLE if self.reading else 0)
        return 0
