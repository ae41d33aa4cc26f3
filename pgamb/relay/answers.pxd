"""What the primary has answered lately: which position it had reached, and when."""


cdef enum:
    CAPACITY = 128

cdef struct Answer:
    unsigned long long number       # of the last question that got this answer
    unsigned long long lsn
    double at_s                     # monotonic: when it was first heard


cdef class Answers:
    cdef Answer[128] ring
    cdef unsigned int first
    cdef readonly unsigned int count
    cdef double spacing_s

    cpdef int push(self, unsigned long long number, unsigned long long lsn, double at_s) except -1
    cpdef int clear(self) except -1
    cpdef unsigned long long floor_of(self, unsigned long long moment) noexcept
    cpdef double missing_since(self, unsigned long long lsn) noexcept

    cdef inline Answer* at(self, unsigned int index) noexcept:
        return &self.ring[(self.first + index) & (CAPACITY - 1)]
