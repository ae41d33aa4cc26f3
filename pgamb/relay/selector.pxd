"""asyncio's selector, which serves the data plane on the way."""

from pgamb.relay.reactor cimport Reactor


cdef class Selector:
    cdef readonly int epoll_fd
    cdef dict keys              # fd -> selectors.SelectorKey
    cdef Reactor reactor        # None until there is a data plane
