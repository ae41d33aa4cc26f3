# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What a backend still owes: one entry for each message that PostgreSQL will answer.

This queue alone knows what a backend owes. It keeps three parties in step: what the application asked for is
forwarded, what pgamb slipped in is swallowed, and what pgamb need not ask PostgreSQL at all (a Parse of a
statement that the backend has already) is answered when its turn comes.

Invariant: the entries stand in the order of the messages on the wire, and the backend is idle exactly when there is
none and its last ReadyForQuery said so.
"""

from libc.stdlib cimport free, malloc


cdef class Effect:
    """What a Parse or Close has changed already, to be undone if PostgreSQL never carries it out."""


cdef class Replies:
    """A ring of expected replies."""

    def __dealloc__(self):
        free(self.ring)

    cdef int push(self, uint8_t kind, uint8_t flags, Effect effect) except -1:
        cdef Reply* slot
        if self.count == self.capacity:
            self._grow()
        slot = self.at(self.count)
        slot.kind = kind
        slot.flags = flags
        slot.kept_bytes = 0
        if effect is not None:
            if self.effects is None:
                self.effects = {}
            self.effects[self.first + self.count] = effect
        self.count += 1
        return 0

    cdef int _grow(self) except -1:
        cdef uint32_t capacity = self.capacity * 2 if self.capacity else 16
        cdef Reply* ring = <Reply*> malloc(capacity * sizeof(Reply))
        cdef uint32_t i
        if ring == NULL:
            raise MemoryError
        for i in range(self.count):
            ring[(self.first + i) & (capacity - 1)] = self.ring[(self.first + i) & (self.capacity - 1)]
        free(self.ring)
        self.ring = ring
        self.capacity = capacity
        return 0

    cdef Effect pop(self):
        """Remove the oldest entry and return its effect, or None."""
        cdef Effect effect = None
        if self.effects:
            effect = self.effects.pop(self.first, None)
        self.first += 1
        self.count -= 1
        return effect

    cdef int owed(self) noexcept:
        """Return how many ReadyForQuery the application still expects of what was sent."""
        cdef uint32_t i
        cdef Reply* slot
        cdef int owed = 0
        for i in range(self.count):
            slot = self.at(i)
            owed += (slot.kind == QUERY or slot.kind == SYNC) and not slot.flags & SWALLOW
        return owed

    cdef bint owes_one(self) noexcept:
        """Tell whether it is exactly one. A deep queue is not counted: that would cost more the deeper it is."""
        cdef uint32_t i
        cdef Reply* slot
        cdef int owed = 0
        if self.count > 256:
            return False
        for i in range(self.count):
            slot = self.at(i)
            owed += (slot.kind == QUERY or slot.kind == SYNC) and not slot.flags & SWALLOW
            if owed > 1:
                return False
        return owed == 1

    cdef int drop_until_sync(self, list undone) except -1:
        """After an error: PostgreSQL skips to the next Sync, and so do we.

        The effects of what is skipped are appended to `undone`, oldest first. A SYNC that is not here yet is
        the application's to send.
        """
        cdef Reply* slot
        cdef Effect effect
        while self.count:
            slot = self.head()
            if slot.kind == SYNC:
                break
            effect = self.pop()
            if effect is not None:
                undone.append(effect)
        return 0

    cdef bint copy_ended(self) noexcept:
        """Tell whether a CopyDone or CopyFail has been sent and not been answered yet."""
        return self._copy_end() < self.count

    cdef bint will_end(self) noexcept:
        """Tell whether all of it will be answered without another word of the application's.

        Behind messages of the extended protocol a Query is no end: if one of them fails, it is skipped like all else.
        """
        cdef uint32_t i
        cdef uint8_t kind
        for i in range(self.count, 0, -1):
            kind = self.at(i - 1).kind
            if kind == SYNC:
                break
            if kind == COPY_END:
                continue
            if kind != QUERY:
                return False
        return True

    cdef list effects_left(self):
        """Return the effects that PostgreSQL has not confirmed yet, oldest first."""
        cdef uint32_t i
        if not self.effects:
            return []
        return [self.effects[self.first + i] for i in range(self.count) if self.first + i in self.effects]

    cdef int copy_completed(self) except -1:
        """The COPY FROM of the oldest entry is complete: what it ate, and its CopyDone, are due no more."""
        cdef uint32_t end = self._copy_end()
        if end == self.count:
            return 0
        return self._drop_syncs(end, True)

    cdef int drop_syncs_before_copy_end(self) except -1:
        """A COPY FROM has begun in the extended protocol: it eats every Sync up to its CopyDone.

        libpq sends such a Sync before it knows that its Execute was a COPY, and PostgreSQL ignores it.
        """
        return self._drop_syncs(self._copy_end(), False)

    cdef uint32_t _copy_end(self) noexcept:
        """Return the index of the first COPY_END, `count` if there is none."""
        cdef uint32_t i
        for i in range(self.count):
            if self.at(i).kind == COPY_END:
                return i
        return self.count

    cdef int _drop_syncs(self, uint32_t end, bint with_end) except -1:
        """Remove each SYNC before the index `end`, and what stands there if `with_end`.

        What stays before it moves, not what stands behind it: that may be a deep pipeline.
        """
        cdef uint32_t i, kept = end + with_end
        for i in range(end, 0, -1):
            if self.at(i - 1).kind == SYNC:
                continue
            kept -= 1
            if kept != i - 1:
                self.at(kept)[0] = self.at(i - 1)[0]
                if self.effects and self.first + i - 1 in self.effects:
                    self.effects[self.first + kept] = self.effects.pop(self.first + i - 1)
        self.first += kept
        self.count -= kept
        return 0
