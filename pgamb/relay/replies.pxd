"""What a backend still owes: one entry for each message that PostgreSQL will answer."""

from libc.stdint cimport uint8_t, uint32_t


cdef enum Kind:
    QUERY = 1       # everything up to ReadyForQuery
    PARSE
    BIND
    DESCRIBE
    EXECUTE
    CLOSE
    SYNC
    COPY_END        # CopyDone or CopyFail went out; nothing answers it

cdef enum Flags:
    SWALLOW = 1     # asked for by pgamb: the application does not see the answer
    ANSWER = 2      # nothing was sent: pgamb answers when its turn comes
    CAPTURE = 4     # with SWALLOW: the rows are for the control plane
    SETTLE = 8      # with SWALLOW: the end of what prepares a backend for its next use
    FORGIVE = 32    # with SWALLOW: it may fail, the backend is as good as before
    STAND_IN = 64   # with SWALLOW: in a batch ahead of a Query; if it fails, that is why that Query does


cdef enum:
    # No more is sent while so many are due. Each takes 8 bytes, and some 500 more if a name hangs on it.
    MOST_REPLIES = 1 << 14


cdef struct Reply:
    uint8_t kind
    uint8_t flags
    uint32_t kept_bytes     # of the unit that ends here, as the application sent it; 0: not kept


cdef class Effect:
    """What a Parse or Close has changed already, to be undone if PostgreSQL never carries it out."""

    cdef object statement           # Statement that the name means from now on, None if it was closed
    cdef object previous            # Statement that the name meant before, or None
    cdef bytes name                 # the session's name; None when only a backend is concerned
    cdef object on_backend          # Statement added to the backend (parsed) or None
    cdef object described           # Statement that pgamb wants to have described, or None
    cdef unsigned long long moment  # ... when it was parsed
    cdef object evicted             # Statement removed from the backend, or None
    cdef object dropped             # unnamed Statement that a Query drops, which may be skipped; or None
    cdef object phrase              # relay.named.Spoken: what the Query said under another name, None most often


cdef class Replies:
    cdef Reply* ring
    cdef uint32_t first
    cdef uint32_t count
    cdef uint32_t capacity          # a power of two
    cdef dict effects               # position (first + index) -> Effect

    cdef int push(self, uint8_t kind, uint8_t flags, Effect effect) except -1
    cdef Effect pop(self)
    cdef int owed(self) noexcept
    cdef bint owes_one(self) noexcept
    cdef int drop_until_sync(self, list undone) except -1
    cdef int drop_syncs_before_copy_end(self) except -1
    cdef int copy_completed(self) except -1
    cdef bint copy_ended(self) noexcept
    cdef bint will_end(self) noexcept
    cdef list effects_left(self)

    cdef inline Reply* at(self, uint32_t index) noexcept:
        """Return an entry; 0 is the oldest."""
        return &self.ring[(self.first + index) & (self.capacity - 1)]

    cdef inline Reply* head(self) noexcept:
        """Return the oldest entry, NULL if nothing is owed."""
        return &self.ring[self.first & (self.capacity - 1)] if self.count else NULL

    cdef uint32_t _copy_end(self) noexcept
    cdef int _drop_syncs(self, uint32_t end, bint with_end) except -1
    cdef int _grow(self) except -1
