# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A replication connection: an application and the walsender that is its own, from log-in to the end.

Responsibility: carry bytes as they are in both directions (streams, queries, COPY, keepalives), and know where messages
begin, so that pgamb's own last word, if there has to be one, stands between two of them.

Invariants:
* no pool knows of the walsender's connection, and nobody else ever uses it;
* one side is read only while the other takes what it is sent: what is kept for a slow one is no more than one read;
* the side that stays hears everything that the other one said before it went.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memset

from pgamb.relay.framing cimport read_u32
from pgamb.relay.reactor cimport SCRATCH_BYTES, Reactor
from pgamb.relay.stream cimport BROKEN, READABLE, WOULD_BLOCK, WRITABLE

from pgamb.errors import AdminShutdown
from pgamb.wire.messages import error_response


cdef extern from "<sys/socket.h>" nogil:
    enum:
        SHUT_WR
    int shutdown(int fd, int how)


cdef enum:
    # Reads in one turn of one side: a base backup shares the loop with everybody else.
    MAX_READS = 4


cdef size_t walk(Framing* framing, const char* data, size_t size, bint to_boundary) noexcept nogil:
    """Follow the messages in `data`; with `to_boundary`, no further than to the end of the one under way.

    Return how much was looked at.
    """
    cdef size_t position = 0, take
    cdef uint32_t length
    while position < size:
        if framing.lost:
            return size
        if framing.left:
            take = min(framing.left, size - position)
            framing.left -= take
            position += take
        else:
            if to_boundary and framing.head_size == 0:
                return position
            framing.head[framing.head_size] = data[position]
            framing.head_size += 1
            position += 1
            if framing.head_size < 5:
                continue
            framing.head_size = 0
            length = read_u32(framing.head + 1)
            framing.kind = <uint8_t> framing.head[0]
            framing.lost = length < 4
            framing.left = length - 4
    return position


cdef inline bint is_between(Framing* framing) noexcept nogil:
    return framing.left == 0 and framing.head_size == 0 and not framing.lost


cdef class Side(Stream):
    """One of the two connections."""

    cdef int heard(self, const char* data, size_t size) except -1:
        """These bytes have come."""
        raise NotImplementedError

    cdef int gone(self) except -1:
        """Nothing more will come."""
        raise NotImplementedError

    cdef int relieved(self) except -1:
        """It has taken all that it was sent."""
        raise NotImplementedError

    cdef int on_ready(self, uint32_t events) except -1:
        cdef char* scratch = self.reactor.scratch
        cdef ssize_t count
        cdef int _
        if events & WRITABLE:
            self.on_writable()
            if not self.backlogged():
                self.relieved()
        if not events & (READABLE | BROKEN) or not (self.reading or events & BROKEN):
            return 0
        for _ in range(MAX_READS):
            if self.fd < 0:
                return 0
            count = self.receive(scratch, SCRATCH_BYTES)
            if count == WOULD_BLOCK:
                return 0
            if count <= 0:
                return self.gone()
            self.heard(scratch, count)
            if not self.pending_plaintext() and (count < SCRATCH_BYTES or not self.reading):
                return 0
            if not self.reading and not events & BROKEN:
                return 0
        if self.pending_plaintext():
            self.reactor.defer(self.read_pending)
        return 0


cdef class Walsender(Side):
    """The connection to PostgreSQL."""

    def close(self):
        """Close the whole session at once."""
        if self.session is not None:
            self.session._close()

    cdef int heard(self, const char* data, size_t size) except -1:
        self.session.received_bytes += size
        return self.session.from_walsender(data, size)

    cdef int gone(self) except -1:
        return self.session.walsender_gone()

    cdef int relieved(self) except -1:
        if self.session is None:
            return 0
        return self.session._close() if self.session.leaving else self.session.set_reading(True)


cdef class Replication(Side):
    """The connection to the application. Both descriptors are owned from the call on.

    `rest` and `backend_rest` are what either side had sent behind the log-in. `on_closed(session)` is called once.
    """

    def __init__(
        self, Reactor reactor, int fd, int backend_fd, *, int pid, bytes secret, origin, on_closed, bytes rest=b"",
        tls=None, tls_in=None, tls_out=None, bytes backend_rest=b"", backend_tls=None, backend_tls_in=None,
        backend_tls_out=None,
    ):
        self.pid = pid
        self.secret = secret
        self.origin = origin
        self.on_closed = on_closed
        self.answered = True
        memset(&self.up, 0, sizeof(self.up))
        memset(&self.down, 0, sizeof(self.down))
        self.walsender = Walsender()
        self.walsender.session = self
        self.begin(reactor, fd, tls, tls_in, tls_out)
        self.walsender.begin(reactor, backend_fd, backend_tls, backend_tls_in, backend_tls_out)
        if backend_rest:
            self.from_walsender(PyBytes_AS_STRING(backend_rest), PyBytes_GET_SIZE(backend_rest))
        if rest:
            self.from_application(PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest))
        if self.pending_plaintext():
            reactor.defer(self.read_pending)
        if self.walsender is not None and self.walsender.pending_plaintext():
            reactor.defer(self.walsender.read_pending)

    def __repr__(self):
        return f"<Replication pid={self.pid} fd={self.fd} state={self.state_name} origin={self.origin!r}>"

    @property
    def state_name(self):
        """What it does: `running`, also while it streams, or `pinned` while PostgreSQL waits for it."""
        return "pinned" if self.answered and not self.streaming else "running"

    @property
    def is_at_rest(self):
        """Tell whether it can be ended without cutting off an answer: a stream has no end, and is begun again."""
        return self.answered or self.fd < 0

    cdef int heard(self, const char* data, size_t size) except -1:
        self.sent_bytes += size
        return self.from_application(data, size)

    cdef int gone(self) except -1:
        return self._application_gone()

    cdef int relieved(self) except -1:
        if self.ended:
            return self._close()
        return 0 if self.walsender is None else self.walsender.set_reading(True)

    cdef int from_application(self, const char* data, size_t size) except -1:
        if self.walsender is None or self.last_word is not None:
            return 0
        walk(&self.up, data, size, False)
        if memchr(b"QPBDECHSF", self.up.kind, 9) != NULL:
            # Of several messages in one packet the last one tells, nearly always; this is for people, and for a drain.
            self.answered = self.streaming = False
        self.walsender.write(data, size)
        if self.walsender.backlogged():
            self.set_reading(False)
        return 0

    cdef int from_walsender(self, const char* data, size_t size) except -1:
        cdef size_t whole
        if self.leaving or self.ended:
            return 0
        if self.last_word is not None:
            whole = walk(&self.down, data, size, True)
            self.write(data, whole)
            return self._end() if is_between(&self.down) else 0
        walk(&self.down, data, size, False)
        if self.down.kind == b"Z" or self.down.kind == b"W":
            self.answered = True
            self.streaming = self.down.kind == b"W"
        self.write(data, size)
        if self.fd >= 0 and self.backlogged():
            self.walsender.set_reading(False)
        return 0

    cdef int walsender_gone(self) except -1:
        """PostgreSQL has closed its connection, or it is lost."""
        if self.walsender is not None:
            self.walsender.close_fd()
            self.walsender.session = None
            self.walsender = None
        if self.leaving or self.fd < 0:
            return self._close()
        if self.last_word is None and self.down.kind != b"E" and self.up.kind != b"X":
            # It did not say why, as a server does that goes down in order.
            self.last_word = error_response(
                AdminShutdown(f"terminating connection because {self.origin} was lost", hint="Connect again."), "FATAL"
            )
        return self._end()

    cdef int _end(self) except -1:
        """Nothing more comes from PostgreSQL. Close when the application has taken what did."""
        if self.last_word is not None and is_between(&self.down):
            self.write(PyBytes_AS_STRING(self.last_word), PyBytes_GET_SIZE(self.last_word))
        self.ended = True
        if self.walsender is not None:
            self.walsender.session = None
            self.walsender.close_fd()
            self.walsender = None
        # What it still sends is read, and dropped.
        self.set_reading(True)
        return 0 if self.backlogged() else self._close()

    cdef int _application_gone(self) except -1:
        """Close when PostgreSQL has taken what it was sent."""
        if self.walsender is None or not self.walsender.backlogged():
            return self._close()
        self.leaving = True
        # The connection that it left is closed with the other one: what comes for it is dropped until then.
        self.reactor.remove(self)
        self.walsender.set_reading(True)
        return 0

    cdef int _close(self) except -1:
        cdef Walsender walsender = self.walsender
        if self.fd < 0:
            return 0
        self.finish()
        # Unread input turns a close into a reset, and the peer would not read our last words.
        shutdown(self.fd, SHUT_WR)
        if not self.leaving:
            self.receive(self.reactor.staging, SCRATCH_BYTES)
        self.close_fd()
        self.walsender = None
        if walsender is not None:
            walsender.session = None
            shutdown(walsender.fd, SHUT_WR)
            walsender.close_fd()
        on_closed, self.on_closed = self.on_closed, None
        on_closed(self)
        return 0

    def end(self, error):
        """Say `error` (a PgambError) as the last word, as soon as the message under way is over, and close."""
        if self.fd < 0 or self.last_word is not None or self.leaving or self.ended:
            return
        self.last_word = error_response(error, "FATAL")
        if is_between(&self.down):
            self._end()

    def close(self):
        """Close both connections at once."""
        self._close()
