# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What becomes of a unit whose member refuses it, or is lost.

A read may be asked again elsewhere (`_repeat`) as long as nothing of its answer has been forwarded; nothing else may.
Of all else the application is told the truth: whether it can have taken effect.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t

from pgamb.relay.backend cimport Backend
from pgamb.relay.buffer cimport Buffer
from pgamb.relay.clock cimport now_s
from pgamb.relay.numbers cimport (
    NEED_NEUTRAL, NEED_READ, PIN_BACKEND_PID, PIN_PREPARE, PIN_SEQUENCES, PIN_SESSION_MODE, WISH_REPLICA,
)
from pgamb.relay.pool cimport Pool
from pgamb.relay.replies cimport Effect
from pgamb.relay.router cimport Router
from pgamb.relay.routes cimport LOST_THERE, REFUSED_THERE
from pgamb.relay.session cimport (
    ASKING, CANCELING, CHECKING, PREPARING, READY, RESTORING, SETTLING, STALLED, TURNING,
)
from pgamb.relay.statement cimport Plan, Statement

from pgamb.errors import (
    AdminShutdown, PostgresError, QueryCanceled, SerializationFailure, TransactionResolutionUnknown,
)
from pgamb.wire.messages import error_response, parse_error_fields

# A standby refuses with these what it cannot do, whatever the words (which are translated): a read that the primary,
# too, answers so has lost nothing by being asked again.
cdef tuple REFUSALS = (b"25006", b"0A000", b"55000", b"XX000")
# Replay has cancelled it, which says nothing about the statement.
cdef tuple CONFLICTS = (b"40001", b"40P01")
# A backend was idle for longer than its idle_session_timeout.
IDLE_TIMEOUT = "57P05"
# The server goes down: what it cuts off is told by what was under way.
# Replay may end a session, too, if cancelling its statement is not enough.
SHUTDOWN_STATES = ("57P01", "57P02", "57P03", "40001", "40P01")
# How long the backends of one member may take to die with it.
cdef double ONE_LOSS_S = 0.1

cdef enum:
    # A longer read is not kept, and so not repeated.
    KEEP_BYTES = 1 << 16
    # How often a read is asked again after its member was lost: it may be the read that kills them.
    REPEATS = 2
    # How long after pg_terminate_backend() a session may still end by it.
    CONDEMNED_S = 60


cdef class Healer(Router):
    """A session as far as it outlives those."""

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

    cdef bint on_refused(self, Backend backend, bytes state, bint reshaped) except -1:
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
        # A statement that has outlived its table's shape is no less a read; whether it has, the primary knows.
        self._repeat(LOST_THERE if conflict or reshaped else REFUSED_THERE)
        return 1

    cdef int _on_reshaped(self, Backend backend, Statement statement) except -1:
        cdef Pool pool = self.pool
        if self.state == CHECKING:
            self.prepared.reshaped.add(statement)
            return 0
        if backend.kept.size() and not (backend.forwarded or backend.unkept or self.pass_left):
            self._take_back(backend)
            pool.recall(backend)
            self.relay.tell_repeated(self, None)
            return self._repeat(LOST_THERE)
        # In the middle of a batch there was no way to find out before. Nobody gets what it does not expect.
        return self._die(AdminShutdown(
            "cached plan must not change result type: a table was changed while the statement was under way",
            hint="Connect again.",
        ))

    cdef int _end_check(self) except -1:
        self.state = READY
        self.checked = True
        if self.prepared.reshaped and self.pool.replica and self.role != WISH_REPLICA:
            # This replica may not have seen yet what the session has.
            self.prepared.reshaped.clear()
            self.checked = False
            self._release()
            self.healing = LOST_THERE
        return self._resume()

    cdef int _take_back(self, Backend backend) except -1:
        """What is kept goes to the front of what is pending, as if it had not been sent."""
        cdef Effect effect
        cdef Buffer again = Buffer()
        cdef bytes units
        cdef object unnamed = backend.kept_unnamed[0] if backend.kept_unnamed else None
        for effect in reversed(backend.replies.effects_left()):
            if effect.name is not None or effect.dropped is not None:
                self.on_undo(backend, effect, False)
        if self.prepared is not None:
            # As it was before the oldest of them.
            self.prepared.unnamed = <Statement> unnamed
            self.prepared.scanned = 0
        units = backend.take_kept()
        again.append(PyBytes_AS_STRING(units), PyBytes_GET_SIZE(units))
        if self.pending is not None:
            again.append(self.pending.head(), self.pending.size())
        self.pending = again
        self.backend = None
        # What is on its way to a member that it leaves would find nothing there.
        self.canceled = backend.cancels > 0
        return 0

    cdef int _repeat(self, int reason) except -1:
        """Ask again what was taken back."""
        self.healing = reason
        self.committing = self.multiple = self.granted = False
        self.pure = True
        self.unpins = 0
        if self.state == STALLED or self.state == PREPARING or self.state == CANCELING:
            self.state = READY
        if self.canceled:
            self.canceled = False
            self.healing = 0
            self._refuse(QueryCanceled("canceling statement due to user request"))
        return self._resume()

    cdef bytes on_error(self, Backend backend, bytes payload):
        # What did not happen unpins nothing.
        self.unpins = 0
        if backend.kept.size() and self.pool.replica and self.plan is not None and backend.replies.owes_one():
            fields = parse_error_fields(payload)
            if fields.get("C", "").encode() in REFUSALS and fields.get("R") != "RevalidateCachedQuery":
                # Too late for this time: rows have been forwarded.
                self._learn(self.plan)
        self.batch_failed = True
        if self.block is not None:
            self.block.failed = True
            self.shown = b"E"
        if self.shapes:
            self.shapes = 2
        if backend.stale:
            backend.stale = False
            self.group.statements.renew()
        if b'parameter "pgamb.' in payload:
            # pgamb's own words, which PostgreSQL says for it: where they stand in PL/pgSQL concerns nobody.
            payload = b"\0".join([field for field in payload.split(b"\0") if field[:1] != b"W"])
        return payload if self.prepared is None else self.prepared.with_own_names(payload)

    cdef bint _may_repeat(self) noexcept:
        """Tell whether a read is asked again after the loss of its backend, and count that.

        A member that dies takes its backends with it one after the other, faster than anybody can tell: that is one
        loss.
        """
        cdef double now = now_s()
        if self.lost_from is not self.pool or now - self.lost_at_s > ONE_LOSS_S:
            self.lost_from = self.pool
            self.lost_at_s = now
            self.repeats += 1
        return self.repeats <= REPEATS

    cdef int backend_lost(self, Backend backend, object error) except -1:
        """Tell the application the truth about what was under way."""
        cdef bint in_transaction = backend.status != b"I" or self.opened
        cdef bint unfinished = backend.replies.count > 0 or backend.skipping or backend.batch_open
        # Nothing that would end the transaction has been sent, if no Sync was, nor the end of a COPY FROM.
        cdef bint uncommitted = not self.committing and not self.multiple and (
            backend.replies.owed() == 0 or (backend.copying_in and not backend.replies.copy_ended())
        )
        cdef uint8_t state = self.state
        # Why PostgreSQL ended it, None if it did not say.
        cdef object sqlstate = error.sqlstate if isinstance(error, PostgresError) else None
        cdef object cause = f"{self.pool.name} was lost: {error}"
        self.backend = None
        self.granted = self.opened = False
        if state == STALLED or state == ASKING or state == SETTLING or state == RESTORING or state == PREPARING or (
            state == CANCELING
        ):
            self.state = READY
        if state == TURNING:
            self.state = READY
            self.prepared.end_native()
            self.pins &= ~PIN_PREPARE
            unfinished = False
        self.asked_floor = 0
        if self.shapes:
            self._end_shapes(True)
        if self.condemned_at_s and now_s() - self.condemned_at_s < CONDEMNED_S and sqlstate == "57P01":
            # pg_terminate_backend() was meant for this session, and not for the server.
            return self._die(error)
        if state == CHECKING:
            self.state = READY
            self.prepared.reshaped.clear()
        if state == SETTLING or (
            state == CHECKING and not (in_transaction or self.pins or backend.replies.owed())
        ):
            # Nothing of this unit has been sent: it goes elsewhere.
            return self._resume()
        if state == RESTORING and not self.pins:
            return self._resume()
        if backend.judging and not (backend.unkept or self.pass_left) and (
            sqlstate is None or sqlstate == IDLE_TIMEOUT or sqlstate in SHUTDOWN_STATES
        ) and self._may_repeat():
            # Reads, and nothing of their answers has been forwarded.
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
        if sqlstate == IDLE_TIMEOUT and backend.status == b"I" and unfinished and not self.pins:
            # The backend was idle too long, and not this session. What was sent at that moment nobody has looked at.
            self._forget_visit()
            self.failed = in_transaction
            self._tell_lost(backend, error_response(_lost_transaction(cause)))
            return self._resume()
        if sqlstate is not None and sqlstate not in SHUTDOWN_STATES:
            # PostgreSQL ended this session for a reason of its own: a timeout, an administrator's word.
            return self._die(error)
        if backend.pass_left and backend.pass_forward:
            return self._die(AdminShutdown(f"the connection to {cause}, in the middle of a message"))
        # Without what it got from sequences a session goes on: PostgreSQL says 55000 if it asks. Who has asked for its
        # process id asks again.
        self.pins &= ~(PIN_SEQUENCES | PIN_BACKEND_PID)
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


def _lost_transaction(cause):
    return SerializationFailure(f"the connection to {cause}", hint="Repeat the transaction.")
