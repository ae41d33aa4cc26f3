"""Bytes that wait: received and not yet understood, or to be sent and not yet taken."""


cdef class Buffer:
    cdef char* data
    cdef size_t start       # the first byte that waits
    cdef size_t end         # behind the last one
    cdef size_t capacity
    cdef bint lasting           # it is used all the time: a little memory stays

    cdef inline size_t size(self) noexcept:
        return self.end - self.start

    cdef inline const char* head(self) noexcept:
        return self.data + self.start

    cdef char* reserve(self, size_t size) except NULL
    cdef int append(self, const char* source, size_t size) except -1
    cdef int consume(self, size_t size) except -1
    cdef int clear(self) except -1
