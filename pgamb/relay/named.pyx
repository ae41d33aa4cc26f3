# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A session's prepared statements as SQL speaks of them: PREPARE, EXECUTE, DEALLOCATE, and asking which there are.

A statement made by PREPARE is virtual like one made by Parse, and found under the same names: all sessions whose
PREPARE has the same text behind the name share one, and a Query that names one is sent with that name in its place.
What PostgreSQL then says is put back into the application's words: names, and positions in the text.

What cannot be said under other names makes the session *native*: its backend then has its statements, and no others,
under its own names, and everything is sent as it is. It stays so while it has statements.
"""

from pgamb.relay.backend cimport Backend
from pgamb.relay.numbers cimport NEED_NEUTRAL, NEED_READ, NEED_SEQUENCE, NEED_SETTINGS, NEED_TRANSACTION_TIME
from pgamb.relay.prepared cimport Prepared
from pgamb.relay.replies cimport CLOSE, FORGIVE, PARSE, QUERY, SETTLE, STAND_IN, SWALLOW, SYNC, Effect
from pgamb.relay.statement cimport Statement

from pgamb.routing.prepare import Phrase, Verb, may_prepare, phrase_of

cdef object PREPARE = Verb.PREPARE
cdef object EXECUTE = Verb.EXECUTE
# PostgreSQL's answers when what had to be prepared ahead could not be.
cdef tuple MISSING = (b"C26000", b"C25P02")

cdef enum:
    # What the prepared statement may need for its EXECUTE to be judged by it.
    JUDGED = NEED_READ | NEED_NEUTRAL | NEED_SETTINGS | NEED_TRANSACTION_TIME | NEED_SEQUENCE


cdef class Spoken:
    """What a Query says of a prepared statement."""

    def own_words(self, bytes payload, bytes cause):
        """Put an ErrorResponse to it into the application's words.

        `cause`: why the statement could not be prepared just before, which may be this very error, or None.
        """
        cdef bint stands_in
        cdef bytes name
        if not self.renamed:
            return payload
        fields = payload.split(b"\0")
        stands_in = cause is payload or (cause is not None and any(field in MISSING for field in fields))
        if stands_in:
            fields = cause.split(b"\0")
        at = next((index for index, field in enumerate(fields) if field[:1] == b"P"), -1)
        if at >= 0 and fields[at][1:].isdigit():
            fields[at] = b"P%d" % self._position(int(fields[at][1:]), stands_in)
        name = self.phrase.name
        return b"\0".join(fields).replace(b'"' + self.statement.name + b'"', b'"' + name + b'"')

    def _position(self, position, bint stands_in):
        """Return where in the application's text that is; PostgreSQL counts characters, from one."""
        if self.phrase.verb is PREPARE or not (stands_in or not self.phrase.arguments):
            end = self.phrase.end
            ours = self.phrase.start + len(self.statement.name)
        elif self.statement.head is None or self.said is None:
            # What a Parse has prepared has no name in it.
            return position
        else:
            end = self.said[1].end
            ours = len(self.statement.head) + len(self.statement.name)
        return position - ours + end if position > ours else min(position, end)


cdef class Named(Prepared):
    """The prepared statements of one session."""

    def __init__(self, statements, int limit, str user):
        Prepared.__init__(self, statements, limit, user)
        self.said = {}

    @property
    def size(self):
        """How many statements the session has."""
        return len(self.names)

    cdef bint batch_may_prepare(self) except -1:
        """Tell whether a statement of the batch that was scanned last may be a PREPARE."""
        cdef Statement statement
        for statement in self.found:
            if statement is not None and may_prepare(statement.sql):
                return True
        return False

    cdef Spoken hear(self, bytes sql):
        """Understand a Query that names a prepared statement; None if it has to be said as it is."""
        cdef Spoken spoken
        cdef Statement statement
        cdef object phrase = phrase_of(sql)
        if phrase is None:
            return None
        spoken = Spoken()
        spoken.sql = sql
        spoken.phrase = phrase
        if phrase.verb is PREPARE:
            if phrase.name not in self.names:
                spoken.statement = self.statements.of_prepare(
                    phrase.body, sql[:phrase.start], sql[phrase.end:], self.parameters.naming, self.user,
                    self.names.values(),
                )
            return spoken
        statement = self.names.get(phrase.name)
        if statement is None:
            return spoken
        if statement.generation != self.statements.plans.generation:
            self.statements.replan(statement)
        if statement.plan.need & ~JUDGED:
            # It is no query: nobody knows what an EXECUTE of it does.
            return None
        spoken.statement = statement
        spoken.said = self.said.get(phrase.name)
        if phrase.alone:
            spoken.plan = statement.plan
        return spoken

    cdef bytes speak(self, Backend backend, Spoken spoken, bint unheard):
        """Return the text to send, when the backend has been given what it needs for it.

        `unheard`: the transaction has failed, and PostgreSQL looks at no name.
        """
        cdef Statement statement = spoken.statement
        cdef bint prepares = spoken.phrase.verb is PREPARE
        spoken.native = self.native
        if self.native or unheard:
            return spoken.sql
        if statement is None:
            # The name is taken (PREPARE), or unknown.
            self.prepare_words(backend, spoken.phrase.name, prepares)
            return spoken.sql
        spoken.renamed = True
        backend.stood_in = None
        self._begin(backend)
        if prepares and statement in backend.statements:
            self._put_close(statement.name)
            backend.replies.push(CLOSE, SWALLOW, None)
            del backend.statements[statement]
        elif prepares:
            self._make_room()
        else:
            self.flags = 0 if self.amid else STAND_IN
            self._need_on_backend(NULL, statement)
            self.flags = 0
        if self.staged:
            self._end(0 if prepares else STAND_IN)
        self.backend = None
        if prepares:
            backend.statements[statement] = self.note_prepared(statement)
        return spoken.sql[:spoken.phrase.start] + statement.name + spoken.sql[spoken.phrase.end:]

    cdef Effect effect_of(self, Spoken spoken):
        """Return what is undone if the Query fails; the session has a statement from now on if it was a PREPARE."""
        cdef Effect effect = Effect()
        cdef bytes name = spoken.phrase.name
        effect.phrase = spoken
        if spoken.phrase.verb is PREPARE and spoken.statement is not None and (spoken.renamed or spoken.native):
            effect.name = name
            effect.statement = spoken.statement
            self.names[name] = spoken.statement
            effect.moment = self.statements.moment
            if len(self.said) > 2 * len(self.names) + 16:
                # A name may come back when its DEALLOCATE fails, so it is not forgotten there.
                self.said = {name: said for name, said in self.said.items() if name in self.names}
            self.said[name] = (spoken.sql, spoken.phrase)
            if spoken.renamed:
                effect.on_backend = spoken.statement
        return effect

    cdef Effect spoken_of(self, Statement statement, bytes name):
        cdef Spoken spoken = Spoken()
        cdef Effect effect = Effect()
        spoken.phrase = Phrase(EXECUTE, name, 0, 0)
        spoken.statement = statement
        spoken.said = self.said.get(name)
        spoken.renamed = True
        effect.phrase = spoken
        return effect

    cdef int forget_all(self, Backend backend) except -1:
        Prepared.forget_all(self, backend)
        self.said = {name: self.said[name] for name in self.names if name in self.said}
        self.hidden = False
        return 0

    # Without other names.

    cdef int turn_native(self, Backend backend) except -1:
        """Make the backend's prepared statements those of the session; the owner hears when that is done (SETTLE)."""
        cdef Statement statement
        cdef bytes name
        if not self.late:
            backend.inject_query(b"DEALLOCATE ALL", 0)
        self._begin(backend)
        if self.late:
            # All but what the session has prepared there itself.
            for name in [*backend.lent, *[(<Statement> each).name for each in backend.statements]]:
                self._put_close(name)
                backend.replies.push(CLOSE, SWALLOW, None)
            self.late = False
        backend.statements.clear()
        backend.lent.clear()
        for name, statement in self.names.items():
            if statement.head is None:
                self._put_parse(name, statement.sql, statement.types)
                backend.replies.push(PARSE, SWALLOW, None)
                # What fails (its table may be gone) leaves the others alone.
                self._put_header(b"S", 4)
                backend.replies.push(SYNC, SWALLOW | FORGIVE, None)
            else:
                sql = self.said[name][0] if name in self.said else statement.prepare_sql()
                self._put_header(b"Q", 4 + len(sql) + 1)
                self._put_string(sql)
                backend.replies.push(QUERY, SWALLOW | FORGIVE, None)
        backend.unnamed = None
        self.native = True
        return self._end(SETTLE)

    cdef int hide(self) except -1:
        """What is being sent may prepare something, and its text is not looked into."""
        self.hiding = True
        return 0

    cdef bint is_settled(self) except -1:
        """Tell whether the backend has nothing of the session's, now that all has been answered."""
        self.hidden = self.hidden or self.hiding
        self.hiding = False
        return not self.names and not self.hidden

    cdef int end_native(self) except -1:
        self.native = self.late = self.hidden = self.hiding = False
        return 0
