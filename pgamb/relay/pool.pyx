# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Backends that wait for work, and sessions that wait for a backend.

A `Pool` holds the backends of one (member, database, user); a `Group` the pools of one (database, user), and the
sessions that wait for a primary while there is none.

Invariants:
* a backend is in exactly one place: in `idle`, with an owner, or being cleaned (owned by nobody, replies owed);
* it goes to the next owner only when nothing is owed, its status is `I`, and no cancel request for it is under way;
* who waits is served in the order of arrival; a backend that becomes free never bypasses the queue.
"""

from pgamb.relay.backend cimport Backend, Home, Owner
from pgamb.relay.clock cimport now_s
from pgamb.relay.queue cimport Queue
from pgamb.relay.replies cimport SETTLE
from pgamb.relay.statement cimport Statements

from pgamb.session.parameters import EMPTY


cdef enum:
    # How deep `acquire` looks for a backend whose session parameters are right already.
    MATCH_DEPTH = 8


# So long before its idle_session_timeout an idle backend is closed, or half of that.
cdef double FLEE_S = 0.25


cdef class Pool(Home):
    """The backends of one member, database and user, at most `limit`."""

    def __init__(
        self, member, *, str name, str database, str user, bint replica, int limit, opener, on_backend_gone,
        on_backend_closed, on_abandoned, on_role, int weight=1, double lifetime_s=3600.0,
    ):
        self.member = member
        self.name = name
        self.database = database
        self.user = user
        self.replica = replica
        self.limit = limit
        self.weight = weight
        self.lifetime_s = lifetime_s
        self.opener = opener
        self.on_backend_gone = on_backend_gone
        self.on_backend_closed = on_backend_closed
        self.on_abandoned = on_abandoned
        self.on_role = on_role
        self.idle = []
        self.waiting = Queue()
        self.backends = set()

    def __repr__(self):
        return (
            f"<Pool {self.name} {self.user}@{self.database} open={len(self.backends)} active={self.active} "
            f"opening={self.opening} waiting={self.waiting.count}{' retired' if self.retired else ''}>"
        )

    @property
    def idle_count(self):
        return len(self.idle)

    @property
    def open_count(self):
        return len(self.backends)

    @property
    def waiting_count(self):
        return self.waiting.count

    # Totals since the pool was made; they are added up when somebody looks.

    @property
    def units(self):
        cdef Backend backend
        cdef unsigned long long total = self.past_units
        for backend in self.backends:
            total += backend.units
        return total

    @property
    def received_bytes(self):
        cdef Backend backend
        cdef unsigned long long total = self.past_received_bytes
        for backend in self.backends:
            total += backend.received_bytes
        return total

    @property
    def sent_bytes(self):
        cdef Backend backend
        cdef unsigned long long total = self.past_sent_bytes
        for backend in self.backends:
            total += backend.sent_bytes
        return total

    # What sessions call.

    cdef Backend acquire(self, Owner owner, object parameters):
        """Give an idle backend to `owner`, or return None."""
        cdef Py_ssize_t top, i, match = -1
        if self.mortal:
            self._flee()
        top = len(self.idle) - 1
        if top < 0 or self.waiting.count:
            return None
        match = top
        for i in range(top, max(top - MATCH_DEPTH, -1), -1):
            if (<Backend> self.idle[i]).parameters is parameters:
                match = i
                break
        return self._take(match, owner)

    cdef Backend acquire_again(self, Owner owner, int pid):
        """Give `owner` the idle backend that its session (`pid`) was the last to change, or return None."""
        cdef Py_ssize_t i
        for i in range(len(self.idle)):
            if (<Backend> self.idle[i]).sequences_of == pid:
                return self._take(i, owner)
        return None

    cdef Backend _take(self, Py_ssize_t index, Owner owner):
        cdef Backend backend = <Backend> self.idle[index]
        if index == len(self.idle) - 1:
            self.idle.pop()
        else:
            del self.idle[index]
        self.active += 1
        self.checkouts += 1
        backend.checked_out_at = now_s()
        backend.own(owner)
        return backend

    cdef int want_one(self) except -1:
        """Let one more backend be opened, if that is allowed, for whoever is there first."""
        if not self.retired and len(self.backends) + self.opening < self.limit:
            self.opening += 1
            self.opener(self)
        return 0

    cdef int enqueue(self, Owner owner) except -1:
        """Let `owner` wait; `backend_granted` or `checkout_failed` will be called."""
        self.waits += 1
        owner.waits_at = self
        self.waiting.push(owner)
        return self._want_more()

    cdef int release(self, Backend backend) except -1:
        """Take back a backend that is idle and clean."""
        backend.own(None)
        if backend.status != b"I":
            # It never should be here; nobody else may have it.
            backend.tainted = True
        elif backend.lent:
            return backend.close_lent(SETTLE)
        if backend.cancels:
            return 0        # `cancel_done` goes on from here: until then nobody may have it
        return self._put(backend)

    cdef int _put(self, Backend backend) except -1:
        cdef Owner owner = None
        self.active -= 1
        if self.surrender > 0:
            self.surrender -= 1
            backend.tainted = True
        if backend.tainted or backend.lent or self.retired or backend.cancels or self._expired(backend):
            self._drop(backend)
            return self._want_more()
        if self.waiting.count:
            owner = self.waiting.pop()
        if owner is not None:
            self.active += 1
            self.checkouts += 1
            backend.checked_out_at = now_s()
            backend.own(owner)
            owner.backend_granted(backend)
            return 0
        backend.idle_since = now_s()
        self.idle.append(backend)
        return 0

    cdef int _flee(self) except -1:
        """Close the idle backends that PostgreSQL is about to close: a statement sent to one then would be lost."""
        cdef Backend backend
        cdef double now = now_s()
        for backend in self.idle[:]:
            if backend.idle_limit_s and now - backend.idle_since > backend.idle_limit_s - min(
                FLEE_S, backend.idle_limit_s / 2
            ):
                self.idle.remove(backend)
                self._drop(backend)
        return 0

    cdef bint _expired(self, Backend backend):
        return self.lifetime_s > 0 and now_s() - backend.opened_at > self.lifetime_s

    cdef int _remove(self, Backend backend) except -1:
        if backend in self.backends:
            self.backends.discard(backend)
            self.past_units += backend.units
            self.past_received_bytes += backend.received_bytes
            self.past_sent_bytes += backend.sent_bytes
        return 0

    cdef int _drop(self, Backend backend) except -1:
        self._remove(backend)
        if backend.fd >= 0:
            # Terminate: PostgreSQL logs no unexpected end.
            backend.write(b"X\0\0\0\4", 5)
        backend.close()
        self.on_backend_closed(self, backend)
        return 0

    cdef int _want_more(self) except -1:
        cdef int missing = self.waiting.count - self.opening
        cdef int room = self.limit - len(self.backends) - self.opening
        if self.retired:
            return 0
        while missing > 0 and room > 0:
            self.opening += 1
            missing -= 1
            room -= 1
            self.opener(self)
        return 0

    # What backends call.

    cdef int backend_settled(self, Backend backend, bytes error) except -1:
        """A backend without an owner has been cleaned."""
        if error is not None or backend.status != b"I":
            backend.tainted = True
        if backend.cancels:
            return 0
        return self._put(backend)

    cdef int backend_gone(self, Backend backend, object error) except -1:
        self._remove(backend)
        if backend in self.idle:
            self.idle.remove(backend)
        else:
            self.active -= 1
        self.on_backend_gone(self, backend, error)
        return self._want_more()

    cdef int role_reported(self, Backend backend, bint in_recovery) except -1:
        self.on_role(self, in_recovery)
        return 0

    # What the control plane calls.

    def add(self, Backend backend):
        """Take a new backend; it was asked for by `opener`."""
        self.opening -= 1
        self.backends.add(backend)
        self.active += 1
        self._put(backend)

    def open_ended(self):
        """Say that no backend will come of what `opener` was asked for."""
        self.opening -= 1

    def expect_one(self):
        """Say that a backend will be added that nobody has asked for."""
        self.opening += 1

    def fail_waiting(self, error):
        """Tell everybody who waits that it is in vain."""
        cdef Owner owner
        for owner in self.waiting.take_all():
            owner.checkout_failed(error)

    def retry(self):
        """Ask again for the backends that are missing."""
        self._want_more()

    def take_waiting(self):
        """Remove and return all who wait, in order."""
        return self.waiting.take_all()

    def forget(self, Owner owner):
        """Take somebody out of the queue."""
        self.waiting.remove(owner)

    def longest_waiting(self):
        """Return who has waited longest, or None."""
        return self.waiting.peek()

    def cancel_done(self, Backend backend):
        """A cancel request for this backend has been delivered or given up."""
        backend.cancels -= 1
        if backend.cancels or backend.fd < 0:
            return
        if backend.owner is not None:
            backend.owner.on_cancels_done(backend)
        elif backend.replies.count == 0:
            self._put(backend)

    def close_idle(self, double before, Py_ssize_t keep=0):
        """Close idle backends unused since `before` (monotonic seconds), but for `keep`; return how many."""
        cdef Backend backend
        cdef list stale = [b for b in self.idle if (<Backend> b).idle_since < before or self._expired(<Backend> b)]
        cdef list going = stale[: max(0, len(self.idle) - keep)]
        for backend in going:
            self.idle.remove(backend)
            self._drop(backend)
        return len(going)

    def flee(self):
        """Close idle backends that an idle_session_timeout is about to end."""
        if self.mortal:
            self._flee()

    def oldest_idle(self):
        """Return since when (monotonic seconds) the coldest idle backend has been idle."""
        return (<Backend> self.idle[0]).idle_since

    def close_oldest(self):
        """Close the coldest idle backend."""
        self._drop(<Backend> self.idle.pop(0))

    def longest_held(self):
        """Return the owner that has had its backend longest, and for how many seconds; None if all are idle."""
        cdef Backend backend, longest = None
        for backend in self.backends:
            if backend.owner is not None and (longest is None or backend.checked_out_at < longest.checked_out_at):
                longest = backend
        return None if longest is None else (longest.owner, now_s() - longest.checked_out_at)

    def forsake_reads(self, error):
        """Ask elsewhere the reads whose answers have not begun: the member has fallen silent, or is gone."""
        cdef Backend backend
        for backend in list(self.backends):
            if backend.owner is not None and backend.judging and not backend.unkept:
                backend.lose(error)

    def forsake(self, error):
        """Give up all that is under way: whatever the member still answers is worth nothing any more."""
        cdef Backend backend
        for backend in list(self.backends):
            backend.lose(error)

    def retire(self):
        """Use no backend again: idle ones are closed now, the others when they are released."""
        self.retired = True
        self.close_idle(float("inf"))

    cdef int clean(self, Backend backend, bint discard) except -1:
        """Take back a backend in the middle of a transaction, or (`discard`) with session state."""
        cdef bint owed = backend.replies.count > 0
        backend.own(None)
        if backend.lent and not discard and not owed:
            backend.close_lent(SETTLE if backend.status == b"I" else 0)
        # While replies are owed its status is not known: what is left open then makes DISCARD ALL fail.
        if backend.status != b"I" and not owed:
            backend.inject_query(b"ROLLBACK", 0 if discard else SETTLE)
        if discard:
            # Its end is that of a new session: no parameters, no statements.
            backend.inject_query(b"DISCARD ALL", SETTLE)
            backend.parameters = EMPTY
            backend.statements.clear()
            backend.lent.clear()
            backend.unnamed = None
            backend.sequences_of = 0
            backend.idle_limit_s = self.idle_default_s
        elif backend.status == b"I" and not backend.replies.count and not backend.cancels:
            return self._put(backend)
        return 0

    cdef int forget_parameters(self, Backend backend) except -1:
        """Take back an idle backend whose parameters are not all known."""
        backend.own(None)
        backend.parameters = EMPTY
        backend.idle_limit_s = self.idle_default_s
        if backend.lent:
            backend.close_lent(0)
        return backend.inject_query(b"RESET ALL; RESET ROLE", SETTLE)

    cdef int abandon(self, Backend backend) except -1:
        """Close a backend whose owner left in the middle of a statement; nobody waits for its answer any more."""
        backend.owner = None
        self._remove(backend)
        self.active -= 1
        backend.close()
        # A closed socket alone would not end the statement.
        self.on_abandoned(self, backend)
        return self._want_more()

    cdef int recall(self, Backend backend) except -1:
        """Take back a backend whose answer is wanted no more, because another member is asked."""
        if not backend.disown():
            return self.abandon(backend)
        return 0

    cdef int serve(self) except -1:
        """Give idle backends to those who wait."""
        while self.waiting.count and self.idle:
            self.active += 1
            self._put(<Backend> self.idle.pop())
        return 0


cdef class Group:
    """The pools of one database and user, by what they are for."""

    def __init__(self, str database, str user, Statements statements):
        self.database = database
        self.statements = statements
        self.user = user
        self.replicas = []
        self.held = Queue()

    def __repr__(self):
        return f"<Group {self.user}@{self.database} primary={self.primary!r} replicas={self.replicas!r}>"

    @property
    def held_count(self):
        return self.held.count

    cdef Pool choose_replica(self):
        """Return the replica with the least outstanding work for its weight, None if there is none; its data may be
        older than any.
        """
        cdef Pool pool, best = None
        cdef Py_ssize_t i, count = len(self.replicas)
        cdef double load, least = 0
        self.turn += 1
        for i in range(count):
            # Equal ones take turns.
            pool = <Pool> self.replicas[(i + self.turn) % count]
            if pool.position is not None and pool.position.lagging:
                continue
            load = pool.load()
            if best is None or load < least:
                best = pool
                least = load
        return best

    cdef int hold(self, Owner owner) except -1:
        """Let `owner` wait until there is a primary."""
        owner.waits_at = None
        self.held.push(owner)
        return 0

    def set_members(self, Pool primary, list replicas):
        """Change what is used from now on, and hand those who were held to the new primary."""
        cdef Owner owner
        self.primary = primary
        self.replicas = replicas
        if primary is None or not self.held.count:
            return
        for owner in self.held.take_all():
            primary.enqueue(owner)
        primary.serve()

    def requeue(self, list owners):
        """Let those who waited for a pool that cannot serve them look for another place."""
        cdef Owner owner
        for owner in owners:
            owner.on_requeued()

    def longest_held(self):
        """Return who has been held longest, or None."""
        return self.held.peek()

    def fail_held(self, error, double before):
        """Give up on those who are held since before `before` (monotonic seconds); return how many."""
        cdef Owner owner = self.held.peek()
        cdef int count = 0
        while owner is not None and owner.waiting_since < before:
            self.held.pop()
            owner.checkout_failed(error)
            count += 1
            owner = self.held.peek()
        return count

    def forget(self, Owner owner):
        self.held.remove(owner)
