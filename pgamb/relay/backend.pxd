"""A connection to a PostgreSQL, and what it calls: its owner (an application's session) and its home (a pool)."""

from libc.stdint cimport uint8_t, uint32_t

from pgamb.relay.buffer cimport Buffer
from pgamb.relay.reactor cimport Reactor
from pgamb.relay.replies cimport Effect, Replies
from pgamb.relay.statement cimport Statement
from pgamb.relay.stream cimport Stream


cdef enum:
    # No more is sent while so much is kept.
    MOST_KEPT_BYTES = 1 << 20


cdef class Owner(Stream):
    """Who has a backend checked out."""

    cdef readonly double waiting_since      # monotonic seconds; means something only while it waits
    cdef Home waits_at                      # the pool, None while it waits for a primary
    cdef bint choked                        # it says more than can be answered now, and is not listened to
    cdef uint8_t shown                      # the status told instead of PostgreSQL's `I`: the transaction is not real

    cdef int backend_granted(self, Backend backend) except -1
    cdef int checkout_failed(self, object error) except -1
    cdef int on_command(self, Backend backend, const char* tag, size_t size) except -1
    cdef bytes on_error(self, Backend backend, bytes payload)
    cdef int on_parameter(self, Backend backend) except -1
    cdef int on_reported(self, Backend backend) except -1
    cdef int on_parsed(self, Backend backend, Statement statement) except -1
    cdef int on_described(self, Backend backend, Effect effect, bytes types, bytes columns) except -1
    cdef int on_undo(self, Backend backend, Effect effect, bint failed) except -1
    cdef int on_ready_for_query(self, Backend backend) except -1
    cdef int on_settled(self, Backend backend, bytes error, list rows) except -1
    cdef int on_swallowed(self, Backend backend) except -1
    cdef int on_room(self) except -1
    cdef int on_cancels_done(self, Backend backend) except -1
    cdef int backend_lost(self, Backend backend, object error) except -1
    cdef bint on_refused(self, Backend backend, bytes state, bint reshaped) except -1
    cdef int on_requeued(self) except -1
    cdef int on_answered(self) except -1
    cdef int on_notification(self, Backend backend, int pid) except -1
    cdef int on_fresher(self, bint last) except -1


cdef class Home:
    """Where a backend goes when nobody owns it."""

    cdef int backend_settled(self, Backend backend, bytes error) except -1
    cdef int backend_gone(self, Backend backend, object error) except -1
    cdef int role_reported(self, Backend backend, bint in_recovery) except -1


cdef class Backend(Stream):
    cdef readonly Owner owner
    cdef readonly Home home
    cdef Replies replies
    cdef Buffer held                # the beginning of a message whose end has not arrived
    cdef size_t pass_left           # what is still to come of a message that is passed on in pieces
    cdef bint pass_forward
    cdef bint skipping              # an extended batch failed: PostgreSQL waits for a Sync not sent yet
    cdef bint copying_in            # in COPY FROM STDIN
    cdef bint batch_open            # messages of the extended protocol went out, and no Sync or Query behind them
    cdef bint trailing              # something that answers nothing stands behind the ReadyForQuery just read
    cdef Buffer kept                # units that may be repeated elsewhere, as the application sent them, oldest first
    cdef int kept_units             # how many those are
    cdef object kept_unnamed        # deque: the session's unnamed statement before each; empty if there never was one
    cdef size_t keeping             # length of the unit whose last reply is about to be pushed, if it is kept
    cdef bint unkept                # a unit that is not kept is under way, behind those that are
    cdef bint judging               # the answer to a kept unit begins here: nothing of it has been forwarded
    cdef bint forwarded             # a byte of an answer has reached the owner since its last ReadyForQuery
    cdef readonly char status       # I, T or E, of the last ReadyForQuery
    cdef public object parameters   # ParameterSet in force
    cdef readonly object reported   # session.reported.Reported: what it has said last; None if nobody is told
    cdef object statements          # OrderedDict: what it has prepared -> the moment of that, least recently used first
    cdef set lent                   # names of its owner's that it may have, for PostgreSQL to speak of
    cdef Statement unnamed
    cdef bytes described_types      # of the parameters of the statement that is being described
    cdef bytes swallowed_error
    cdef bytes stood_in             # why what the next Query needs could not be prepared
    cdef list captured
    cdef readonly int pid
    cdef readonly bytes secret
    cdef readonly double opened_at
    cdef public double idle_since
    cdef double idle_limit_s        # its idle_session_timeout, as far as that is known; 0: none
    cdef public double checked_out_at
    cdef public int cancels         # cancel requests under way
    cdef public int sequences_of    # pid of the session that used it last for what may have called nextval(); 0: nobody
    cdef public bint tainted        # not to be used again
    cdef bint temporary             # a session has made something temporary on it: it has a temporary schema
    cdef bint doomed                # what is sent meets a failed transaction, which `status` does not tell yet
    cdef bint stale                 # the last error says that a prepared statement has outlived its table's shape
    cdef bint parting               # its owner says its last words when it has heard all answers
    cdef readonly bint in_recovery  # what it last said
    cdef readonly unsigned long long units
    cdef readonly unsigned long long received_bytes
    cdef readonly unsigned long long sent_bytes

    cdef int own(self, Owner owner) except -1
    cdef int forget_statements(self) except -1
    cdef int inject_query(self, bytes sql, int flags) except -1
    cdef int close_lent(self, int flags) except -1
    cdef int keep(self, const char* data, size_t size, Statement unnamed) except -1
    cdef int end_unit(self) except -1
    cdef bytes take_kept(self)
    cdef bint disown(self) except -1
    cdef int answer(self) except -1
    cdef int lose(self, object error) except -1
    cpdef int close(self) except -1

    cdef int on_ready(self, uint32_t events) except -1
    cdef int _walk(self, char* buffer, size_t size) except -1
    cdef int _keep(self, char* buffer, size_t start, size_t position, size_t size) except -1
    cdef bint _begin_large(self, uint8_t kind, char* buffer, size_t start, size_t position, size_t left) except -1
    cdef int _give(self, const char* data, size_t size, bint more) except -1
    cdef int _judge(self, const char* data, size_t size) except -1
    cdef int _consume_kept(self, size_t size) except -1
    cdef bint _handle(self, uint8_t kind, char* buffer, size_t start, size_t position, size_t total) except -1
    cdef bint _out_of_step(self, uint8_t kind) except -1
    cdef bint _ready_for_query(self, char* buffer, size_t start, size_t position, size_t total) except -1
    cdef int _drop_copy_ends(self) except -1
    cdef bint _error(self, char* buffer, size_t start, size_t position, size_t total) except -1
    cdef bint _tell_error(
        self, char* buffer, size_t start, size_t position, size_t total, bytes payload, bytes told,
    ) except -1
    cdef int _described(self, Effect effect, const char* payload, size_t size) except -1
    cdef int _undo(self, Effect effect, bint failed) except -1
    cdef bint _parameter(self, char* buffer, size_t start, size_t position, size_t total) except -1
    cdef int _capture(self, const char* payload, size_t size) except -1
