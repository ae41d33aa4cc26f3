# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Bytes that wait: received and not yet understood, or to be sent and not yet taken.

A buffer owns memory only while something waits in it: thousands of idle connections cost nothing here.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove


cdef enum:
    SMALLEST_BYTES = 1024
    LASTING_BYTES = 4096


cdef class Buffer:
    """A growing queue of bytes."""

    def __dealloc__(self):
        free(self.data)

    cdef char* reserve(self, size_t size) except NULL:
        """Make room for `size` more bytes and return where they go; add them to `end` when they are there."""
        cdef size_t waiting = self.end - self.start
        cdef size_t capacity
        cdef char* data
        if self.capacity - self.end < size:
            # What waits is moved only if at least as much has left: else each byte could be moved at every call.
            if self.start >= waiting:
                memmove(self.data, self.data + self.start, waiting)
                self.start = 0
                self.end = waiting
            if self.capacity - self.end < size:
                capacity = self.capacity * 2 if self.capacity else SMALLEST_BYTES
                while capacity - self.end < size:
                    capacity *= 2
                data = <char*> realloc(self.data, capacity)
                if data == NULL:
                    raise MemoryError
                self.data = data
                self.capacity = capacity
        return self.data + self.end

    cdef int append(self, const char* source, size_t size) except -1:
        if size == 0:
            # An empty buffer has no memory to point at, and NULL from `reserve` means an exception.
            return 0
        memcpy(self.reserve(size), source, size)
        self.end += size
        return 0

    cdef int consume(self, size_t size) except -1:
        """Drop the first `size` bytes; an empty buffer gives its memory back, unless it is `lasting` and small."""
        assert size <= self.end - self.start
        self.start += size
        if self.start == self.end:
            if self.lasting and self.capacity <= LASTING_BYTES:
                self.start = self.end = 0
            else:
                self.clear()
        return 0

    cdef int clear(self) except -1:
        free(self.data)
        self.data = NULL
        self.start = self.end = self.capacity = 0
        return 0
