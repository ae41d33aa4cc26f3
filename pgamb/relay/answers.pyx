# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What the primary has answered lately: which position it had reached, and when.

Bounded: what is too old is forgotten, and the oldest answer left stands for it. That asks more of a replica than is
needed, never less.
"""


cdef class Answers:
    """A ring of answers in the order of their numbers; equal positions in a row take one place.

    With `spacing_s`, answers that follow the one before sooner are left out: the ring reaches further back.
    """

    def __init__(self, double spacing_s=0.0):
        self.spacing_s = spacing_s

    cpdef int push(self, unsigned long long number, unsigned long long lsn, double at_s) except -1:
        """Add the newest answer."""
        cdef Answer* newest
        if self.count:
            newest = self.at(self.count - 1)
            if newest.lsn == lsn:
                newest.number = number
                return 0
            if at_s - newest.at_s < self.spacing_s:
                return 0
        if self.count == CAPACITY:
            self.first += 1
        else:
            self.count += 1
        newest = self.at(self.count - 1)
        newest.number = number
        newest.lsn = lsn
        newest.at_s = at_s
        return 0

    cpdef int clear(self) except -1:
        self.count = 0
        return 0

    cpdef unsigned long long floor_of(self, unsigned long long moment) noexcept:
        """Return the position of the first answer numbered `moment` or later, 0 if there is none."""
        cdef unsigned int low = 0, high = self.count, middle
        while low < high:
            middle = (low + high) // 2
            if self.at(middle).number < moment:
                low = middle + 1
            else:
                high = middle
        return self.at(low).lsn if low < self.count else 0

    cpdef double missing_since(self, unsigned long long lsn) noexcept:
        """Return when (monotonic seconds) the first position beyond `lsn` was heard of, 0 if none was."""
        cdef unsigned int i
        if not self.count or self.at(self.count - 1).lsn <= lsn:
            return 0
        for i in range(self.count):
            if self.at(i).lsn > lsn:
                return self.at(i).at_s
        return 0
