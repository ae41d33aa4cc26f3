"""A statement's text without its constants: what statements that differ only in values have in common."""


cdef size_t fingerprint(const char* sql, size_t size, char* into) noexcept nogil
