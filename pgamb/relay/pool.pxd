"""Backends that wait for work, and sessions that wait for a backend."""

from pgamb.relay.backend cimport Backend, Home, Owner
from pgamb.relay.freshness cimport Position
from pgamb.relay.queue cimport Queue
from pgamb.relay.statement cimport Statements


cdef class Pool(Home):
    cdef readonly object member         # registry.model.Member
    cdef readonly str name              # the member's node, for people
    cdef readonly str database
    cdef readonly str user
    cdef public int weight
    cdef public Position position       # what is known of the member's WAL; None: nobody asks
    cdef readonly bint replica
    cdef readonly int limit
    cdef object opener                  # called as opener(pool) when one more backend is wanted
    cdef object on_backend_gone         # called as (pool, backend, error) when a backend was lost
    cdef object on_backend_closed       # called as (pool, backend) when a backend was given up
    cdef object on_abandoned            # called as (pool, backend) after it was closed in the middle of a statement
    cdef object on_role                 # called as (pool, in_recovery)
    cdef list idle                      # a stack: the warmest is used first
    cdef Queue waiting                  # sessions, first come first served
    cdef readonly set backends          # all that are open
    cdef public int opening
    cdef readonly int active            # checked out, or being cleaned
    cdef readonly bint retired
    cdef readonly bint mortal           # idle_session_timeout may end an idle backend
    cdef double idle_default_s          # ... after so long, where nobody has set another one
    cdef public int surrender           # backends to close at their next return: another pool starves
    cdef public double lifetime_s
    cdef readonly unsigned long long checkouts
    cdef readonly unsigned long long waits
    # What backends that are gone had done; `units` and the like add those that are open.
    cdef unsigned long long past_units
    cdef unsigned long long past_received_bytes
    cdef unsigned long long past_sent_bytes

    cdef inline double load(self) noexcept:
        """Return the outstanding work for its weight."""
        return (self.active + <double> self.waiting.count) / self.weight

    cdef Backend acquire(self, Owner owner, object parameters)
    cdef Backend acquire_again(self, Owner owner, int pid)
    cdef int want_one(self) except -1
    cdef int enqueue(self, Owner owner) except -1
    cdef int release(self, Backend backend) except -1
    cdef int clean(self, Backend backend, bint discard) except -1
    cdef int forget_parameters(self, Backend backend) except -1
    cdef int abandon(self, Backend backend) except -1
    cdef int recall(self, Backend backend) except -1
    cdef int serve(self) except -1
    cdef int _want_more(self) except -1
    cdef int _put(self, Backend backend) except -1
    cdef int _drop(self, Backend backend) except -1
    cdef bint _expired(self, Backend backend)
    cdef int _flee(self) except -1
    cdef int _remove(self, Backend backend) except -1

    cdef int backend_settled(self, Backend backend, bytes error) except -1
    cdef int backend_gone(self, Backend backend, object error) except -1
    cdef int role_reported(self, Backend backend, bint in_recovery) except -1

    cdef Backend _take(self, Py_ssize_t index, Owner owner)


cdef class Group:
    cdef readonly str database
    cdef readonly str user
    cdef readonly Statements statements  # of the database
    cdef readonly Pool primary          # None while there is no primary
    cdef readonly list replicas
    cdef Queue held                     # sessions that wait for a primary
    cdef unsigned int turn

    cdef Pool choose_replica(self)
    cdef int hold(self, Owner owner) except -1
