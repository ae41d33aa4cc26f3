"""What all sessions share, and what one session is."""

from libc.stdint cimport uint8_t

from pgamb.relay.backend cimport Backend
from pgamb.relay.freshness cimport Freshness, Position
from pgamb.relay.pool cimport Pool
from pgamb.relay.replies cimport Effect
from pgamb.relay.routes cimport REASONS
from pgamb.relay.speaker cimport Speaker
from pgamb.relay.statement cimport Plan, Statement


cdef enum State:
    READY           # the next message may be looked at
    WAITING         # for a backend, or for a primary
    PARKED          # until a replica is new enough
    SETTLING        # the backend is being given this session's parameters
    ASKING          # the backend is being asked for this session's parameters
    RESTORING       # ... and given back what a RESET returns to
    PREPARING       # statements are being prepared, and a Sync of ours ends that
    NAMING          # the sessions that the next statement names are being given backends
    CHECKING        # ... to find out whether they are what they were
    TURNING         # the session's statements are being prepared under its own names
    STALLED         # the next statement needs another backend than the one still at work
    CANCELING       # until a cancel request for its backend has been dealt with
    CLOSED


cdef class Relay:
    cdef readonly object parameter_sets     # session.parameters.ParameterSets
    cdef readonly dict frontends            # the process id that an application was told -> Session
    cdef readonly bint session_mode
    cdef readonly int prepared_limit        # statements per backend
    cdef readonly bint lazy                 # transactions begin when they have to
    cdef readonly Freshness freshness
    cdef object on_frontend_closed          # called as (session)
    cdef object on_changed                  # called as (database, command tag) after DDL, when others can see it
    cdef object on_repeated                 # called as (session, plan or None)
    cdef object on_unfinished               # called as (session)
    cdef object on_named                    # called as (session, number, unit, marks, pids): see `identity`
    cdef object told_pid                    # called as (pid of a backend): what its session was told; 0: nothing
    cdef object on_limited                  # called as (session) when its time is limited, or otherwise than before
    cdef unsigned long long[REASONS] counts
    cdef readonly unsigned long long refusals   # reads asked again because a replica refused them
    cdef readonly unsigned long long conflicts  # ... because replay cancelled them
    cdef readonly unsigned long long losses     # ... because their member was lost
    cdef readonly unsigned long long to_primary
    cdef readonly unsigned long long to_replica

    cdef int tell_repeated(self, Session session, Plan plan) except -1
    cdef bytes own_parameters(self, Session session)


cdef class Session(Speaker):
    cdef readonly Relay relay
    cdef readonly int pid                   # what the application was told; key of its cancel requests
    cdef readonly bytes secret
    cdef readonly object startup            # ParameterSet that it asked for when it connected
    cdef readonly Backend backend
    cdef readonly Pool pool                 # of the backend, or the one waited for
    cdef readonly int pins
    cdef uint8_t state
    cdef bint ambiguous                     # its parameters forbid to trust what its SQL seems to say
    cdef bint serializable                  # its parameters keep it off replicas
    cdef bint snapshot                      # its transactions are at least REPEATABLE READ, if they do not say
    cdef int role                           # routing.hints.Wish
    cdef bint opaque                        # it may have set custom parameters whose names nobody has seen
    cdef bint dirty                         # a parameter may have changed
    cdef bint unsure                        # what pins it may have changed
    cdef bint watchful                      # ... with each statement: its text need not show that
    cdef bint asked_again                   # ... a second time, without a time limit
    cdef bint asked_parameters              # PostgreSQL is being asked not only for what pins it
    cdef object left_role                   # what it was when a statement that leaves it was sent; None, most often
    cdef object told                        # session.reported.Reported: what the application was told
    cdef readonly object limits             # session.limits.Limits: how long it may take
    cdef object first_limits                # ... if it sets nothing itself
    cdef bint limited                       # there are any
    cdef bint reset                         # ... to what it was when the session began
    cdef frozenset customs                  # the custom parameters that may be set; None, most often
    # What its reads must not be older than. Moments are those of `freshness`.
    cdef unsigned long long seen            # the moment by which it has seen the primary, 0: it has not
    cdef unsigned long long min_lsn         # what it was told from elsewhere
    cdef Position read_at                   # the replica that it read from last, None: the primary, or nobody
    cdef unsigned long long read_moment     # ... the moment by which it had seen that
    cdef unsigned long long read_epoch
    cdef list changes                       # command tags of DDL that has not been committed; None, most often
    cdef uint8_t shapes                     # 1: DDL that has not been committed; 2: it may change what texts mean
    cdef bint unsettled                     # what was sent may have written, and has not been committed
    cdef bint parked                        # `freshness` will call
    cdef bint impatient                     # it has been parked long enough
    cdef unsigned long long asked_floor     # the moment that a SHOW waits for, 0: none
    cdef double next_move_s                 # monotonic: when it may look for a less busy replica again
    cdef bint creating                      # something sent may be CREATE TABLE AS, whose tag is that of a SELECT
    cdef bint committing                    # what was sent ends a transaction
    cdef bint pure                          # what was sent are proven reads
    cdef bint granted                       # the backend is there for the unit at hand, which has not been sent yet
    cdef bint opening                       # that unit makes the transaction real
    cdef bint wished                        # that unit is asked of a replica because the application says so
    cdef bint visiting                      # ... only to hear what it says in a transaction that has failed
    cdef bint opened                        # ... it has been sent, and not been answered
    cdef bint batch_failed
    cdef unsigned int namings               # how often what it sent has named sessions
    cdef bint checked                       # what its unit uses has been prepared on it, as far as that is possible
    cdef bint unfitted                      # the backend attached has not been given this session's parameters
    cdef double condemned_at_s              # monotonic: when pg_terminate_backend() was last called for it, 0: never
    cdef uint8_t healing                    # Reason why the unit at hand is asked again, 0 if it is not
    cdef uint8_t repeats
    cdef Pool lost_from                     # ... because this was lost
    cdef double lost_at_s                   # ... then, in monotonic seconds
    cdef uint8_t reason                     # Reason why the last unit went where it went
    cdef readonly Pool routed               # ... and where; None: nowhere
    cdef Plan plan                          # ... and what it was, if that is known
    cdef bint multiple                      # ... are several statements in one Query
    cdef bint preparing                     # the unit at hand executes nothing: nobody asks where that went
    cdef int unpins
    cdef list cancels                       # who asked to cancel what cannot be canceled yet; None, most often
    cdef bint canceled                      # ... what was taken back to be asked again
    cdef readonly unsigned long long units

    cdef int _resume(self) except -1
    cdef int _rested(self, Backend backend) except -1
    cdef int _unpark(self) except -1
    cdef int leave(self) except -1

    cdef int _note(self, int need, int pins, int unpins, frozenset customs) except -1
    cdef int _may_set(self, frozenset customs) except -1
    cdef int _mark_sequences(self) except -1
    cdef int _ask_sequences(self) except -1
    cdef int _forget_visit(self) except -1
    cdef int _tell_block(self, bint judged) except -1
    cdef int on_command(self, Backend backend, const char* tag, size_t size) except -1
    cdef int _note_change(self, Backend backend, const char* tag, size_t size) except -1
    cdef int _tell_changes(self) except -1
    cdef int _end_shapes(self, bint undone) except -1
    cdef bint _changes_shapes(self, const char* tag, size_t size) noexcept
    cdef int on_parameter(self, Backend backend) except -1
    cdef int on_reported(self, Backend backend) except -1
    cdef int on_parsed(self, Backend backend, Statement statement) except -1
    cdef int _on_reshaped(self, Backend backend, Statement statement) except -1
    cdef int _end_check(self) except -1
    cdef int on_described(self, Backend backend, Effect effect, bytes types, bytes columns) except -1
    cdef int on_undo(self, Backend backend, Effect effect, bint failed) except -1
    cdef bint _settle(self) except -1
    cdef int _ask(self) except -1
    cdef int _asked(self, Backend backend, bytes error, list rows) except -1
    cdef int _adopt_pins(self, object held) except -1
    cdef int _tell_reported(self) except -1
    cdef int _unsettled(self, Backend backend, bytes error) except -1
    cdef int _adopt_parameters(self) except -1
    cdef int _heed(self, str floor) except -1
    cdef int on_settled(self, Backend backend, bytes error, list rows) except -1
    cdef int _hear(self) except -1
    cdef bint _turn_native(self, bint hides) except -1
    cdef int _end_native(self) except -1
    cdef int _release(self) except -1
    cdef int _die(self, object error) except -1
