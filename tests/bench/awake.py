"""Keep the cores from falling asleep: at one client it is otherwise their waking up that is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# It runs only when nothing else wants the core (SCHED_IDLE), and ends with whoever started it.
SPINNER = """
import ctypes, os, signal
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


@contextmanager
def cores_awake(wanted: bool = True) -> Iterator[None]:
    """Occupy every core with work that yields to anything else, for as long as the block runs."""
    spinners = []
    try:
        if wanted:
            for core in sorted(os.sched_getaffinity(0)):
                spinner = subprocess.Popen([sys.executable, "-I", "-S", "-c", SPINNER])
                spinners.append(spinner)
                os.sched_setaffinity(spinner.pid, {core})
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()
