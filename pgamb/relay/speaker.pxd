"""What pgamb says itself, in PostgreSQL's place."""

from pgamb.relay.backend cimport Backend, Owner
from pgamb.relay.block cimport Block, Step
from pgamb.relay.buffer cimport Buffer
from pgamb.relay.pool cimport Group
from pgamb.relay.named cimport Named
from pgamb.relay.statement cimport Plan, Statement


cdef class Speaker(Owner):
    cdef readonly Group group
    cdef readonly object parameters         # ParameterSet that the session has
    cdef Buffer pending                     # received and not dealt with; None while there is nothing
    cdef readonly Named prepared            # None until a statement is prepared
    cdef size_t pass_left                   # what is still to come of a message that is passed on in pieces
    cdef bint pass_drop                     # ... or dropped
    cdef readonly double heard_at           # monotonic: when it was busy last; kept only if its time is limited
    cdef readonly Block block               # the transaction that PostgreSQL does not know of yet, or None
    cdef bint failed                        # its transaction was lost with its backend: 25P02 until ROLLBACK
    cdef bint refusing                      # skips to Sync: its batch was refused by pgamb
    cdef object lost                        # why, until the application has been told

    cdef bint may_begin(self) noexcept
    cdef int tell(self, bytes message) except -1
    cdef int _add(self, bytes message) except -1
    cdef bytes _ready_message(self)
    cdef size_t _drop(self, size_t size, size_t total) except? 0
    cdef int _refuse(self, object error) except -1
    cdef size_t _skip_to_sync(self, const char* data, size_t size) except? 0
    cdef int _tell_lost(self, Backend backend, bytes message) except -1

    cdef Step _control(self, Plan plan, bytes sql) except *
    cdef int _respond(self, Step step) except -1
    cdef size_t _answer_query(self, Plan plan, int need, const char* data, size_t size, size_t total) except? 0
    cdef size_t _peel(self, const char* data, size_t end) except? 0

    cdef object _failure(self)
    cdef size_t _query_failed(self, int need, size_t size, size_t total) except? 0
    cdef size_t _batch_failed(self, const char* data, size_t end) except? 0
