# cython: language_level=3
"""Counts what it takes to understand a batch of the extended protocol that comes in pieces."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE

from pgamb.relay.named cimport Named
from pgamb.relay.prepared cimport COMPLETE, INCOMPLETE
from pgamb.relay.statement cimport Plans, Statements

from pgamb.routing.classify import classify
from pgamb.session.parameters import EMPTY


class Counting(dict):
    """Canonical statements, and how often one was looked for: once for each Parse that is looked at."""

    looked = 0

    def get(self, key, default=None):
        self.looked += 1
        return dict.get(self, key, default)


def looks(pieces):
    """Return how many Parse messages were looked at when the batch has come in these pieces."""
    cdef Statements statements = Statements(Plans(classify))
    cdef Named prepared = Named(statements, 500, "user")
    cdef bytes data = b""
    cdef int scan = INCOMPLETE
    statements.canonical = counting = Counting()
    prepared.parameters = EMPTY
    for piece in pieces:
        assert scan == INCOMPLETE
        data += piece
        scan = prepared.scan(PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    assert scan == COMPLETE
    return counting.looked
