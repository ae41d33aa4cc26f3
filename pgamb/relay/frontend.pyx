# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A connection to an application.

Responsibility: find the units of work in what the application sends (a Query, a batch up to Sync or Flush), get a
backend for each, forward it, and let go of the backend when PostgreSQL says that nothing holds it any more.

Invariants:
* while `state` is not READY nothing is forwarded: what arrives stays in `pending`, and reading stops;
* a unit is forwarded only when the backend's parameters are the session's;
* a backend is released only when it owes nothing, its status is `I`, nothing pins it, and `parameters` is what
  PostgreSQL says is in force; in any other case it is cleaned or closed.

A unit is routed when it begins and nothing is attached. What follows while replies are owed stays on the attached
backend, unless that is a replica and the new unit is not a proven read: then it waits (STALLED) for its turn.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from pgamb.relay.backend cimport Backend, Owner
from pgamb.relay.buffer cimport Buffer
from pgamb.relay.clock cimport now_s
from pgamb.relay.framing cimport read_u32
from pgamb.relay.pool cimport Group, Pool
from pgamb.relay.prepared cimport COMPLETE, FOREIGN, INCOMPLETE, Prepared, Scan
from pgamb.relay.reactor cimport SCRATCH_BYTES, STAGING_BYTES, Reactor
from pgamb.relay.replies cimport CAPTURE, COPY_END, QUERY, REPORT, SETTLE, SWALLOW, SYNC, Effect, Reply
from pgamb.relay.statement cimport Plan, Statement
from pgamb.relay.stream cimport BROKEN, READABLE, WOULD_BLOCK, WRITABLE

from pgamb.errors import (
    AdminShutdown, InFailedTransaction, PostgresError, ProtocolViolation, SerializationFailure,
    TransactionResolutionUnknown,
)
from pgamb.routing.intent import Need, Pin
from pgamb.session.parameters import SETTINGS_QUERY, settings_query
from pgamb.wire.messages import command_complete, error_response, parse_error_fields, ready_for_query

cdef int NEED_READ = int(Need.READ)
cdef int NEED_NEUTRAL = int(Need.NEUTRAL)
cdef int NEED_BEGIN = int(Need.BEGIN)
cdef int NEED_READ_ONLY = int(Need.READ_ONLY)
cdef int NEED_END = int(Need.END)
cdef int NEED_SEQUENCE = int(Need.SEQUENCE)
cdef int NEED_COMMITS = int(Need.COMMITS)
cdef int NEED_SET = int(Need.SET)
cdef int NEED_SETTINGS = int(Need.SETTINGS)
cdef int NEED_MULTIPLE = int(Need.MULTIPLE)
cdef int NEED_DEALLOCATE = int(Need.DEALLOCATE)
cdef int NEED_DEALLOCATE_ALL = int(Need.DEALLOCATE_ALL)
cdef int NEED_EMPTY = int(Need.EMPTY)
# The server goes down: what it cuts off is told by what was under way.
SHUTDOWN_STATES = ("57P01", "57P02", "57P03")
# What DISCARD ALL does not take back.
cdef int PIN_UNCLEAN = int(Pin.LOAD | Pin.OTHER)
cdef int PIN_FAST_PATH = int(Pin.OTHER)
# Pin bits of our own, above those of a statement.
cdef int PIN_SESSION_MODE = 1 << 30
cdef int PIN_SEQUENCES = 1 << 29
cdef int PIN_PARAMETER = int(Pin.PARAMETER)


cdef extern from "<sys/socket.h>" nogil:
    enum:
        SHUT_WR
        MSG_PEEK
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    int shutdown(int fd, int how)


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


cdef class Relay:
    """What all frontends of a process share."""

    def __init__(self, parameter_sets, *, bint session_mode, int prepared_limit, on_frontend_closed):
        self.parameter_sets = parameter_sets
        self.session_mode = session_mode
        self.prepared_limit = prepared_limit
        self.on_frontend_closed = on_frontend_closed
        self.frontends = {}


cdef class Frontend(Owner):
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
        self.ambiguous = parameters.ambiguous
        self.serializable = parameters.serializable
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
            return "active" if self.backend is not None else "idle"
        return {
            WAITING: "waiting", SETTLING: "settling", ASKING: "asking", STALLED: "stalled", RESTORING: "restoring",
            CLOSED: "closed",
        }[self.state]

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
        cdef bint whole = total <= size
        if not whole and total <= QUERY_BYTES:
            return 0
        if self.refusing:
            return self._drop(size, total)
        # A text without its zero is for PostgreSQL to refuse.
        if whole and total > 5 and data[total - 1] == 0:
            plan = self.group.statements.plans.of_text(data + 5, total - 6)
            need = self._trusted(plan.need)
        if self.failed and self.backend is None:
            return self._query_failed(need, size, total)
        if not self._attach(need):
            return 0
        if self.backend.skipping:
            return self._drop(size, total)
        if plan is not None:
            self._note(need, plan.pins, plan.unpins, plan.customs)
        else:
            self._note(need, 0, 0, None)
        if need & NEED_DEALLOCATE and self.prepared is not None:
            name = plan.intent.name.encode("utf-8", "surrogateescape")
            if name in self.prepared.names:
                self.prepared.prepare_deallocate(self.backend, name)
                effect = self.prepared.deallocated(name)
        if self.prepared is not None:
            # A simple query drops the unnamed statement.
            self.prepared.unnamed = None
        self.backend.unnamed = None
        self.backend.batch_open = False
        self.backend.replies.push(QUERY, 0, effect)
        if need & NEED_DEALLOCATE_ALL:
            # What a backend has is known again when it has answered.
            self.state = STALLED
        return self._forward(data, size, total)

    cdef size_t _function_call(self, const char* data, size_t size, size_t total) except? 0:
        """FunctionCall, the fast path: nobody knows what the function does."""
        if self.refusing:
            return self._drop(size, total)
        if self.failed and self.backend is None:
            return self._query_failed(0, size, total)
        if not self._attach(0):
            return 0
        if self.backend.skipping:
            return self._drop(size, total)
        # It may be set_config() or pg_advisory_lock(): whatever it leaves behind, nobody else gets this backend.
        self._note(0, PIN_FAST_PATH, 0, None)
        self.backend.batch_open = False
        self.backend.replies.push(QUERY, 0, None)
        return self._forward(data, size, total)

    cdef size_t _forward(self, const char* data, size_t size, size_t total) except? 0:
        """Send a message as it is; what has not arrived follows by itself."""
        if total > size:
            self.pass_left = total - size
            self.pass_drop = False
            total = size
        self.backend.write(data, total)
        return total

    cdef size_t _drop(self, size_t size, size_t total) except? 0:
        if total > size:
            self.pass_left = total - size
            self.pass_drop = True
            return size
        return total

    cdef size_t _copy_data(self, const char* data, size_t size) except? 0:
        """CopyData, CopyDone, CopyFail: for whom they were meant, or for nobody."""
        cdef size_t position = 0, total
        cdef uint8_t kind
        cdef bint wanted = (
            self.backend is not None and (self.backend.replies.count or self.backend.copying_in)
            and not self.backend.skipping
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
        cdef size_t total, end
        cdef int need
        cdef bint large_bind = False
        if self.prepared is None:
            self.prepared = Prepared(self.group.statements, self.relay.prepared_limit)
        prepared = self.prepared
        if self.refusing:
            return self._skip_to_sync(data, size)
        prepared.parameters = self.parameters
        scan = prepared.scan(data, size)
        end = prepared.end
        need = self._trusted(prepared.need)
        if scan == INCOMPLETE:
            if size - end >= 5 and data[end] == b"B" and <size_t> read_u32(data + end + 1) > BATCH_BYTES:
                # Wait for its names only.
                large_bind = size - end > SCRATCH_BYTES or _two_strings(data + end + 5, size - end - 5)
            if not large_bind and (end == 0 or size < BATCH_BYTES):
                return 0
            need &= ~(NEED_READ | NEED_NEUTRAL)
        elif scan == FOREIGN and end == 0:
            return 0
        if not prepared.synced and self.backend is None:
            # The batch goes on after its Flush, nobody knows how; and it must stay where it begins.
            need &= ~(NEED_READ | NEED_NEUTRAL)
        elif not prepared.synced and need & NEED_READ:
            # Not in the wake of a read on a replica, either.
            need = (need & ~NEED_READ) | NEED_NEUTRAL
        if self.backend is None and end == 5 and data[0] == b"H":
            # Nothing is open that a Flush could hurry.
            return end
        if prepared.bare and self.backend is None:
            # Nothing is open that a Sync could end.
            self.tell(self._ready_message())
            return end
        if self.failed and self.backend is None:
            return self._batch_failed(data, end)
        if self.backend is None and scan == COMPLETE and prepared.prepare_alone(data, end, self.group, self.parameters):
            # Nobody waits for a backend to prepare what is known to be right.
            self.tell(prepared.completions + self._ready_message())
            return end
        if not self._attach(need):
            return 0
        self._note(need, prepared.pins, prepared.unpins, prepared.customs)
        if end:
            prepared.send(self.backend, data, end)
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

    cdef int _trusted(self, int need):
        """Return what of `need` can be believed of this session's SQL: it may be a write, or several statements."""
        if self.ambiguous:
            return need & ~(NEED_READ | NEED_NEUTRAL) | NEED_MULTIPLE
        return need

    # Routing.

    cdef bint _attach(self, int need) except -1:
        """See to it that a backend is attached on which the next unit can run; if not, return 0, with `state` set."""
        cdef Pool pool
        cdef Backend backend = self.backend
        if backend is not None:
            if backend.replies.count and not backend.batch_open and self.pool.replica and not need & NEED_READ:
                self.state = STALLED
                return 0
            return 1
        pool = self._route(need)
        if pool is None:
            self._wait()
            self.group.hold(self)
            return 0
        self.pool = pool
        if need & NEED_SEQUENCE:
            backend = pool.acquire_again(self, self.pid)
        if backend is None:
            backend = pool.acquire(self, self.parameters)
        if backend is None:
            self._wait()
            pool.enqueue(self)
            return 0
        self.backend = backend
        return self._settle()

    cdef Pool _route(self, int need):
        """Return where a unit goes: a replica only with a proven read (or READ ONLY transaction) of a session that
        has not written, None if it has to wait for a primary.
        """
        cdef Pool pool
        if not self.wrote and not self.pins and not self.serializable and (
            need & NEED_READ or need & (NEED_BEGIN | NEED_READ_ONLY) == NEED_BEGIN | NEED_READ_ONLY
        ):
            pool = self.group.choose_replica()
            if pool is not None:
                self.relay.to_replica += 1
                return pool
        self.relay.to_primary += 1
        return self.group.primary

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
        self.pins |= pins
        self.unpins |= unpins
        if not need & NEED_READ:
            if need & NEED_SEQUENCE:
                self._ask_sequences()
            if not need & NEED_NEUTRAL:
                self._mark_sequences()
                self.pure = False
                # What is refused in a READ ONLY transaction on a replica has written nothing.
                self.wrote = self.wrote or not self.pool.replica
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

    cdef int checkout_failed(self, object error) except -1:
        self.state = READY
        self.pool = None
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
        elif self._changes_shapes(tag, size):
            self.group.statements.renew()
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
        if backend.replies.count:
            return 0
        self.committing = self.multiple = False
        self.pure = True
        if self.state == STALLED:
            self.state = READY
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
        self.ambiguous = self.parameters.ambiguous
        self.serializable = self.parameters.serializable
        if self.parameters is not found:
            # After a RESET: what the session asked for at its start is put back, and the application told so.
            self.state = RESTORING
            return backend.inject_query(found.sync_sql(self.parameters), CAPTURE | SETTLE | REPORT)
        if not self.pins:
            self._release()
        return self._resume()

    cdef int _release(self) except -1:
        cdef Backend backend = self.backend
        self.backend = None
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
        cdef bint in_transaction = backend.status != b"I"
        cdef bint unfinished = backend.replies.count > 0 or backend.skipping or backend.batch_open
        # Nothing that would end the transaction has been sent, if no Sync was, nor the end of a COPY FROM.
        cdef bint uncommitted = not self.committing and not self.multiple and (
            backend.replies.owed() == 0 or (backend.copying_in and not backend.replies.copy_ended())
        )
        cdef uint8_t state = self.state
        cdef object cause = f"{self.pool.name} was lost: {error}"
        self.backend = None
        if state == STALLED or state == ASKING or state == SETTLING or state == RESTORING:
            self.state = READY
        if state == SETTLING:
            # Nothing of this unit has been sent: it goes elsewhere.
            return self._resume()
        if state == RESTORING and not self.pins:
            return self._resume()
        if self.pass_left:
            self.pass_drop = True
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
        self.failed = in_transaction
        self.committing = False
        self.pure = True
        self._tell_lost(backend, error_response(failure))
        return self._resume()

    cdef int _tell_lost(self, Backend backend, bytes message) except -1:
        """Answer with an error each unit that was sent; one whose Sync was not is skipped to that Sync."""
        cdef Reply* slot
        cdef uint32_t i
        cdef bint told = backend.skipping
        if not told:
            self.tell(message)
            told = True
        for i in range(backend.replies.count):
            slot = &backend.replies.ring[(backend.replies.first + i) & (backend.replies.capacity - 1)]
            if slot.flags & SWALLOW or slot.kind == COPY_END:
                continue
            if not told and slot.kind != SYNC:
                self.tell(message)
                told = True
            if slot.kind == QUERY or slot.kind == SYNC:
                self.tell(self._ready_message())
                told = False
        self.refusing = told
        return 0

    # What pgamb answers itself.

    cdef int tell(self, bytes message) except -1:
        return self.write(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))

    cdef bytes _ready_message(self):
        return ready_for_query(b"E" if self.failed else b"I")

    cdef int _refuse(self, object error) except -1:
        """Answer the unit that is pending with an error."""
        cdef const char* data
        cdef size_t size, total
        self.tell(error_response(error))
        if self.pending is None:
            return 0
        data = self.pending.head()
        size = self.pending.size()
        if data[0] == b"Q" or data[0] == b"F":
            total = <size_t> read_u32(data + 1) + 1
            self.pending.consume(self._drop(size, total))
            if self.pending.size() == 0:
                self.pending = None
            return self.tell(self._ready_message())
        self.refusing = True
        return 0

    cdef size_t _skip_to_sync(self, const char* data, size_t size) except? 0:
        """Drop one message of a batch that was refused."""
        cdef size_t total = <size_t> read_u32(data + 1) + 1
        if data[0] == b"S":
            self.refusing = False
            self.tell(self._ready_message())
        return self._drop(size, total)

    cdef object _failure(self):
        """Return why a statement cannot run in a transaction that was lost; the reason itself is told once."""
        cdef object lost = self.lost
        self.lost = None
        return lost if lost is not None else InFailedTransaction(
            "current transaction is aborted, commands ignored until end of transaction block"
        )

    cdef size_t _query_failed(self, int need, size_t size, size_t total) except? 0:
        """Answer a Query in a transaction whose backend was lost, as PostgreSQL does in a failed one."""
        if need & NEED_END and not (need & NEED_COMMITS and self.lost is not None):
            self.lost = None
            self.failed = False
            self.tell(command_complete("ROLLBACK"))
        elif need & NEED_EMPTY:
            self.tell(b"I\0\0\0\4")
        else:
            self.tell(error_response(self._failure()))
            # A COMMIT that fails has ended its transaction.
            self.failed = not need & NEED_END
        self.tell(self._ready_message())
        return self._drop(size, total)

    cdef size_t _batch_failed(self, const char* data, size_t end) except? 0:
        """The same for a batch of the extended protocol."""
        cdef size_t position = 0
        cdef Py_ssize_t index = 0
        cdef Statement statement, bound = None
        cdef uint8_t kind
        while position < end:
            kind = <uint8_t> data[position]
            if kind == b"S":
                self.tell(self._ready_message())
            elif kind == b"C":
                self.tell(b"3\0\0\0\4")
            elif kind != b"H":
                if kind != b"E":
                    statement = <Statement> self.prepared.found[index]
                    index += 1
                    if kind == b"B":
                        bound = statement
                else:
                    statement = bound
                if statement is None or not statement.plan.need & NEED_END or (
                    statement.plan.need & NEED_COMMITS and self.lost is not None
                ):
                    self.tell(error_response(self._failure()))
                    self.refusing = True
                    return position + self._skip_to_sync(data + position, end - position)
                if kind == b"E":
                    self.failed = False
                    self.lost = None
                    self.tell(command_complete("ROLLBACK"))
                else:
                    self.tell({80: b"1\0\0\0\4", 66: b"2\0\0\0\4", 68: b"n\0\0\0\4"}[kind])
            position += <size_t> read_u32(data + position + 1) + 1
        return end

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
        self.state = CLOSED
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
        if self.state != WAITING:
            return
        self._unqueue()
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
