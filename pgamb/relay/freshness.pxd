"""What is known of positions in the WAL: where the primary was, what replicas have replayed, who waits for more."""

from pgamb.relay.answers cimport Answers
from pgamb.relay.backend cimport Backend, Home, Owner
from pgamb.relay.reactor cimport Reactor


cdef class Asker(Owner):
    """Puts questions to one member, one at a time, over a connection of its own."""

    cdef readonly Position position     # of the member: what is known of it as a replica
    cdef readonly Backend backend       # None while there is no connection
    cdef readonly int server_version
    cdef readonly double asked_at       # monotonic seconds, of the question under way
    cdef public str trouble             # why there is no connection, or the last refusal; "" if all is well
    cdef Freshness freshness
    cdef Home home
    cdef int question                   # what is under way
    cdef unsigned long long number      # of that
    cdef object segment_bytes, page_bytes
    cdef object on_lost                 # called as (asker, error)
    cdef object on_trouble              # called as (asker, message)

    cdef bint idle(self) noexcept
    cdef int ask_floor(self, unsigned long long number) except -1
    cdef int ask_position(self, unsigned long long number, bint timeline, bint pause, bytes wait) except -1
    cdef int _put(self, int question, unsigned long long number, bytes sql) except -1


cdef class Position:
    """What is known of one replica."""

    cdef readonly str node
    cdef readonly int timeline                      # the newest that it is known to have reached, 0 if none
    cdef readonly unsigned long long replay_lsn
    cdef readonly unsigned long long bound_lsn      # nothing seen there by the last answer lies behind it
    cdef readonly unsigned long long sent           # questions put to it
    cdef readonly unsigned long long answered       # the number of the last one that was answered
    cdef readonly unsigned long long epoch          # grows with each connection lost: it may have gone back
    cdef readonly bint usable                       # it answers, is on the primary's timeline, and not too far behind
    cdef readonly bint lagging                      # too far behind, and nothing else
    cdef readonly double lag_s                      # at the last answer
    cdef readonly unsigned long long lag_bytes
    cdef readonly double answered_at                # monotonic seconds, 0 before this connection's first
    cdef readonly Asker asker
    cdef Freshness freshness
    cdef int waiting                                # how many wait for it
    cdef bint again                                 # somebody has come since the question under way was sent

    cdef unsigned long long moment(self) noexcept
    cdef bint behind(self) noexcept
    cdef int judge(self) except -1


cdef class Waiter:
    cdef Owner owner
    cdef Position position          # None: it waits for the primary's answer alone
    cdef unsigned long long lsn     # what it waits for, 0 while that is not known
    cdef double deadline_s


cdef class Freshness:
    cdef readonly bint tracks                       # not `eventual`, and there is a replica to read from
    cdef readonly bint everyone                     # `ambassador`: a commit concerns all sessions
    cdef readonly bint shared                       # another process commits through the same ambassador
    cdef readonly int timeline                      # the primary's, 0 before it is known
    cdef readonly unsigned long long sent           # questions put to the primary
    cdef readonly unsigned long long answered       # the number of the last one that was answered
    cdef readonly unsigned long long required       # the moment of the last commit
    cdef readonly unsigned long long floor_lsn      # the floor of `required`, if known
    cdef readonly unsigned long long lsn            # where the primary was, by its last answer
    cdef readonly list positions
    cdef readonly Asker primary                     # None while there is no primary
    cdef readonly unsigned long long questions, waits, waits_ended_by_timeout
    cdef readonly double replica_wait_s
    cdef double max_lag_s
    cdef unsigned long long max_lag_bytes
    cdef readonly bint consistent                            # not `eventual`
    cdef Reactor reactor
    cdef Answers recent, spaced
    cdef unsigned long long wanted                  # a question numbered so or later is to be sent
    cdef unsigned long long barrier                 # answers to questions before this one count for nothing
    cdef bint renewed                               # the next answer replaces all before it
    cdef dict waiters                               # Owner -> Waiter, in the order of their deadlines
    cdef bint timer_set

    cdef unsigned long long moment(self) noexcept
    cdef int committed(self) except -1
    cdef int ask(self, unsigned long long moment) except -1
    cdef bint known(self, unsigned long long moment) noexcept
    cdef unsigned long long floor_of(self, unsigned long long moment) noexcept
    cdef int ask_replica(self, Position position) except -1
    cdef int wait(self, Owner owner, Position position, unsigned long long lsn=*) except -1
    cdef int forget(self, Owner owner) except -1

    cdef int _ask_primary(self) except -1
    cdef int _ask_position(self, Position position, bint timeline, bint pause) except -1
    cdef int _go_on(self, Asker asker) except -1
    cdef int _floor_answered(self, Asker asker, unsigned long long number, unsigned long long lsn) except -1
    cdef int _position_answered(self, Position position, unsigned long long number, list row) except -1
    cdef int _opened(self, Asker asker) except -1
    cdef int _lost(self, Asker asker) except -1
    cdef int _tell(self, Position position, bint last) except -1
    cdef int _call(self, Owner owner, bint last) except -1
    cdef unsigned long long _lowest_waited_for(self, Position position) noexcept
