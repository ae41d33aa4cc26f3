"""Why a unit of work goes where it goes."""


cdef enum:
    NOWHERE             # nothing has been sent yet
    A_READ              # to a replica
    ASKED_FOR_REPLICA
    A_WRITE             # ... and all others to the primary
    A_QUESTION          # writes nothing, and belongs on the primary
    ASKED_FOR_PRIMARY
    NO_REPLICA
    NOT_NEW_ENOUGH      # no replica is known to be
    REFUSED_THERE       # a replica has refused it
    LOST_THERE          # the member that had it was lost, or cancelled it
    TRANSACTION         # it opens a transaction that is real
    PREPARES            # in a transaction that is not real, without running anything
    UNREADABLE          # the session's parameters forbid to trust what its SQL seems to say
    ISOLATION           # the session's default isolation level does
    ATTACHED            # to the backend that the session has: a transaction, a pipeline
    PINNED
    ANSWERED            # by pgamb itself
    REASONS
