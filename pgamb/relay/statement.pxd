"""SQL texts as the data plane knows them: what each needs, and the prepared statements that share one name."""


cdef class Plan:
    cdef readonly object intent     # routing.intent.Intent: the evidence
    cdef readonly int need          # its Need bits
    cdef readonly int pins          # its Pin bits
    cdef readonly int unpins
    cdef readonly frozenset customs  # names of the custom parameters that it may set; None, most often
    cdef readonly tuple bound       # positions of the values that are such names; None, most often
    cdef readonly int control       # routing.control.Control of a single statement
    cdef readonly object command    # ... and all that it says
    cdef readonly int wish          # routing.hints.Wish of its leading comment
    cdef readonly bint snapshots    # PostgreSQL takes a snapshot when it analyses or runs it
    cdef readonly bint creates      # CREATE: its command tag may be that of a query
    cdef readonly bint plain_table  # CREATE TABLE of a table that makes no query more than a read
    cdef readonly bint shows        # SHOW of one of pgamb's own parameters
    cdef readonly int mention       # session.process_ids.Mention: it looks at processes, or does something to them
    cdef readonly bint processes    # ... or asks for the session's own
    cdef readonly bytes substitute  # what is sent in its place; None, most often
    cdef readonly bint refused      # a replica has refused it: it is no read, whatever it seems to be

    cdef int refuse(self) except -1


cdef class Plans:
    cdef dict young
    cdef dict old
    cdef size_t young_bytes
    cdef size_t limit_bytes
    cdef object classify
    cdef readonly unsigned int generation   # of `classify`: what an earlier one said counts no more
    cdef readonly unsigned long long misses

    cdef Plan of(self, bytes sql)
    cdef Plan of_text(self, const char* sql, size_t size)
    cdef Plan _of(self, bytes key, const char* sql, size_t size)


cdef class Statement:
    cdef readonly bytes sql
    cdef readonly bytes types       # the tail of a Parse message: the number of parameter types, and the types
    cdef readonly bytes head        # made by PREPARE: what stands before its name; None if it was made by Parse
    cdef readonly bytes tail        # ... and behind it
    cdef readonly bytes name        # its name on every backend
    cdef readonly Plan plan
    cdef unsigned int generation    # of the plan
    cdef bint replaced              # its text is not the application's
    cdef set accepted               # (group, parameters) under which PostgreSQL has accepted it
    cdef tuple key                  # of `Statements.canonical`
    # What PostgreSQL says of it, wherever it was prepared: a backend where it says something else does not keep it.
    cdef bytes resolved             # the types of its parameters, as `types`; None until it was described
    cdef bytes columns              # of its result, without what does not make its type; empty if there is none
    cdef unsigned long long confirmed   # the moment of the newest Parse of which this was true
    cdef bint doubtful              # ... and of a later one it was not
    cdef object __weakref__

    cdef bytes prepare_sql(self)
    cdef bint is_accepted(self, object group, object parameters)
    cdef int accept(self, object group, object parameters) except -1
    cdef bint confirm(self, bytes resolved, bytes columns, unsigned long long moment)


cdef class Statements:
    cdef readonly Plans plans
    cdef public frozenset customs   # custom parameters that the database's functions may set; None, most often
    cdef object canonical           # WeakValueDictionary: (sql, types, naming, user), or (tail, copy, ...) -> Statement
    cdef bytes prefix               # of every name
    cdef unsigned long long issued
    cdef unsigned long long moment      # counts the Parses of all sessions: which was before which
    cdef public bint asks_sequences     # sessions of the database use currval() or lastval()

    cdef Statement of(self, bytes sql, bytes types, object naming, str user)
    cdef Statement of_prepare(self, bytes sql, bytes head, bytes tail, object naming, str user, object taken)
    cdef Statement successor(self, Statement statement)
    cdef int retire(self, Statement statement) except -1
    cdef Statement unnamed(self, bytes sql, bytes types)
    cdef Statement _issue(self, tuple key, bytes sql)
    cdef int renew(self) except -1
    cdef int replan(self, Statement statement) except -1
