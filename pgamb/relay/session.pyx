# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What all sessions share, and what one session is: its parameters, its pins, what it has done and not yet committed.

Responsibility: know at each moment what of a session's state only its backend has, so that the backend can be let go
as soon as there is nothing. Parameters are not understood but read back from PostgreSQL (`_ask`) when they may have
changed.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.string cimport memchr, memcmp

from pgamb.relay.backend cimport Backend
from pgamb.relay.clock cimport now_s
from pgamb.relay.freshness cimport Freshness
from pgamb.relay.numbers cimport (
    NEED_COMMITS, NEED_MULTIPLE, NEED_NEUTRAL, NEED_READ, NEED_SEQUENCE, NEED_SET, NEED_SETTINGS, PIN_ASKED,
    PIN_BACKEND_PID, PIN_PARAMETER, PIN_PREPARE, PIN_SEQUENCES, PIN_SESSION_AUTHORIZATION, PIN_SESSION_MODE,
    PIN_TEMPORARY, PIN_UNCLEAN,
)
from pgamb.relay.named cimport Named
from pgamb.relay.pool cimport Pool
from pgamb.relay.replies cimport CAPTURE, SETTLE, Effect
from pgamb.relay.routes cimport REASONS
from pgamb.relay.speaker cimport Speaker
from pgamb.relay.statement cimport Plan, Statement

from pgamb.errors import InvalidParameterValue, PostgresError, ProtocolViolation
from pgamb.relay.routes import words_of
from pgamb.routing.freshness import format_floor, parse_floor
from pgamb.routing.hints import wish_of_role
from pgamb.routing.intent import Pin
from pgamb.session.parameters import SETTINGS_QUERY, UNHURRIED, Expression, set_config_query, settings_query
from pgamb.session.pins import HELD_QUERY, pins_held, without_pins
from pgamb.wire.messages import error_response, notice_response, parse_error_fields

# The beginnings of command tags after which a database's catalogue may be another one (routing.ddl knows which).
cdef tuple CHANGES = (b"CREATE ", b"ALTER ", b"DROP ", b"IMPORT ", b"DO", b"CALL")
# The position of the server that is asked, nothing on a replica.
cdef object HERE = Expression(
    b"CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text END"
)

ROLES_HINT = "pgamb.role is primary, replica or auto; any other value counts as auto."

cdef enum:
    # A session that sets more custom parameters than this keeps its backend, rather than ask for them all.
    CUSTOMS = 256


cdef class Relay:
    """What all frontends of a process share.

    `on_repeated(session, plan)` hears of reads that are asked again; `plan` is that of one that a replica has refused.
    `on_unfinished(session)` has to call `session.hurry()` when a batch has been without its Sync for too long.
    """

    def __init__(
        self, parameter_sets, Freshness freshness, *, bint session_mode, int prepared_limit, on_frontend_closed,
        bint lazy=True, on_repeated=None, on_changed=None, on_unfinished=None, on_named=None, told_pid=None,
        on_limited=None,
    ):
        self.parameter_sets = parameter_sets
        self.freshness = freshness
        self.session_mode = session_mode
        self.prepared_limit = prepared_limit
        self.on_frontend_closed = on_frontend_closed
        self.on_repeated = on_repeated
        self.on_changed = on_changed
        self.on_unfinished = on_unfinished
        self.on_named = on_named
        self.told_pid = told_pid
        self.on_limited = on_limited
        self.lazy = lazy and not session_mode
        self.frontends = {}

    @property
    def routes(self):
        """Return how many units went where they went for each reason, in the order of `routes.NAMES`."""
        return [self.counts[reason] for reason in range(REASONS)]

    cdef int tell_repeated(self, Session session, Plan plan) except -1:
        if self.on_repeated is not None:
            self.on_repeated(session, plan)
        return 0

    cdef bytes own_parameters(self, Session session):
        """Return the query that gives a backend pgamb's own parameters."""
        cdef Freshness freshness = self.freshness
        cdef object floor = ""
        if session.asked_floor and freshness.known(session.asked_floor):
            floor = format_floor(freshness.floor_of(session.asked_floor), freshness.timeline)
        session.asked_floor = 0
        return set_config_query({
            b"pgamb.last_route": session.last_route.encode("utf-8", "replace"),
            # Where nobody asks for positions, for want of a replica, the primary is asked here.
            b"pgamb.lsn": floor.encode() if floor else HERE,
            b"pgamb.status": self.status(session).encode("utf-8", "replace"),
        }, defaults={b"pgamb.role": b"auto", b"pgamb.min_lsn": b""})

    def status(self, Session session):
        """Return in one line how things stand for a session: its members, how far they are, and what holds it."""
        cdef Pool pool
        cdef list parts = []
        primary = session.group.primary
        parts.append(f"primary {primary.name}" if primary is not None else "no primary: writes are held")
        if self.freshness.timeline:
            parts.append(f"timeline {self.freshness.timeline}")
        for pool in session.group.replicas:
            if pool.position is None:
                parts.append(f"replica {pool.name}")
            elif pool.position.usable:
                parts.append(f"replica {pool.name} {pool.position.lag_bytes} bytes behind")
            else:
                parts.append(f"replica {pool.name} is left out: {pool.position.why_not}")
        parts.append(f"pinned by {', '.join(session.pin_names)}" if session.pins else "not pinned")
        return "; ".join(parts)


cdef class Session(Speaker):
    """An application's session: what is known of it."""

    cdef int _resume(self) except -1:
        """Go on with what is pending."""
        raise NotImplementedError

    cdef int _rested(self, Backend backend) except -1:
        """PostgreSQL owes nothing."""
        raise NotImplementedError

    cdef int _unpark(self) except -1:
        """It is decided where the unit goes."""
        raise NotImplementedError

    cdef int leave(self) except -1:
        """The application is gone, or has to go."""
        raise NotImplementedError

    @property
    def state_name(self):
        if self.state == READY:
            if self.backend is not None:
                return "active"
            return "idle" if self.block is None else "virtual"
        return {
            WAITING: "waiting", PARKED: "waiting", SETTLING: "settling", ASKING: "asking", STALLED: "stalled",
            CANCELING: "stalled", RESTORING: "restoring", PREPARING: "active", CHECKING: "active",
            TURNING: "active", NAMING: "stalled", CLOSED: "closed",
        }[self.state]

    @property
    def doing(self):
        """What it does, as a `session.limits.Doing`."""
        if self.state == WAITING or self.state == PARKED:
            return "waiting"
        if self.state != READY or self.backend is not None:
            return "busy"
        return "in_transaction" if self.block is not None or self.failed else "idle"

    @property
    def began_at(self):
        """When its virtual transaction began, in monotonic seconds."""
        return self.heard_at if self.block is None else self.block.began_at

    @property
    def last_route(self):
        """Return where the last unit went, and why, in words."""
        evidence = "" if self.plan is None else f" ({self.plan.intent.reason})"
        place = "pgamb" if self.routed is None else f"{self.routed.name}"
        role = "" if self.routed is None else " (replica)" if self.routed.replica else " (primary)"
        return f"{place}{role}: {words_of(self.reason)}{evidence}"

    @property
    def pin_names(self):
        """What pins this session to its backend, as words."""
        names = [pin.name.lower() for pin in Pin if pin & self.pins]
        if self.pins & PIN_SESSION_MODE:
            names.append("session_mode")
        if self.pins & PIN_SEQUENCES:
            names.append("sequences")
        if self.pins & PIN_BACKEND_PID:
            names.append("backend_pid")
        return names

    cdef int _note(self, int need, int pins, int unpins, frozenset customs) except -1:
        """Remember what follows from a unit that is being sent."""
        self.units += 1
        self.granted = self.checked = False
        self.healing = 0
        self.asked_floor = 0
        if self.parked:
            self._unpark()
        if self.block is None:
            self.shown = 0
        if pins | unpins:
            # What may have come or gone, PostgreSQL is asked for when all of it is over.
            self.unsure = self.unsure or pins & ~self.pins or unpins & self.pins
            self.pins |= pins
        if not need & NEED_READ:
            self.unsure = self.unsure or self.watchful
            if need & NEED_SEQUENCE:
                self._ask_sequences()
            if not need & NEED_NEUTRAL:
                self._mark_sequences()
                self.pure = False
                # A replica writes nothing, unless it has been promoted meanwhile.
                self.unsettled = self.unsettled or not self.pool.replica or not self.backend.in_recovery
            if need & (NEED_SET | NEED_SETTINGS):
                self.dirty = True
                if need & NEED_SETTINGS:
                    self.opaque = True
                    self._may_set(self.group.statements.customs)
            if need & NEED_COMMITS:
                self.committing = True
        if need & NEED_MULTIPLE:
            self.multiple = True
        self._may_set(customs)
        return 0

    cdef int _may_set(self, frozenset customs) except -1:
        """What is being sent may set custom parameters of these names, if any."""
        if customs is not None and customs:
            self.customs = customs if self.customs is None else self.customs | customs
            if len(self.customs) > CUSTOMS:
                self.pins |= PIN_PARAMETER
        return 0

    cdef int _mark_sequences(self) except -1:
        """What is being sent may call nextval(): from now on the backend remembers that of this session.

        Where sessions are known to ask for it later, they keep the backend, and find nothing of others in it.
        """
        cdef Backend backend = self.backend
        if backend.sequences_of != self.pid and self.group.statements.asks_sequences and not backend.batch_open:
            if backend.sequences_of and not self.pins & PIN_SESSION_MODE:
                backend.inject_query(b"DISCARD SEQUENCES", 0)
            self.pins |= PIN_SEQUENCES
        backend.sequences_of = self.pid
        return 0

    cdef int _ask_sequences(self) except -1:
        """currval() or lastval() is being sent: another session's value must never be the answer.

        Without its own, PostgreSQL says 55000, as it does to a session that has not used a sequence.
        """
        cdef Backend backend = self.backend
        self.group.statements.asks_sequences = True
        if backend.sequences_of != self.pid and not backend.batch_open:
            if backend.sequences_of:
                backend.inject_query(b"DISCARD SEQUENCES", 0)
            backend.sequences_of = self.pid
        return 0

    cdef int _forget_visit(self) except -1:
        """Nothing that was sent can have had an effect."""
        self.visiting = self.granted = self.opened = False
        self.pins &= PIN_SESSION_MODE | PIN_PREPARE
        self.unpins = 0
        self.unsettled = self.dirty = self.unsure = self.opaque = self.committing = self.multiple = False
        self.pure = True
        return 0

    cdef int _tell_block(self, bint judged) except -1:
        """Tell PostgreSQL of the transaction that it does not know of yet.

        `judged`: what follows may be judged by whether a query has run before.
        """
        cdef bytes text
        for text in self.block.texts():
            self.backend.inject_query(text, 0)
        self.backend.doomed = self.block.failed
        if judged and self.block.has_read:
            # The shortest query that there is.
            self.backend.inject_query(b"SELECT", 0)
        return 0

    # What the backend says of the session.

    cdef int on_command(self, Backend backend, const char* tag, size_t size) except -1:
        """Notice by its tag what the text alone may not have told."""
        if size == 3 and memcmp(tag, b"SET", 3) == 0:
            # A lone SET has been judged by its text: SET LOCAL leaves nothing behind.
            if self.multiple:
                self.dirty = self.opaque = True
        elif size == 11 and memcmp(tag, b"DISCARD ALL", 11) == 0:
            self.dirty = self.reset = self.unsure = True
            if backend.replies.owed() == 1:
                # Nothing that was sent behind it has brought anything back.
                backend.tainted = backend.tainted or self.pins & PIN_UNCLEAN
                self.pins &= PIN_SESSION_MODE | PIN_PREPARE
            self.pins &= ~PIN_BACKEND_PID
            backend.forget_statements()
            backend.unnamed = None
            if self.prepared is not None:
                self.prepared.forget_all(backend)
        elif size == 14 and memcmp(tag, b"DEALLOCATE ALL", 14) == 0:
            backend.forget_statements()
            if self.prepared is not None:
                self.prepared.forget_all(backend)
        elif size == 5 and memcmp(tag, b"RESET", 5) == 0:
            self.dirty = self.reset = True
        elif self.unsettled and size >= 6 and memcmp(tag, b"COMMIT", 6) == 0:
            # More may follow in the same Query, but from here on others may know.
            self.relay.freshness.committed()
        elif self._changes_shapes(tag, size):
            self.group.statements.renew()
            # Others may prepare on the old ones until this is committed.
            self.shapes = 2
        elif size == 8 and memcmp(tag, b"ROLLBACK", 8) == 0:
            if self.shapes:
                # Types, tables and functions that statements were prepared with have never been.
                self.group.statements.renew()
            # Neither has the role been left.
            self.batch_failed = self.batch_failed or self.left_role is not None
        if self.unsettled and memchr(b"CADIS", <uint8_t> tag[0], 5) != NULL:
            self._note_change(backend, tag, size)
        return 0

    cdef int _note_change(self, Backend backend, const char* tag, size_t size) except -1:
        """Remember what may have changed the database's catalogue until others can see it."""
        cdef bytes words = PyBytes_FromStringAndSize(tag, size)
        cdef bint selects = words.startswith(b"SELECT ")
        cdef Plan plan
        if not (self.creating if selects else words.startswith(CHANGES)):
            return 0
        # What has this tag, if nothing else is under way.
        plan = self.plan if backend.replies.owes_one() and not self.multiple else None
        if selects:
            if plan is not None and not plan.creates:
                return 0
            words = b"CREATE TABLE AS"
        self.shapes = max(self.shapes, 1)
        if plan is not None and (plan.plain_table or plan.pins & PIN_TEMPORARY) and words.startswith(b"CREATE"):
            return 0
        if self.changes is None:
            self.changes = []
        if words not in self.changes:
            self.changes.append(words)
        return 0

    cdef int _tell_changes(self) except -1:
        cdef list changes = self.changes
        cdef bytes tag
        self.changes = None
        if self.relay.on_changed is not None:
            for tag in changes:
                self.relay.on_changed(self.group.database, tag)
        return 0

    cdef int _end_shapes(self, bint undone) except -1:
        """A transaction with DDL is over: what was prepared in it, or beside it, serves nobody else.

        A statement keeps the types of its parameters. PostgreSQL's own sessions may live with that, since nobody but
        they themselves uses what they have prepared.
        """
        if undone or self.shapes > 1:
            self.group.statements.renew()
        self.shapes = 0
        return 0

    cdef bint _changes_shapes(self, const char* tag, size_t size) noexcept:
        """Tell a command after which the same text may have another result: a new Parse must get to PostgreSQL."""
        return (
            (size > 6 and memcmp(tag, b"ALTER ", 6) == 0)
            or (size > 5 and memcmp(tag, b"DROP ", 5) == 0)
            or (size == 11 and memcmp(tag, b"CREATE VIEW", 11) == 0)
            or (size == 15 and memcmp(tag, b"CREATE FUNCTION", 15) == 0)
        )

    cdef int on_parameter(self, Backend backend) except -1:
        self.dirty = True
        self.told = backend.reported
        return 0

    cdef int on_reported(self, Backend backend) except -1:
        # While the backend is made to fit, it says what it has taken from whoever had it before.
        return 0 if self.state == SETTLING or self.state == RESTORING else self._tell_reported()

    cdef int _tell_reported(self) except -1:
        """Let the application know what the backend has reported to somebody else, or to nobody."""
        cdef bytes news
        if self.backend.reported is not self.told:
            news = self.backend.reported.news_for(self.told)
            self.told = self.backend.reported
            self.collect(PyBytes_AS_STRING(news), PyBytes_GET_SIZE(news))
        return 0

    cdef int on_parsed(self, Backend backend, Statement statement) except -1:
        return statement.accept(self.group, self.parameters)

    cdef int on_described(self, Backend backend, Effect effect, bytes types, bytes columns) except -1:
        cdef Statement statement = <Statement> effect.described
        if self.prepared is None or statement.confirm(types, columns, effect.moment):
            return 0
        # Something else has its text now: a table has changed, and that was not seen here. Who uses it next on this
        # backend has to prepare it again.
        if statement in backend.statements:
            backend.statements[statement] = 0
        self.group.statements.retire(statement)
        if self.prepared.is_newer(statement):
            return self.prepared.replace(statement, types, columns, effect.moment)
        return self._on_reshaped(backend, statement)

    cdef int _on_reshaped(self, Backend backend, Statement statement) except -1:
        """What the session has prepared is something else on this backend."""
        raise NotImplementedError

    cdef int _end_check(self) except -1:
        """What the next unit uses is on the backend, or cannot be."""
        raise NotImplementedError

    cdef int on_undo(self, Backend backend, Effect effect, bint failed) except -1:
        if self.prepared is not None:
            self.prepared.undo(backend, effect, failed)
        return 0

    # Parameters.

    cdef bint _settle(self) except -1:
        """Give a backend this session's parameters; return whether it has them already."""
        if self.backend.parameters is self.parameters:
            if self.backend.reported is not self.told:
                self._tell_reported()
            return 1
        self.state = SETTLING
        self.backend.inject_query(self.backend.parameters.sync_sql(self.parameters), CAPTURE | SETTLE)
        return 0

    cdef int _ask(self) except -1:
        """Let PostgreSQL say what pins the session now, and what parameters it has."""
        cdef bytes asked = HELD_QUERY
        if self.dirty:
            asked = (SETTINGS_QUERY if self.customs is None else settings_query(self.customs)) + b" UNION ALL " + asked
        if self.asked_again:
            asked = UNHURRIED + asked
        self.asked_parameters = self.dirty
        self.dirty = self.unsure = False
        self.state = ASKING
        return self.backend.inject_query(asked, CAPTURE | SETTLE)

    cdef int _asked(self, Backend backend, bytes error, list rows) except -1:
        cdef object found
        self.state = READY
        if error is not None and backend.status == b"I" and not self.pool.replica:
            # A cancel meant for the statement before, or the session's own limit.
            self.dirty = self.asked_parameters
            self.unsure = True
            if not self.asked_again:
                self.asked_again = True
                return self._ask()
            # Until it is known, the session keeps its backend.
            self.asked_again = False
            return self._resume()
        held = None if error is not None else pins_held(rows or [], self.group.user.encode("utf-8", "surrogateescape"))
        if held is None or backend.status != b"I":
            return backend.lose(ProtocolViolation("the server did not tell the session's parameters"))
        if self.asked_again:
            # What was told first is what is in force.
            rows = rows[1:] + rows[:1]
            self.asked_again = False
        self._adopt_pins(held)
        if not self.asked_parameters:
            if not self.pins:
                self._release()
            return self._resume()
        before = self.parameters
        found = self.relay.parameter_sets.of_rows(without_pins(rows))
        backend.parameters = found
        self.parameters = self.relay.parameter_sets.overlay(self.startup, found, after_reset=self.reset)
        self.reset = False
        if self.left_role is not None and self.batch_failed and b"role" not in found.items:
            # It has not left it after all.
            self.parameters = self.relay.parameter_sets.of({**self.parameters.items, b"role": self.left_role})
        self.left_role = None
        self._adopt_parameters()
        wish = self.parameters.items.get(b"pgamb.role", b"").decode("utf-8", "replace")
        if wish_of_role(wish) is None and before.items.get(b"pgamb.role") != self.parameters.items[b"pgamb.role"]:
            # set_config() takes any value, and was not looked into.
            news = notice_response(InvalidParameterValue(f'"{wish}" is no role', hint=ROLES_HINT))
            self.collect(PyBytes_AS_STRING(news), PyBytes_GET_SIZE(news))
        if self.parameters is not found:
            # After a RESET: what the session asked for at its start is put back, and the application told so.
            self.state = RESTORING
            return backend.inject_query(found.sync_sql(self.parameters), CAPTURE | SETTLE)
        if not self.pins:
            self._release()
        return self._resume()

    cdef int _adopt_pins(self, object held) except -1:
        """Be pinned by what PostgreSQL has found, and what it cannot be asked for."""
        cdef int asked = PIN_ASKED if self.group.user.isascii() else PIN_ASKED & ~PIN_SESSION_AUTHORIZATION
        cdef int pins = self.pins & ~asked
        for name in held:
            pins |= int(Pin[name.upper()])
        self.pins = pins
        return 0

    cdef int _adopt_parameters(self) except -1:
        """Know at once what routing has to know of the session's parameters."""
        self.ambiguous = self.parameters.ambiguous
        self.serializable = self.parameters.serializable
        self.snapshot = self.parameters.snapshot
        cdef dict items = self.parameters.items
        # Quotes may hide statements, and what is created may be temporary though nothing says so.
        self.watchful = self.ambiguous or b"pg_temp" in items.get(b"search_path", b"")
        limits = self.first_limits.with_parameters(items)
        if limits != self.limits:
            self.limits = limits
            self.limited = bool(limits)
            self.heard_at = now_s()
            if self.relay.on_limited is not None and self.relay.frontends.get(self.pid) is self:
                self.relay.on_limited(self)
        self.role = 0
        self.min_lsn = 0
        if b"pgamb.role" in items:
            self.role = int(wish_of_role((<bytes> items[b"pgamb.role"]).decode("utf-8", "replace")) or 0)
        if items.get(b"pgamb.min_lsn"):
            self._heed((<bytes> items[b"pgamb.min_lsn"]).decode("utf-8", "replace"))
        return 0

    cdef int _heed(self, str floor) except -1:
        """The session must not read older than this, which it has from another process."""
        cdef Freshness freshness = self.relay.freshness
        try:
            lsn, timeline = parse_floor(floor)
        except ValueError:
            return 0
        if timeline and timeline != freshness.timeline:
            # What of it there is on the primary's timeline, the primary has.
            self.seen = freshness.moment()
            return 0
        self.min_lsn = <unsigned long long> lsn
        return 0

    cdef int on_settled(self, Backend backend, bytes error, list rows) except -1:
        if self.state == ASKING:
            return self._asked(backend, error, rows)
        if self.state == RESTORING:
            self.state = READY
            if error is None:
                backend.parameters = self.parameters
            else:
                # The next unit tries again, on another backend.
                backend.tainted = True
            self._tell_reported()
            self.flush()
            if not self.pins:
                self._release()
            return self._resume()
        if self.state == PREPARING:
            self.state = READY
            self.refusing = self.batch_failed
            if not self.pins:
                self._release()
            return self._resume()
        if self.state == TURNING:
            self.state = READY
            return self._resume() if self.pending is not None else self._rested(backend)
        if self.state == CHECKING:
            return self._end_check()
        self.state = READY
        if error is not None:
            self._unsettled(backend, error)
        else:
            backend.parameters = self.parameters
            self._tell_reported()
        return self._resume()

    cdef int _unsettled(self, Backend backend, bytes error) except -1:
        """The session's parameters could not be set, none of them: the unit must not run without."""
        cdef object failure = PostgresError(parse_error_fields(error))
        cdef Plan plan = self.plan
        if failure.sqlstate == "57014" and self.pins & ~PIN_SESSION_MODE == 0:
            # The statement_timeout of whoever had the backend before: a new one has none.
            backend.tainted = True
            return self._release()
        if b"role" in self.parameters.items and plan is not None and (
            plan.intent.reason == "DISCARD ALL" or (plan.need & NEED_SET and plan.intent.name == "role")
        ) and (self.pending.head()[0] == b"Q" or self.prepared.binds == 1):
            # The role may be gone, and this is how the session leaves it.
            self.left_role = self.parameters.items[b"role"]
            self.batch_failed = False
            self.parameters = self.relay.parameter_sets.of(
                {name: value for name, value in self.parameters.items.items() if name != b"role"}
            )
            self.dirty = True
            if self._settle():
                self.state = READY
            return 0
        if self.pins & ~PIN_SESSION_MODE == 0:
            self._release()
        return self._refuse(failure)

    # Prepared statements.

    cdef int _hear(self) except -1:
        """Be ready to know of prepared statements."""
        if self.prepared is None:
            self.prepared = Named(self.group.statements, self.relay.prepared_limit, self.group.user)
        self.prepared.parameters = self.parameters
        return 0

    cdef bint _turn_native(self, bint hides) except -1:
        """See to it that the backend has the session's statements under its own names; if not yet, return 0.

        `hides`: the unit at hand may prepare something, and is not looked into.
        """
        cdef Backend backend = self.backend
        if backend.skipping or backend.status == b"E" or (self.opening and self.block.failed):
            # There is no need: PostgreSQL looks at no name in a failed transaction.
            return 1
        if self.prepared.native:
            if hides:
                self.prepared.hide()
            return 1
        if backend.batch_open or not backend.replies.will_end():
            # There is no way to before the batch has ended. What it prepares must not be lost until then.
            if hides:
                self.prepared.hide()
                self.prepared.late = True
                self.pins |= PIN_PREPARE
            return 1
        if backend.replies.count:
            self.state = STALLED
            return 0
        self.state = TURNING
        self.pins |= PIN_PREPARE
        self.prepared.turn_native(backend)
        return 0

    cdef int _end_native(self) except -1:
        """Everything has been answered: let go of the backend if it has no statement of the session's."""
        if self.prepared.is_settled():
            self.prepared.end_native()
            self.pins &= ~PIN_PREPARE
        return 0

    cdef int _release(self) except -1:
        cdef Backend backend = self.backend
        self.backend = None
        self.granted = False
        if self.limited or backend.idle_limit_s:
            backend.idle_limit_s = self.limits.idle_session_timeout / 1000
            self.pool.idle_default_s = self.first_limits.idle_session_timeout / 1000
            self.pool.mortal = self.pool.mortal or backend.idle_limit_s or self.pool.idle_default_s
        if self.opaque:
            # PostgreSQL lists no custom parameters: what a function may have set must not be the next session's.
            self.opaque = False
            return self.pool.forget_parameters(backend)
        return self.pool.release(backend)

    cdef int _die(self, object error) except -1:
        """Say why, and close the connection."""
        self.tell(error_response(error, "FATAL"))
        return self.leave()
