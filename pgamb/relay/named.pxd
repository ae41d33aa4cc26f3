"""A session's prepared statements as SQL speaks of them: PREPARE, EXECUTE, DEALLOCATE, and asking which there are."""

from pgamb.relay.backend cimport Backend
from pgamb.relay.prepared cimport Prepared
from pgamb.relay.replies cimport Effect
from pgamb.relay.statement cimport Plan, Statement


cdef class Spoken:
    cdef bytes sql                  # of the Query
    cdef readonly object phrase     # routing.prepare.Phrase
    cdef Statement statement        # that is prepared or executed; None: the session has none of that name
    cdef Plan plan                  # of what is executed; None: it is not known
    cdef bint renamed               # it is sent under the statement's name
    cdef bint native
    cdef object said                # the text and the phrase of the PREPARE that made it; None if it was a Parse


cdef class Named(Prepared):
    cdef dict said                  # names of statements made by PREPARE -> (its text, its Phrase)
    cdef bint hidden                # native: it may have statements that `names` has not
    cdef bint late                  # it becomes native when the batch that may prepare something has ended
    cdef bint hiding                # ... will have, when what is under way has been answered

    cdef bint batch_may_prepare(self) except -1
    cdef Spoken hear(self, bytes sql)
    cdef bytes speak(self, Backend backend, Spoken spoken, bint unheard)
    cdef Effect effect_of(self, Spoken spoken)
    cdef int turn_native(self, Backend backend) except -1
    cdef int hide(self) except -1
    cdef bint is_settled(self) except -1
    cdef int end_native(self) except -1
