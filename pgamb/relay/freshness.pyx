# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What is known of positions in the WAL: where the primary was, what replicas have replayed, who waits for more.

Responsibility: "you read what you wrote". Whoever needs to be sure that a replica shows a commit asks here; who reads
where is decided elsewhere.

The model. Questions to the primary are numbered, at most one is under way. What has been seen on the primary by now (a
commit acknowledged, a read served) lies at or before the answer to any question sent from now on: such a *moment* is
nothing but the number of the next question. The *floor* of a moment is the position in the first answer numbered so or
later. Questions to a replica are numbered in the same way: what has been seen there by now is bounded by `bound_lsn`,
once a question numbered `moment()` or later has been answered.

Invariants:
* a floor never lies before what was committed before its moment: answers forgotten are stood for by later ones;
* no floor outlives its timeline, nor the connection that it was asked over longer than to the first answer on the next
  one. That answer serves every moment before: what lies behind it no longer exists;
* a moment that somebody asked for is answered, if the primary ever answers again: a question that was lost, refused, or
  overtaken by a change of primary is put again;
* a `Position` is usable only while its connection stands: a replica that restarts may show less than before.

Failure: while a member has no connection here, its position is unknown, and those who wait for it are told so. While
the primary has none, floors that were known stay, and no new ones become known. Reads then go to the primary.
"""

import time

from pgamb.relay.answers cimport Answers
from pgamb.relay.backend cimport Backend, Home, Owner
from pgamb.relay.clock cimport now_s
from pgamb.relay.reactor cimport Reactor
from pgamb.relay.replies cimport CAPTURE, SETTLE

from pgamb.errors import PostgresError, ProtocolViolation
from pgamb.routing.freshness import (
    FLOOR_QUESTION, PAGE_BYTES, PAUSED_POSITION_QUESTION, POSITION_QUESTION, SEGMENT_BYTES, TIMELINE_QUESTION,
    bound_of, end_of_record, parse_lsn, wait_statement,
)
from pgamb.session.parameters import EMPTY
from pgamb.wire.messages import parse_error_fields


cdef enum:
    NOTHING
    FLOOR
    POSITION

cdef unsigned long long UNKNOWN = 0xffff_ffff_ffff_ffff

# `--max-lag` is told to one part in this many.
cdef int LAG_STEPS = 64

# A member that has said nothing for so long is as good as none (as the agent's probe has it).
ANSWER_TIMEOUT_S = 2.0


cdef class _Nowhere(Home):
    """The home of a backend that is in no pool."""

    cdef object on_role

    def __init__(self, on_role):
        self.on_role = on_role

    def __repr__(self):
        return "<no pool>"

    cdef int backend_settled(self, Backend backend, bytes error) except -1:
        return 0

    cdef int backend_gone(self, Backend backend, object error) except -1:
        return 0

    cdef int role_reported(self, Backend backend, bint in_recovery) except -1:
        self.on_role()
        return 0


cdef class Asker(Owner):
    """Puts questions to one member, one at a time, over a connection of its own.

    `on_lost(asker, error)` is called when the connection ends, `on_trouble(asker, message)` when a question fails,
    `on_role()` when the member says that its role has changed.
    """

    def __init__(self, str node, Freshness freshness, *, on_lost, on_trouble, on_role):
        self.freshness = freshness
        self.on_lost = on_lost
        self.on_trouble = on_trouble
        self.home = _Nowhere(on_role)
        self.trouble = "not connected yet"
        self.position = Position(node, self, freshness)

    def __repr__(self):
        return f"<Asker {self.position.node} connected={self.backend is not None} question={self.question}>"

    @property
    def connected(self):
        return self.backend is not None

    def open(
        self, Reactor reactor, int fd, int pid, bytes secret, *, int server_version, segment_bytes=SEGMENT_BYTES,
        page_bytes=PAGE_BYTES, tls=None, tls_in=None, tls_out=None,
    ):
        """Take a logged-in, idle connection; `fd` belongs to this object from now on."""
        self.server_version = server_version
        self.segment_bytes = segment_bytes
        self.page_bytes = page_bytes
        self.backend = Backend(
            reactor, fd, self.home, EMPTY, pid, secret, tls=tls, tls_in=tls_in, tls_out=tls_out
        )
        self.backend.own(self)
        self.question = NOTHING
        self.trouble = ""
        self.freshness._opened(self)

    def fail(self, error):
        """Give the connection up, as if the server had closed it; `error` is a PgambError."""
        if self.backend is not None:
            self.backend.lose(error)

    def close(self):
        """Say goodbye to the member; `on_lost` is not called."""
        cdef Backend backend = self.backend
        if backend is None:
            return
        self.backend = None
        if self.question == NOTHING:
            # Terminate: PostgreSQL logs no unexpected end.
            backend.write(b"X\0\0\0\4", 5)
        backend.close()
        self.question = NOTHING
        self.freshness._lost(self)

    def overdue(self, double before):
        """Tell whether a question is under way since before that (monotonic seconds)."""
        return self.question != NOTHING and self.asked_at < before

    cdef bint idle(self) noexcept:
        return self.backend is not None and self.question == NOTHING

    cdef int ask_floor(self, unsigned long long number) except -1:
        return self._put(FLOOR, number, FLOOR_QUESTION)

    cdef int ask_position(self, unsigned long long number, bint timeline, bint pause, bytes wait) except -1:
        """Ask what it has replayed: with its timeline, or after a pause, or when `wait` has let it pass."""
        if wait is not None:
            self.backend.inject_query(wait, 0)
        elif pause and not timeline:
            return self._put(POSITION, number, PAUSED_POSITION_QUESTION)
        return self._put(POSITION, number, TIMELINE_QUESTION if timeline else POSITION_QUESTION)

    cdef int _put(self, int question, unsigned long long number, bytes sql) except -1:
        self.question = question
        self.number = number
        self.asked_at = now_s()
        return self.backend.inject_query(sql, CAPTURE | SETTLE)

    cdef int on_settled(self, Backend backend, bytes error, list rows) except -1:
        cdef int question = self.question
        self.question = NOTHING
        if error is not None:
            self.trouble = PostgresError(parse_error_fields(error)).message
            self.on_trouble(self, self.trouble)
            # Not at once: whoever looks after all members asks again.
            return 0
        if not rows or rows[0][0] is None:
            self.trouble = "it has no such position: its role is another one"
            self.on_trouble(self, self.trouble)
            return 0
        self.trouble = ""
        try:
            if question == FLOOR:
                self.freshness._floor_answered(
                    self, self.number,
                    end_of_record(
                        parse_lsn((<bytes> rows[0][0]).decode()), segment_bytes=self.segment_bytes,
                        page_bytes=self.page_bytes,
                    ),
                )
            elif question == POSITION:
                self.freshness._position_answered(self.position, self.number, rows[0])
        except ValueError as failure:
            backend.lose(ProtocolViolation(f"the server answers with what is no position: {failure}"))
            return 0
        return self.freshness._go_on(self)

    cdef int backend_lost(self, Backend backend, object error) except -1:
        if backend is not self.backend:
            return 0
        self.backend = None
        self.question = NOTHING
        self.trouble = error.message
        self.freshness._lost(self)
        self.on_lost(self, error)
        return 0

    cdef int on_parameter(self, Backend backend) except -1:
        return 0

    cdef bytes on_error(self, Backend backend, bytes payload):
        return payload


cdef class Position:
    """What is known of one replica."""

    def __init__(self, str node, Asker asker, Freshness freshness):
        self.node = node
        self.asker = asker
        self.freshness = freshness
        self.bound_lsn = UNKNOWN

    def __repr__(self):
        return f"<Position {self.node} {self.replay_lsn:X}@{self.timeline} {self.why_not or 'usable'}>"

    @property
    def why_not(self):
        """Say why it is not read from, "" if it may be."""
        if self.usable:
            return ""
        if self.answered_at == 0 or self.asker.trouble:
            return self.asker.trouble or "it has not told its position yet"
        if self.freshness.timeline and self.timeline != self.freshness.timeline:
            return f"on timeline {self.timeline}, the primary is on {self.freshness.timeline}"
        if self.lagging:
            return "too far behind (--max-lag)"
        return "it no longer answers"

    cdef unsigned long long moment(self) noexcept:
        """What has been seen there by now is bounded by any answer numbered so or later."""
        return self.sent + 1

    cdef bint behind(self) noexcept:
        """Tell whether, by its last answer, it cannot be expected to be new enough within `--replica-wait`."""
        return self.lag_s > self.freshness.replica_wait_s

    cdef int judge(self) except -1:
        """Decide anew whether it may be read from."""
        cdef Freshness freshness = self.freshness
        self.lagging = self.lag_s > freshness.max_lag_s or self.lag_bytes > freshness.max_lag_bytes
        self.usable = (
            self.answered_at != 0
            and (freshness.timeline == 0 or self.timeline == freshness.timeline)
            and not self.lagging
        )
        return 0

    def reached(self, int timeline):
        """Somebody else knows that it has reached this timeline."""
        if timeline > self.timeline:
            self.timeline = timeline
            self.judge()


cdef class Waiter:
    """One session's wait for a replica."""


cdef class Freshness:
    """Floors, positions, and those who wait.

    `consistency` is that of `--consistency`; a replica that is more than `max_lag_s` or `max_lag_bytes` behind is not
    usable; a wait ends after `replica_wait_s`.
    """

    def __init__(
        self, Reactor reactor, *, str consistency, double replica_wait_s, double max_lag_s,
        unsigned long long max_lag_bytes,
    ):
        self.reactor = reactor
        self.consistent = consistency != "eventual"
        self.everyone = consistency == "ambassador"
        self.replica_wait_s = replica_wait_s
        self.max_lag_s = max_lag_s
        self.max_lag_bytes = max_lag_bytes
        self.recent = Answers()
        self.spaced = Answers(max_lag_s / LAG_STEPS)
        self.positions = []
        self.waiters = {}

    def __repr__(self):
        return (
            f"<Freshness timeline={self.timeline} sent={self.sent} answered={self.answered} required={self.required} "
            f"waiting={len(self.waiters)}>"
        )

    @property
    def waiting_count(self):
        return len(self.waiters)

    def share(self, bint shared):
        """Say whether another process commits through the same ambassador: of those commits nothing is heard here.

        While it does, each read has to be newer than the moment at which it came.
        """
        self.shared = shared
        # What that process has committed last.
        self.committed()

    # What sessions call.

    cdef unsigned long long moment(self) noexcept:
        """What has been seen on the primary by now is covered by any answer numbered so or later."""
        return self.sent + 1

    cdef int committed(self) except -1:
        """A commit that may have written is being acknowledged."""
        # Remembered even where nobody reads from a replica: there may be one by the time that it matters.
        self.required = self.sent + 1
        return self.ask(self.required) if self.tracks else 0

    cdef int ask(self, unsigned long long moment) except -1:
        """See to it that a question numbered `moment` or later is, or will be, sent."""
        if moment > self.wanted:
            self.wanted = moment
        return self._ask_primary() if self.wanted > self.answered else 0

    cdef bint known(self, unsigned long long moment) noexcept:
        """Tell whether the floor of that moment is known; 0 stands for "before anything"."""
        return moment <= self.answered

    cdef unsigned long long floor_of(self, unsigned long long moment) noexcept:
        """Return the floor of a moment that is known."""
        return self.recent.floor_of(moment) if moment else 0

    cdef int ask_replica(self, Position position) except -1:
        """Ask a replica now, unless a question is under way."""
        return self._ask_position(position, False, False)

    cdef int wait(self, Owner owner, Position position, unsigned long long lsn=0) except -1:
        """Call `owner.on_fresher` when something is learnt of `position` or of the primary.

        The last time is after `replica_wait_s`, or when the replica is lost: then the owner is forgotten. Who waits
        already changes to this position, and keeps its deadline. `lsn` is the floor, if it is known: PostgreSQL 19 can
        wait for that.
        """
        cdef Waiter waiter = self.waiters.get(owner)
        if waiter is None:
            waiter = Waiter()
            waiter.owner = owner
            waiter.deadline_s = time.monotonic() + self.replica_wait_s
            self.waiters[owner] = waiter
            self.waits += 1
            if not self.timer_set:
                self.timer_set = True
                self.reactor.loop.call_at(waiter.deadline_s, self._end_waits)
                # The loop sleeps without knowing of this timer, if this is the data plane's turn.
                self.reactor.give_way()
        elif waiter.position is not None:
            waiter.position.waiting -= 1
        waiter.position = position
        waiter.lsn = lsn
        if position is not None:
            position.waiting += 1
            position.again = True
            self._ask_position(position, False, False)
        return 0

    cdef int forget(self, Owner owner) except -1:
        """Stop waiting; harmless if it does not wait."""
        cdef Waiter waiter = self.waiters.pop(owner, None)
        if waiter is not None and waiter.position is not None:
            waiter.position.waiting -= 1
        return 0

    def _end_waits(self):
        """The timer: end the waits that have lasted long enough."""
        cdef Waiter waiter
        cdef list due = []
        # Those of the next millisecond, too: one timer for each of many would be no better.
        cdef double until = time.monotonic() + 0.001
        self.timer_set = False
        for waiter in self.waiters.values():
            if waiter.deadline_s > until:
                self.timer_set = True
                self.reactor.loop.call_at(waiter.deadline_s, self._end_waits)
                break
            due.append(waiter)
        for waiter in due:
            if self.waiters.get(waiter.owner) is waiter:
                self.waits_ended_by_timeout += 1
                self.forget(waiter.owner)
                self._call(waiter.owner, True)

    # What the control plane calls.

    def use(self, Asker primary, int timeline, list askers):
        """Change who is primary (None: nobody), on which timeline (0: as before), and which replicas there are."""
        cdef Position position
        cdef Asker asker
        cdef list positions = [(<Asker> asker).position for asker in askers]
        cdef list dropped = [position for position in self.positions if position not in positions]
        cdef bint changed = timeline != 0 and timeline != self.timeline
        if changed:
            self.timeline = timeline
            self.recent.clear()
            self.spaced.clear()
            self.answered = 0
            self.lsn = 0
        if changed or primary is not self.primary:
            self.primary = primary
            self.renewed = True
            self.barrier = self.sent + 1
            self.wanted = self.barrier
        self.positions = positions
        self.tracks = self.consistent and len(positions) > 0
        for position in positions:
            position.judge()
        for position in dropped:
            position.usable = False
            self._tell(position, True)
        if changed:
            self._tell(None, False)
        if self.tracks:
            # What was committed while nobody read from a replica.
            self.ask(self.required)
        self._ask_primary()

    def survey(self):
        """Ask every member, so that lag and timelines can be told; leave out replicas that have fallen silent."""
        cdef Position position
        cdef double now = now_s()
        if self.primary is not None and self.primary.idle():
            self.ask(self.sent + 1)
        for position in self.positions:
            if position.answered_at and now - position.answered_at > ANSWER_TIMEOUT_S + self.replica_wait_s:
                position.usable = False
            self._ask_position(position, True, False)

    # Questions and answers.

    cdef int _ask_primary(self) except -1:
        if self.wanted <= self.answered or self.primary is None or not self.primary.idle():
            return 0
        self.sent += 1
        self.questions += 1
        return self.primary.ask_floor(self.sent)

    cdef int _ask_position(self, Position position, bint timeline, bint pause) except -1:
        cdef bytes wait = None
        cdef unsigned long long lowest
        if not position.asker.idle() or position.asker is self.primary:
            return 0
        position.again = False
        if not pause and position.timeline != self.timeline:
            timeline = True
        elif position.waiting and not timeline:
            lowest = self._lowest_waited_for(position)
            if lowest > position.replay_lsn:
                wait = wait_statement(position.asker.server_version, lowest, self.replica_wait_s)
        position.sent += 1
        self.questions += 1
        return position.asker.ask_position(position.sent, timeline, pause, wait)

    cdef unsigned long long _lowest_waited_for(self, Position position) noexcept:
        """Return the lowest floor that somebody waits for there, 0 if nobody knows one."""
        cdef Waiter waiter
        cdef unsigned long long lowest = 0
        for waiter in self.waiters.values():
            if waiter.position is position and waiter.lsn and (lowest == 0 or waiter.lsn < lowest):
                lowest = waiter.lsn
        return lowest

    cdef int _go_on(self, Asker asker) except -1:
        """A question has been answered: ask what is wanted next."""
        if asker is self.primary:
            return self._ask_primary()
        if asker.position.waiting:
            # Who came while the question was under way has waited for one answer already.
            self._ask_position(asker.position, False, not asker.position.again)
        return 0

    cdef int _floor_answered(self, Asker asker, unsigned long long number, unsigned long long lsn) except -1:
        cdef bint was_known
        cdef double now
        if asker is not self.primary or number < self.barrier:
            return 0
        now = now_s()
        was_known = self.known(self.required)
        if self.renewed:
            self.renewed = False
            self.recent.clear()
            self.spaced.clear()
            was_known = False
        self.recent.push(number, lsn, now)
        self.spaced.push(number, lsn, now)
        self.answered = number
        self.lsn = lsn
        if not was_known and number >= self.required:
            self.floor_lsn = lsn if self.required else 0
        if self.waiters:
            self._tell(None, False)
        return 0

    cdef int _position_answered(self, Position position, unsigned long long number, list row) except -1:
        cdef double recent, spaced
        position.replay_lsn = parse_lsn((<bytes> row[0]).decode())
        position.bound_lsn = bound_of(
            position.replay_lsn, parse_lsn((<bytes> row[1]).decode()) if row[1] is not None else None
        )
        if len(row) > 2 and row[2] is not None:
            position.timeline = max(position.timeline, int(row[2]))
        position.answered = number
        position.answered_at = now_s()
        position.lag_bytes = self.lsn - position.replay_lsn if self.lsn > position.replay_lsn else 0
        recent = self.recent.missing_since(position.replay_lsn)
        spaced = self.spaced.missing_since(position.replay_lsn) if recent != 0 else 0
        if spaced != 0 and spaced < recent:
            recent = spaced
        position.lag_s = max(0.0, position.answered_at - recent) if recent != 0 else 0.0
        position.judge()
        if position.waiting:
            self._tell(position, False)
        return 0

    cdef int _opened(self, Asker asker) except -1:
        """A connection stands. The server behind it may have been made anew, from an older backup."""
        asker.position.timeline = 0
        asker.position.judge()
        if asker is self.primary:
            self.renewed = True
            self.barrier = self.sent + 1
            return self.ask(self.barrier)
        if asker.position in self.positions:
            self._ask_position(asker.position, True, False)
        return 0

    cdef int _lost(self, Asker asker) except -1:
        cdef Position position = asker.position
        position.usable = False
        position.answered_at = 0
        position.epoch += 1
        if asker is self.primary:
            return self._tell(None, False)
        return self._tell(position, True)

    # Those who wait.

    cdef int _tell(self, Position position, bint last) except -1:
        """Call those who wait for this position, or all (None); with `last` their wait is over."""
        cdef Waiter waiter
        for waiter in list(self.waiters.values()):
            if (position is None or waiter.position is position) and self.waiters.get(waiter.owner) is waiter:
                if last:
                    self.forget(waiter.owner)
                self._call(waiter.owner, last)
        return 0

    cdef int _call(self, Owner owner, bint last) except -1:
        try:
            owner.on_fresher(last)
        except Exception as error:
            # A defect of that session's, not of the connection whose answer this is.
            self.reactor.on_error(owner, error)
        return 0
