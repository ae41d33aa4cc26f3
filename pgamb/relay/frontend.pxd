"""A connection to an application."""

from libc.stdint cimport uint32_t

from pgamb.relay.backend cimport Backend
from pgamb.relay.identity cimport Identity
from pgamb.relay.statement cimport Plan


cdef class Frontend(Identity):
    cdef bint unfinished                    # a batch waits for its end; `hurry` will be called
    cdef bint hurried                       # ... and has waited long enough
    cdef bint terminated                    # the application has said goodbye, and is told what it asked for before
    cdef bint handed_on                     # ... by its backend, which has been told so too
    cdef bint clearing                      # what was sent of it may take all prepared statements away

    cdef int _input(self, const char* data, size_t size) except -1
    cdef size_t _process(self, const char* data, size_t size) except? 0
    cdef bint _chokes(self) except -1
    cdef int on_room(self) except -1
    cdef int _unqueue(self) except -1
    cdef int on_ready(self, uint32_t events) except -1
    cdef size_t _query(self, const char* data, size_t size, size_t total) except? 0
    cdef size_t _function_call(self, const char* data, size_t size, size_t total) except? 0
    cdef size_t _forward(self, const char* data, size_t size, size_t total) except? 0
    cdef size_t _send_instead(self, bytes sql, size_t total) except 0
    cdef size_t _copy_data(self, const char* data, size_t size) except? 0
    cdef size_t _extended(self, const char* data, size_t size) except? 0
    cdef bint _is_due(self, int need) except -1
    cdef size_t _prepare(self, const char* data, size_t end) except 0
    cdef int _lend(self) except -1
    cdef bint may_begin(self) noexcept
    cdef bint _is_busy(self) except -1
    cdef bint _is_unsure_of_names(self) except -1
    cdef bint _alone(self, int need) noexcept
    cdef int _enter(self, int need, bint single, bint snapshot) except -1
    cdef bint _stays_failed(self, Plan plan) noexcept
    cdef int _end_visit(self) except -1
    cdef int _note_answer(self, Plan plan) except -1
    cdef int on_ready_for_query(self, Backend backend) except -1
    cdef int _heed_cancels(self) except -1
    cdef int _trusted(self, int need, Plan plan)
    cdef int _terminate(self) except -1
    cdef bint _will_rest(self) noexcept
    cdef bint _is_answered(self) except -1
