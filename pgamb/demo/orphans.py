"""Grandchildren whose parent is gone: adopted while the demo runs, ended when it does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time

from pgamb.demo.process import descendants

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
END_WITHIN_S = 5.0


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, so that `end_orphans` finds it. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans() -> None:
    """Kill every descendant that is left, and wait for it. To be called when our own children have been stopped."""
    deadline = time.monotonic() + END_WITHIN_S
    while left := descendants(os.getpid()):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            except (ProcessLookupError, ChildProcessError, PermissionError):
                continue
        if time.monotonic() > deadline:
            return
        time.sleep(0.01)
