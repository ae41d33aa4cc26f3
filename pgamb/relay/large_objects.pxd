"""PostgreSQL's functions for large objects, which libpq and JDBC call by FunctionCall: what they leave ends with the
transaction.
"""

from libc.stdint cimport uint32_t


cdef inline bint is_large_object(uint32_t function) noexcept nogil:
    """Tell whether a function's oid is that of one of them; these have been the same in every release."""
    return (
        952 <= function <= 958      # lo_open, lo_close, loread, lowrite, lo_lseek, lo_creat, lo_tell
        or function == 715          # lo_create
        or function == 964          # lo_unlink
        or function == 1004         # lo_truncate
        or 3170 <= function <= 3172  # lo_lseek64, lo_tell64, lo_truncate64
    )
