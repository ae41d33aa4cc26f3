"""A session's prepared statements, and the batches of the extended protocol that use them."""

from libc.stdint cimport uint8_t, uint32_t

from pgamb.relay.backend cimport Backend
from pgamb.relay.replies cimport Effect
from pgamb.relay.statement cimport Plan, Statement, Statements


cdef enum Scan:
    COMPLETE        # up to and including a Sync or Flush
    INCOMPLETE      # more is to come
    FOREIGN         # up to a message of the simple protocol


cdef class Prepared:
    cdef readonly dict names        # bytes -> Statement, in the order in which they were prepared
    cdef readonly bint native       # they are on the session's backend under these names, and nothing is renamed
    cdef dict undone                # names whose Parse failed while what follows it was under way -> Statement
    cdef Statement unnamed
    cdef dict moments               # Statement -> when the session has prepared it last
    cdef Statements statements
    cdef str user
    cdef object parameters          # ParameterSet under which the next batch is prepared
    cdef int limit                  # statements per backend
    # What the last `scan` found.
    cdef list found                 # a Statement or None for each Parse, Bind and Describe
    cdef list reused                # named statements in it that were prepared before
    cdef int need
    cdef int pins
    cdef int unpins
    cdef frozenset customs
    cdef size_t end                 # behind the last whole message of the batch
    cdef size_t scanned             # the next `scan` goes on from here: it was the beginning of the same batch
    cdef unsigned int generation    # ... of the plans, then
    cdef object scanned_under       # ... and the parameters
    cdef dict told                  # what a name means behind a Parse or Close of the batch; None without one
    cdef int parses
    cdef bint bound                 # the last Bind has not been executed
    cdef bint synced                # it ends with Sync
    cdef bint bare                  # it is a Sync and nothing else
    cdef bint closed                # its Sync or Flush is as short as it should be
    cdef int binds
    cdef int executes
    cdef bint hangs                 # it hangs on what a name means when all before it has been answered
    cdef bint shows                 # there is a SHOW of pgamb's own parameters in it
    cdef bint processes             # there is something in it that speaks of process ids
    cdef bint creates               # something in it is CREATE TABLE AS, or SELECT INTO
    cdef bint snapshots             # PostgreSQL takes a snapshot for something in it
    cdef bint plain                 # each portal is the unnamed one, and is executed whole, right behind its Bind
    cdef Plan plan                  # of the statement bound last
    cdef bytes completions          # what `prepare_alone` answers
    # What `send` is putting together.
    cdef Backend backend
    cdef const char* region         # the beginning of what is sent as it is
    cdef size_t staged
    cdef bint touched               # something is not sent as it is
    cdef bint amid                  # what is put together stands in the middle of a batch of the application's
    cdef uint8_t flags              # of the replies to what is slipped in
    cdef set reshaped               # statements that were found to be something else on this backend
    cdef set fresh                  # names prepared behind a DEALLOCATE ALL of the same batch; None without one

    cdef Scan scan(self, const char* data, size_t size) except *
    cdef list marks(self)
    cdef int send(self, Backend backend, const char* data, size_t size) except -1
    cdef size_t send_bind_head(self, Backend backend, const char* data, size_t available) except 0
    cdef bint prepare_alone(self, const char* data, size_t size, object group, object parameters) except -1
    cdef bytes with_own_names(self, bytes payload)
    cdef bint check(self, Backend backend, bint kept) except -1
    cdef bint is_newer(self, Statement statement)
    cdef int replace(self, Statement statement, bytes types, bytes columns, unsigned long long moment) except -1
    cdef unsigned long long note_prepared(self, Statement statement) except 0
    cdef int undo(self, Backend backend, Effect effect, bint failed) except -1
    cdef int forget_all(self, Backend backend) except -1
    cdef int prepare_words(self, Backend backend, bytes name, bint known) except -1
    cdef Effect deallocated(self, bytes name)

    cdef int _count(self, Statement statement) except -1
    cdef int _begin_scan(self) except -1
    cdef int _tell(self, bytes name, Statement statement) except -1
    cdef int _conclude(self) except -1
    cdef int _note_bound(self, Plan plan, const char* body, const char* end) except -1
    cdef Statement _parsed(self, const char* body, const char* end)
    cdef Statement _statement(self, bytes sql, bytes types, bint named)
    cdef Statement _named(self, const char* body, const char* end, bint bind, dict pending)
    cdef int _finish(self, const char* end) except -1
    cdef int _take(self, const char* end) except -1
    cdef int _put(self, const char* data, size_t size) except -1
    cdef int _put_header(self, uint8_t kind, size_t length) except -1
    cdef int _put_bytes(self, bytes text) except -1
    cdef int _put_string(self, bytes text) except -1
    cdef int _put_parse(self, bytes name, bytes sql, bytes types) except -1
    cdef int _put_close(self, bytes name) except -1
    cdef int _put_described(self, bytes types, Statement statement, Effect effect, int flags) except -1
    cdef int _put_prepare(self, Statement statement, Effect effect) except -1
    cdef int _begin(self, Backend backend) except -1
    cdef int _end(self, int flags) except -1
    cdef int _skip(self, const char* message, size_t total) except -1
    cdef int _parse(self, const char* message, size_t total, Statement statement) except -1
    cdef int _refuse_duplicate(self, const char* message, bytes name) except -1
    cdef int _lend(self, bytes name) except -1
    cdef int _take_back(self, bytes name) except -1
    cdef int _make_room(self) except -1
    cdef int _give_up(self, Statement statement) except -1
    cdef int _need_on_backend(self, const char* message, Statement statement) except -1
    cdef int _need_unnamed(self, const char* message) except -1
    cdef int _bind(self, const char* message, size_t available, Statement statement) except -1
    cdef Effect _bound_deallocate(self, const char* message, Statement statement)
    cdef int _rename(self, const char* message, const char* old, const char* rest, bytes name) except -1
    cdef Effect spoken_of(self, Statement statement, bytes name)
    cdef int _describe(self, const char* message, size_t total, Statement statement) except -1
    cdef int _close(self, const char* message, size_t total) except -1
