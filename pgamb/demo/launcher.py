"""Become another program that dies with its parent: `python -I -S launcher.py PARENT UID GID PROGRAM ARGS...`.

A separate program, because code between fork and exec is not safe in a process with threads (grpc, asyncio),
and because the kernel forgets the death signal when the user changes: it has to be asked for after that.
UID and GID are -1 to stay who we are. Nothing of pgamb is imported: this starts in 20 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    parent, uid, gid = (int(word) for word in sys.argv[1:4])
    program = sys.argv[4:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew what to do then
            sys.exit(1)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and exec would keep that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]}: {error.strerror}\n")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
