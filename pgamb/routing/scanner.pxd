"""PostgreSQL's scanner, as far as proving needs it: a text in, its tokens out."""

cimport cython


@cython.final
cdef class Cutter:
    cdef const unsigned char* text
    cdef Py_ssize_t size
    cdef bint backslash

    cdef bint is_at(self, Py_ssize_t at, unsigned char byte) noexcept nogil
    cdef unsigned char kind(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t end_of_gap(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t end_of_line(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t end_of_comment(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t end_of_token(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t end_of_name(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t quote_behind_prefix(self, Py_ssize_t at) noexcept nogil
    cdef bint is_number(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t end_of_number(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t end_of_digits(self, Py_ssize_t at, int base) noexcept nogil
    cdef Py_ssize_t end_of_operator(self, Py_ssize_t at) noexcept nogil
    cdef Py_ssize_t end_of_quotes(self, Py_ssize_t at, bint escapes) noexcept nogil
    cdef Py_ssize_t end_of_literal(self, Py_ssize_t at, bint escapes) noexcept nogil
    cdef Py_ssize_t end_of_dollar(self, Py_ssize_t at) noexcept nogil
