# cython: language_level=3
"""Why a unit of work goes where it goes: the words for people, and for metrics."""

# in the order of routes.pxd: the name that metrics have, and what people read.
NAMES = (
    ("none", "nothing has been sent yet"),
    ("read", "a proven read"),
    ("asked_for_replica", "the session asked for a replica"),
    ("write", "may write"),
    ("primary_only", "belongs on the primary"),
    ("asked_for_primary", "the session or the statement asked for the primary"),
    ("no_replica", "would go to a replica, but there is none to use"),
    ("not_new_enough", "would go to a replica, but none was known to be new enough in time"),
    ("refused_by_replica", "seems to be a read, but a replica has refused it"),
    ("lost_by_replica", "a read repeated, because the member that had it was lost or cancelled it"),
    ("opens_transaction", "opens the transaction, which needs to be real from here on"),
    ("prepares", "prepares or describes, and runs nothing"),
    ("unreadable", "the session's parameters leave open what its SQL means"),
    ("isolation", "the session's default isolation level needs the primary"),
    ("attached", "goes on where the session's transaction, or what it has sent before, is under way"),
    ("pinned", "goes to the one backend that the session is pinned to"),
    ("answered_here", "answered by pgamb: the transaction is not real yet"),
)


def words_of(int reason):
    """Return what people are told."""
    return NAMES[reason][1]
