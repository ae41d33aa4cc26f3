"""A transaction that PostgreSQL does not know of yet."""

from pgamb.relay.statement cimport Plan


cdef enum Step:
    OPEN            # PostgreSQL has to do it, in a real transaction
    DONE            # answered with `tag`
    WARNED          # answered with `tag`, behind PostgreSQL's warning
    ENDED           # answered with `tag`: the transaction is over


cdef class Block:
    cdef bytes begin                # the text of its BEGIN
    cdef list modes                 # the texts of its SET TRANSACTION, and of the chain that began it
    cdef list savepoints            # (name, the text that made it), oldest first
    cdef int isolation              # routing.control.Isolation
    cdef int read_only              # 1 or 0; -1: as the session has it by default
    cdef bint plain                 # nothing has been said of its modes
    cdef readonly bint failed       # a read in it has failed
    cdef bint has_read
    cdef bytes tag                  # of the last statement that was answered here
    cdef double began_at            # monotonic seconds, if the session's time is limited

    cdef Step take(self, Plan plan, bytes sql) except *
    cdef list texts(self)
    cdef Py_ssize_t _find(self, object name)
