"""What processes have used so far: CPU time and memory, as the kernel counts them in /proc."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds of some processes with all their threads.

    `total_s` is exact (the scheduler's nanoseconds); `user_s` and `system_s` are counted in ticks of 10 ms, so of these
    only the proportion is used.
    """

    total_s: float
    user_s: float
    system_s: float

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        return CpuTime(self.total_s - earlier.total_s, self.user_s - earlier.user_s, self.system_s - earlier.system_s)

    @property
    def user_share(self) -> float:
        """The part of the time spent in the program itself, not in the kernel; 0 to 1."""
        ticks = self.user_s + self.system_s
        return self.user_s / ticks if ticks else 0.0


def cpu_time(pids: Sequence[int]) -> CpuTime:
    """Return the CPU time of these processes until now. Raises FileNotFoundError when one has ended.

    On a kernel without scheduler statistics it is exact to the tick only.
    """
    total_ns = user = system = 0
    for pid in pids:
        folder = Path("/proc", str(pid))
        words = (folder / "stat").read_text().rpartition(")")[2].split()
        user += int(words[11])
        system += int(words[12])
        for schedstat in folder.glob("task/*/schedstat"):
            total_ns += int(schedstat.read_text().split()[0])
    ticks_s = (user + system) / TICKS_PER_S
    return CpuTime(total_ns / 1e9 or ticks_s, user / TICKS_PER_S, system / TICKS_PER_S)


def memory_bytes(pids: Sequence[int]) -> int:
    """Return the proportional set size of these processes: what is shared counts once."""
    kilobytes = 0
    for pid in pids:
        for line in Path("/proc", str(pid), "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024


def threads(pids: Sequence[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)
