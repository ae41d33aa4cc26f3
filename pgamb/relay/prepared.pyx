# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A session's prepared statements, and the batches of the extended protocol that use them.

A named statement is virtual. All sessions that prepare the same text share one `Statement`, whose name on every
backend is the same; a backend that lacks it is given it ahead of the Bind that needs it, and one that has too many
gives up the least recently used. The application's own names never reach a backend, with one exception: where
only PostgreSQL can find the right words (an error about a name, DEALLOCATE), it is asked under that name.

The unnamed statement stays unnamed: applications use it for texts that they run once.

What a message changes is changed when it is sent, and undone (`Effect`) if PostgreSQL skips or refuses it.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy

from pgamb.relay.framing cimport read_u32, write_u32
from pgamb.relay.numbers cimport (
    NEED_BEGIN, NEED_DEALLOCATE, NEED_DEALLOCATE_ALL, NEED_EMPTY, NEED_END, NEED_EXECUTE, NEED_NEUTRAL, NEED_READ,
    NEED_READ_ONLY, NEED_SHOW,
)
from pgamb.relay.reactor cimport STAGING_BYTES
from pgamb.relay.replies cimport (
    ANSWER, BIND, CLOSE, DESCRIBE, EXECUTE, FORGIVE, MOST_REPLIES, PARSE, SETTLE, SWALLOW, SYNC,
)

from pgamb.session.custom import bound_names

# The name of what pgamb executes in the middle of a batch.
cdef bytes SLIPPED = b"pgamb_slipped_in"

cdef enum:
    # What is true of a batch only if it is true of all its statements.
    ALL_OF = NEED_READ | NEED_NEUTRAL | NEED_EMPTY
    # What is true only of a statement that is alone.
    ALONE = NEED_BEGIN | NEED_READ_ONLY | NEED_END | NEED_DEALLOCATE | NEED_SHOW | NEED_EXECUTE


class Reshaped:
    """What a statement gets that is something else on this backend than where the session has prepared it."""

    @staticmethod
    def own_words(payload, cause):
        """Say what PostgreSQL says where it was prepared before; anything but "there is none" is its own to say."""
        if b"\0C26000\0" not in payload:
            return payload
        return (
            b"SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0"
            b"Fplancache.c\0RRevalidateCachedQuery\0\0"
        )


cdef Effect reshaped_effect():
    cdef Effect effect = Effect()
    effect.phrase = Reshaped
    return effect


cdef class Prepared:
    """The named statements and the unnamed one of one session."""

    def __init__(self, Statements statements, int limit, str user):
        self.statements = statements
        self.limit = limit
        self.user = user
        self.names = {}
        self.undone = {}
        self.moments = {}
        self.found = []
        self.reused = []
        self.reshaped = set()

    # Understanding.

    cdef Scan scan(self, const char* data, size_t size) except *:
        """Find the end of the batch at `data`, its statements, and what they need together.

        If that is not all of it, the next call looks at what has come since only, unless `scanned` is set to zero:
        the batch, or what its names mean, may have become another.
        """
        cdef size_t position, total
        cdef uint8_t kind
        cdef const char* body
        cdef const char* end
        cdef Statement statement
        if self.generation != self.statements.plans.generation or self.scanned_under is not self.parameters:
            self.scanned = 0
        position = self.scanned
        if position == 0:
            self._begin_scan()
        self.scanned = 0
        while size - position >= 5:
            kind = <uint8_t> data[position]
            total = <size_t> read_u32(data + position + 1) + 1
            if memchr(b"PBDECHS", kind, 7) == NULL:
                self._conclude()
                return FOREIGN
            if total < 5 or total > LARGE_BYTES + 1 or (total > SMALL_BYTES + 1 and kind != b"P" and kind != b"B"):
                # Nothing can be behind a length that cannot be.
                self._conclude()
                return FOREIGN
            if total > size - position:
                break
            body = data + position + 5
            end = data + position + total
            if kind == b"P":
                statement = self._parsed(body, end)
                if statement is not None and statement.name:
                    self._tell(_text(body, end), statement)
                    self.hangs = self.hangs or _text(body, end) in self.names
                elif statement is not None:
                    self._tell(b"", statement)
                self.found.append(statement)
                self._count(statement)
                self.parses += 1
            elif kind == b"B" or (kind == b"D" and body < end and body[0] == b"S"):
                statement = self._named(body, end, kind == b"B", self.told)
                self.found.append(statement)
                self._count(statement)
                if kind == b"B":
                    self.binds += 1
                    self.plain = self.plain and not self.bound and body < end and body[0] == 0
                    self.bound = True
                    if statement is not None:
                        self.plan = statement.plan
                        if statement.plan.bound is not None:
                            self._note_bound(statement.plan, body, end)
            elif kind == b"C" and body < end and body[0] == b"S":
                # What follows in the batch finds it no more.
                self._tell(_text(body + 1, end), None)
            elif kind == b"D":
                self.found.append(None)
                self.plain = self.plain and self.bound and total == 7
            elif kind == b"E":
                self.executes += 1
                self.plain = self.plain and self.bound and total == 10 and memcmp(body, b"\0\0\0\0\0", 5) == 0
                self.bound = False
            position += total
            self.end = position
            if kind == b"S" or kind == b"H":
                self.synced = kind == b"S"
                self.bare = self.synced and position == 5
                self.closed = total == 5
                self.plain = self.plain and not self.bound
                self._conclude()
                return COMPLETE
        self._conclude()
        self.scanned = self.end
        return INCOMPLETE

    cdef int _begin_scan(self) except -1:
        self.found.clear()
        self.reused.clear()
        self.told = None
        self.need = ALL_OF
        self.pins = 0
        self.unpins = 0
        self.customs = None
        self.end = 0
        self.synced = False
        self.bare = self.closed = False
        self.parses = self.binds = self.executes = 0
        self.bound = False
        self.plan = None
        self.shows = self.snapshots = self.creates = self.processes = self.hangs = False
        self.plain = True
        self.generation = self.statements.plans.generation
        self.scanned_under = self.parameters
        return 0

    cdef int _tell(self, bytes name, Statement statement) except -1:
        if self.told is None:
            self.told = {}
        self.told[name] = statement
        return 0

    cdef list marks(self):
        """Return the `Mention` of the statement of each Parse, Bind and Describe of the last scan."""
        cdef Statement statement
        return [0 if statement is None else statement.plan.mention for statement in self.found]

    cdef int _count(self, Statement statement) except -1:
        if statement is None:
            self.need &= ~ALL_OF
            return 0
        if statement.generation != self.statements.plans.generation:
            self.statements.replan(statement)
        cdef int need = statement.plan.need
        if need & NEED_READ:
            need |= NEED_NEUTRAL
        self.need = (self.need & need & ALL_OF) | ((self.need | need) & ~ALL_OF)
        if need & NEED_DEALLOCATE:
            self.hangs = True
        self.shows = self.shows or statement.plan.shows
        self.snapshots = self.snapshots or statement.plan.snapshots
        self.creates = self.creates or statement.plan.creates
        self.processes = self.processes or statement.plan.processes
        self.pins |= statement.plan.pins
        self.unpins |= statement.plan.unpins
        if statement.plan.customs is not None:
            self.customs = statement.plan.customs if self.customs is None else self.customs | statement.plan.customs
        return 0

    cdef int _note_bound(self, Plan plan, const char* body, const char* end) except -1:
        """Note the custom parameters whose names are values of a Bind."""
        cdef const char* rest = _behind(body, end)
        cdef frozenset names
        if rest != NULL:
            rest = _behind(rest, end)
        if rest != NULL:
            names = bound_names(PyBytes_FromStringAndSize(rest, end - rest), plan.bound)
            self.customs = names if self.customs is None else self.customs | names
        return 0

    cdef int _conclude(self) except -1:
        if max(self.parses, self.binds) > 1:
            self.need &= ~ALONE
        return 0

    cdef Statement _parsed(self, const char* body, const char* end):
        """Return the statement of a Parse message, None if it is malformed."""
        cdef const char* sql = _behind(body, end)
        cdef const char* types
        if sql == NULL:
            return None
        types = _behind(sql, end)
        if types == NULL:
            return None
        cdef bytes text = PyBytes_FromStringAndSize(sql, types - sql - 1)
        cdef bytes oids = PyBytes_FromStringAndSize(types, end - types)
        cdef Statement statement = self._statement(text, oids, body[0] != 0)
        if statement.plan.substitute is not None:
            statement = self._statement(statement.plan.substitute, oids, body[0] != 0)
            statement.replaced = True
        return statement

    cdef Statement _statement(self, bytes sql, bytes types, bint named):
        if not named:
            return self.statements.unnamed(sql, types)
        return self.statements.of(sql, types, self.parameters.naming, self.user)

    cdef Statement _named(self, const char* body, const char* end, bint bind, dict pending):
        """Return the statement that a Bind or a Describe speaks of, None if there is none of that name."""
        cdef const char* name = _behind(body, end) if bind else body + 1
        cdef bytes text
        cdef Statement statement
        if name == NULL:
            return None
        text = _text(name, end)
        if text is None:
            return None
        if pending is not None and text in pending:
            return <Statement> pending[text]
        if not text:
            return self.unnamed
        statement = self.names.get(text)
        if statement is not None:
            self.reused.append(statement)
        return statement

    cdef bint prepare_alone(self, const char* data, size_t size, object group, object parameters) except -1:
        """Carry out the batch that the last `scan` found, if it can be done without PostgreSQL.

        That is: it prepares, under new names, statements that are known to be accepted. `completions` answers it.
        """
        cdef size_t position = 0
        cdef Py_ssize_t index = 0
        cdef const char* message
        cdef const char* end
        cdef Statement statement
        cdef bytes name
        cdef dict fresh = {}
        if not self.synced or self.native:
            return 0
        while position < size:
            message = data + position
            end = message + read_u32(message + 1) + 1
            if message[0] == b"P":
                statement = <Statement> self.found[index]
                index += 1
                name = _text(message + 5, end)
                if not name or name in self.names or name in fresh or statement is None:
                    return 0
                if not statement.is_accepted(group, parameters):
                    return 0
                fresh[name] = statement
            elif message[0] != b"S" or end - message != 5:
                return 0
            position = end - data
        self.names.update(fresh)
        for statement in fresh.values():
            self.note_prepared(statement)
        self.completions = b"1\0\0\0\4" * len(fresh)
        return 1

    # Sending.

    cdef int send(self, Backend backend, const char* data, size_t size) except -1:
        """Send the whole messages that the last `scan` found at `data`, rewritten where they name statements."""
        cdef size_t position = 0, total
        cdef Py_ssize_t index = 0
        cdef uint8_t kind
        cdef const char* message
        self.backend = backend
        self.region = data
        self.staged = 0
        self.touched = False
        self.fresh = None
        if self.undone and not backend.replies.count:
            self.undone.clear()
        while position < size:
            message = data + position
            kind = <uint8_t> message[0]
            total = <size_t> read_u32(message + 1) + 1
            if kind != b"H" or total != 5:
                backend.batch_open = kind != b"S"
            # After an error PostgreSQL waits for Sync, and nothing else is answered.
            if backend.skipping and kind != b"S":
                self._skip(message, total)
                if kind == b"P" or kind == b"B" or kind == b"D":
                    index += 1
            elif kind == b"B":
                self._bind(message, total, <Statement> self.found[index])
                index += 1
            elif kind == b"E" or (kind == b"H" and total != 5):
                # A Flush is answered by nothing, but for one that is malformed: that is an error.
                backend.replies.push(EXECUTE, 0, None)
            elif kind == b"S":
                backend.skipping = False
                backend.replies.push(SYNC, 0, None)
            elif kind == b"P":
                self._parse(message, total, <Statement> self.found[index])
                index += 1
            elif kind == b"D":
                self._describe(message, total, <Statement> self.found[index])
                index += 1
            elif kind == b"C":
                self._close(message, total)
            position += total
        self._finish(data + size)
        self.reshaped.clear()
        if backend.kept.size() == 0:
            backend.answer()
        return 0

    cdef size_t send_bind_head(self, Backend backend, const char* data, size_t available) except 0:
        """Send the part that has arrived of a Bind too large to be waited for; return its whole length."""
        cdef size_t total = <size_t> read_u32(data + 1) + 1
        self.backend = backend
        self.region = data
        self.staged = 0
        self.touched = False
        self.fresh = None
        backend.batch_open = True
        if backend.skipping:
            self.region = data + available
        else:
            self._bind(data, available, self._named(data + 5, data + available, True, None))
        self._finish(data + available)
        backend.answer()
        return total

    cdef int _finish(self, const char* end) except -1:
        """Send what was put together, and the rest as it is."""
        cdef char* staging = self.backend.reactor.staging
        if not self.touched:
            return self.backend.write(self.region, end - self.region)
        self._take(end)
        if self.staged:
            self.backend.write(staging, self.staged)
        else:
            self.backend.flush()
        self.backend = None
        return 0

    cdef int _take(self, const char* end) except -1:
        """Add what is sent as it is, up to `end`."""
        cdef const char* region = self.region
        self.touched = True
        self.region = end
        return self._put(region, end - region)

    cdef int _put(self, const char* data, size_t size) except -1:
        cdef char* staging = self.backend.reactor.staging
        if self.staged + size > STAGING_BYTES:
            self.backend.collect(staging, self.staged)
            self.staged = 0
            if size > STAGING_BYTES:
                return self.backend.collect(data, size)
        memcpy(staging + self.staged, data, size)
        self.staged += size
        return 0

    cdef int _put_header(self, uint8_t kind, size_t length) except -1:
        cdef char[5] header
        header[0] = <char> kind
        write_u32(header + 1, <uint32_t> length)
        return self._put(header, 5)

    cdef int _put_bytes(self, bytes text) except -1:
        return self._put(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef int _put_string(self, bytes text) except -1:
        """Add a string and its closing zero."""
        return self._put(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text) + 1)

    cdef int _put_parse(self, bytes name, bytes sql, bytes types) except -1:
        self._put_header(b"P", 4 + len(name) + 1 + len(sql) + 1 + len(types))
        self._put_string(name)
        self._put_string(sql)
        return self._put_bytes(types)

    cdef int _put_close(self, bytes name) except -1:
        self._put_header(b"C", 4 + 1 + len(name) + 1)
        self._put(b"S", 1)
        return self._put_string(name)

    cdef int _skip(self, const char* message, size_t total) except -1:
        self._take(message)
        self.region = message + total
        return 0

    cdef int _parse(self, const char* message, size_t total, Statement statement) except -1:
        cdef Effect effect
        cdef bytes name
        if statement is None:
            # Malformed: PostgreSQL says how.
            self.backend.replies.push(PARSE, 0, None)
            return 0
        effect = Effect()
        effect.statement = statement
        if self.native and message[5]:
            name = _text(message + 5, message + total)
            if name in self.names:
                # PostgreSQL refuses it.
                self.backend.replies.push(PARSE, 0, None)
                return 0
            effect.name = name
            self.names[name] = statement
            if statement.replaced:
                self._skip(message, total)
                self._put_parse(name, statement.sql, statement.types)
            self.backend.replies.push(PARSE, 0, effect)
            return 0
        if message[5] == 0:
            effect.name = b""
            effect.previous = self.unnamed
            self.unnamed = self.backend.unnamed = statement
            if statement.replaced:
                self._skip(message, total)
                self._put_parse(b"", statement.sql, statement.types)
            self.backend.replies.push(PARSE, 0, effect)
            return 0
        name = _text(message + 5, message + total)
        if name in self.names and (self.fresh is None or name in self.fresh):
            self._refuse_duplicate(message, name)
            return 0
        effect.name = name
        effect.previous = self.names.get(name)
        self.names[name] = statement
        self._skip(message, total)
        if self.fresh is not None:
            self.fresh.add(name)
            # Whether the backend has it still is not known before the DEALLOCATE ALL is answered.
            self._put_close(statement.name)
            self.backend.replies.push(CLOSE, SWALLOW, None)
            self.backend.tainted = True
        elif statement in self.backend.statements:
            if statement.plan.need & NEED_END:
                # There is nothing in it that could have changed.
                self.backend.replies.push(PARSE, ANSWER, effect)
                return 0
            # It may be something else since, and what may be prepared in a failed transaction PostgreSQL tells best.
            self._give_up(statement)
        else:
            self._make_room()
        self.note_prepared(statement)
        return self._put_described(statement.types, statement, effect, 0)

    cdef int _refuse_duplicate(self, const char* message, bytes name) except -1:
        """Let PostgreSQL say 42P05 in its own words: give the backend that name first."""
        self._take(message)
        self._lend(name)
        self.backend.replies.push(PARSE, 0, None)
        return 0

    cdef int _lend(self, bytes name) except -1:
        """Give the backend a statement under the application's own name, for PostgreSQL to speak of it."""
        self._put_close(name)
        self.backend.replies.push(CLOSE, SWALLOW, None)
        self._put_parse(name, b"", b"\0\0")
        self.backend.replies.push(PARSE, SWALLOW, None)
        self.backend.lent.add(name)
        return 0

    cdef int _take_back(self, bytes name) except -1:
        """See to it that PostgreSQL knows no such name."""
        if name in self.backend.lent:
            # Whether it is carried out is not known yet, so the name counts as lent on.
            self._put_close(name)
            self.backend.replies.push(CLOSE, SWALLOW, None)
        return 0

    cdef int _make_room(self) except -1:
        """Let the backend give up a statement if it has its fill."""
        if len(self.backend.statements) < self.limit:
            return 0
        return self._give_up(<Statement> self.backend.statements.popitem(False)[0])

    cdef int _give_up(self, Statement statement) except -1:
        """Close a statement that the backend has."""
        cdef Effect effect = Effect()
        effect.evicted = statement
        self._put_close(statement.name)
        self.backend.replies.push(CLOSE, SWALLOW | self.flags, effect)
        return 0

    cdef int _need_on_backend(self, const char* message, Statement statement) except -1:
        """See to it that the backend has a named statement before `message` is sent."""
        cdef Effect effect
        cdef object held = self.backend.statements.get(statement)
        if held is not None and held >= self.moments.get(statement, 0):
            self.backend.statements.move_to_end(statement)
            return 0
        self._take(message)
        if held is not None:
            # The session has prepared it later than that: it may be something else since.
            self._give_up(statement)
        if statement in self.reshaped:
            # PostgreSQL says that there is none: the transaction fails as it should, and the words are put right.
            self.backend.statements.pop(statement, None)
            return 0
        if held is None:
            self._make_room()
        effect = Effect()
        if statement.head is not None:
            effect.on_backend = statement
            self.backend.statements[statement] = effect.moment = self.statements.moment
            return self._put_prepare(statement, effect)
        # Who has prepared it before it was described last has these types, whatever has become of its tables.
        return self._put_described(
            statement.types if statement.columns is None or self.is_newer(statement) else statement.resolved,
            statement, effect, SWALLOW,
        )

    cdef int _put_described(self, bytes types, Statement statement, Effect effect, int flags) except -1:
        """Parse a statement and have it described: backends may not differ in what it is."""
        cdef Effect description = Effect()
        effect.on_backend = description.described = statement
        effect.moment = description.moment = self.statements.moment
        self.backend.statements[statement] = effect.moment
        self.backend.statements.move_to_end(statement)
        self._put_parse(statement.name, statement.sql, types)
        self.backend.replies.push(PARSE, flags | self.flags, effect)
        self._put_header(b"D", 4 + 1 + len(statement.name) + 1)
        self._put(b"S", 1)
        self._put_string(statement.name)
        self.backend.replies.push(DESCRIBE, SWALLOW | self.flags, description)
        return 0

    cdef bint check(self, Backend backend, bint kept) except -1:
        """Have what the last `scan` found prepared on the backend, if it must not run there unless it is what it was.

        Return whether that was sent, in a batch of its own: its owner hears when that is done (SETTLE). A unit that is
        `kept` can be taken back while nothing of its answer has been told, which saves the wait.
        """
        cdef Statement statement
        cdef object held, since
        cdef bint begun = False
        if self.native or backend.skipping or backend.batch_open or backend.status == b"E" or backend.doomed:
            return 0
        for statement in self.reused:
            held = backend.statements.get(statement)
            since = self.moments.get(statement, 0)
            if held is not None and held >= since or not statement.columns or since > statement.confirmed:
                continue
            if kept and len(self.reused) == 1 and not statement.doubtful:
                continue
            if not begun:
                if not backend.replies.will_end():
                    return 0
                begun = True
                self._begin(backend)
                self.flags = FORGIVE
            self._need_on_backend(NULL, statement)
        if begun:
            self.flags = 0
            self._end(FORGIVE | SETTLE)
        return begun

    cdef unsigned long long note_prepared(self, Statement statement) except 0:
        """The session prepares it now: a backend that has it from before is none the wiser."""
        self.statements.moment += 1
        if len(self.moments) > 2 * len(self.names) + 16:
            held = set(self.names.values())
            self.moments = {each: moment for each, moment in self.moments.items() if each in held}
        self.moments[statement] = self.statements.moment
        return self.statements.moment

    cdef bint is_newer(self, Statement statement):
        """Tell whether the session has prepared it after it was last known to be what it was."""
        return self.moments.get(statement, 0) > statement.confirmed

    cdef int replace(self, Statement statement, bytes types, bytes columns, unsigned long long moment) except -1:
        """It is something else where the session has prepared it: share that with those who have prepared it since."""
        cdef Statement successor = self.statements.successor(statement)
        cdef bytes name
        self.scanned = 0
        if not successor.confirm(types, columns, moment):
            # That has been outlived, too.
            self.statements.retire(successor)
            successor = self.statements.successor(statement)
            successor.confirm(types, columns, moment)
        self.moments[successor] = self.moments.pop(statement)
        for name in [name for name, each in self.names.items() if each is statement]:
            self.names[name] = successor
        return 0

    cdef int _put_prepare(self, Statement statement, Effect effect) except -1:
        """Execute a PREPARE, within whatever batch this is: a Query would end its transaction."""
        # One that failed has left its own statement behind.
        self._put_close(SLIPPED)
        self.backend.replies.push(CLOSE, SWALLOW | self.flags, None)
        self._put_parse(SLIPPED, statement.prepare_sql(), b"\0\0")
        self.backend.replies.push(PARSE, SWALLOW | self.flags, None)
        self._put_header(b"B", 4 + len(SLIPPED) + 1 + len(SLIPPED) + 1 + 6)
        self._put_string(SLIPPED)
        self._put_string(SLIPPED)
        self._put(b"\0\0\0\0\0\0", 6)
        self.backend.replies.push(BIND, SWALLOW | self.flags, None)
        self._put_header(b"E", 4 + len(SLIPPED) + 1 + 4)
        self._put_string(SLIPPED)
        self._put(b"\0\0\0\0", 4)
        self.backend.replies.push(EXECUTE, SWALLOW | self.flags, effect)
        self._put_header(b"C", 4 + 1 + len(SLIPPED) + 1)
        self._put(b"P", 1)
        self._put_string(SLIPPED)
        self.backend.replies.push(CLOSE, SWALLOW | self.flags, None)
        self._put_close(SLIPPED)
        self.backend.replies.push(CLOSE, SWALLOW | self.flags, None)
        return 0

    cdef int _begin(self, Backend backend) except -1:
        """Put together what is pgamb's own."""
        self.backend = backend
        self.region = NULL
        self.staged = 0
        self.touched = True
        self.amid = backend.batch_open or not backend.replies.will_end()
        return 0

    cdef int _end(self, int flags) except -1:
        """Send it, with a Sync; without, if it is in the middle of a batch of the application's."""
        if not self.amid:
            self._put_header(b"S", 4)
            self.backend.replies.push(SYNC, SWALLOW | flags, None)
        self.backend.write(self.backend.reactor.staging, self.staged)
        self.backend = None
        return 0

    cdef int _need_unnamed(self, const char* message) except -1:
        """See to it that the backend's unnamed statement is this session's."""
        if self.unnamed is None:
            # Another session may have left one there.
            self._take(message)
            self._put_close(b"")
            self.backend.replies.push(CLOSE, SWALLOW, None)
            self.backend.unnamed = None
            return 0
        if self.backend.unnamed is self.unnamed:
            return 0
        self._take(message)
        self._put_parse(b"", self.unnamed.sql, self.unnamed.types)
        self.backend.replies.push(PARSE, SWALLOW, None)
        self.backend.unnamed = self.unnamed
        return 0

    cdef int _bind(self, const char* message, size_t available, Statement statement) except -1:
        cdef const char* end = message + available
        cdef const char* name = _behind(message + 5, end)
        cdef const char* rest
        cdef Effect effect = None
        if name == NULL or memchr(name, 0, end - name) == NULL:
            self.backend.replies.push(BIND, 0, None)
            return 0
        if statement is not None and statement.plan.need & NEED_DEALLOCATE and statement.plan.intent.name is not None:
            effect = self._bound_deallocate(message, statement)
        if self.fresh is not None and name[0] and _text(name, end) not in self.fresh:
            # If this is carried out at all, the DEALLOCATE ALL has been.
            statement = None
        if statement is not None and statement.plan.need & NEED_DEALLOCATE_ALL:
            # It may be a prepared statement itself: only what follows it meets a session without any.
            self.fresh = set()
        if name[0] == 0:
            self._need_unnamed(message)
        elif statement is not None and not self.native:
            self._need_on_backend(message, statement)
            rest = _behind(name, end)
            self._rename(message, name, rest, statement.name)
            if statement in self.reshaped:
                effect = reshaped_effect()
            elif statement.head is not None:
                effect = self.spoken_of(statement, _text(name, end))
        elif not self.native:
            # There is no such statement, which PostgreSQL says best.
            self._take(message)
            self._take_back(_text(name, end))
        self.backend.replies.push(BIND, 0, effect)
        return 0

    cdef Effect _bound_deallocate(self, const char* message, Statement statement):
        cdef bytes name = (<str> statement.plan.intent.name).encode("utf-8", "surrogateescape")
        if self.native:
            return self.deallocated(name)
        self._take(message)
        if name in self.names:
            self._lend(name)
        else:
            self._take_back(name)
        return self.deallocated(name)

    cdef int _rename(self, const char* message, const char* old, const char* rest, bytes name) except -1:
        """Send a message with another name between `old` and `rest`."""
        self._take(message)
        self._put_header(<uint8_t> message[0], read_u32(message + 1) + len(name) + 1 - (rest - old))
        self._put(message + 5, old - message - 5)
        self._put_string(name)
        self.region = rest
        return 0

    cdef int _describe(self, const char* message, size_t total, Statement statement) except -1:
        cdef const char* end = message + total
        cdef const char* rest
        cdef Effect effect = None
        if total > 6 and message[5] == b"S":
            rest = _behind(message + 6, end)
            if message[6] == 0:
                self._need_unnamed(message)
            elif statement is not None and rest != NULL and not self.native:
                self._need_on_backend(message, statement)
                self._rename(message, message + 6, rest, statement.name)
                if statement in self.reshaped:
                    effect = reshaped_effect()
                elif statement.head is not None:
                    effect = self.spoken_of(statement, _text(message + 6, end))
            elif rest != NULL and not self.native:
                self._take(message)
                self._take_back(_text(message + 6, end))
        self.backend.replies.push(DESCRIBE, 0, effect)
        return 0

    cdef int _close(self, const char* message, size_t total) except -1:
        cdef bytes name
        if total > 7 and message[5] == b"S" and message[6] != 0:
            name = _text(message + 6, message + total)
            if name is not None and _behind(message + 6, message + total) == message + total:
                if self.native:
                    self.backend.replies.push(CLOSE, 0, self.deallocated(name))
                    return 0
                # The backend keeps its statement: others may use it.
                self._skip(message, total)
                self.backend.replies.push(CLOSE, ANSWER, self.deallocated(name))
                return 0
        if total == 7 and message[5] == b"S":
            self.unnamed = self.backend.unnamed = None
        self.backend.replies.push(CLOSE, 0, None)
        return 0

    cdef Effect spoken_of(self, Statement statement, bytes name):
        """Return what puts an error about a statement made by PREPARE into the application's words."""
        raise NotImplementedError

    # What changes the names.

    cdef Effect deallocated(self, bytes name):
        """Forget a name; return what brings it back, None if there was none."""
        cdef Effect effect
        cdef Statement previous = self.names.pop(name, None)
        self.scanned = 0
        if previous is None:
            return None
        effect = Effect()
        effect.name = name
        effect.previous = previous
        return effect

    cdef int prepare_words(self, Backend backend, bytes name, bint known) except -1:
        """See to it that the Query that follows finds a statement under the application's own name, or none."""
        self._begin(backend)
        if known:
            self._lend(name)
        else:
            self._take_back(name)
        if self.staged:
            return self._end(0)
        self.backend = None
        return 0

    cdef bytes with_own_names(self, bytes payload):
        """Put this session's names for the backends' into an ErrorResponse."""
        cdef Statement statement
        if self.statements.prefix in payload:
            for names in (self.names, self.undone):
                for name, statement in (<dict> names).items():
                    payload = payload.replace(b'"' + statement.name + b'"', b'"' + <bytes> name + b'"')
        return payload

    cdef int undo(self, Backend backend, Effect effect, bint failed) except -1:
        """PostgreSQL has skipped a Parse or a Close, or refused it (`failed`)."""
        self.scanned = 0
        if effect.dropped is not None and not failed and self.unnamed is None:
            # A Query that has been skipped has dropped nothing.
            self.unnamed = effect.dropped
            backend.unnamed = None
        if effect.name is None:
            return 0
        if effect.name == b"":
            # A Parse that fails has dropped the unnamed statement already.
            if self.unnamed is effect.statement:
                self.unnamed = None if failed else effect.previous
            backend.unnamed = None
            return 0
        if effect.statement is not None:
            # What was sent behind it speaks of it all the same, and will be told that there is none.
            self.undone[effect.name] = effect.statement
            if len(self.undone) > MOST_REPLIES:
                # Nothing that is due can speak of it any more.
                del self.undone[next(iter(self.undone))]
        if effect.statement is None and effect.name in self.names:
            # What was prepared behind a DEALLOCATE that never happened.
            return 0
        if effect.previous is not None:
            self.names[effect.name] = effect.previous
        elif self.names.get(effect.name) is effect.statement:
            del self.names[effect.name]
        return 0

    cdef int forget_all(self, Backend backend) except -1:
        """DEALLOCATE ALL, DISCARD ALL: nothing is left but what was sent behind it."""
        cdef Effect effect
        self.scanned = 0
        # What was sent behind it may speak of them all the same, and will be told that there are none.
        self.undone.update(self.names)
        self.names.clear()
        for effect in backend.replies.effects_left():
            if effect.name and effect.statement is not None:
                self.names[effect.name] = effect.statement
        return 0


cdef enum:
    # PostgreSQL's limits: PQ_LARGE_MESSAGE_LIMIT and PQ_SMALL_MESSAGE_LIMIT.
    LARGE_BYTES = 0x3ffffffe
    SMALL_BYTES = 10000


cdef const char* _behind(const char* text, const char* end) noexcept:
    """Return what follows the string at `text` and its zero, NULL if it does not end before `end`."""
    cdef const char* zero
    if text == NULL or text >= end:
        return NULL
    zero = <const char*> memchr(text, 0, end - text)
    if zero == NULL:
        return NULL
    return zero + 1


cdef bytes _text(const char* text, const char* end):
    """Return the string at `text`, None if it does not end before `end`."""
    cdef const char* behind = _behind(text, end)
    if behind == NULL:
        return None
    return PyBytes_FromStringAndSize(text, behind - text - 1)
