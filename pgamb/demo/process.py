"""A child process with an owner: it has a log, can be stopped, killed and frozen, and dies with us.

"Dies with us" is the kernel's work (`PR_SET_PDEATHSIG`), so it holds for SIGKILL too. The kernel takes the *thread*
that forked for the parent: a child started from a short-lived thread would die with that thread. So each child has a
thread of its own here, which forks, then waits for the child's end and for nothing else.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from pgamb.demo.account import Account
from pgamb.errors import ProcessFailed

LAUNCHER = Path(__file__).with_name("launcher.py")
POLL_S = 0.02
TAIL_LINES = 12
# A kill is the kernel's work and takes milliseconds; this bounds only the wait for a machine out of breath.
KILL_WAIT_S = 10.0


class ChildProcess:
    """One program, started and stopped as often as wanted; `name` is what messages call it."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        log: Path | None,
        account: Account | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path = Path("/"),
    ) -> None:
        """With a `log` the child has a session of its own and no terminal; without one it shares ours."""
        self.name = name
        self.argv = [str(word) for word in argv]
        self.log = log
        self._account = account
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._popen: subprocess.Popen[bytes] | None = None
        self._exited = threading.Event()
        self._freezer: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.running else f"ended with {self.returncode}" if self._popen else "not started"
        return f"<{self.name}: {state}>"

    @property
    def pid(self) -> int:
        """The process id; that of the program itself, not of a wrapper. Raises ProcessFailed before `start`."""
        if self._popen is None:
            raise ProcessFailed(f"{self.name} was not started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen is not None and not self._exited.is_set()

    @property
    def returncode(self) -> int | None:
        """The exit status, or minus the signal that ended it; None while it runs."""
        return self._popen.returncode if self._popen is not None and self._exited.is_set() else None

    def start(self) -> None:
        """Start the program; does not wait for it to be of use. Raises ProcessFailed when it runs already."""
        if self.running:
            raise ProcessFailed(f"{self.name} runs already")
        self._exited = threading.Event()
        forked = threading.Event()
        failure: list[OSError] = []
        keeper = threading.Thread(
            target=self._keep, args=(forked, self._exited, failure), name=f"keeper of {self.name}", daemon=True
        )
        keeper.start()
        forked.wait()
        if failure:
            raise ProcessFailed(f"{self.name} could not be started: {failure[0]}") from failure[0]

    def _keep(self, forked: threading.Event, exited: threading.Event, failure: list[OSError]) -> None:
        try:
            popen = self._popen = self._fork()
        except OSError as error:
            failure.append(error)
            exited.set()
            return
        finally:
            forked.set()
        popen.wait()
        exited.set()

    def _fork(self) -> subprocess.Popen[bytes]:
        account = self._account
        ids = (str(account.uid), str(account.gid)) if account else ("-1", "-1")
        argv = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *ids, *self.argv]
        if self.log is None:
            return subprocess.Popen(argv, env=self._env, cwd=self._cwd)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the process is still there."""
        if self.running:
            _signal(self.pid, number)

    def wait(self, timeout_s: float | None = None) -> int:
        """Wait for the end and return the exit status. Raises ProcessFailed when it still runs after `timeout_s`."""
        if not self._exited.wait(timeout_s):
            raise ProcessFailed(f"{self.name} still runs after {timeout_s:g} s")
        assert self._popen is not None
        return self._popen.returncode

    def stop(self, number: signal.Signals = signal.SIGTERM, grace_s: float = 15.0) -> None:
        """Ask the process to end; kill it when it has not after `grace_s`. Does nothing when it is gone."""
        self.resume()
        self.send(number)
        if self._popen is not None and not self._exited.wait(grace_s):
            self.kill()

    def kill(self) -> None:
        """End the process and all it started, as a power cut would."""
        if self.running:
            family = (self.pid, *descendants(self.pid))
            # The parent first: it must not have the time to react to the end of a child.
            for pid in family:
                _signal(pid, signal.SIGKILL)
            self.wait(KILL_WAIT_S)
        self.resume()

    def pause(self) -> None:
        """Freeze the process and all it started: the machine is there, and answers nothing."""
        if self._freezer is not None or not self.running:
            return
        # The parent first: what it would start meanwhile is not seen otherwise.
        _signal(self.pid, signal.SIGSTOP)
        children = descendants(self.pid)
        for pid in children:
            _signal(pid, signal.SIGSTOP)
        # What is frozen cannot notice that its parent died. This one holds the other end of a pipe of ours,
        # and wakes them when it closes: at `resume`, or because we are gone.
        self._freezer = subprocess.Popen(
            ["/bin/sh", "-c", 'read -r _; kill -CONT "$@" 2>/dev/null', "sh", *map(str, (self.pid, *children))],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def resume(self) -> None:
        """Let a frozen process go on. Does nothing when it is not frozen."""
        if self._freezer is None:
            return
        freezer, self._freezer = self._freezer, None
        assert freezer.stdin is not None
        freezer.stdin.close()
        freezer.wait(KILL_WAIT_S)

    def wait_until(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Wait until `condition()`; raises ProcessFailed, with the end of the log, when the process ends or is late."""
        end = time.monotonic() + deadline_s
        while not condition():
            if not self.running:
                raise ProcessFailed(f"{self.name} ended with status {self.returncode} {what}", detail=self.log_tail())
            if time.monotonic() > end:
                raise ProcessFailed(f"{self.name} was not ready after {deadline_s:g} s {what}", detail=self.log_tail())
            time.sleep(POLL_S)

    def log_tail(self, lines: int = TAIL_LINES) -> str:
        """Return the last lines of the log, under its name."""
        if self.log is None or not self.log.exists():
            return "(it has no log)"
        with self.log.open("rb") as log:
            text = _last_bytes(log, 200 * lines).decode(errors="replace")
        return "\n".join([f"the end of {self.log}:", *text.splitlines()[-lines:]])


def clean_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables without those of libpq and of pgamb: what somebody set for others must not reach ours."""
    return {name: value for name, value in environ.items() if not name.startswith("PG")}


def run_to_end(
    name: str,
    argv: Sequence[str | Path],
    *,
    log: Path,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run a program of the cluster's set-up; raises ProcessFailed, with what it said, when it fails."""
    child = ChildProcess(name, argv, log=log, account=account, env=env)
    child.start()
    status = child.wait()
    if status != 0:
        raise ProcessFailed(f"{name} ended with status {status}", detail=child.log_tail())


def descendants(pid: int) -> list[int]:
    """Return the ids of the children of a process, theirs, and so on; nothing where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(words[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    ahead = [pid]
    while ahead:
        ahead = [child for parent in ahead for child in children.get(parent, [])]
        found += ahead
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    # That it ends in between, with nobody yet told, is always possible.
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _last_bytes(file: IO[bytes], count: int) -> bytes:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - count))
    return file.read()
