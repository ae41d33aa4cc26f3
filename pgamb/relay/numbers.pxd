"""Routing's numbers as C knows them: each enumeration's members behind its name."""


cdef enum:
    NEED_READ = 1
    NEED_NEUTRAL = 2
    NEED_BEGIN = 4
    NEED_READ_ONLY = 8
    NEED_END = 16
    NEED_SETTINGS = 32
    NEED_COPY_IN = 64
    NEED_MULTIPLE = 128
    NEED_EMPTY = 256
    NEED_DEALLOCATE = 512
    NEED_DEALLOCATE_ALL = 1024
    NEED_COMMITS = 2048
    NEED_CONTROL = 4096
    NEED_READ_WRITE = 8192
    NEED_SNAPSHOT = 16384
    NEED_TRANSACTION_TIME = 32768
    NEED_EXECUTE = 65536
    NEED_SET = 131072
    NEED_SHOW = 262144
    NEED_SEQUENCE = 524288
    NEED_NAMES = 1048576

cdef enum:
    PIN_TEMPORARY = 1
    PIN_LISTEN = 2
    PIN_ADVISORY_LOCK = 4
    PIN_HOLD_CURSOR = 8
    PIN_PREPARE = 16
    PIN_LOAD = 32
    PIN_SESSION_AUTHORIZATION = 64
    PIN_PARAMETER = 256
    PIN_OTHER = 128

cdef enum:
    CONTROL_NONE = 0
    CONTROL_BEGIN = 1
    CONTROL_COMMIT = 2
    CONTROL_COMMIT_CHAIN = 3
    CONTROL_ROLLBACK = 4
    CONTROL_ROLLBACK_CHAIN = 5
    CONTROL_SAVEPOINT = 6
    CONTROL_RELEASE = 7
    CONTROL_ROLLBACK_TO = 8
    CONTROL_SET_TRANSACTION = 9
    CONTROL_PREPARE_TRANSACTION = 10

cdef enum:
    ISOLATION_DEFAULT = 0
    ISOLATION_READ_COMMITTED = 1
    ISOLATION_REPEATABLE_READ = 2
    ISOLATION_SERIALIZABLE = 3

cdef enum:
    WISH_AUTO = 0
    WISH_PRIMARY = 1
    WISH_REPLICA = 2


cdef enum:
    # Pins that no statement of the session sets: pgamb is told to keep backends; the session asks for what it got from
    # sequences; somebody speaks of it by its process id.
    PIN_BACKEND_PID = 1 << 28
    PIN_SEQUENCES = 1 << 29
    PIN_SESSION_MODE = 1 << 30
    # What PostgreSQL is asked for (session.pins), and what DISCARD ALL does not take back.
    PIN_ASKED = PIN_TEMPORARY | PIN_LISTEN | PIN_ADVISORY_LOCK | PIN_HOLD_CURSOR | PIN_SESSION_AUTHORIZATION
    PIN_UNCLEAN = PIN_LOAD | PIN_OTHER
