# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Where a session's units go: a backend of the primary, or of a replica that is new enough.

A unit is routed when it begins and nothing is attached. What follows while replies are owed stays on the attached
backend, unless that is a replica and the new unit is not a proven read: then it waits (STALLED) for its turn.
"""

from pgamb.relay.backend cimport Backend
from pgamb.relay.clock cimport now_s
from pgamb.relay.freshness cimport Freshness, Position
from pgamb.relay.numbers cimport (
    ISOLATION_DEFAULT, ISOLATION_REPEATABLE_READ, NEED_BEGIN, NEED_NEUTRAL, NEED_READ, NEED_READ_ONLY, NEED_SEQUENCE,
    NEED_SET, PIN_TEMPORARY,
    WISH_PRIMARY, WISH_REPLICA,
)
from pgamb.relay.pool cimport Pool
from pgamb.relay.routes cimport (
    ASKED_FOR_PRIMARY, ASKED_FOR_REPLICA, ATTACHED, A_QUESTION, A_READ, A_WRITE, ISOLATION, NOT_NEW_ENOUGH, NO_REPLICA,
    PINNED, PREPARES, REFUSED_THERE, TRANSACTION, UNREADABLE,
)
from pgamb.relay.session cimport CANCELING, PARKED, READY, STALLED, WAITING, Session
from pgamb.relay.statement cimport Plan

cdef unsigned long long UNKNOWN_LSN = 0xffff_ffff_ffff_ffff
# A session looks for another replica when its own has so much more outstanding work than that one, and so seldom.
cdef double MUCH = 3
cdef double MOVE_S = 1.0


cdef class Router(Session):
    """A session as far as it finds its backends."""

    cdef bint _attach(self, int need, Plan plan) except -1:
        """See to it that a backend is attached on which the next unit can run; if not, return 0, with `state` set."""
        if plan is None or not plan.pins & PIN_TEMPORARY:
            return self._attach_any(need, plan)
        while self._attach_any(need, plan):
            if not (self.granted and plan.need & NEED_SET and self.backend.temporary):
                self.backend.temporary = True
                return 1
            # A search_path with pg_temp: whether there is a temporary schema yet can be told from what follows, and
            # DISCARD ALL leaves one behind.
            self.backend.tainted = True
            self._release()
        return 0

    cdef bint _attach_any(self, int need, Plan plan) except -1:
        cdef Pool pool
        cdef Backend backend = self.backend
        if backend is not None:
            if backend.cancels:
                # They are meant for what was sent before, and must not meet anything else.
                self.state = CANCELING
                return 0
            if backend.replies.count and not backend.batch_open and self.pool.replica and not (
                need & NEED_READ or self.role == WISH_REPLICA
            ):
                self.state = STALLED
                return 0
            if not self.granted:
                self._note_route(plan, self.pool, PINNED if self.pins else ATTACHED)
                return 1
            if not self.pool.replica or self.role == WISH_REPLICA or self.wished or (
                need & NEED_READ and not self.opening
            ):
                return 1
            # While it waited, a replica has refused what it is about to send.
            self._release()
        pool = self._route(need, plan)
        if pool is None:
            if self.state == PARKED:
                return 0
            self._wait()
            self.group.hold(self)
            return 0
        self.pool = pool
        self.granted = True
        if need & NEED_SEQUENCE:
            backend = pool.acquire_again(self, self.pid)
        else:
            backend = None
        if backend is None:
            backend = pool.acquire(self, self.parameters)
        if backend is None:
            self._wait()
            pool.enqueue(self)
            return 0
        self.backend = backend
        return self._settle()

    cdef int _wait(self) except -1:
        self.state = WAITING
        self.waiting_since = now_s()
        return 0

    cdef Pool _route(self, int need, Plan plan):
        """Return where a unit goes, None if it has to wait: for a primary, or (PARKED) for a new enough replica."""
        cdef Pool pool = None
        cdef int reason = A_WRITE
        cdef bint read = need & NEED_READ and (
            not self.opening or (self.block.read_only == 1 and self._reads_snapshot())
        )
        read = read or self.wished
        if read and self.healing:
            reason = self.healing
        elif self.role == WISH_PRIMARY or (plan is not None and plan.wish == WISH_PRIMARY):
            reason = ASKED_FOR_PRIMARY
        elif self.pins:
            reason = PINNED
        elif self.serializable:
            reason = ISOLATION
        elif read:
            pool = self._choose()
            if self.state == PARKED:
                return None
            reason = A_READ if pool is not None else NO_REPLICA if not self.group.replicas else NOT_NEW_ENOUGH
        elif self.role == WISH_REPLICA:
            pool = self._choose()
            if self.state == PARKED:
                return None
            if pool is not None:
                reason = ASKED_FOR_REPLICA
            else:
                reason = NOT_NEW_ENOUGH if self.group.replicas else NO_REPLICA
        elif not self.relay.freshness.consistent and not self.relay.lazy and (
            need & (NEED_BEGIN | NEED_READ_ONLY) == NEED_BEGIN | NEED_READ_ONLY
        ):
            # Each of its statements may see more than the one before, and nobody could see to that.
            pool = self.group.choose_replica()
            reason = A_READ if pool is not None else TRANSACTION
        elif self.opening:
            reason = TRANSACTION
        elif self.ambiguous:
            reason = UNREADABLE
        elif plan is not None and plan.refused:
            reason = REFUSED_THERE
        elif self.block is not None:
            reason = PREPARES
        elif need & NEED_NEUTRAL:
            reason = A_QUESTION
        if self.parked:
            self._unpark()
        if pool is None:
            pool = self.group.primary
            if pool is None:
                return None
        self.healing = 0
        self._note_route(plan, pool, reason)
        return pool

    cdef bint _has_snapshot(self) noexcept:
        """Tell whether all of the virtual transaction sees one snapshot: then its first statement makes it real."""
        cdef int isolation = self.block.isolation
        return isolation >= ISOLATION_REPEATABLE_READ or (isolation == ISOLATION_DEFAULT and self.snapshot)

    cdef bint _reads_snapshot(self) noexcept:
        """Tell whether the transaction about to be opened is REPEATABLE READ: a standby cannot be SERIALIZABLE."""
        cdef int isolation = self.block.isolation
        return isolation == ISOLATION_REPEATABLE_READ or (
            isolation == ISOLATION_DEFAULT and self.snapshot and not self.serializable
        )

    cdef Pool _choose(self):
        """Return the replica that the next read goes to; None: the primary, or (state PARKED) it is not known yet.

        It is new enough if it has replayed what was committed before (`freshness.required`, or the session's own
        commits), and what the session has seen of any member.
        """
        cdef Freshness freshness = self.relay.freshness
        cdef Position position
        cdef Pool pool, best = None, least = None
        cdef unsigned long long moment, floor = 0, bound = 0
        cdef Py_ssize_t i, count = len(self.group.replicas)
        if not freshness.tracks:
            return self.group.choose_replica()
        if freshness.shared and freshness.everyone and not self.parked:
            # Not again for each answer that it has waited for: the moment at which it came is what counts.
            self.seen = freshness.moment()
        moment = self.seen
        if freshness.everyone and freshness.required > moment:
            moment = freshness.required
        if self.read_at is not None:
            if self.read_epoch != self.read_at.epoch:
                # It may have been restored since, to what is older.
                return None
            bound = self.read_at.bound_lsn if self.read_at.answered >= self.read_moment else UNKNOWN_LSN
        if freshness.known(moment):
            floor = freshness.floor_lsn if moment == freshness.required else freshness.floor_of(moment)
            floor = max(floor, self.min_lsn)
        else:
            floor = UNKNOWN_LSN
        for i in range(count):
            pool = <Pool> self.group.replicas[(i + self.group.turn) % count]
            position = pool.position
            if position is None or not position.usable:
                continue
            if position is self.read_at:
                if position.replay_lsn >= floor:
                    return self._balanced(pool, floor)
            elif position.replay_lsn >= floor and position.replay_lsn >= bound:
                if best is None or pool.load() < best.load():
                    best = pool
                continue
            elif self.read_at is not None:
                continue
            if not position.behind() and (least is None or pool.load() < least.load()):
                least = pool
        if self.min_lsn > freshness.lsn:
            # The primary itself was not there when it was last asked: nobody can say how long that takes.
            freshness.ask(freshness.moment())
        elif best is None and least is not None and not self.impatient:
            if floor == UNKNOWN_LSN:
                freshness.ask(moment)
            self._park(None if floor == UNKNOWN_LSN else least.position, floor)
        if best is not None:
            # Equal ones take turns at getting sessions.
            self.group.turn += 1
        return best

    cdef Pool _balanced(self, Pool pool, unsigned long long floor):
        """Return where a session reads that could go on at `pool`: there, or at a less busy replica that is as new."""
        cdef Pool other, best = None
        if pool.load() < MUCH:
            return pool
        for other in self.group.replicas:
            if other is not pool and other.position is not None and other.position.usable and (
                best is None or other.load() < best.load()
            ):
                best = other
        if best is None or pool.load() < MUCH + 2 * best.load():
            return pool
        if self.read_at.answered >= self.read_moment and best.position.replay_lsn >= max(floor, self.read_at.bound_lsn):
            return best
        if now_s() < self.next_move_s:
            return pool
        if self.impatient:
            self.next_move_s = now_s() + MOVE_S
            return pool
        self.relay.freshness.ask_replica(self.read_at)
        self._park(best.position, 0)
        return None if self.state == PARKED else pool

    # Waiting for what is new enough.

    cdef int _park(self, Position position, unsigned long long floor) except -1:
        """Wait, but not for long, until more is known of a replica, or (None) of the primary."""
        if self.impatient or self.relay.freshness.replica_wait_s <= 0:
            return 0
        self.state = PARKED
        self.parked = True
        self.waiting_since = now_s()
        return self.relay.freshness.wait(self, position, floor)

    cdef int _unpark(self) except -1:
        """It is decided where the unit goes."""
        self.parked = self.impatient = False
        return self.relay.freshness.forget(self)

    cdef int on_fresher(self, bint last) except -1:
        if self.state != PARKED:
            return 0
        self.state = READY
        self.impatient = last
        return self._resume()

    cdef bint _knows_floor(self) except -1:
        """Tell whether SHOW can say up to where this session may have seen; if not, `state` says for what it waits."""
        cdef Freshness freshness = self.relay.freshness
        if self.backend is not None:
            # Inside a transaction, or behind what is under way, nothing may wait: the backend itself is asked (HERE).
            return 1
        if not self.asked_floor:
            self.asked_floor = freshness.moment()
            freshness.ask(self.asked_floor)
        if freshness.known(self.asked_floor) or self.impatient:
            return 1
        self._park(None, 0)
        return self.state != PARKED

    cdef int _saw(self, Backend backend) except -1:
        """A unit outside of transactions has been answered: what it has shown, later reads must not be older than."""
        cdef Freshness freshness = self.relay.freshness
        if self.pool.replica and not self.unsettled:
            self.read_at = self.pool.position
            if self.read_at is not None:
                self.read_moment = self.read_at.moment()
                self.read_epoch = self.read_at.epoch
            return 0
        self.read_at = None
        self.seen = freshness.moment()
        if self.unsettled:
            freshness.committed()
            self.unsettled = backend.replies.count > 0
            if self.changes is not None:
                self._tell_changes()
            if self.shapes:
                self._end_shapes(False)
        return 0

    cdef int _note_route(self, Plan plan, Pool pool, int reason) except -1:
        if not self.preparing and (plan is None or not plan.shows):
            self.plan = plan
            self.routed = pool
            self.reason = reason
        self.relay.counts[reason] += 1
        if pool.replica:
            self.relay.to_replica += 1
        else:
            self.relay.to_primary += 1
        return 0

    # What the pool says.

    cdef int backend_granted(self, Backend backend) except -1:
        self.backend = backend
        self.pool = <Pool> backend.home
        self.state = READY
        if self._settle():
            self._resume()
        return 0

    cdef int on_requeued(self) except -1:
        self.state = READY
        self.pool = None
        self.granted = False
        return self._resume()

    cdef int checkout_failed(self, object error) except -1:
        self.state = READY
        self.pool = None
        self.granted = False
        self.healing = 0
        self.asked_floor = 0
        self._refuse(error)
        return self._resume()
