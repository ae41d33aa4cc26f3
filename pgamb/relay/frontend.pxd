"""A connection to an application, and what all of them share."""

from libc.stdint cimport uint8_t, uint32_t

from pgamb.relay.backend cimport Backend, Owner
from pgamb.relay.buffer cimport Buffer
from pgamb.relay.pool cimport Group, Pool
from pgamb.relay.prepared cimport Prepared
from pgamb.relay.replies cimport Effect
from pgamb.relay.statement cimport Statement


cdef enum State:
    READY           # the next message may be looked at
    WAITING         # for a backend, or for a primary
    SETTLING        # the backend is being given this session's parameters
    ASKING          # the backend is being asked for this session's parameters
    RESTORING       # ... and given back what a RESET returns to
    STALLED         # the next statement needs another backend than the one still at work
    CLOSED


cdef class Relay:
    cdef readonly object parameter_sets     # session.parameters.ParameterSets
    cdef readonly dict frontends            # the process id that an application was told -> Frontend
    cdef readonly bint session_mode
    cdef readonly int prepared_limit        # statements per backend
    cdef object on_frontend_closed          # called as (frontend)
    cdef readonly unsigned long long to_primary
    cdef readonly unsigned long long to_replica


cdef class Frontend(Owner):
    cdef readonly Relay relay
    cdef readonly Group group
    cdef readonly int pid                   # what the application was told; key of its cancel requests
    cdef readonly bytes secret
    cdef readonly object parameters         # ParameterSet that the session has
    cdef readonly object startup            # ParameterSet that it asked for when it connected
    cdef readonly Backend backend
    cdef readonly Pool pool                 # of the backend, or the one waited for
    cdef Buffer pending                     # received and not dealt with; None while there is nothing
    cdef Prepared prepared                  # None until the extended protocol is used
    cdef size_t pass_left                   # what is still to come of a message that is passed on in pieces
    cdef bint pass_drop                     # ... or dropped
    cdef readonly int pins
    cdef uint8_t state
    cdef bint ambiguous                     # its parameters forbid to trust what its SQL seems to say
    cdef bint serializable                  # its parameters keep it off replicas
    cdef bint opaque                        # it may have set custom parameters whose names nobody has seen
    cdef bint dirty                         # a parameter may have changed
    cdef bint reset                         # ... to what it was when the session began
    cdef frozenset customs                  # the custom parameters that may be set; None, most often
    cdef readonly bint wrote
    cdef bint committing                    # what was sent ends a transaction
    cdef bint pure                          # what was sent are proven reads
    cdef bint failed                        # its transaction was lost with its backend: 25P02 until ROLLBACK
    cdef bint refusing                      # skips to Sync: its batch was refused by pgamb
    cdef bint multiple                      # ... are several statements in one Query
    cdef object lost                        # why, until the application has been told
    cdef int unpins
    cdef readonly unsigned long long units

    cdef int _input(self, const char* data, size_t size) except -1
    cdef size_t _process(self, const char* data, size_t size) except? 0
    cdef int _resume(self) except -1
    cdef int leave(self) except -1
    cdef int _unqueue(self) except -1

    cdef int on_ready(self, uint32_t events) except -1
    cdef size_t _query(self, const char* data, size_t size, size_t total) except? 0
    cdef size_t _function_call(self, const char* data, size_t size, size_t total) except? 0
    cdef size_t _forward(self, const char* data, size_t size, size_t total) except? 0
    cdef size_t _drop(self, size_t size, size_t total) except? 0
    cdef size_t _copy_data(self, const char* data, size_t size) except? 0
    cdef size_t _extended(self, const char* data, size_t size) except? 0
    cdef bint _attach(self, int need) except -1
    cdef Pool _route(self, int need)
    cdef int _wait(self) except -1
    cdef bint _settle(self) except -1
    cdef int _note(self, int need, int pins, int unpins, frozenset customs) except -1
    cdef int _ask(self) except -1
    cdef int _asked(self, Backend backend, bytes error, list rows) except -1
    cdef int backend_granted(self, Backend backend) except -1
    cdef int checkout_failed(self, object error) except -1
    cdef int on_command(self, Backend backend, const char* tag, size_t size) except -1
    cdef bytes on_error(self, Backend backend, bytes payload)
    cdef int on_parameter(self, Backend backend) except -1
    cdef int on_parsed(self, Backend backend, Statement statement) except -1
    cdef int on_undo(self, Backend backend, Effect effect, bint failed) except -1
    cdef int on_ready_for_query(self, Backend backend) except -1
    cdef int _release(self) except -1
    cdef int on_settled(self, Backend backend, bytes error, list rows) except -1
    cdef int backend_lost(self, Backend backend, object error) except -1
    cdef int tell(self, bytes message) except -1
    cdef bytes _ready_message(self)
    cdef int _refuse(self, object error) except -1
    cdef size_t _skip_to_sync(self, const char* data, size_t size) except? 0
    cdef object _failure(self)
    cdef size_t _query_failed(self, int need, size_t size, size_t total) except? 0
    cdef size_t _batch_failed(self, const char* data, size_t end) except? 0
    cdef int _tell_lost(self, Backend backend, bytes message) except -1
    cdef int _die(self, object error) except -1

    cdef int _trusted(self, int need)
    cdef bint _changes_shapes(self, const char* tag, size_t size) noexcept

    cdef int _terminate(self) except -1

    cdef int _mark_sequences(self) except -1
    cdef int _ask_sequences(self) except -1
