# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A connection to an application.

Responsibility: find the units of work in what the application sends (a Query, a batch up to Sync or Flush), get a
backend for each, forward it, and let go of the backend when PostgreSQL says that nothing holds it any more.

While the session has a `block`, its transaction is not real: proven reads run by themselves, what controls the
transaction is answered here (`speaker`), and anything else opens it (`_open`).

Invariants:
* while `state` is not READY nothing is forwarded: what arrives stays in `pending`, and reading stops;
* a unit is forwarded only when the backend's parameters are the session's;
* a read may be asked again elsewhere (`_repeat`) as long as nothing of its answer has been forwarded; nothing else may;
* a backend is released only when it owes nothing, its status is `I`, nothing pins it, and `parameters` is what
  PostgreSQL says is in force; in any other case it is cleaned or closed.

A unit is routed when it begins and nothing is attached. What follows while replies are owed stays on the attached
backend, unless that is a replica and the new unit is not a proven read: then it waits (STALLED) for its turn.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from pgamb.relay.backend cimport Backend
from pgamb.relay.buffer cimport Buffer
from pgamb.relay.clock cimport now_s
from pgamb.relay.framing cimport read_u32
from pgamb.relay.freshness cimport Freshness, Position
from pgamb.relay.pool cimport Group, Pool
from pgamb.relay.prepared cimport COMPLETE, FOREIGN, INCOMPLETE, Prepared, Scan
from pgamb.relay.reactor cimport SCRATCH_BYTES, STAGING_BYTES, Reactor
from pgamb.relay.replies cimport CAPTURE, COPY_END, QUERY, REPORT, SETTLE, SWALLOW, SYNC, Effect
from pgamb.relay.routes cimport (
    A_QUESTION, A_READ, A_WRITE, ANSWERED, ASKED_FOR_PRIMARY, ASKED_FOR_REPLICA, ATTACHED, ISOLATION, LOST_THERE,
    NO_REPLICA, NOT_NEW_ENOUGH, PINNED, PREPARES, REASONS, REFUSED_THERE, TRANSACTION, UNREADABLE,
)
from pgamb.relay.speaker cimport Speaker
from pgamb.relay.statement cimport Plan, Statement
from pgamb.relay.stream cimport BROKEN, READABLE, WOULD_BLOCK, WRITABLE

from pgamb.errors import (
    AdminShutdown, PostgresError, ProtocolViolation, SerializationFailure, TransactionResolutionUnknown,
)
from pgamb.relay.routes import words_of
from pgamb.routing.control import Control, Isolation
from pgamb.routing.freshness import format_floor, parse_floor
from pgamb.routing.hints import Wish, wish_of_role
from pgamb.routing.intent import Need, Pin
from pgamb.session.parameters import SETTINGS_QUERY, Expression, set_config_query, settings_query
from pgamb.wire.messages import error_response, parse_error_fields, query

cdef int NEED_READ = int(Need.READ)
cdef int NEED_NEUTRAL = int(Need.NEUTRAL)
cdef int NEED_BEGIN = int(Need.BEGIN)
cdef int NEED_READ_ONLY = int(Need.READ_ONLY)
cdef int NEED_SEQUENCE = int(Need.SEQUENCE)
cdef int NEED_COMMITS = int(Need.COMMITS)
cdef int NEED_SET = int(Need.SET)
cdef int NEED_SETTINGS = int(Need.SETTINGS)
cdef int NEED_MULTIPLE = int(Need.MULTIPLE)
cdef int NEED_DEALLOCATE = int(Need.DEALLOCATE)
cdef int NEED_DEALLOCATE_ALL = int(Need.DEALLOCATE_ALL)
cdef int NEED_CONTROL = int(Need.CONTROL)
cdef int NEED_COPY_IN = int(Need.COPY_IN)
cdef int NEED_SHOW = int(Need.SHOW)
cdef int NEED_TIME = int(Need.TRANSACTION_TIME)
# What no wish makes a read: it is no query, or the session's state hangs on it.
cdef int NEVER_A_READ = int(
    Need.CONTROL | Need.SET | Need.SHOW | Need.COPY_IN | Need.MULTIPLE | Need.DEALLOCATE | Need.DEALLOCATE_ALL
    | Need.EXECUTE | Need.EMPTY | Need.SEQUENCE
)
cdef int CONTROL_BEGIN = int(Control.BEGIN)
cdef int ROLLBACK_TO = int(Control.ROLLBACK_TO)
# What ends a failed transaction. (A ROLLBACK TO that is not answered here names no savepoint that there is.)
cdef unsigned char[5] ENDINGS = [
    int(Control.COMMIT), int(Control.COMMIT_CHAIN), int(Control.ROLLBACK), int(Control.ROLLBACK_CHAIN),
    int(Control.PREPARE_TRANSACTION),
]
cdef int LEVEL_DEFAULT = int(Isolation.DEFAULT)
cdef int LEVEL_REPEATABLE_READ = int(Isolation.REPEATABLE_READ)
cdef int WISH_PRIMARY = int(Wish.PRIMARY)
cdef int WISH_REPLICA = int(Wish.REPLICA)
# A standby refuses with these what it cannot do, whatever the words (which are translated): a read that the primary,
# too, answers so has lost nothing by being asked again.
cdef tuple REFUSALS = (b"25006", b"0A000", b"55000", b"XX000")
# Replay has cancelled it, which says nothing about the statement.
cdef tuple CONFLICTS = (b"40001", b"40P01")
# The server goes down: what it cuts off is told by what was under way.
# Replay may end a session, too, if cancelling its statement is not enough.
SHUTDOWN_STATES = ("57P01", "57P02", "57P03", "40001", "40P01")
# What DISCARD ALL does not take back.
cdef int PIN_UNCLEAN = int(Pin.LOAD | Pin.OTHER)
cdef int PIN_FAST_PATH = int(Pin.OTHER)
# Pin bits of our own, above those of a statement.
cdef int PIN_SESSION_MODE = 1 << 30
cdef int PIN_SEQUENCES = 1 << 29
cdef int PIN_PARAMETER = int(Pin.PARAMETER)
cdef int PIN_TEMPORARY = int(Pin.TEMPORARY)
# The beginnings of command tags after which a database's catalogue may be another one (routing.ddl knows which).
cdef tuple CHANGES = (b"CREATE ", b"ALTER ", b"DROP ", b"IMPORT ", b"DO", b"CALL")


cdef extern from "<sys/socket.h>" nogil:
    enum:
        SHUT_WR
        MSG_PEEK
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    int shutdown(int fd, int how)


# The position of the server that is asked, nothing on a replica.
cdef object HERE = Expression(
    b"CASE WHEN pg_catalog.pg_is_in_recovery() THEN '' ELSE pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text END"
)
cdef unsigned long long UNKNOWN_LSN = 0xffff_ffff_ffff_ffff
# A session looks for another replica when its own has so much more outstanding work than that one, and so seldom.
cdef double MUCH = 3
cdef double MOVE_S = 1.0

cdef enum:
    # A Query up to this size is looked at whole; a longer one is taken for a write.
    QUERY_BYTES = 1 << 20
    # A batch is gathered up to this size; a longer one goes to the primary as it comes.
    BATCH_BYTES = 1 << 18
    # PostgreSQL's limits: PQ_LARGE_MESSAGE_LIMIT and PQ_SMALL_MESSAGE_LIMIT.
    LARGE_BYTES = 0x3ffffffe
    SMALL_BYTES = 10000
    # A session that sets more custom parameters than this keeps its backend, rather than ask for them all.
    CUSTOMS = 256
    # A longer read is not kept, and so not repeated.
    KEEP_BYTES = 1 << 16
    # How often a read is asked again after its member was lost: it may be the read that kills them.
    REPEATS = 2


cdef class Relay:
    """What all frontends of a process share.

    `on_repeated(frontend, plan)` hears of reads that are asked again; `plan` is that of one that a replica has refused.
    """

    def __init__(
        self, parameter_sets, Freshness freshness, *, bint session_mode, int prepared_limit, on_frontend_closed,
        bint lazy=True, on_repeated=None, on_changed=None,
    ):
        self.parameter_sets = parameter_sets
        self.freshness = freshness
        self.session_mode = session_mode
        self.prepared_limit = prepared_limit
        self.on_frontend_closed = on_frontend_closed
        self.on_repeated = on_repeated
        self.on_changed = on_changed
        self.lazy = lazy and not session_mode
        self.frontends = {}

    @property
    def routes(self):
        """Return how many units went where they went for each reason, in the order of `routes.NAMES`."""
        return [self.counts[reason] for reason in range(REASONS)]

    cdef int tell_repeated(self, Frontend frontend, Plan plan) except -1:
        if self.on_repeated is not None:
            self.on_repeated(frontend, plan)
        return 0

    cdef bytes own_parameters(self, Frontend frontend):
        """Return the query that gives a backend pgamb's own parameters."""
        cdef Freshness freshness = self.freshness
        cdef object floor = ""
        if frontend.asked_floor and freshness.known(frontend.asked_floor):
            floor = format_floor(freshness.floor_of(frontend.asked_floor), freshness.timeline)
        frontend.asked_floor = 0
        return set_config_query({
            b"pgamb.last_route": frontend.last_route.encode("utf-8", "replace"),
            # Where nobody asks for positions, for want of a replica, the primary is asked here.
            b"pgamb.lsn": floor.encode() if floor else HERE,
            b"pgamb.status": self.status(frontend).encode("utf-8", "replace"),
        }, defaults={b"pgamb.role": b"auto", b"pgamb.min_lsn": b""})

    def status(self, Frontend frontend):
        """Return in one line how things stand for a session: its members, how far they are, and what holds it."""
        cdef Pool pool
        cdef list parts = []
        primary = frontend.group.primary
        parts.append(f"primary {primary.name}" if primary is not None else "no primary: writes are held")
        if self.freshness.timeline:
            parts.append(f"timeline {self.freshness.timeline}")
        for pool in frontend.group.replicas:
            if pool.position is None:
                parts.append(f"replica {pool.name}")
            elif pool.position.usable:
                parts.append(f"replica {pool.name} {pool.position.lag_bytes} bytes behind")
            else:
                parts.append(f"replica {pool.name} is left out: {pool.position.why_not}")
        parts.append(f"pinned by {', '.join(frontend.pin_names)}" if frontend.pins else "not pinned")
        return "; ".join(parts)


cdef class Frontend(Speaker):
    """A logged-in application; `fd` is a connected non-blocking socket whose descriptor now belongs to this object.

    `rest` is what the application had sent behind its log-in.
    """

    def __init__(
        self, Reactor reactor, int fd, Relay relay, Group group, *, int pid, bytes secret, parameters, startup,
        bytes rest=b"", tls=None, tls_in=None, tls_out=None,
    ):
        self.relay = relay
        self.group = group
        self.pid = pid
        self.secret = secret
        self.parameters = parameters
        self.startup = startup
        self._adopt_parameters()
        self.customs = frozenset([name for name in startup.items if b"." in name]) or None
        self.pins = PIN_SESSION_MODE if relay.session_mode else 0
        self.pure = True
        relay.frontends[pid] = self
        self.begin(reactor, fd, tls, tls_in, tls_out)
        if rest:
            self._input(PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest))
        if self.pending_plaintext():
            self.on_ready(READABLE)

    def __repr__(self):
        return (
            f"<Frontend pid={self.pid} fd={self.fd} state={self.state_name} pins={self.pin_names} "
            f"backend={self.backend!r}>"
        )

    @property
    def state_name(self):
        if self.state == READY:
            if self.backend is not None:
                return "active"
            return "idle" if self.block is None else "virtual"
        return {
            WAITING: "waiting", PARKED: "waiting", SETTLING: "settling", ASKING: "asking", STALLED: "stalled",
            RESTORING: "restoring", PREPARING: "active", CLOSED: "closed",
        }[self.state]

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
        return names

    # Input.

    cdef int on_ready(self, uint32_t events) except -1:
        cdef char* scratch = self.reactor.scratch
        cdef ssize_t count
        if events & WRITABLE:
            self.on_writable()
            if not self.backlogged() and self.backend is not None:
                self.backend.set_reading(True)
        if not events & (READABLE | BROKEN):
            return 0
        if (self.state != READY or not self.reading) and not events & BROKEN:
            if recv(self.fd, scratch, 1, MSG_PEEK) == 0:
                # Nobody waits for what it is waiting for.
                return self.leave()
            # Not now: what has come is enough to be going on with.
            return self.set_reading(False)
        while self.fd >= 0:
            count = self.receive(scratch, SCRATCH_BYTES)
            if count == WOULD_BLOCK:
                return 0
            if count <= 0:
                return self.leave()
            self._input(scratch, count)
            if not self.pending_plaintext() or self.state != READY or not self.reading:
                return 0
        return 0

    cdef int _input(self, const char* data, size_t size) except -1:
        cdef size_t done
        if self.pending is not None:
            self.pending.append(data, size)
            return self._resume()
        if self.state == READY:
            done = self._process(data, size)
            if self.fd < 0:
                return 0
            data += done
            size -= done
        if size:
            self.pending = Buffer()
            self.pending.append(data, size)
        return 0

    cdef int _resume(self) except -1:
        """Go on with what is pending."""
        cdef size_t done
        if self.state != READY or self.fd < 0:
            return 0
        if self.pending is not None:
            done = self._process(self.pending.head(), self.pending.size())
            if self.fd < 0:
                return 0
            self.pending.consume(done)
            if self.pending.size() == 0:
                self.pending = None
        if self.state == READY and (self.backend is None or not self.backend.backlogged()):
            self.set_reading(True)
        return 0

    cdef size_t _process(self, const char* data, size_t size) except? 0:
        """Deal with what the application sent; return how much of it is done with."""
        cdef size_t position = 0, total, take
        cdef uint32_t length
        cdef uint8_t kind
        cdef bint passed = False
        while self.state == READY:
            if self.pass_left:
                take = min(self.pass_left, size - position)
                if not self.pass_drop:
                    if self.backend is None:
                        self.pass_drop = True
                        continue
                    self.backend.write(data + position, take)
                position += take
                self.pass_left -= take
                if self.pass_left:
                    break
                passed = True
                continue
            if size - position < 5:
                break
            kind = <uint8_t> data[position]
            length = read_u32(data + position + 1)
            if length < 4 or length > LARGE_BYTES:
                self._die(ProtocolViolation(f"invalid message length {length} in a message of type {chr(kind)!r}"))
                break
            total = <size_t> length + 1
            if kind == b"Q":
                take = self._query(data + position, size - position, total)
            elif memchr(b"PBDECHS", kind, 7) != NULL:
                if length > SMALL_BYTES and kind != b"P" and kind != b"B":
                    self._die(ProtocolViolation(f"invalid message length {length} in a message of type {chr(kind)!r}"))
                    break
                take = self._extended(data + position, size - position)
            elif kind == b"d" or kind == b"c" or kind == b"f":
                take = self._copy_data(data + position, size - position)
            elif kind == b"X":
                self._terminate()
                break
            elif kind == b"F":
                take = self._function_call(data + position, size - position, total)
            else:
                self._die(ProtocolViolation(f"invalid frontend message type {kind}"))
                break
            if take == 0:
                break
            position += take
        if self.backend is not None and self.backend.backlogged():
            self.set_reading(False)
        if passed and self.backend is not None and self.pass_left == 0 and self.state == READY and not (
            self.backend.replies.count or self.backend.batch_open or self.pins or self.dirty
        ) and self.backend.status == b"I":
            # The last piece of a message that came after the answer to its statement.
            self._release()
        return position

    cdef size_t _query(self, const char* data, size_t size, size_t total) except? 0:
        """A simple Query."""
        cdef Plan plan = None
        cdef Effect effect = None
        cdef bytes name
        cdef int need = 0
        cdef size_t take
        cdef bint whole = total <= size
        if not whole and total <= QUERY_BYTES:
            return 0
        if self.refusing:
            return self._drop(size, total)
        # A text without its zero is for PostgreSQL to refuse.
        if whole and total > 5 and data[total - 1] == 0:
            plan = self.group.statements.plans.of_text(data + 5, total - 6)
            if self.healing == REFUSED_THERE:
                self._learn(plan)
            need = self._trusted(plan.need, plan)
        if self.failed and self.backend is None:
            return self._query_failed(need, size, total)
        if self.block is not None or (plan is not None and plan.control == CONTROL_BEGIN and self.backend is None):
            if self._is_busy():
                return 0
            take = self._answer_query(plan, need, data, size, total)
            if take:
                self._note_answer(plan)
                return take
        if plan is not None and plan.shows and not self._knows_floor():
            return 0
        self.opening = self.block is not None and not (plan is not None and self._alone(need))
        if not self._attach(need, plan):
            return 0
        if self.backend.skipping:
            return self._drop(size, total)
        if self.block is not None:
            self._enter(
                need, plan is not None and not need & NEED_MULTIPLE and self._stays_failed(plan),
                plan is None or plan.snapshots or need & NEED_MULTIPLE,
            )
        if plan is not None and plan.shows:
            self._lend()
        if plan is not None:
            self._note(need, plan.pins, plan.unpins, plan.customs)
        else:
            self._note(need, 0, 0, None)
        if need & NEED_DEALLOCATE and self.prepared is not None:
            name = plan.intent.name.encode("utf-8", "surrogateescape")
            if name in self.prepared.names:
                self.prepared.prepare_deallocate(self.backend, name)
                effect = self.prepared.deallocated(name)
        if whole and self._may_keep(need, total):
            self.backend.keep(data, total, None if self.prepared is None else self.prepared.unnamed)
        if self.prepared is not None:
            # A simple query drops the unnamed statement.
            self.prepared.unnamed = None
        self.backend.unnamed = None
        self.backend.batch_open = False
        self.backend.replies.push(QUERY, 0, effect)
        self.backend.end_unit()
        if need & NEED_DEALLOCATE_ALL and not need & NEED_COPY_IN:
            # What a backend has is known again when it has answered.
            self.state = STALLED
        if plan is not None and plan.substitute is not None:
            return self._send_instead(plan.substitute, total)
        return self._forward(data, size, total)

    cdef size_t _send_instead(self, bytes sql, size_t total) except 0:
        """Send another text than that of the Query whose length was `total`."""
        cdef bytes message = query(sql)
        self.backend.write(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
        return total

    cdef size_t _function_call(self, const char* data, size_t size, size_t total) except? 0:
        """FunctionCall, the fast path: nobody knows what the function does."""
        cdef size_t take
        if self.refusing:
            return self._drop(size, total)
        if self.failed and self.backend is None:
            return self._query_failed(0, size, total)
        if self.block is not None:
            if self._is_busy():
                return 0
            take = self._answer_query(None, 0, data, size, total)
            if take:
                return take
        self.opening = self.block is not None
        if not self._attach(0, None):
            return 0
        if self.backend.skipping:
            return self._drop(size, total)
        if self.block is not None:
            self._enter(0, True, True)
        # It may be set_config() or pg_advisory_lock(): whatever it leaves behind, nobody else gets this backend.
        self._note(0, PIN_FAST_PATH, 0, None)
        self.backend.batch_open = False
        self.backend.replies.push(QUERY, 0, None)
        self.backend.end_unit()
        return self._forward(data, size, total)

    cdef size_t _forward(self, const char* data, size_t size, size_t total) except? 0:
        """Send a message as it is; what has not arrived follows by itself."""
        if total > size:
            self.pass_left = total - size
            self.pass_drop = False
            total = size
        self.backend.write(data, total)
        return total

    cdef size_t _copy_data(self, const char* data, size_t size) except? 0:
        """CopyData, CopyDone, CopyFail: for whom they were meant, or for nobody."""
        cdef size_t position = 0, total
        cdef uint8_t kind
        cdef bint wanted = (
            self.backend is not None and (self.backend.replies.count or self.backend.copying_in)
            and not self.backend.skipping
            # Reads alone take no data, and PostgreSQL would ignore it.
            and (self.backend.unkept or self.backend.kept.size() == 0)
        )
        while size - position >= 5:
            kind = <uint8_t> data[position]
            if kind != b"d" and kind != b"c" and kind != b"f":
                break
            total = <size_t> read_u32(data + position + 1) + 1
            if total < 5 or total > LARGE_BYTES:
                break
            if kind != b"d":
                if total > size - position:
                    if total > SMALL_BYTES:
                        self._die(ProtocolViolation(f"invalid message length {total - 1} in a CopyFail"))
                        return 0
                    break
                if wanted:
                    self.backend.replies.push(COPY_END, 0, None)
            if total > size - position:
                self.pass_left = total - (size - position)
                self.pass_drop = not wanted
                position = size
                break
            position += total
        if wanted and position:
            self.backend.write(data, position)
        return position

    cdef size_t _extended(self, const char* data, size_t size) except? 0:
        """A batch of the extended protocol, or as much of it as there is."""
        cdef Scan scan
        cdef Prepared prepared
        cdef size_t total, end, take
        cdef int need
        cdef bint large_bind = False, preparing, flushed, lasting
        if self.prepared is None:
            self.prepared = Prepared(self.group.statements, self.relay.prepared_limit)
        prepared = self.prepared
        if self.refusing:
            return self._skip_to_sync(data, size)
        prepared.parameters = self.parameters
        scan = prepared.scan(data, size)
        end = prepared.end
        if self.healing == REFUSED_THERE:
            self._learn(None)
        need = self._trusted(prepared.need, prepared.plan if prepared.binds == 1 else None)
        if scan == INCOMPLETE:
            if size - end >= 5 and data[end] == b"B" and <size_t> read_u32(data + end + 1) > BATCH_BYTES:
                # Wait for its names only.
                large_bind = size - end > SCRATCH_BYTES or _two_strings(data + end + 5, size - end - 5)
            if not large_bind and (end == 0 or size < BATCH_BYTES):
                return 0
            need &= ~(NEED_READ | NEED_NEUTRAL)
        elif scan == FOREIGN and end == 0:
            return 0
        if self.block is not None and self._is_busy():
            return 0
        if scan == COMPLETE and self.backend is None and not self.failed:
            take = self._peel(data, end)
            if take:
                self._note_answer(prepared.plan)
                return take
        lasting = self.block is None or not self.block.failed
        preparing = scan == COMPLETE and prepared.binds == 0 and prepared.executes == 0
        flushed = (
            lasting and preparing and prepared.closed and not prepared.synced and end > 5
            and need & NEED_READ and not self.pins
            and (self.backend is None or self.granted)
        )
        if not prepared.synced and not flushed and (self.backend is None or self.granted):
            # The batch goes on after its Flush, nobody knows how; and it must stay where it begins.
            need &= ~(NEED_READ | NEED_NEUTRAL)
        elif not prepared.synced and not flushed and need & NEED_READ:
            # Not in the wake of a read on a replica, either.
            need = (need & ~NEED_READ) | NEED_NEUTRAL
        if self.backend is None and end == 5 and data[0] == b"H":
            # Nothing is open that a Flush could hurry, but an answer of ours.
            self.flush()
            return end
        if prepared.bare and self.backend is None:
            # Nothing is open that a Sync could end.
            self.tell(self._ready_message())
            return end
        if self.backend is None and self.failed:
            return self._batch_failed(data, end)
        if lasting and self.backend is None and scan == COMPLETE and (
            prepared.prepare_alone(data, end, self.group, self.parameters)
        ):
            # Nobody waits for a backend to prepare what is known to be right.
            self.tell(prepared.completions + self._ready_message())
            return end
        if prepared.shows and not self._knows_floor():
            return 0
        self.opening = self.block is not None and not (
            (lasting and preparing and (prepared.synced or flushed))
            or (prepared.synced and prepared.plain and self._alone(need))
        )
        if not self._attach(need, prepared.plan):
            return 0
        if self.block is not None:
            self._enter(
                need, prepared.synced and (
                    prepared.binds == 0 or not need & NEED_CONTROL
                    # A ROLLBACK TO that something else stands before has not been looked at.
                    or (prepared.binds == 1 and prepared.plan is not None and self._stays_failed(prepared.plan)
                        and prepared.plan.control != ROLLBACK_TO)
                ), prepared.snapshots,
            )
        if prepared.shows:
            self._lend()
        self._note(need, prepared.pins, prepared.unpins, prepared.customs)
        if (flushed or prepared.synced) and not self.backend.skipping and self._may_keep(need, end):
            self.backend.keep(data, end, prepared.unnamed)
        if flushed:
            return self._prepare(data, end)
        if end:
            prepared.send(self.backend, data, end)
        if prepared.synced:
            self.backend.end_unit()
        else:
            self.backend.unkept = True
        if large_bind:
            total = prepared.send_bind_head(self.backend, data + end, size - end)
            self.pass_left = total - (size - end)
            self.pass_drop = self.backend.skipping
            end = size
        elif scan == COMPLETE and not prepared.synced:
            # Flush: what pgamb answers itself must not wait for PostgreSQL.
            self.flush()
        elif scan == COMPLETE and need & NEED_DEALLOCATE_ALL:
            self.state = STALLED
        return end

    cdef size_t _prepare(self, const char* data, size_t end) except 0:
        """Send a batch that only prepares reads, and ends with a Flush, as if a Sync of ours ended it.

        What follows may then run anywhere: drivers prepare so before they know where they want to run it.
        """
        cdef Backend backend = self.backend
        self.batch_failed = False
        backend.corked = True
        self.prepared.send(backend, data, end - 5)
        backend.corked = False
        backend.batch_open = False
        backend.replies.push(SYNC, SWALLOW | SETTLE, None)
        backend.end_unit()
        backend.write(b"S\0\0\0\4", 5)
        self.state = PREPARING
        return end

    cdef int _trusted(self, int need, Plan plan):
        """Return what of `need` can be believed of this session's SQL: it may be a write, or several statements."""
        if self.ambiguous:
            self.wished = False
            return need & ~(NEED_READ | NEED_NEUTRAL) | NEED_MULTIPLE
        # The application says that it is a read; a replica says no, if it is not. On the primary it is what it was.
        self.wished = plan is not None and plan.wish == WISH_REPLICA and self.block is None and not (
            need & (NEED_READ | NEVER_A_READ) or plan.refused or plan.pins
        )
        return need

    # Transactions that are not real.

    cdef bint may_begin(self) noexcept:
        return self.relay.lazy and self.backend is None and not (self.pins or self.ambiguous or self.dirty)

    cdef bint _is_busy(self) except -1:
        """Tell whether what was sent before must be answered first; then that is waited for."""
        if self.backend is not None and (self.backend.replies.count or self.pass_left):
            self.state = STALLED
            return 1
        return 0

    cdef bint _alone(self, int need) noexcept:
        """Tell whether a read can run by itself, while the transaction that it is in stays virtual."""
        return need & NEED_READ and not need & NEED_TIME and not self.block.failed and not self._has_snapshot()

    cdef bint _has_snapshot(self) noexcept:
        """Tell whether all of the virtual transaction sees one snapshot: then its first statement makes it real."""
        cdef int isolation = self.block.isolation
        return isolation >= LEVEL_REPEATABLE_READ or (isolation == LEVEL_DEFAULT and self.snapshot)

    cdef int _enter(self, int need, bint single, bint snapshot) except -1:
        """A unit of a virtual transaction is about to be sent.

        `single`: nothing in it can come behind the transaction's end; `snapshot`: PostgreSQL takes one for it.
        """
        cdef bytes text
        if not self.opening:
            self.shown = b"T"
            self.block.has_read = self.block.has_read or snapshot
            return 0
        for text in self.block.texts():
            self.backend.inject_query(text, 0)
        self.backend.doomed = self.block.failed
        if self.block.has_read and need & NEED_NEUTRAL:
            # PostgreSQL judges some statements by whether a query has run before; this is the shortest one.
            self.backend.inject_query(b"SELECT", 0)
        if self.block.failed and single:
            # It changes nothing: the backend is free again when PostgreSQL has spoken.
            self.visiting = True
            return 0
        self.block = None
        self.opened = True
        return 0

    cdef bint _stays_failed(self, Plan plan) noexcept:
        """Tell whether a failed transaction stays what it is, whatever PostgreSQL says to this statement."""
        # What could end it or bring it back to life has been answered, unless it was not understood.
        return not plan.need & NEED_CONTROL or (
            plan.control != 0 and memchr(ENDINGS, plan.control, sizeof(ENDINGS)) == NULL
        )

    cdef int _end_visit(self) except -1:
        """PostgreSQL has spoken in a failed transaction that is not real: leave no trace of it."""
        cdef Backend backend = self.backend
        self._forget_visit()
        self.backend = None
        self.pool.clean(backend, False)
        return self._resume()

    cdef int _forget_visit(self) except -1:
        """Nothing that was sent can have had an effect."""
        self.visiting = self.granted = self.opened = False
        self.pins &= PIN_SESSION_MODE
        self.unpins = 0
        self.unsettled = self.dirty = self.opaque = self.committing = self.multiple = False
        self.pure = True
        return 0

    cdef int _note_answer(self, Plan plan) except -1:
        self.plan = plan
        self.routed = None
        self.reason = ANSWERED
        self.relay.counts[ANSWERED] += 1
        return 0

    # Reads that are asked again.

    cdef bint _may_keep(self, int need, size_t size) noexcept:
        """Tell whether a unit is a read that can be repeated."""
        return (
            (need & NEED_READ or (self.wished and self.pool.replica)) and size <= KEEP_BYTES
            and self.backend.status == b"I" and not self.opened
            and not self.backend.batch_open and not self.pins
        )

    cdef int _learn(self, Plan plan) except -1:
        """A replica has refused what is being sent: none will be asked for it again."""
        cdef Statement statement
        if plan is not None:
            if not plan.refused:
                plan.refuse()
                self.relay.tell_repeated(self, plan)
            return 0
        for statement in self.prepared.found:
            if statement is not None and statement.plan.need & NEED_READ:
                self._learn(statement.plan)
        self.prepared.need &= ~(NEED_READ | NEED_NEUTRAL)
        return 0

    cdef bint on_refused(self, Backend backend, bytes state) except -1:
        cdef Pool pool = self.pool
        cdef bint conflict = state in CONFLICTS
        if not pool.replica or backend.unkept or self.pass_left or not (conflict or state in REFUSALS):
            return 0
        self._take_back(backend)
        pool.recall(backend)
        if conflict:
            self.relay.conflicts += 1
        else:
            self.relay.refusals += 1
        self.relay.tell_repeated(self, None)
        self._repeat(LOST_THERE if conflict else REFUSED_THERE)
        return 1

    cdef int _take_back(self, Backend backend) except -1:
        """What is kept goes to the front of what is pending, as if it had not been sent."""
        cdef Effect effect
        cdef Buffer again = Buffer()
        cdef bytes units
        cdef object unnamed = backend.kept_unnamed[0] if backend.kept_unnamed else None
        for effect in reversed(backend.replies.effects_left()):
            if effect.name is not None:
                self.on_undo(backend, effect, False)
        if self.prepared is not None:
            # As it was before the oldest of them.
            self.prepared.unnamed = <Statement> unnamed
        units = backend.take_kept()
        again.append(PyBytes_AS_STRING(units), PyBytes_GET_SIZE(units))
        if self.pending is not None:
            again.append(self.pending.head(), self.pending.size())
        self.pending = again
        self.backend = None
        return 0

    cdef int _repeat(self, int reason) except -1:
        """Ask again what was taken back."""
        self.healing = reason
        self.committing = self.multiple = self.granted = False
        self.pure = True
        self.unpins = 0
        if self.state == STALLED or self.state == PREPARING:
            self.state = READY
        return self._resume()

    # Routing.

    cdef bint _attach(self, int need, Plan plan) except -1:
        """See to it that a backend is attached on which the next unit can run; if not, return 0, with `state` set."""
        cdef Pool pool
        cdef Backend backend = self.backend
        if backend is not None:
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

    cdef bint _reads_snapshot(self) noexcept:
        """Tell whether the transaction about to be opened is REPEATABLE READ: a standby cannot be SERIALIZABLE."""
        cdef int isolation = self.block.isolation
        return isolation == LEVEL_REPEATABLE_READ or (
            isolation == LEVEL_DEFAULT and self.snapshot and not self.serializable
        )

    cdef Pool _choose(self):
        """Return the replica that the next read goes to; None: the primary, or (state PARKED) it is not known yet.

        It is new enough if it has replayed what was committed before (`freshness.required`, or the session's own
        commits), and what the session has seen of any member.
        """
        cdef Freshness freshness = self.relay.freshness
        cdef Position position
        cdef Pool pool, best = None, least = None
        cdef unsigned long long moment = self.seen, floor = 0, bound = 0
        cdef Py_ssize_t i, count = len(self.group.replicas)
        if not freshness.tracks:
            return self.group.choose_replica()
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
        return 0

    cdef int _note_route(self, Plan plan, Pool pool, int reason) except -1:
        if plan is None or not plan.shows:
            self.plan = plan
            self.routed = pool
            self.reason = reason
        self.relay.counts[reason] += 1
        if pool.replica:
            self.relay.to_replica += 1
        else:
            self.relay.to_primary += 1
        return 0

    cdef int _lend(self) except -1:
        """Give the backend the parameters that only pgamb knows, for the SHOW that follows."""
        if self.backend.status == b"E" or self.backend.batch_open:
            return 0
        return self.backend.inject_query(self.relay.own_parameters(self), 0)

    cdef int _wait(self) except -1:
        self.state = WAITING
        self.waiting_since = now_s()
        return 0

    cdef bint _settle(self) except -1:
        """Give a backend this session's parameters; return whether it has them already."""
        if self.backend.parameters is self.parameters:
            return 1
        self.state = SETTLING
        self.backend.inject_query(self.backend.parameters.sync_sql(self.parameters), CAPTURE | SETTLE)
        return 0

    cdef int _note(self, int need, int pins, int unpins, frozenset customs) except -1:
        """Remember what follows from a unit that is being sent."""
        self.units += 1
        self.granted = False
        self.healing = 0
        self.asked_floor = 0
        if self.parked:
            self._unpark()
        if self.block is None:
            self.shown = 0
        self.pins |= pins
        self.unpins |= unpins
        if not need & NEED_READ:
            if need & NEED_SEQUENCE:
                self._ask_sequences()
            if not need & NEED_NEUTRAL:
                self._mark_sequences()
                self.pure = False
                # A replica writes nothing, unless it has been promoted meanwhile.
                self.unsettled = self.unsettled or not self.pool.replica or not self.backend.in_recovery
            if need & (NEED_SET | NEED_SETTINGS):
                self.dirty = True
                self.opaque = self.opaque or need & NEED_SETTINGS != 0
            if need & NEED_COMMITS:
                self.committing = True
        if need & NEED_MULTIPLE:
            self.multiple = True
        if customs is not None:
            self.customs = customs if self.customs is None else self.customs | customs
            if len(self.customs) > CUSTOMS:
                self.pins |= PIN_PARAMETER
        return 0

    cdef int _mark_sequences(self) except -1:
        """What is being sent may call nextval(): from now on the backend remembers that of this session.

        Where sessions are known to ask for it later, they keep the backend, and find nothing of others in it.
        """
        cdef Backend backend = self.backend
        if backend.sequences_of != self.pid and self.group.asks_sequences and not backend.batch_open:
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
        self.group.asks_sequences = True
        if backend.sequences_of != self.pid and not backend.batch_open:
            if backend.sequences_of:
                backend.inject_query(b"DISCARD SEQUENCES", 0)
            backend.sequences_of = self.pid
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

    # What the backend says.

    cdef int on_command(self, Backend backend, const char* tag, size_t size) except -1:
        """Notice by its tag what the text alone may not have told."""
        if size == 3 and memcmp(tag, b"SET", 3) == 0:
            # A lone SET has been judged by its text: SET LOCAL leaves nothing behind.
            if self.multiple:
                self.dirty = self.opaque = True
        elif size == 11 and memcmp(tag, b"DISCARD ALL", 11) == 0:
            self.dirty = self.reset = True
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
        if self.unsettled and memchr(b"CADIS", <uint8_t> tag[0], 5) != NULL:
            self._note_change(backend, tag, size)
        return 0

    cdef int _note_change(self, Backend backend, const char* tag, size_t size) except -1:
        """Remember what may have changed the database's catalogue until others can see it."""
        cdef bytes words = PyBytes_FromStringAndSize(tag, size)
        # What has this tag, if nothing else is under way.
        cdef Plan plan = self.plan if backend.replies.owed() == 1 and not self.multiple else None
        if words.startswith(b"SELECT ") and (plan is None or plan.creates):
            words = b"CREATE TABLE AS"
        if not words.startswith(CHANGES) or (
            plan is not None and (plan.plain_table or plan.pins & PIN_TEMPORARY) and words.startswith(b"CREATE")
        ):
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

    cdef bint _changes_shapes(self, const char* tag, size_t size) noexcept:
        """Tell a command after which the same text may have another result: a new Parse must get to PostgreSQL."""
        return (
            (size > 6 and memcmp(tag, b"ALTER ", 6) == 0)
            or (size > 5 and memcmp(tag, b"DROP ", 5) == 0)
            or (size == 11 and memcmp(tag, b"CREATE VIEW", 11) == 0)
            or (size == 15 and memcmp(tag, b"CREATE FUNCTION", 15) == 0)
        )

    cdef bytes on_error(self, Backend backend, bytes payload):
        # What did not happen unpins nothing.
        self.unpins = 0
        if backend.kept.size() and self.pool.replica and self.plan is not None and backend.replies.owed() == 1 and (
            parse_error_fields(payload).get("C", "").encode() in REFUSALS
        ):
            # Too late for this time: rows have been forwarded.
            self._learn(self.plan)
        self.batch_failed = True
        if self.block is not None:
            self.block.failed = True
            self.shown = b"E"
        if backend.stale:
            backend.stale = False
            self.group.statements.renew()
        return payload if self.prepared is None else self.prepared.with_own_names(payload)

    cdef int on_parameter(self, Backend backend) except -1:
        self.dirty = True
        return 0

    cdef int on_parsed(self, Backend backend, Statement statement) except -1:
        return statement.accept(self.group, self.parameters)

    cdef int on_undo(self, Backend backend, Effect effect, bint failed) except -1:
        if self.prepared is not None:
            self.prepared.undo(backend, effect, failed)
        return 0

    cdef int on_ready_for_query(self, Backend backend) except -1:
        self.opened = False
        self.repeats = 0
        if backend.status == b"I":
            self._saw(backend)
        if backend.replies.count:
            return 0
        self.committing = self.multiple = False
        self.pure = True
        if self.state == STALLED:
            self.state = READY
        if self.visiting:
            return self._end_visit()
        if self.unpins:
            self.pins &= ~self.unpins | PIN_SESSION_MODE
            self.unpins = 0
        if backend.status == b"I":
            if self.dirty and self.pass_left == 0 and not self.pins & PIN_SESSION_MODE:
                return self._ask()
            if not self.pins and self.pass_left == 0:
                self._release()
        if self.pending is not None:
            self._resume()
        elif not self.reading:
            self._resume()
        return 0

    cdef int _ask(self) except -1:
        """Let PostgreSQL say what parameters the session has now."""
        self.dirty = False
        self.state = ASKING
        return self.backend.inject_query(
            SETTINGS_QUERY if self.customs is None else settings_query(self.customs), CAPTURE | SETTLE
        )

    cdef int _asked(self, Backend backend, bytes error, list rows) except -1:
        cdef object found
        self.state = READY
        if error is not None and backend.status == b"I" and not self.pool.replica:
            # A cancel or a timeout meant for the statement before. Until it is known, the session keeps its backend.
            self.dirty = True
            return self._resume()
        if error is not None or backend.status != b"I":
            return backend.lose(ProtocolViolation("the server did not tell the session's parameters"))
        found = self.relay.parameter_sets.of_rows(rows or [])
        backend.parameters = found
        self.parameters = self.relay.parameter_sets.overlay(self.startup, found, after_reset=self.reset)
        self.reset = False
        self._adopt_parameters()
        if self.parameters is not found:
            # After a RESET: what the session asked for at its start is put back, and the application told so.
            self.state = RESTORING
            return backend.inject_query(found.sync_sql(self.parameters), CAPTURE | SETTLE | REPORT)
        if not self.pins:
            self._release()
        return self._resume()

    cdef int _adopt_parameters(self) except -1:
        """Know at once what routing has to know of the session's parameters."""
        self.ambiguous = self.parameters.ambiguous
        self.serializable = self.parameters.serializable
        self.snapshot = self.parameters.snapshot
        cdef dict items = self.parameters.items
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

    cdef int _release(self) except -1:
        cdef Backend backend = self.backend
        self.backend = None
        self.granted = False
        if self.opaque:
            # PostgreSQL lists no custom parameters: what a function may have set must not be the next session's.
            self.opaque = False
            return self.pool.forget_parameters(backend)
        return self.pool.release(backend)

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
            if not self.pins:
                self._release()
            return self._resume()
        if self.state == PREPARING:
            self.state = READY
            self.refusing = self.batch_failed
            if not self.pins:
                self._release()
            return self._resume()
        self.state = READY
        if error is not None:
            # The unit must not run with other parameters than the session's.
            backend.tainted = True
            if self.pins & ~PIN_SESSION_MODE == 0:
                self._release()
            self._refuse(PostgresError(parse_error_fields(error)))
        else:
            backend.parameters = self.parameters
        return self._resume()

    cdef int backend_lost(self, Backend backend, object error) except -1:
        """Tell the application the truth about what was under way."""
        cdef bint in_transaction = backend.status != b"I" or self.opened
        cdef bint unfinished = backend.replies.count > 0 or backend.skipping or backend.batch_open
        # Nothing that would end the transaction has been sent, if no Sync was, nor the end of a COPY FROM.
        cdef bint uncommitted = not self.committing and not self.multiple and (
            backend.replies.owed() == 0 or (backend.copying_in and not backend.replies.copy_ended())
        )
        cdef uint8_t state = self.state
        cdef object cause = f"{self.pool.name} was lost: {error}"
        self.backend = None
        self.granted = self.opened = False
        if state == STALLED or state == ASKING or state == SETTLING or state == RESTORING or state == PREPARING:
            self.state = READY
        self.asked_floor = 0
        if state == SETTLING:
            # Nothing of this unit has been sent: it goes elsewhere.
            return self._resume()
        if state == RESTORING and not self.pins:
            return self._resume()
        if backend.judging and not (backend.unkept or self.pass_left) and self.repeats < REPEATS and not (
            isinstance(error, PostgresError) and error.sqlstate not in SHUTDOWN_STATES
        ):
            # Reads, and nothing of their answers has been forwarded.
            self.repeats += 1
            self.relay.losses += 1
            self._take_back(backend)
            self.relay.tell_repeated(self, None)
            return self._repeat(LOST_THERE)
        if self.pass_left:
            self.pass_drop = True
        if unfinished or in_transaction:
            # What it has shown already, later reads must not be older than; and it may have committed.
            self.unsettled = self.unsettled and not uncommitted
            self._saw(backend)
            self.unsettled = False
        if self.visiting and not (backend.pass_left and backend.pass_forward):
            self._forget_visit()
            self._tell_lost(backend, error_response(self._failure()))
            return self._resume()
        if isinstance(error, PostgresError) and error.sqlstate not in SHUTDOWN_STATES:
            # PostgreSQL ended this session for a reason of its own: a timeout, an administrator's word.
            return self._die(error)
        if backend.pass_left and backend.pass_forward:
            return self._die(AdminShutdown(f"the connection to {cause}, in the middle of a message"))
        # Without what it got from sequences a session goes on: PostgreSQL says 55000 if it asks.
        self.pins &= ~PIN_SEQUENCES
        if state == ASKING or self.pins & ~PIN_SESSION_MODE:
            return self._die(AdminShutdown(
                f"the connection to {cause}; the session's own state ({', '.join(self.pin_names) or 'parameters'}) "
                "is lost with it", hint="Connect again.",
            ))
        if not unfinished:
            if in_transaction:
                self.failed = True
                self.lost = _lost_transaction(cause)
            return self._resume()
        if not uncommitted and (self.committing or not (in_transaction or self.pure)):
            failure = TransactionResolutionUnknown(
                f"the connection to {cause}; it is not known whether the statement took effect",
                hint="Find out before you repeat it.",
            )
            in_transaction = False
        else:
            failure = _lost_transaction(cause)
        if self.block is not None:
            # It was a read of a transaction that is not real.
            self.block.failed = True
        self.failed = in_transaction
        self.committing = False
        self.pure = True
        self._tell_lost(backend, error_response(failure))
        return self._resume()

    # The end.

    cdef int _die(self, object error) except -1:
        """Say why, and close the connection."""
        self.tell(error_response(error, "FATAL"))
        return self.leave()

    cdef int _terminate(self) except -1:
        """The application says goodbye. As with PostgreSQL, what it has sent before that is still carried out."""
        cdef Backend backend = self.backend
        if backend is not None and backend.replies.count and not backend.copying_in and not backend.skipping:
            self.backend = None
            if self.pins & PIN_UNCLEAN:
                backend.tainted = True
            self.pool.clean(backend, True)
        return self.leave()

    cdef int leave(self) except -1:
        """The application is gone, or has to go. Its backend is cleaned, or closed if it is at work."""
        cdef Backend backend = self.backend
        if self.fd < 0:
            return 0
        self.flush()
        # Unread input would turn the close into a reset, and the peer would not read our last words.
        shutdown(self.fd, SHUT_WR)
        # Whoever let us go may still be reading what is in the scratch.
        self.receive(self.reactor.staging, STAGING_BYTES)
        self.close_fd()
        if self.state == WAITING:
            self._unqueue()
        if self.parked:
            self._unpark()
        self.state = CLOSED
        self.block = None
        self.pending = None
        self.relay.frontends.pop(self.pid, None)
        if backend is not None:
            self.backend = None
            if self.pins & PIN_UNCLEAN:
                backend.tainted = True
            if (self.pass_left and not self.pass_drop) or backend.skipping or backend.batch_open or (
                backend.replies.owed()
            ):
                self.pool.abandon(backend)
            elif backend.replies.count:
                # Only pgamb itself still waits for an answer.
                self.pool.clean(backend, True)
            elif backend.status == b"I" and not self.pins and not self.dirty and not self.opaque:
                self.pool.release(backend)
            else:
                self.pool.clean(backend, self.pins or self.dirty)
        self.relay.on_frontend_closed(self)
        return 0

    def close(self, error=None):
        """Close the connection; with `error` (a PgambError) the application is told first."""
        if self.fd < 0:
            return
        if error is not None:
            self.tell(error_response(error, "FATAL"))
        self.leave()

    def fail_waiting(self, error):
        """Give up waiting: the unit that waits is answered with `error`, or goes on waiting if it waits no more."""
        if self.state == WAITING:
            self._unqueue()
        elif self.state == PARKED:
            self._unpark()
        else:
            return
        self.checkout_failed(error)

    cdef int _unqueue(self) except -1:
        if self.waits_at is None:
            self.group.forget(self)
        else:
            (<Pool> self.waits_at).forget(self)
        return 0


def _lost_transaction(cause):
    return SerializationFailure(f"the connection to {cause}", hint="Repeat the transaction.")


cdef bint _two_strings(const char* data, size_t size) noexcept:
    """Tell whether two strings with their zeros are there."""
    cdef const char* end = data + size
    cdef const char* zero = <const char*> memchr(data, 0, size) if size else NULL
    return zero != NULL and zero + 1 < end and memchr(zero + 1, 0, end - zero - 1) != NULL
