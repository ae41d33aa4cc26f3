# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A connection to a PostgreSQL.

Responsibility: walk through the replies message by message (headers only), match each with what is owed, and
forward the bytes in as few pieces as possible: what stands between two swallowed messages leaves in one `send`.

Invariants:
* what is forwarded ends with a whole message, unless that message is larger than half the scratch: then, and only
  then, the owner has been given a part that only this backend can complete (`pass_left`);
* when `on_ready_for_query` is called, everything up to it has been given to the owner. The owner may have released
  the backend when it returns, and another may own it already;
* a backend that breaks a rule of the protocol, or is lost, is closed and never used again;
* units that are kept stand before those that are not, and of the oldest one's answer nothing has been forwarded while
  `judging`: it can still be asked of another member.
"""

from collections import OrderedDict, deque

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memchr, memset

from pgamb.relay.clock cimport now_s
from pgamb.relay.framing cimport read_u16, read_u32, write_u32
from pgamb.relay.reactor cimport SCRATCH_BYTES
from pgamb.relay.replies cimport (
    ANSWER, BIND, CAPTURE, CLOSE, COPY_END, DESCRIBE, EXECUTE, FORGIVE, MOST_REPLIES, PARSE, QUERY, SETTLE, STAND_IN,
    SWALLOW, SYNC, Reply,
)
from pgamb.relay.stream cimport BROKEN, READABLE, WOULD_BLOCK, WRITABLE

from pgamb.errors import ConnectionFailure, PostgresError, ProtocolViolation
from pgamb.wire.constants import STATEMENT
from pgamb.wire.messages import close as close_message
from pgamb.wire.messages import parse_error_fields, query, sync


# "cached plan must not change result type", which has no SQLSTATE of its own, in any language.
cdef bytes RESHAPED = b"\0RRevalidateCachedQuery\0"

# A message up to this size is forwarded whole or not at all; a larger one as it comes.
cdef enum:
    WHOLE_BYTES = SCRATCH_BYTES // 2

# What becomes of an answer that has begun to arrive.
cdef enum:
    FORWARD
    REFUSED
    UNDECIDED


cdef class Owner(Stream):
    """Who has a backend checked out."""

    cdef int backend_granted(self, Backend backend) except -1:
        """The pool gives `backend`, whose owner is now this one."""
        raise NotImplementedError

    cdef int checkout_failed(self, object error) except -1:
        """The pool cannot give a backend; `error` is a PgambError."""
        raise NotImplementedError

    cdef int on_command(self, Backend backend, const char* tag, size_t size) except -1:
        """A statement of the application's was completed with this tag (without its closing zero)."""
        raise NotImplementedError

    cdef bytes on_error(self, Backend backend, bytes payload):
        """An ErrorResponse is on its way to the application; return it in the session's own words."""
        raise NotImplementedError

    cdef int on_parameter(self, Backend backend) except -1:
        """A ParameterStatus is on its way to the application."""
        raise NotImplementedError

    cdef int on_reported(self, Backend backend) except -1:
        """The backend has reported something (`reported`) while it did what the application knows nothing of."""
        raise NotImplementedError

    cdef int on_parsed(self, Backend backend, Statement statement) except -1:
        """PostgreSQL has accepted a named statement of this session's."""
        raise NotImplementedError

    cdef int on_described(self, Backend backend, Effect effect, bytes types, bytes columns) except -1:
        """PostgreSQL has described `effect.described`, which it has parsed just before, for pgamb itself."""
        raise NotImplementedError

    cdef int on_undo(self, Backend backend, Effect effect, bint failed) except -1:
        """What `effect` says has not happened: it failed itself, or was skipped."""
        raise NotImplementedError

    cdef int on_ready_for_query(self, Backend backend) except -1:
        """A ReadyForQuery has been forwarded; `backend.status` is its status."""
        raise NotImplementedError

    cdef int on_settled(self, Backend backend, bytes error, list rows) except -1:
        """A query of pgamb's own has ended, with an ErrorResponse's payload if it failed."""
        raise NotImplementedError

    cdef int on_swallowed(self, Backend backend) except -1:
        """A query that pgamb has sent ahead of something else has ended."""
        return 0

    cdef int on_room(self) except -1:
        """There is room for more of what it says."""
        raise NotImplementedError

    cdef int on_cancels_done(self, Backend backend) except -1:
        """The last cancel request for it has been dealt with."""
        return 0

    cdef int backend_lost(self, Backend backend, object error) except -1:
        """The backend is gone; it belongs to nobody any more."""
        raise NotImplementedError

    cdef bint on_refused(self, Backend backend, bytes state, bint reshaped) except -1:
        """A kept unit gets an error with this SQLSTATE; return whether it was taken back, and the backend with it.

        `reshaped`: it says that a prepared statement has outlived the shape of its table.
        """
        raise NotImplementedError

    cdef int on_notification(self, Backend backend, int pid) except -1:
        """Return the process id to tell in place of `pid`, which has notified this session."""
        return pid

    cdef int on_requeued(self) except -1:
        """The pool that it waits at serves nobody any more."""
        raise NotImplementedError

    cdef int on_answered(self) except -1:
        """All that PostgreSQL will answer has been answered: it skips, or last words are waited for (`parting`)."""
        raise NotImplementedError

    cdef int on_fresher(self, bint last) except -1:
        """More is known of positions in the WAL. `last`: the wait for it is over, whether or not it is enough."""
        raise NotImplementedError


cdef class Home:
    """Where a backend goes when nobody owns it."""

    cdef int backend_settled(self, Backend backend, bytes error) except -1:
        raise NotImplementedError

    cdef int backend_gone(self, Backend backend, object error) except -1:
        raise NotImplementedError

    cdef int role_reported(self, Backend backend, bint in_recovery) except -1:
        raise NotImplementedError


cdef class Backend(Stream):
    """A logged-in, idle connection to a member; `parameters` is the ParameterSet in force on it.

    `fd` is a connected non-blocking socket whose descriptor now belongs to this object.
    """

    def __init__(
        self, Reactor reactor, int fd, Home home, object parameters, int pid, bytes secret, *, reported=None,
        bint in_recovery=False, tls=None, tls_in=None, tls_out=None,
    ):
        self.home = home
        self.parameters = parameters
        self.reported = reported
        self.pid = pid
        self.secret = secret
        self.opened_at = now_s()
        self.idle_since = self.opened_at
        self.status = b"I"
        self.replies = Replies()
        self.held = Buffer()
        self.kept = Buffer()
        self.kept.lasting = True
        self.kept_unnamed = deque()
        self.statements = OrderedDict()
        self.lent = set()
        self.in_recovery = in_recovery
        self.begin(reactor, fd, tls, tls_in, tls_out)

    def __repr__(self):
        return (
            f"<Backend pid={self.pid} fd={self.fd} status={chr(self.status)} owed={self.replies.count} "
            f"owned={self.owner is not None} home={self.home!r}>"
        )

    @property
    def owed(self):
        """How many replies PostgreSQL still owes."""
        return self.replies.count

    @property
    def prepared(self):
        """How many statements it holds."""
        return len(self.statements)

    cdef int own(self, Owner owner) except -1:
        self.owner = owner
        self.parting = False
        if owner is not None:
            # The new owner may not have taken yet what it was sent before.
            self.set_reading(not owner.backlogged())
        else:
            self.set_reading(True)
        return 0

    cdef int forget_statements(self) except -1:
        """Every named statement is gone but those sent behind what removed them."""
        cdef Effect effect
        self.lent.clear()
        self.statements.clear()
        for effect in self.replies.effects_left():
            if effect.on_backend is not None:
                self.statements[effect.on_backend] = effect.moment
        return 0

    cdef int inject_query(self, bytes sql, int flags) except -1:
        """Send a query of pgamb's own; its answer is swallowed (`flags` adds CAPTURE, SETTLE).

        It leaves with what is written next, unless it is the last of its kind (SETTLE).
        """
        cdef bytes message = query(sql)
        self.replies.push(QUERY, SWALLOW | flags, None)
        # A simple query drops the unnamed statement.
        self.unnamed = None
        self.collect(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))
        return self.flush() if flags & SETTLE else 0

    cdef int close_lent(self, int flags) except -1:
        """Close what it has under names of its owner's; `flags` are those of the reply that ends it."""
        cdef bytes name, message = b""
        for name in self.lent:
            message += close_message(STATEMENT, name)
            self.replies.push(CLOSE, SWALLOW, None)
        self.lent.clear()
        message += sync()
        self.replies.push(SYNC, SWALLOW | flags, None)
        return self.write(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))

    cdef int keep(self, const char* data, size_t size, Statement unnamed) except -1:
        """Keep a unit that is about to be sent, so that it can be repeated elsewhere; harmless if that cannot be."""
        if self.unkept:
            return 0
        if self.kept.size() == 0:
            self.judging = True
        self.kept.append(data, size)
        if unnamed is not None or self.kept_unnamed:
            while len(self.kept_unnamed) < self.kept_units:
                self.kept_unnamed.append(None)
            self.kept_unnamed.append(unnamed)
        self.kept_units += 1
        self.keeping = size
        return 0

    cdef bytes take_kept(self):
        """Return the units that are kept, and keep them no more."""
        cdef bytes units = PyBytes_FromStringAndSize(self.kept.head(), self.kept.size())
        self.kept.clear()
        self.kept_unnamed.clear()
        self.kept_units = 0
        self.judging = False
        return units

    cdef bint disown(self) except -1:
        """What was sent is wanted no more; return whether the backend can be used again when it has been answered."""
        cdef Effect effect
        cdef uint32_t i
        cdef bint clean = self.replies.owes_one() and not self.batch_open
        for effect in reversed(self.replies.effects_left()):
            clean = clean and effect.on_backend is None and effect.evicted is None
            self._undo(effect, False)
        self.replies.effects = None
        for i in range(self.replies.count):
            self.replies.at(i).flags |= SWALLOW
            self.replies.at(i).kept_bytes = 0
        self.replies.at(self.replies.count - 1).flags |= SETTLE | FORGIVE
        self.own(None)
        return clean

    cdef int end_unit(self) except -1:
        """The reply pushed last is that of the end of the unit that is kept, if it is."""
        self.replies.at(self.replies.count - 1).kept_bytes = <uint32_t> self.keeping
        self.unkept = self.unkept or self.keeping == 0
        self.keeping = 0
        return 0

    cdef int _consume_kept(self, size_t size) except -1:
        """A unit has been answered."""
        if size:
            self.kept.consume(size)
            self.kept_units -= 1
            if self.kept_unnamed:
                self.kept_unnamed.popleft()
            self.judging = self.kept.size() > 0
        if self.replies.count == 0:
            self.unkept = False
        return 0

    cpdef int close(self) except -1:
        """Close it at once; nobody is told."""
        return self.close_fd()

    def fail(self, error):
        """Give it up, as if the server had closed the connection; `error` is a PgambError."""
        self.lose(error)

    cdef int lose(self, object error) except -1:
        """Close it and tell its owner and its home."""
        cdef Owner owner = self.owner
        if self.fd < 0:
            return 0
        self.close_fd()
        self.owner = None
        self.home.backend_gone(self, error)
        if owner is not None:
            owner.backend_lost(self, error)
        return 0

    cdef int on_ready(self, uint32_t events) except -1:
        cdef char* buffer = self.reactor.scratch
        cdef size_t kept
        cdef ssize_t count
        cdef Owner owner
        if events & WRITABLE:
            self.on_writable()
            owner = self.owner
            if owner is not None and not self.backlogged():
                owner.on_room()
        if not events & (READABLE | BROKEN):
            return 0
        if not self.reading and not events & BROKEN:
            return 0
        while self.fd >= 0:
            kept = self.held.size()
            if kept:
                memcpy(buffer, self.held.head(), kept)
            count = self.receive(buffer + kept, SCRATCH_BYTES - kept)
            if count == WOULD_BLOCK:
                return 0
            if count <= 0:
                return self.lose(ConnectionFailure("the server closed the connection unexpectedly"))
            if kept:
                self.held.clear()
            self.received_bytes += count
            self._walk(buffer, kept + count)
            owner = self.owner
            if owner is not None and owner.choked and self.replies.count <= MOST_REPLIES // 2 and self.fd >= 0 and (
                self.kept.size() <= MOST_KEPT_BYTES // 2
            ):
                owner.on_room()
                # It may have let go of this.
                owner = self.owner
            if owner is not None and (
                self.skipping or (self.parting and (
                    self.replies.count == 0 or (self.copying_in and not self.replies.copy_ended())
                ))
            ):
                self.parting = False
                owner.on_answered()
            if not self.pending_plaintext() or not self.reading:
                return 0
        return 0

    cdef int _walk(self, char* buffer, size_t size) except -1:
        """Deal with all whole messages in the buffer; keep, or pass on, the beginning of the last one."""
        cdef size_t position = 0, start = 0, total, take
        cdef uint8_t kind
        cdef uint32_t length
        cdef Reply* head
        cdef int verdict
        if self.pass_left:
            take = min(self.pass_left, size)
            self.pass_left -= take
            position = take
            if not self.pass_forward:
                start = take
        while size - position >= 5:
            if self.judging:
                verdict = self._judge(buffer + position, size - position)
                if verdict == UNDECIDED:
                    self._give(buffer + start, position - start, False)
                    return self.held.append(buffer + position, size - position)
                if verdict == FORWARD and not self.judging:
                    self._give(buffer + start, position - start, True)
                    start = position
                    self.answer()
                elif verdict == REFUSED:
                    # Everything before has been given away, and what follows is swallowed.
                    self._give(buffer + start, position - start, False)
                    start = position
                    if self.fd < 0:
                        return 0
                    self.answer()
            kind = <uint8_t> buffer[position]
            length = read_u32(buffer + position + 1)
            if length < 4 or length > 0x7ffffffe:
                return self.lose(ProtocolViolation(f"the server sent a message of type {kind} with length {length}"))
            total = <size_t> length + 1
            if total > size - position:
                break
            head = self.replies.head()
            if kind == b"D" or kind == b"d":
                if head == NULL:
                    return self.lose(ProtocolViolation("the server sent a row that nobody asked for"))
                if not head.flags & SWALLOW:
                    position += total
                    continue
                self._give(buffer + start, position - start, True)
                if head.flags & CAPTURE:
                    self._capture(buffer + position + 5, total - 5)
                position += total
                start = position
                continue
            if kind == b"Z":
                self.trailing = (
                    position + total < size and memchr(b"NAS", <uint8_t> buffer[position + total], 3) == NULL
                )
            if self._handle(kind, buffer, start, position, total):
                # Forwarded (or to be, with what follows).
                position += total
            else:
                position += total
                start = position
            if kind == b"Z" and self.fd >= 0:
                # Everything up to here has been given away.
                start = position
            if self.fd < 0:
                return 0
            head = self.replies.head()
            if head != NULL and (head.flags & ANSWER or head.kind == COPY_END) and not self.judging:
                self._give(buffer + start, position - start, True)
                start = position
                self.answer()
        return self._keep(buffer, start, position, size)

    cdef int _keep(self, char* buffer, size_t start, size_t position, size_t size) except -1:
        """Forward what is whole; hold the rest, or begin to pass it on if it is too large to hold."""
        cdef size_t left = size - position, total
        if left:
            total = <size_t> read_u32(buffer + position + 1) + 1 if left >= 5 else 0
            if total <= WHOLE_BYTES:
                self.held.append(buffer + position, left)
            else:
                self.pass_left = total - left
                self.pass_forward = self._begin_large(<uint8_t> buffer[position], buffer, start, position, left)
                if self.fd < 0:
                    return 0
                if self.pass_forward:
                    position = size
                else:
                    start = position
        return self._give(buffer + start, position - start, False)

    cdef bint _begin_large(self, uint8_t kind, char* buffer, size_t start, size_t position, size_t left) except -1:
        """Judge by its beginning a message that is too large to hold; return whether it is to be forwarded."""
        cdef Reply* head = self.replies.head()
        if kind == b"E":
            return self._error(buffer, start, position, left)
        if head == NULL or memchr(b"DdVTtN", kind, 6) == NULL:
            return self._out_of_step(kind)
        if kind == b"T" and head.kind == DESCRIBE and not head.flags & SWALLOW:
            self.replies.pop()
            return 1
        if head.flags & SWALLOW:
            if kind == b"T" and head.kind == DESCRIBE:
                # So many columns that nobody compares them.
                self.replies.pop()
            self._give(buffer + start, position - start, True)
            return 0
        return 1

    cdef int _judge(self, const char* data, size_t size) except -1:
        """Look ahead in the answer to a kept unit, before anything of it is forwarded.

        FORWARD: there is a row or a result, or an error that is the application's; `judging` is over. UNDECIDED: there
        is nothing yet but what comes before rows. REFUSED: the owner has taken the unit back.
        """
        cdef Reply* head = self.replies.head()
        cdef size_t position = 0, total
        cdef uint8_t kind
        cdef bint decided = False
        cdef const char* before_rows = b"TTTTTT" if head != NULL and head.kind == QUERY else b"123ntT"
        cdef bytes state
        if self.owner is None:
            self.judging = False
            return FORWARD
        if head == NULL or (head.kind == QUERY and head.flags & SWALLOW) or head.flags & STAND_IN:
            return FORWARD
        while size - position >= 5:
            kind = <uint8_t> data[position]
            total = <size_t> read_u32(data + position + 1) + 1
            if total < 5 or total > WHOLE_BYTES or kind == b"Z":
                decided = True
                break
            if kind != b"E" and kind != b"N" and memchr(before_rows, kind, 6) == NULL:
                decided = True
            if total > size - position:
                break
            if kind == b"N":
                # A server that is killed says so in a warning: those are its last words, and no part of an answer.
                state = _sqlstate(data + position + 5, total - 5)
                decided = decided or state is None or not state.startswith(b"57P0")
            if kind == b"E" and _is_fatal(data + position + 5, total - 5):
                # Its last words: the unit can still be asked of somebody else.
                self.lose(PostgresError(parse_error_fields(PyBytes_FromStringAndSize(data + position + 5, total - 5))))
                return REFUSED
            if kind == b"E":
                state = _sqlstate(data + position + 5, total - 5)
                if self.stood_in is not None:
                    state = _sqlstate(PyBytes_AS_STRING(self.stood_in), PyBytes_GET_SIZE(self.stood_in))
                if state is not None and self.owner.on_refused(
                    self, state, RESHAPED in PyBytes_FromStringAndSize(data + position, total)
                ):
                    return REFUSED
                decided = True
                break
            position += total
        if not decided and size < WHOLE_BYTES:
            return UNDECIDED
        self.judging = False
        return FORWARD

    cdef int _give(self, const char* data, size_t size, bint more) except -1:
        """Give bytes to the owner; with `more`, they may wait for what follows."""
        cdef Owner owner = self.owner
        if owner is None:
            return 0
        if size:
            self.forwarded = True
            self.sent_bytes += size
            if more:
                return owner.collect(data, size)
            owner.write(data, size)
        elif not more:
            owner.flush()
        if not more and owner.backlogged() and self.fd >= 0 and self.owner is owner:
            self.set_reading(False)
        return 0

    cdef bint _handle(self, uint8_t kind, char* buffer, size_t start, size_t position, size_t total) except -1:
        """Deal with one whole message. Return whether it is to be forwarded.

        Where it returns 0, everything from `start` up to this message has been given to the owner.
        """
        cdef Reply* head
        cdef bint swallow
        cdef char* payload = buffer + position + 5
        cdef size_t size = total - 5
        cdef uint8_t expected = 0
        cdef Effect effect
        self._drop_copy_ends()
        head = self.replies.head()
        swallow = head != NULL and head.flags & SWALLOW
        if kind == b"Z":
            return self._ready_for_query(buffer, start, position, total)
        if kind == b"C":
            if head == NULL or (head.kind != QUERY and head.kind != EXECUTE):
                return self._out_of_step(kind)
            if not swallow and self.owner is not None and size > 1:
                self.owner.on_command(self, payload, size - 1)
            if self.copying_in:
                self.replies.copy_completed()
                self.copying_in = False
            if head.kind == EXECUTE:
                self.replies.pop()
        elif kind == b"T":
            if head != NULL and head.kind == DESCRIBE:
                effect = self.replies.pop()
                if swallow:
                    self._described(effect, payload, size)
        elif kind == b"2":
            expected = BIND
        elif kind == b"1":
            expected = PARSE
        elif kind == b"3":
            expected = CLOSE
        elif kind == b"n":
            expected = DESCRIBE
        elif kind == b"s":
            expected = EXECUTE
        elif kind == b"I":
            if head != NULL and head.kind == EXECUTE:
                self.replies.pop()
        elif kind == b"E":
            return self._error(buffer, start, position, total)
        elif kind == b"S":
            return self._parameter(buffer, start, position, total)
        elif kind == b"G" or kind == b"W":
            self.copying_in = True
            if head != NULL and head.kind == EXECUTE:
                self.replies.drop_syncs_before_copy_end()
        elif kind == b"A":
            if self.owner is not None and size > 4:
                write_u32(payload, <uint32_t> self.owner.on_notification(self, <int> read_u32(payload)))
            # At any time, also among the answers to what pgamb has asked.
            return 1
        elif kind == b"t":
            if swallow:
                self.described_types = PyBytes_FromStringAndSize(payload, size)
        elif kind == b"N" or kind == b"H" or kind == b"c" or kind == b"V":
            pass
        else:
            return self._out_of_step(kind)
        if expected:
            if head == NULL or head.kind != expected:
                return self._out_of_step(kind)
            effect = self.replies.pop()
            if effect is not None and effect.on_backend is not None and self.owner is not None:
                self.owner.on_parsed(self, <Statement> effect.on_backend)
            if swallow and expected == DESCRIBE:
                self._described(effect, NULL, 0)
        if swallow:
            self._give(buffer + start, position - start, True)
            return 0
        return 1

    cdef int _described(self, Effect effect, const char* payload, size_t size) except -1:
        """A RowDescription, or (without `payload`) NoData, that pgamb has asked for."""
        cdef bytes columns
        # It may leave, and nobody else hold it then.
        cdef Owner owner = self.owner
        if effect is None or owner is None:
            return 0
        columns = b"" if payload == NULL else columns_of(payload, size)
        if columns is not None and self.described_types is not None:
            owner.on_described(self, effect, self.described_types, columns)
        self.described_types = None
        return 0

    cdef bint _out_of_step(self, uint8_t kind) except -1:
        self.lose(ProtocolViolation(f"the server sent a message of type {chr(kind)!r} that nothing asked for"))
        return 0

    cdef bint _ready_for_query(self, char* buffer, size_t start, size_t position, size_t total) except -1:
        cdef Reply* head
        cdef int flags
        cdef size_t kept
        cdef bytes error
        cdef list rows
        cdef Owner owner = self.owner
        head = self.replies.head()
        if head == NULL or (head.kind != QUERY and head.kind != SYNC) or total != 6 or (
            memchr(b"ITE", <uint8_t> buffer[position + 5], 3) == NULL
        ):
            return self._out_of_step(b"Z")
        flags = head.flags
        kept = head.kept_bytes
        self.status = buffer[position + 5]
        self.copying_in = False
        self.replies.pop()
        self._drop_copy_ends()
        self._consume_kept(kept)
        if flags & SWALLOW:
            self._give(buffer + start, position - start, False)
            error, self.swallowed_error = self.swallowed_error, None
            if flags & FORGIVE:
                error = None
            rows, self.captured = self.captured, None
            if flags & SETTLE:
                if owner is not None:
                    owner.on_settled(self, error, rows)
                elif self.replies.count == 0:
                    self.home.backend_settled(self, error)
            elif owner is not None:
                owner.on_swallowed(self)
            return 0
        self.units += 1
        self.doomed = False
        if self.trailing and self.replies.count == 0:
            # Nobody asked for what follows: it must not pass for the answer to the next owner's query.
            self.tainted = True
        if owner is not None and owner.shown and self.status == b"I":
            buffer[position + 5] = <char> owner.shown
        self._give(buffer + start, position + total - start, False)
        self.forwarded = False
        if owner is not None:
            owner.on_ready_for_query(self)
        return 0

    cdef int _drop_copy_ends(self) except -1:
        """Nothing answers a CopyDone; what follows it is due once its COPY has been answered."""
        cdef Reply* head = self.replies.head()
        while head != NULL and head.kind == COPY_END:
            self.replies.pop()
            head = self.replies.head()
        return 0

    cdef bint _error(self, char* buffer, size_t start, size_t position, size_t total) except -1:
        """An ErrorResponse: of the application's, of pgamb's own, or the server's last words."""
        cdef Reply* head = self.replies.head()
        cdef Owner owner = self.owner
        cdef list undone
        cdef Effect effect
        cdef bint first, slipped_in
        cdef object phrase = None
        cdef bytes told
        cdef bytes payload = PyBytes_FromStringAndSize(buffer + position + 5, total - 5)
        if _is_fatal(buffer + position + 5, total - 5):
            self._give(buffer + start, position - start, False)
            self.lose(PostgresError(parse_error_fields(payload)))
            return 0
        if head == NULL and not self.batch_open:
            return self._out_of_step(b"E")
        if head != NULL and head.kind == QUERY:
            if head.flags & SWALLOW:
                self._give(buffer + start, position - start, True)
                self.swallowed_error = payload
                return 0
            told = payload
            if self.replies.effects and self.replies.first in self.replies.effects:
                effect = self.replies.effects.pop(self.replies.first)
                self._undo(effect, True)
                if effect.phrase is not None:
                    self.stale = RESHAPED in payload
                    told = effect.phrase.own_words(payload, self.stood_in)
            self.stood_in = None
            if owner is not None:
                told = owner.on_error(self, told)
            return self._tell_error(buffer, start, position, total, payload, told)
        # The extended protocol: PostgreSQL skips to the next Sync.
        self.copying_in = False
        # "cache lookup failed for type", of a parameter, is the other.
        self.stale = RESHAPED in payload or b"\0CXX000\0" in payload
        undone = []
        slipped_in = head != NULL and head.flags & SWALLOW
        first = self.replies.effects is not None and self.replies.first in self.replies.effects
        self.replies.drop_until_sync(undone)
        for effect in undone:
            if effect.phrase is not None and (slipped_in or (first and effect is undone[0])):
                phrase = effect.phrase
                break
        while undone:
            effect = undone.pop()
            self._undo(effect, first and not undone)
        self.skipping = self.replies.count == 0
        head = self.replies.head()
        if head != NULL and head.flags & (FORGIVE | STAND_IN) and head.flags & SWALLOW:
            if head.flags & STAND_IN:
                self.stood_in = payload
            self._give(buffer + start, position - start, True)
            return 0
        if owner is not None:
            told = owner.on_error(self, payload if phrase is None else phrase.own_words(payload, payload))
            return self._tell_error(buffer, start, position, total, payload, told)
        return 1

    cdef bint _tell_error(
        self, char* buffer, size_t start, size_t position, size_t total, bytes payload, bytes told,
    ) except -1:
        """Give the owner an ErrorResponse in the session's own words; return whether it is to be forwarded instead."""
        if told is payload or read_u32(buffer + position + 1) + 1 != total:
            return 1
        self._give(buffer + start, position - start, True)
        told = b"E" + (len(told) + 4).to_bytes(4, "big") + told
        self._give(PyBytes_AS_STRING(told), PyBytes_GET_SIZE(told), True)
        return 0

    cdef int _undo(self, Effect effect, bint failed) except -1:
        if effect.on_backend is not None:
            self.statements.pop(effect.on_backend, None)
        if effect.evicted is not None:
            # What it was prepared for may have been something else.
            self.statements[effect.evicted] = 0
        if self.owner is not None and (effect.name is not None or effect.dropped is not None):
            self.owner.on_undo(self, effect, failed)
        return 0

    cdef bint _parameter(self, char* buffer, size_t start, size_t position, size_t total) except -1:
        """ParameterStatus: the application's own doing, pgamb's, or a change of configuration or role."""
        cdef Reply* head = self.replies.head()
        cdef char* payload = buffer + position + 5
        cdef size_t size = total - 5
        if size >= 18 and memcmp(payload, b"in_hot_standby\0", 15) == 0:
            # An application believes in one PostgreSQL: it never hears of this one (it was told "off").
            self._give(buffer + start, position - start, True)
            self.in_recovery = payload[15] == b"o" and payload[16] == b"n"
            self.home.role_reported(self, self.in_recovery)
            return 0
        if self.reported is not None:
            self.reported = self.reported.changed(PyBytes_FromStringAndSize(payload, size))
        if self.owner is None or (head != NULL and head.flags & SWALLOW):
            self._give(buffer + start, position - start, True)
            if self.owner is not None:
                self.owner.on_reported(self)
            return 0
        self.owner.on_parameter(self)
        return 1

    cdef int answer(self) except -1:
        """Answer what pgamb need not have asked, as long as that is what comes next."""
        cdef Reply* head
        self._drop_copy_ends()
        head = self.replies.head()
        while head != NULL and head.flags & ANSWER:
            if self.owner is not None:
                if head.kind == PARSE:
                    self.owner.collect(b"1\0\0\0\4", 5)
                else:
                    self.owner.collect(b"3\0\0\0\4", 5)
                self.forwarded = True
            self.replies.pop()
            self._drop_copy_ends()
            head = self.replies.head()
        return 0

    cdef int _capture(self, const char* payload, size_t size) except -1:
        """Keep a DataRow of pgamb's own query: its values as bytes or None."""
        cdef size_t position = 2
        cdef uint32_t length

        cdef list row = []
        if size < 2:
            return 0
        for _ in range(read_u16(payload)):
            if size - position < 4:
                return 0
            length = read_u32(payload + position)
            position += 4
            if length == 0xffffffff:
                row.append(None)
                continue
            if size - position < length:
                return 0
            row.append(PyBytes_FromStringAndSize(payload + position, length))
            position += length
        if self.captured is None:
            self.captured = []
        self.captured.append(row)
        return 0


cdef bytes columns_of(const char* description, size_t size):
    """Return what makes the type of a result of a RowDescription, None if it is malformed.

    Which column of which table it is does not.
    """
    cdef bytearray columns = bytearray(description[:size])
    cdef char* data = columns
    cdef char* end = data + size
    cdef char* field = data + 2
    cdef char* zero
    while field < end:
        zero = <char*> memchr(field, 0, end - field)
        if zero == NULL or end - zero < 19:
            return None
        memset(zero + 1, 0, 6)
        field = zero + 19
    return bytes(columns)


cdef bint _is_fatal(const char* fields, size_t size) noexcept:
    """Tell from an ErrorResponse's severity whether the server ends the connection with it."""
    cdef size_t position = 0
    cdef const char* end
    while position + 1 < size and fields[position] != 0:
        # V is never localised; it is missing before PostgreSQL 9.6.
        if fields[position] == b"V":
            return fields[position + 1] == b"F" or fields[position + 1] == b"P"
        end = <const char*> memchr(fields + position, 0, size - position)
        if end == NULL:
            break
        position = end - fields + 1
    return False


cdef bytes _sqlstate(const char* fields, size_t size):
    """Return the SQLSTATE of an ErrorResponse that does not end its connection, None if there is none."""
    cdef size_t position = 0
    cdef const char* end
    if _is_fatal(fields, size):
        return None
    while position + 1 < size and fields[position] != 0:
        end = <const char*> memchr(fields + position, 0, size - position)
        if end == NULL:
            break
        if fields[position] == b"C":
            return PyBytes_FromStringAndSize(fields + position + 1, end - fields - position - 1)
        position = end - fields + 1
    return None
