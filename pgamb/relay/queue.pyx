# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Who waits, in the order of arrival.

A deque in all but one point: how many wait is known in C, because every query asks.
"""

from pgamb.relay.backend cimport Owner


cdef enum:
    # So many places that are empty already are not worth a compaction.
    SLACK = 32


cdef class Queue:
    """First come, first served. Those who have left meanwhile are passed over."""

    def __cinit__(self):
        self.items = []

    def __len__(self):
        return self.count

    cdef int push(self, Owner owner) except -1:
        self.items.append(owner)
        self.count += 1
        return 0

    cdef Owner peek(self):
        """Return who has waited longest, None if nobody waits."""
        cdef Owner owner
        while self.count:
            owner = <Owner> self.items[self.first]
            if owner is not None and owner.fd >= 0:
                return owner
            self._advance()
            if owner is not None:
                self.count -= 1
        return None

    cdef Owner pop(self):
        """Remove and return who has waited longest, None if nobody waits."""
        cdef Owner owner = self.peek()
        if owner is not None:
            self._advance()
            self.count -= 1
        return owner

    cdef int _advance(self) except -1:
        self.items[self.first] = None
        self.first += 1
        if self.first > SLACK and self.first * 2 > len(self.items):
            del self.items[: self.first]
            self.first = 0
        return 0

    cdef list take_all(self):
        """Remove and return all, in order."""
        cdef list owners = []
        cdef Owner owner = self.pop()
        while owner is not None:
            owners.append(owner)
            owner = self.pop()
        return owners

    cdef int remove(self, Owner owner) except -1:
        """Take somebody out; harmless if it is not there."""
        cdef Py_ssize_t i
        for i in range(self.first, len(self.items)):
            if self.items[i] is owner:
                self.items[i] = None
                self.count -= 1
                break
        return 0
