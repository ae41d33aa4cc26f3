# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A connection to an application.

Responsibility: find the units of work in what the application sends (a Query, a batch up to Sync or Flush), get a
backend for each, forward it, and let go of the backend when PostgreSQL says that nothing holds it any more.

While the session has a `block`, its transaction is not real: proven reads run by themselves, what controls the
transaction is answered here (`speaker`), and anything else opens it (`_enter`).

Invariants:
* while `state` is not READY nothing is forwarded: what arrives stays in `pending`, and reading stops;
* a unit is forwarded only when the backend's parameters are the session's;
* a backend is released only when it owes nothing, its status is `I`, nothing pins it, and `parameters` is what
  PostgreSQL says is in force; in any other case it is cleaned or closed.

What a session is, where its units go, what becomes of one whose member is lost: session.pyx, router.pyx, healer.pyx.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr

from pgamb.relay.backend cimport MOST_KEPT_BYTES, Backend
from pgamb.relay.buffer cimport Buffer
from pgamb.relay.clock cimport now_s
from pgamb.relay.framing cimport read_u32
from pgamb.relay.identity cimport Identity
from pgamb.relay.large_objects cimport is_large_object
from pgamb.relay.numbers cimport (
    CONTROL_BEGIN, CONTROL_COMMIT, CONTROL_COMMIT_CHAIN, CONTROL_PREPARE_TRANSACTION, CONTROL_ROLLBACK,
    CONTROL_ROLLBACK_CHAIN, CONTROL_ROLLBACK_TO, NEED_CONTROL, NEED_COPY_IN, NEED_DEALLOCATE, NEED_DEALLOCATE_ALL,
    NEED_EMPTY, NEED_EXECUTE, NEED_MULTIPLE, NEED_NAMES, NEED_NEUTRAL, NEED_READ, NEED_SEQUENCE, NEED_SET,
    NEED_SETTINGS, NEED_SHOW, NEED_TRANSACTION_TIME, PIN_ASKED, PIN_OTHER, PIN_PREPARE, PIN_SESSION_MODE, PIN_UNCLEAN,
    WISH_REPLICA,
)
from pgamb.relay.named cimport Named, Spoken
from pgamb.relay.pool cimport Group, Pool
from pgamb.relay.prepared cimport COMPLETE, FOREIGN, INCOMPLETE, Scan
from pgamb.relay.reactor cimport SCRATCH_BYTES, STAGING_BYTES, Reactor
from pgamb.relay.replies cimport COPY_END, MOST_REPLIES, QUERY, SETTLE, SWALLOW, SYNC, Effect
from pgamb.relay.routes cimport ANSWERED, REFUSED_THERE
from pgamb.relay.session cimport (
    ASKING, CANCELING, CHECKING, CLOSED, NAMING, PARKED, PREPARING, READY, RESTORING, SETTLING, STALLED, TURNING,
    WAITING, Relay,
)
from pgamb.relay.statement cimport Plan
from pgamb.relay.stream cimport BROKEN, READABLE, WOULD_BLOCK, WRITABLE

from pgamb.errors import PostgresError, ProtocolViolation, QueryCanceled
from pgamb.routing.prepare import may_name, may_prepare
from pgamb.wire.messages import error_response, query

# What no wish makes a read: it is no query, or the session's state hangs on it.
cdef enum:
    NEVER_A_READ = (
        NEED_CONTROL | NEED_SET | NEED_SHOW | NEED_COPY_IN | NEED_MULTIPLE | NEED_DEALLOCATE | NEED_DEALLOCATE_ALL
        | NEED_EXECUTE | NEED_EMPTY | NEED_SEQUENCE
    )
# What ends a failed transaction. (A ROLLBACK TO that is not answered here names no savepoint that there is.)
cdef unsigned char[5] ENDINGS = [
    CONTROL_COMMIT, CONTROL_COMMIT_CHAIN, CONTROL_ROLLBACK, CONTROL_ROLLBACK_CHAIN,
    CONTROL_PREPARE_TRANSACTION,
]

cdef enum:
    # A Query up to this size is looked at whole; a longer one is taken for a write.
    QUERY_BYTES = 1 << 20
    # ... after a look at its beginning.
    HEAD_BYTES = 4096
    # What waits to be taken by the application before it is listened to again.
    MOST_UNSENT_BYTES = 1 << 18
    # A batch is gathered up to this size; a longer one goes to the primary as it comes.
    BATCH_BYTES = 1 << 18
    # PostgreSQL's limits: PQ_LARGE_MESSAGE_LIMIT and PQ_SMALL_MESSAGE_LIMIT.
    LARGE_BYTES = 0x3ffffffe
    SMALL_BYTES = 10000


cdef extern from "<sys/socket.h>" nogil:
    enum:
        SHUT_WR
        MSG_PEEK
    ssize_t recv(int fd, void* buffer, size_t size, int flags)
    int shutdown(int fd, int how)


cdef class Frontend(Identity):
    """A logged-in application; `fd` is a connected non-blocking socket whose descriptor now belongs to this object.

    `rest` is what the application had sent behind its log-in.
    """

    def __init__(
        self, Reactor reactor, int fd, Relay relay, Group group, *, int pid, bytes secret, parameters, startup,
        told, limits, bytes rest=b"", tls=None, tls_in=None, tls_out=None,
    ):
        self.relay = relay
        self.group = group
        self.pid = pid
        self.secret = secret
        self.parameters = parameters
        self.startup = startup
        self.told = told
        self.first_limits = limits
        self._adopt_parameters()
        self.customs = frozenset([name for name in startup.items if b"." in name]) or None
        self.pins = PIN_SESSION_MODE if relay.session_mode else 0
        self.pure = True
        relay.frontends[pid] = self
        self.begin(reactor, fd, tls, tls_in, tls_out)
        if self.limited and relay.on_limited is not None:
            relay.on_limited(self)
        if rest:
            self._input(PyBytes_AS_STRING(rest), PyBytes_GET_SIZE(rest))
        if self.pending_plaintext():
            self.on_ready(READABLE)

    def __repr__(self):
        return (
            f"<Frontend pid={self.pid} fd={self.fd} state={self.state_name} pins={self.pin_names} "
            f"backend={self.backend!r}>"
        )

    # Input.

    cdef int on_ready(self, uint32_t events) except -1:
        cdef char* scratch = self.reactor.scratch
        cdef ssize_t count
        if events & WRITABLE:
            self.on_writable()
            if not self.backlogged():
                if self.backend is not None:
                    self.backend.set_reading(True)
                if self.choked:
                    self._resume()
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
        if self.limited:
            self.heard_at = now_s()
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
        if self.state == READY and not self.choked and (self.backend is None or not self.backend.backlogged()):
            self.set_reading(True)
        if self.cancels is not None:
            self._heed_cancels()
        return 0

    cdef size_t _process(self, const char* data, size_t size) except? 0:
        """Deal with what the application sent; return how much of it is done with."""
        cdef size_t position = 0, total, take
        cdef uint32_t length
        cdef uint8_t kind
        cdef bint passed = False
        self.choked = False
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
                if self._is_answered():
                    self._die(
                        ProtocolViolation(f"invalid message length {length} in a message of type {chr(kind)!r}")
                    )
                break
            total = <size_t> length + 1
            if memchr(b"dcf", kind, 3) == NULL and self._chokes():
                break
            if kind == b"Q":
                take = self._query(data + position, size - position, total)
            elif memchr(b"PBDECHS", kind, 7) != NULL:
                if length > SMALL_BYTES and kind != b"P" and kind != b"B":
                    if self._is_answered():
                        self._die(
                            ProtocolViolation(f"invalid message length {length} in a message of type {chr(kind)!r}")
                        )
                    break
                take = self._extended(data + position, size - position)
            elif kind == b"d" or kind == b"c" or kind == b"f":
                take = self._copy_data(data + position, size - position)
            elif kind == b"X":
                self._terminate()
                break
            elif kind == b"F":
                take = self._function_call(data + position, size - position, total)
            elif not self._is_answered():
                break
            elif self.backend is not None and self.backend.copying_in and not self.backend.skipping:
                # PostgreSQL has words of its own for this.
                take = self._forward(data + position, size - position, total)
            else:
                self._die(ProtocolViolation(f"invalid frontend message type {kind}"))
                break
            if take == 0:
                break
            position += take
        if self.choked or (self.backend is not None and self.backend.backlogged()):
            self.set_reading(False)
        if passed and self.backend is not None and self.pass_left == 0 and self.state == READY and not (
            self.backend.replies.count or self.backend.skipping or self.backend.batch_open or self.pins or self.dirty
            or self.unsure
        ) and self.backend.status == b"I":
            # The last piece of a message that came after the answer to its statement.
            self._release()
        return position

    cdef bint _chokes(self) except -1:
        """Tell whether the application has to take answers, or wait for them, before more of what it says is looked at.

        PostgreSQL looks at nothing while what it has said is not taken.
        """
        cdef Backend backend = self.backend
        if self.unsent() > MOST_UNSENT_BYTES:
            self.flush()
            if self.unsent() > MOST_UNSENT_BYTES:
                self.choked = True
                return 1
        if backend is not None and (backend.replies.count > MOST_REPLIES or backend.kept.size() > MOST_KEPT_BYTES):
            self.choked = True
            if backend.batch_open:
                # Else PostgreSQL might keep answers until it hears the end of the batch, which is not listened to.
                backend.write(b"H\0\0\0\4", 5)
            return 1
        return 0

    cdef int on_room(self) except -1:
        return self._resume()

    cdef size_t _query(self, const char* data, size_t size, size_t total) except? 0:
        """A simple Query."""
        cdef Plan plan = None
        cdef Effect effect = None
        cdef Spoken spoken = None
        cdef bytes name, sql
        cdef int need = 0
        cdef size_t take = 0
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
            if plan.processes and not self._meant(data, total, [plan.mention]):
                return 0
        elif not whole and may_name(PyBytes_FromStringAndSize(data + 5, min(size - 5, <size_t> HEAD_BYTES))):
            need = NEED_NAMES
        if self.failed and self.backend is None:
            return self._query_failed(need, size, total)
        if need & (NEED_NAMES | NEED_DEALLOCATE) and self._is_unsure_of_names():
            return 0
        if need & NEED_NAMES:
            self._hear()
            if not need & NEED_MULTIPLE and plan is not None:
                spoken = self.prepared.hear(PyBytes_FromStringAndSize(data + 5, total - 6))
            if spoken is not None and spoken.plan is not None and not need & NEED_SETTINGS:
                # The arguments of an EXECUTE are harmless: it is what it executes.
                need |= spoken.plan.need
                plan = spoken.plan
                if self.healing == REFUSED_THERE:
                    self._learn(plan)
                    need &= ~(NEED_READ | NEED_NEUTRAL)
            elif need & NEED_EXECUTE:
                need |= NEED_SETTINGS
        if self.block is not None or (plan is not None and plan.control == CONTROL_BEGIN and self.backend is None):
            if self._is_busy():
                return 0
            # Who is being terminated hears that, and nothing else: its backend has to be asked.
            if not (self.condemned_at_s and self.backend is not None):
                take = self._answer_query(plan, need, data, size, total)
            if take:
                self._note_answer(plan)
                return take
        if plan is not None and plan.shows and not self._knows_floor():
            return 0
        self.opening = self.block is not None and not (plan is not None and self._alone(need))
        self.preparing = False
        if not self._attach(need, plan):
            return 0
        if self.backend.skipping:
            return self._drop(size, total)
        if need & NEED_NAMES and spoken is None and not self._turn_native(
            plan is None or may_prepare(PyBytes_FromStringAndSize(data + 5, total - 6))
        ):
            return 0
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
            # Nobody has read it: it may be anything.
            self._note(need | NEED_SETTINGS | NEED_MULTIPLE, 0, PIN_ASKED, None)
        if need & NEED_DEALLOCATE and self.prepared is not None and plan.intent.name is not None:
            name = plan.intent.name.encode("utf-8", "surrogateescape")
            if not self.prepared.native:
                self.prepared.prepare_words(self.backend, name, name in self.prepared.names)
            effect = self.prepared.deallocated(name)
        self.creating = self.creating or plan is None or plan.creates or need & NEED_MULTIPLE
        if spoken is not None:
            sql = self.prepared.speak(self.backend, spoken, self.backend.status == b"E" or self.backend.doomed)
            effect = self.prepared.effect_of(spoken)
        if whole and self._may_keep(need, total):
            self.backend.keep(data, total, None if self.prepared is None else self.prepared.unnamed)
        if self.prepared is not None and self.prepared.unnamed is not None and (
            not whole or (total > 5 and memchr(data + 5, 0, total - 5) == data + total - 1)
        ):
            # A simple query drops the unnamed statement, unless it is refused for its form.
            if self.backend.batch_open:
                effect = Effect() if effect is None else effect
                effect.dropped = self.prepared.unnamed
            self.prepared.unnamed = None
        self.backend.unnamed = None
        self.backend.batch_open = False
        self.backend.replies.push(QUERY, 0, effect)
        self.backend.end_unit()
        if need & NEED_DEALLOCATE_ALL and not need & NEED_COPY_IN:
            # What a backend has is known again when it has answered.
            self.state = STALLED
        if spoken is not None:
            return self._send_instead(sql, total)
        if plan is not None and plan.substitute is not None:
            return self._send_instead(plan.substitute, total)
        return self._forward(data, size, total)

    cdef size_t _send_instead(self, bytes sql, size_t total) except 0:
        """Send another text than that of the Query whose length was `total`."""
        cdef bytes message = query(sql)
        self.backend.write(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
        return total

    cdef size_t _function_call(self, const char* data, size_t size, size_t total) except? 0:
        """FunctionCall, the fast path: but for large objects nobody knows what the function does."""
        cdef size_t take
        if size < 9 <= total:
            return 0
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
        self.preparing = False
        if not self._attach(0, None):
            return 0
        if self.backend.skipping:
            return self._drop(size, total)
        if self.block is not None:
            self._enter(0, True, True)
        # It may be set_config() or pg_advisory_lock(): whatever it leaves behind, nobody else gets this backend.
        self._note(0, 0 if size >= 9 and is_large_object(read_u32(data + 5)) else PIN_OTHER, 0, None)
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
                        if self._is_answered():
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
        cdef Named prepared
        cdef size_t total, end, take
        cdef int need
        cdef bint large_bind = False, flushed, lasting
        if self.prepared is None:
            self._hear()
        if self.refusing:
            self.prepared.scanned = 0
            return self._skip_to_sync(data, size)
        prepared = self.prepared
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
            if not large_bind and (end == 0 or (size < BATCH_BYTES and not self._is_due(need))):
                return 0
            need &= ~(NEED_READ | NEED_NEUTRAL)
            prepared.scanned = 0
        elif scan == FOREIGN and end == 0:
            return 0
        if prepared.processes and scan == COMPLETE and not self._meant(data, end, prepared.marks()):
            return 0
        if self.block is not None and self._is_busy():
            return 0
        if scan == COMPLETE and self.backend is None and not self.failed:
            take = self._peel(data, end)
            if take:
                self._note_answer(prepared.plan)
                return take
        lasting = self.block is None or not self.block.failed
        self.preparing = scan == COMPLETE and prepared.binds == 0 and prepared.executes == 0
        flushed = (
            lasting and self.preparing and prepared.closed and not prepared.synced and end > 5
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
        if prepared.hangs and self._is_unsure_of_names():
            return 0
        if lasting and self.backend is None and scan == COMPLETE and (
            prepared.prepare_alone(data, end, self.group, self.parameters)
        ):
            # Nobody waits for a backend to prepare what is known to be right.
            self.tell(prepared.completions + self._ready_message())
            return end
        if prepared.shows and not self._knows_floor():
            return 0
        self.opening = self.block is not None and not (
            (lasting and self.preparing and (prepared.synced or flushed))
            or (prepared.synced and prepared.plain and self._alone(need))
        )
        if not self._attach(need, prepared.plan):
            return 0
        if need & NEED_NAMES and not self._turn_native(prepared.batch_may_prepare()):
            return 0
        if prepared.reused and not self.checked and prepared.check(
            self.backend, prepared.synced and prepared.binds == 1 and self._may_keep(need, end)
        ):
            self.state = CHECKING
            return 0
        if self.block is not None:
            self._enter(
                need, prepared.synced and (
                    prepared.binds == 0 or not need & NEED_CONTROL
                    # A ROLLBACK TO that something else stands before has not been looked at.
                    or (prepared.binds == 1 and prepared.plan is not None and self._stays_failed(prepared.plan)
                        and prepared.plan.control != CONTROL_ROLLBACK_TO)
                ), prepared.snapshots,
            )
        if prepared.shows:
            self._lend()
        self._note(need, prepared.pins, prepared.unpins, prepared.customs)
        if scan == INCOMPLETE:
            self.hurried = False
        self.creating = self.creating or prepared.creates or large_bind
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
        elif scan == COMPLETE and (need & NEED_DEALLOCATE_ALL or self.clearing):
            self.clearing = False
            self.state = STALLED
        else:
            self.clearing = self.clearing or need & NEED_DEALLOCATE_ALL
        return end

    cdef bint _is_due(self, int need) except -1:
        """Tell whether what has come of a batch without its Sync is sent now: PostgreSQL would carry it out at once.

        That is when it is known where it has to go, or when nothing has ended it for a while (`hurry`).
        """
        if self.hurried:
            return 1
        if need & NEED_DEALLOCATE_ALL:
            # What follows in the same batch is looked at together with it.
            pass
        elif self.backend is not None and not self.granted:
            if not self.pool.replica:
                return 1
        elif not need & (NEED_READ | NEED_NEUTRAL):
            return 1
        if not self.unfinished and self.relay.on_unfinished is not None:
            self.unfinished = True
            self.relay.on_unfinished(self)
        return 0

    def hurry(self):
        """Send what has come of a batch whose end has not; it is asked for by `Relay.on_unfinished`."""
        self.unfinished = False
        if self.fd >= 0 and self.state == READY and self.pending is not None:
            self.hurried = True
            self._resume()

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

    cdef bint _is_unsure_of_names(self) except -1:
        """Tell whether what names of statements mean is not known before more has been answered; that is waited for.

        In the middle of a batch it cannot be: PostgreSQL may say nothing before its Sync.
        """
        cdef Backend backend = self.backend
        if backend is None or backend.batch_open or backend.skipping or not backend.replies.will_end():
            return 0
        return self._is_busy()

    cdef bint _alone(self, int need) noexcept:
        """Tell whether a read can run by itself, while the transaction that it is in stays virtual."""
        return need & NEED_READ and not (
            need & NEED_TRANSACTION_TIME or self.block.failed or self._has_snapshot()
        )

    cdef int _enter(self, int need, bint single, bint snapshot) except -1:
        """A unit of a virtual transaction is about to be sent.

        `single`: nothing in it can come behind the transaction's end; `snapshot`: PostgreSQL takes one for it.
        """
        if not self.opening:
            self.shown = b"T"
            self.block.has_read = self.block.has_read or snapshot
            return 0
        self._tell_block(need & NEED_NEUTRAL)
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

    cdef int _note_answer(self, Plan plan) except -1:
        self.plan = plan
        self.routed = None
        self.reason = ANSWERED
        self.relay.counts[ANSWERED] += 1
        return 0

    cdef int _lend(self) except -1:
        """Give the backend the parameters that only pgamb knows, for the SHOW that follows."""
        if self.backend.status == b"E" or self.backend.batch_open:
            return 0
        return self.backend.inject_query(self.relay.own_parameters(self), 0)

    # What the backend says.

    cdef int on_ready_for_query(self, Backend backend) except -1:
        self.opened = False
        self.repeats = 0
        if backend.status == b"I":
            self._saw(backend)
        if backend.replies.count:
            return 0
        self.committing = self.multiple = self.creating = False
        self.pure = True
        if self.state == STALLED or self.state == CANCELING:
            self.state = READY
        if self.visiting:
            return self._end_visit()
        if self.unpins:
            self.pins &= ~self.unpins | PIN_SESSION_MODE
            self.unpins = 0
        if self.pins & PIN_PREPARE:
            if self.prepared.late and backend.status == b"I":
                self.state = TURNING
                return self.prepared.turn_native(backend)
            self._end_native()
        if self.limited and backend.status == b"I":
            self.heard_at = now_s()
        return self._rested(backend)

    cdef int _rested(self, Backend backend) except -1:
        """PostgreSQL owes nothing: let go of the backend, if nothing holds it, and go on with what is pending."""
        if backend.status == b"I":
            if (self.dirty or self.unsure) and self.pass_left == 0 and not self.pins & PIN_SESSION_MODE:
                if backend.cancels:
                    # What they are meant for has ended, and our own question must be answered.
                    self.state = CANCELING
                    return 0
                return self._ask()
            if not self.pins and self.pass_left == 0:
                self._release()
        if self.pending is not None:
            self._resume()
        elif not self.reading:
            self._resume()
        return 0

    # Cancel requests.

    def cancel(self, on_due):
        """Ask that what runs now be canceled.

        `on_due(backend)` is called once: with the backend that has to be told now, or with None if there is nothing
        (more) to be done. A query that pgamb sends ahead of the application's must not be met instead of that.
        """
        cdef ssize_t count
        if self.cancels is None:
            self.cancels = []
        self.cancels.append(on_due)
        if self.pending is None and (self.state == ASKING or self.state == RESTORING or self.state == CANCELING):
            # Has the application sent its next statement? It has to look as if PostgreSQL ran it already.
            count = self.receive(self.reactor.staging, STAGING_BYTES)
            if count > 0:
                self._input(self.reactor.staging, count)
                # TLS may hold more, which nobody would tell of: it is read when reading begins again.
                self.set_reading(False)
            elif count != WOULD_BLOCK:
                self.leave()
        self._heed_cancels()

    cdef int _heed_cancels(self) except -1:
        """See what becomes of cancel requests: PostgreSQL is told, the unit that waits is answered, or they wait."""
        cdef Backend backend = self.backend
        cdef list due = self.cancels
        cdef uint32_t i
        cdef bint ahead = False
        if due is None:
            return 0
        if self.state == WAITING or self.state == PARKED or self.state == CLOSED:
            backend = None
        elif self.state == SETTLING or (self.pending is not None and (
            self.state == ASKING or self.state == RESTORING or self.state == CANCELING or self.state == NAMING
            or self.state == CHECKING
        )):
            return 0
        elif backend is not None:
            for i in range(backend.replies.count):
                if backend.replies.at(i).kind == COPY_END:
                    continue
                if not backend.replies.at(i).flags & SWALLOW:
                    break
                ahead = ahead or backend.replies.at(i).kind == QUERY
            else:
                # There is nothing, or nothing but our own.
                backend = None
            if backend is not None and ahead:
                return 0
        self.cancels = None
        if self.state == WAITING or self.state == PARKED:
            self.fail_waiting(QueryCanceled("canceling statement due to user request"))
        for on_due in due:
            on_due(backend)
        return 0

    cdef int on_swallowed(self, Backend backend) except -1:
        return 0 if self.cancels is None else self._heed_cancels()

    cdef int on_cancels_done(self, Backend backend) except -1:
        if self.state != CANCELING:
            return 0
        self.state = READY
        if backend.replies.count or backend.batch_open or backend.skipping:
            return self._resume()
        return self._rested(backend)

    # The end.

    cdef int _terminate(self) except -1:
        """The application says goodbye. As with PostgreSQL, what it has sent before that is still carried out."""
        cdef Backend backend = self.backend
        if backend is None or backend.replies.count == 0 or backend.skipping:
            return self.leave()
        # And answered, if somebody is still there.
        self.terminated = True
        self.state = STALLED
        backend.parting = True
        if not self.handed_on and not self._will_rest():
            # In the middle of something: PostgreSQL undoes it, and tells what it would tell.
            self.handed_on = backend.tainted = True
            backend.write(b"X\0\0\0\4", 5)
        return 0

    cdef bint _will_rest(self) noexcept:
        """Tell whether all that has been sent ends without another word."""
        cdef Backend backend = self.backend
        return not backend.batch_open and backend.replies.will_end() and not (
            backend.copying_in and not backend.replies.copy_ended()
        )

    cdef int backend_lost(self, Backend backend, object error) except -1:
        if self.handed_on and not isinstance(error, PostgresError):
            # It was told goodbye.
            self.backend = None
            return self.leave()
        return Identity.backend_lost(self, backend, error)

    cdef bint _is_answered(self) except -1:
        """Tell whether all that was sent has been answered, and last words can be said; if not, that is waited for."""
        cdef Backend backend = self.backend
        if backend is None or backend.replies.count == 0 or (
            backend.copying_in and not backend.replies.copy_ended()
        ):
            return 1
        backend.parting = True
        self.state = STALLED
        if backend.batch_open or not backend.replies.will_end():
            backend.write(b"H\0\0\0\4", 5)
        return 0

    cdef int on_answered(self) except -1:
        if self.state != STALLED:
            return 0
        self.state = READY
        return self._resume()

    cdef int leave(self) except -1:
        """The application is gone, or has to go. Its backend is cleaned, or closed if it is at work."""
        cdef Backend backend = self.backend
        cdef bint rests
        if self.fd < 0:
            return 0
        self.finish()
        # Unread input would turn the close into a reset, and the peer would not read our last words.
        shutdown(self.fd, SHUT_WR)
        # Whoever let us go may still be reading what is in the scratch.
        self.receive(self.reactor.staging, STAGING_BYTES)
        self.close_fd()
        if self.state == WAITING:
            self._unqueue()
        if self.parked:
            self._unpark()
        if self.shapes:
            self._end_shapes(True)
        self.state = CLOSED
        if self.cancels is not None:
            self._heed_cancels()
        self.block = None
        self.pending = None
        self.relay.frontends.pop(self.pid, None)
        if backend is not None:
            rests = self._will_rest()
            self.backend = None
            if self.pins & PIN_UNCLEAN:
                backend.tainted = True
            if self.terminated and backend.replies.count and rests:
                self.pool.clean(backend, True)
            elif (self.pass_left and not self.pass_drop) or backend.skipping or backend.batch_open or (
                backend.replies.owed()
            ):
                self.pool.abandon(backend)
            elif backend.replies.count:
                # Only pgamb itself still waits for an answer.
                self.pool.clean(backend, True)
            elif backend.status == b"I" and not (self.pins or self.dirty or self.unsure or self.opaque):
                self.pool.release(backend)
            else:
                self.pool.clean(backend, self.pins or self.dirty or self.unsure)
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


cdef bint _two_strings(const char* data, size_t size) noexcept:
    """Tell whether two strings with their zeros are there."""
    cdef const char* end = data + size
    cdef const char* zero = <const char*> memchr(data, 0, size) if size else NULL
    return zero != NULL and zero + 1 < end and memchr(zero + 1, 0, end - zero - 1) != NULL
