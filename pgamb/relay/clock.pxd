"""The data plane's clock: seconds since an arbitrary moment, as `time.monotonic`, to a few milliseconds."""


cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    enum:
        CLOCK_MONOTONIC_COARSE
    int clock_gettime(int clock, timespec* into)


cdef inline double now_s() noexcept nogil:
    cdef timespec moment
    clock_gettime(CLOCK_MONOTONIC_COARSE, &moment)
    return moment.tv_sec + moment.tv_nsec * 1e-9
