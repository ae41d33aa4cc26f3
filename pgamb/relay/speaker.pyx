# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What pgamb says itself, in PostgreSQL's place: transactions that are not real, or no more, and its own errors.

Everything here is about a session without a backend, or whose backend owes nothing: nothing else may stand between a
question and its answer. Answers are word for word PostgreSQL's.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from pgamb.relay.backend cimport Backend, Owner
from pgamb.relay.block cimport DONE, ENDED, OPEN, WARNED, Block, Step
from pgamb.relay.framing cimport read_u16, read_u32
from pgamb.relay.numbers cimport CONTROL_BEGIN, NEED_COMMITS, NEED_EMPTY, NEED_END
from pgamb.relay.replies cimport COPY_END, QUERY, SWALLOW, SYNC, Reply
from pgamb.relay.statement cimport Plan, Statement

from pgamb.errors import ActiveTransaction, InFailedTransaction
from pgamb.wire.messages import command_complete, error_response, notice_response, ready_for_query

cdef bytes NO_PARAMETERS = b"\0\0"
cdef bytes IN_TRANSACTION = notice_response(ActiveTransaction("there is already a transaction in progress"))
cdef bytes READY_IDLE = ready_for_query(b"I")
cdef bytes READY_BLOCK = ready_for_query(b"T")
cdef bytes READY_FAILED = ready_for_query(b"E")


cdef class Speaker(Owner):
    """A session as far as pgamb itself answers it."""

    cdef bint may_begin(self) noexcept:
        """Tell whether a transaction may begin here, without PostgreSQL."""
        return False

    cdef int tell(self, bytes message) except -1:
        return self.write(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))

    cdef int _add(self, bytes message) except -1:
        """Say something that may wait for what follows it."""
        return self.collect(PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message))

    cdef bytes _ready_message(self):
        if self.failed:
            return READY_FAILED
        if self.block is None:
            return READY_IDLE
        return READY_FAILED if self.block.failed else READY_BLOCK

    cdef size_t _drop(self, size_t size, size_t total) except? 0:
        if total > size:
            self.pass_left = total - size
            self.pass_drop = True
            return size
        return total

    # Errors of pgamb's own.

    cdef int _refuse(self, object error) except -1:
        """Answer the unit that is pending with an error."""
        cdef const char* data
        cdef size_t size, total
        if self.block is not None:
            self.block.failed = True
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

    cdef int _tell_lost(self, Backend backend, bytes message) except -1:
        """Answer with an error each unit that was sent; one whose Sync was not is skipped to that Sync."""
        cdef Reply* slot
        cdef uint32_t i
        cdef bint told = backend.skipping
        if not told:
            self.tell(message)
            told = True
        for i in range(backend.replies.count):
            slot = backend.replies.at(i)
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

    # A transaction that is not real.

    cdef Step _control(self, Plan plan, bytes sql) except *:
        """Let a statement of transaction control do its work here, if it can."""
        cdef Step step
        if self.block is None:
            if plan.control != CONTROL_BEGIN or not self.may_begin():
                return OPEN
            self.block = Block(plan, sql)
            self.block.began_at = self.heard_at
            self.block.tag = b"START TRANSACTION" if plan.command.start else b"BEGIN"
            return DONE
        step = self.block.take(plan, sql)
        if step == WARNED and b"client_min_messages" in self.parameters.items:
            # PostgreSQL knows whether the application wants to hear it.
            return OPEN
        return step

    cdef int _respond(self, Step step) except -1:
        """Say what PostgreSQL would, but for ReadyForQuery."""
        if step == WARNED:
            self._add(IN_TRANSACTION)
        self._add(command_complete(self.block.tag.decode()))
        if step == ENDED:
            self.block = None
        return 0

    cdef size_t _answer_query(self, Plan plan, int need, const char* data, size_t size, size_t total) except? 0:
        """Answer a Query that needs no PostgreSQL, and return its length; 0 if it does."""
        cdef Step step = OPEN
        if plan is not None and plan.control:
            step = self._control(plan, PyBytes_FromStringAndSize(data + 5, total - 6))
        if step == OPEN:
            if self.block is None or not need & NEED_EMPTY:
                return 0
            self._add(b"I\0\0\0\4")
        else:
            self._respond(step)
        if self.prepared is not None:
            # A simple query drops the unnamed statement.
            self.prepared.unnamed = None
        self.tell(self._ready_message())
        return self._drop(size, total)

    cdef size_t _peel(self, const char* data, size_t end) except? 0:
        """Answer what leads a batch if all it does is to control the transaction, or nothing; return how long that was.

        It ends with the first Execute: the rest of the batch is a batch of its own, of the same Sync.
        """
        cdef size_t position = 0, total
        cdef Py_ssize_t index = 0
        cdef Statement statement = None, found
        cdef Step step
        cdef uint8_t kind = 0
        cdef bint bound = False, empty
        cdef bytes name = None
        cdef bytes completions = b""
        while kind != b"E":
            if position >= end:
                return 0
            kind = <uint8_t> data[position]
            total = <size_t> read_u32(data + position + 1) + 1
            if kind == b"E":
                if not bound or total != 10 or data[position + 5] != 0:
                    return 0
            elif kind != b"P" and kind != b"B" and kind != b"D":
                return 0
            else:
                found = <Statement> self.prepared.found[index]
                index += 1
                if found is None:
                    if kind != b"D" or not bound or total != 7 or data[position + 6] != 0:
                        return 0
                    completions += b"n\0\0\0\4"
                elif bound or (statement is not None and (found is not statement or kind == b"P")):
                    return 0
                else:
                    statement = found
                    if kind == b"P":
                        name = _string(data + position + 5, data + position + total)
                        if name and name in self.prepared.names:
                            return 0
                        completions = b"1\0\0\0\4"
                    elif kind == b"D":
                        completions += b"t\0\0\0\6\0\0n\0\0\0\4"
                    elif not _binds_nothing(data + position, total):
                        return 0
                    else:
                        bound = True
                        completions += b"2\0\0\0\4"
            position += total
        empty = statement.plan.need & NEED_EMPTY and self.block is not None and not self.block.failed
        if not (statement.plan.control or empty) or statement.types != NO_PARAMETERS:
            return 0
        if position < end and data[position] == b"E":
            # PostgreSQL says that it cannot run twice.
            return 0
        step = DONE if empty else self._control(statement.plan, statement.sql)
        if step == OPEN:
            return 0
        if name:
            self.prepared.names[name] = statement
        elif name is not None:
            self.prepared.unnamed = statement
        self._add(completions)
        if empty:
            self._add(b"I\0\0\0\4")
        else:
            self._respond(step)
        return position

    # A transaction that was lost with its backend.

    cdef object _failure(self):
        """Return why a statement cannot run in a failed transaction; the reason of a loss is told once."""
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
        """The same for a batch of the extended protocol, up to the first message that fails."""
        cdef size_t position = 0
        cdef Py_ssize_t index = 0
        cdef Statement statement, bound = None
        cdef uint8_t kind
        cdef bytes name
        while position < end:
            kind = <uint8_t> data[position]
            if kind == b"S":
                self.tell(self._ready_message())
            elif kind == b"C":
                name = _string(data + position + 6, data + end)
                if data[position + 5] == b"S" and name:
                    self.prepared.deallocated(name)
                self._add(b"3\0\0\0\4")
            elif kind != b"H":
                if kind != b"E":
                    statement = <Statement> self.prepared.found[index]
                    index += 1
                    if kind == b"B":
                        bound = statement
                    elif kind == b"P" and statement is not None and statement.plan.need & NEED_END:
                        name = _string(data + position + 5, data + end)
                        if name and name in self.prepared.names:
                            statement = None
                        elif name:
                            self.prepared.names[name] = statement
                        else:
                            self.prepared.unnamed = statement
                    elif kind == b"D" and data[position + 5] == b"P":
                        statement = bound
                else:
                    statement = bound
                if statement is None or not statement.plan.need & NEED_END or (
                    kind == b"E" and statement.plan.need & NEED_COMMITS and self.lost is not None
                ):
                    # A COMMIT that fails has ended its transaction.
                    self.failed = statement is None or not statement.plan.need & NEED_END
                    self.tell(error_response(self._failure()))
                    self.refusing = True
                    return position + self._skip_to_sync(data + position, end - position)
                if kind == b"E":
                    self.failed = False
                    self.lost = None
                    self._add(command_complete("ROLLBACK"))
                else:
                    if kind == b"D" and data[position + 5] == b"S":
                        self._add(b"t\0\0\0\6\0\0")
                    self._add({80: b"1\0\0\0\4", 66: b"2\0\0\0\4", 68: b"n\0\0\0\4"}[kind])
            else:
                self.flush()
            position += <size_t> read_u32(data + position + 1) + 1
        return end


cdef bytes _string(const char* text, const char* end):
    """Return the string at `text`, without its zero."""
    cdef const char* zero = <const char*> memchr(text, 0, end - text)
    return None if zero == NULL else PyBytes_FromStringAndSize(text, zero - text)


cdef bint _binds_nothing(const char* message, size_t total) noexcept:
    """Tell whether a Bind is for the unnamed portal, and carries no parameters and no formats for them."""
    cdef const char* end = message + total
    cdef const char* name = message + 6
    cdef const char* rest
    if total < 7 or message[5] != 0:
        return False
    rest = <const char*> memchr(name, 0, end - name)
    if rest == NULL or end - rest < 7:
        return False
    if memcmp(rest + 1, b"\0\0\0\0", 4) != 0:
        return False
    return <size_t> (end - rest - 5) == 2 + 2 * <size_t> read_u16(rest + 5)
