"""One connection's bytes: received into the reactor's scratch, sent at once, what is not taken kept."""

from libc.stdint cimport uint32_t

from pgamb.relay.buffer cimport Buffer
from pgamb.relay.reactor cimport Reactor, Source


cdef enum:
    READABLE = 1        # EPOLLIN
    WRITABLE = 4        # EPOLLOUT
    BROKEN = 8 | 16     # EPOLLERR | EPOLLHUP

cdef enum:
    WOULD_BLOCK = -1
    LOST = -2


cdef class Stream(Source):
    cdef Buffer out                 # what the peer has not taken yet
    cdef object tls                 # ssl.SSLObject, None for plain text
    cdef object tls_in              # ssl.MemoryBIO: ciphertext from the peer
    cdef object tls_out             # ssl.MemoryBIO: ciphertext for the peer
    cdef bint reading               # wants to be told of input
    cdef bint corked                # `write` only collects

    cdef inline bint backlogged(self) noexcept:
        """Tell whether the peer does not take what it is sent as fast as it comes."""
        return self.interest & WRITABLE

    cdef inline size_t unsent(self):
        """Return how many bytes the peer has not taken."""
        return self.out.end - self.out.start + (0 if self.tls is None else <size_t> self.tls_out.pending)

    cdef int begin(self, Reactor reactor, int fd, object tls, object tls_in, object tls_out) except -1
    cdef ssize_t receive(self, char* into, size_t size) except? -3
    cdef bint pending_plaintext(self)
    cdef int write(self, const char* data, size_t size) except -1
    cdef int collect(self, const char* data, size_t size) except -1
    cdef int flush(self) except -1
    cdef int finish(self) except -1
    cdef int set_reading(self, bint reading) except -1
    cdef int on_writable(self) except -1
    cdef ssize_t _send(self, const char* data, size_t size) except? -3

    cdef ssize_t _receive_tls(self, char* into, size_t size) except? -3
    cdef int _write_tls(self, const char* data, size_t size) except -1
    cdef int _drain_tls(self) except -1
    cdef int _want_writable(self) except -1
