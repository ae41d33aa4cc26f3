# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""SQL texts as the data plane knows them: what each needs, and the prepared statements that share one name.

Classification is interpreted Python and happens once a text: afterwards it is one look-up. The cache is bounded in
bytes of SQL by two generations: when the young one is full it becomes the old one, and what is used again is
carried over; nothing is counted per use.
"""

import binascii
import os
import weakref

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from pgamb.relay.fingerprint cimport fingerprint
from pgamb.relay.numbers cimport (
    NEED_CONTROL, NEED_MULTIPLE, NEED_NEUTRAL, NEED_READ, NEED_SET, NEED_SETTINGS, NEED_SHOW, PIN_PARAMETER,
)

from pgamb.routing.control import NO_CONTROL, control_of, takes_snapshot
from pgamb.routing.ddl import makes_plain_table
from pgamb.routing.hints import SHOWN, in_quotes, raising, refusal, wish_of_comment
from pgamb.session.custom import CustomParameters
from pgamb.session.process_ids import asks_own, mention


cdef enum:
    MAY_SET = NEED_SET | NEED_SETTINGS | NEED_MULTIPLE
    # More combinations than this are forgotten, and PostgreSQL is asked again.
    ACCEPTED_LIMIT = 64
    # A longer text is its own fingerprint.
    FINGERPRINT_BYTES = 16384


cdef class Plan:
    """An Intent with its bits at hand in C; `sql` is the text that it was made of."""

    def __init__(self, intent, bytes sql=b""):
        self.intent = intent
        self.need = int(intent.need)
        self.pins = int(intent.pins)
        self.unpins = int(intent.unpins)
        if self.need & MAY_SET:
            found = CustomParameters.of(sql, intent.name if self.need & NEED_SET else None)
            self.customs = found.names or None
            self.bound = found.bound or None
            if found.hidden:
                self.pins |= PIN_PARAMETER
        elif b"pg_settings" in sql and not self.need & NEED_READ:
            # An UPDATE of that view is a set_config().
            self.need |= NEED_SETTINGS
        self.command = control_of(sql) if self.need & NEED_CONTROL and not self.need & NEED_MULTIPLE else NO_CONTROL
        self.control = int(self.command.kind)
        self.wish = int(wish_of_comment(sql))
        self.snapshots = not self.need & NEED_CONTROL and takes_snapshot(sql)
        self.creates = intent.reason.startswith("CREATE")
        self.plain_table = self.creates and makes_plain_table(sql)
        self.shows = self.need & NEED_SHOW and intent.name in SHOWN
        self.mention = int(mention(sql))
        self.processes = self.mention or asks_own(sql)
        wrong = refusal(intent, sql)
        self.substitute = in_quotes(intent, sql) if wrong is None else raising(*wrong)

    cdef int refuse(self) except -1:
        """Take it for a write from now on."""
        self.refused = True
        self.need &= ~(NEED_READ | NEED_NEUTRAL)
        return 0

    def __repr__(self):
        return f"<Plan {self.intent!r}>"


cdef class Plans:
    """What each SQL text needs, remembered within `limit_bytes` of SQL in each of two generations."""

    def __init__(self, classify, size_t limit_bytes=8 * 1024 * 1024):
        self.classify = classify
        self.limit_bytes = limit_bytes
        self.young = {}
        self.old = {}

    cdef Plan of(self, bytes sql):
        return self._of(sql, PyBytes_AS_STRING(sql), PyBytes_GET_SIZE(sql))

    cdef Plan of_text(self, const char* sql, size_t size):
        """Return the plan of the statement at `sql`, or of one that differs from it only in constants."""
        cdef char[FINGERPRINT_BYTES] key
        cdef size_t length = 0
        if size <= FINGERPRINT_BYTES:
            length = fingerprint(sql, size, key)
        if length == 0:
            return self.of(PyBytes_FromStringAndSize(sql, size))
        return self._of(PyBytes_FromStringAndSize(key, length), sql, size)

    cdef Plan _of(self, bytes key, const char* sql, size_t size):
        cdef Plan plan = self.young.get(key)
        if plan is not None:
            return plan
        plan = self.old.get(key)
        if plan is None:
            text = PyBytes_FromStringAndSize(sql, size)
            plan = Plan(self.classify(text), text)
            self.misses += 1
        if self.young_bytes > self.limit_bytes:
            self.old = self.young
            self.young = {}
            self.young_bytes = 0
        self.young[key] = plan
        # What a dictionary entry and a Plan take beside the text.
        self.young_bytes += len(key) + 500
        return plan

    def plan(self, bytes sql):
        """Return the Plan of a statement."""
        return self.of_text(sql, len(sql))

    def renew(self, classify):
        """Judge every text anew, from now on by `classify`."""
        self.classify = classify
        self.generation += 1
        self.young = {}
        self.old = {}
        self.young_bytes = 0


cdef class Statement:
    """A prepared statement as all sessions share it: one text, one list of parameter types, one name.

    Whether PostgreSQL accepts a text depends on the database, the user and parameters such as search_path. Where it
    has done so once, a Parse can be answered without it: what has changed since is found out by the next Bind, as it
    is for every statement that was prepared before the change.
    """

    cdef bytes prepare_sql(self):
        """Return the SQL that makes it, if it was made by PREPARE."""
        return self.head + self.name + self.tail

    cdef bint is_accepted(self, object group, object parameters):
        return self.accepted is not None and (group, parameters) in self.accepted

    cdef int accept(self, object group, object parameters) except -1:
        if self.accepted is None or len(self.accepted) >= ACCEPTED_LIMIT:
            self.accepted = set()
        self.accepted.add((group, parameters))
        return 0

    cdef bint confirm(self, bytes resolved, bytes columns, unsigned long long moment):
        """PostgreSQL has described what was parsed at `moment`; return whether it is what it has always been."""
        if self.columns is None:
            self.resolved = resolved
            self.columns = columns
        elif self.columns != columns or self.resolved != resolved:
            self.doubtful = True
            return 0
        self.confirmed = max(self.confirmed, moment)
        self.doubtful = False
        return 1

    def __repr__(self):
        return f"<Statement {self.name!r} {self.sql!r}>"


cdef class Statements:
    """Makes equal statements of one database the same object for as long as somebody holds it."""

    def __init__(self, Plans plans):
        self.plans = plans
        # No application may guess a name, and so bind what another one has prepared.
        self.prefix = b"pgamb_" + binascii.hexlify(os.urandom(6))
        self.canonical = weakref.WeakValueDictionary()

    cdef Statement of(self, bytes sql, bytes types, object naming, str user):
        """Return the statement of all sessions of `user` that prepare this under the same `ParameterSet.naming`."""
        cdef tuple key = (sql, types, naming, user)
        cdef Statement statement = self.canonical.get(key)
        if statement is None:
            statement = self._issue(key, sql)
            statement.types = types
        return statement

    cdef Statement of_prepare(self, bytes sql, bytes head, bytes tail, object naming, str user, object taken):
        """Return the statement of all sessions whose PREPARE has this behind its name; `sql` is what it prepares.

        What stands before the name is that of the first of them. It is none of the statements in `taken`: one that a
        session prepares twice, under two names, has two plans.
        """
        cdef int copy = 0
        while (tail, copy, naming, user) in self.canonical and self.canonical[(tail, copy, naming, user)] in taken:
            copy += 1
        cdef tuple key = (tail, copy, naming, user)
        cdef Statement statement = self.canonical.get(key)
        if statement is None:
            statement = self._issue(key, sql)
            statement.head = head
            statement.tail = tail
        return statement

    cdef Statement successor(self, Statement statement):
        """Return what those share who prepare it anew."""
        cdef Statement successor = self.canonical.get(statement.key)
        if successor is None:
            successor = self._issue(statement.key, statement.sql)
            successor.types = statement.types
            successor.head = statement.head
            successor.tail = statement.tail
            successor.replaced = statement.replaced
        return successor

    cdef Statement _issue(self, tuple key, bytes sql):
        cdef Statement statement = Statement()
        statement.key = key
        statement.sql = sql
        self.issued += 1
        statement.name = b"%s_%d" % (self.prefix, self.issued)
        self.replan(statement)
        self.canonical[key] = statement
        return statement

    cdef int retire(self, Statement statement) except -1:
        """From now on it is prepared under another name: it has become something else."""
        if self.canonical.get(statement.key) is statement:
            del self.canonical[statement.key]
        return 0

    cdef int renew(self) except -1:
        """From now on prepare under new names: what backends hold may have outlived the tables it was made for.

        Who has prepared a statement already keeps it, as with PostgreSQL.
        """
        self.canonical.clear()
        return 0

    cdef Statement unnamed(self, bytes sql, bytes types):
        """Return a statement of one session alone, for as long as that session's unnamed statement is this."""
        cdef Statement statement = Statement.__new__(Statement)
        statement.sql = sql
        statement.types = types
        statement.name = b""
        self.replan(statement)
        return statement

    cdef int replan(self, Statement statement) except -1:
        """Judge a statement by what is known now."""
        statement.plan = self.plans.of(statement.sql)
        statement.generation = self.plans.generation
        return 0

    def __len__(self):
        return len(self.canonical)
