"""`pgamb demo` as a stranger uses it."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pgamb.demo.process import descendants
from tests.support import free_port, wait_for
from tests.support.servers import server_folder

DEMO = [sys.executable, "-m", "pgamb", "demo"]
DEADLINE_S = 90


def demo(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environ},
    )


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_a_command_runs_against_the_cluster_and_its_status_is_ours() -> None:
    script = r"""
        set -e
        [ "$PGHOST" = 127.0.0.1 ] && [ -z "$PGSSLMODE" ]
        psql -Atc "CREATE TABLE t AS SELECT 7 AS n" -c "SELECT n, current_user FROM t"
        direct='SELECT current_setting($$cluster_name$$)'
        psql -At "$PGAMB_DEMO_PRIMARY" -c "$direct"
        for replica in $(echo "$PGAMB_DEMO_REPLICAS" | tr , ' '); do psql -At "$replica" -c "$direct"; done
        python3 -c 'import sys; sys.exit(not sys.argv[1].startswith("etcd://127.0.0.1:"))' "$PGAMB_DEMO_ETCD"
        exit 7
    """
    done = demo("--port", "0", "--", "sh", "-c", script, PGSSLMODE="require", PGAMB_LISTEN="nonsense")
    assert done.returncode == 7, done.stderr
    assert done.stdout.split() == ["SELECT", "1", "7|postgres", "pg1", "pg2", "pg3"]


def test_a_command_that_a_signal_ends() -> None:
    done = demo("--port", "0", "--replicas", "0", "--", "sh", "-c", "kill -SEGV $$")
    assert done.returncode == 128 + signal.SIGSEGV, done.stderr


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--port", "0", "--", "no-such-program"], 127, "pgamb: error: no-such-program: command not found"),
        (["--port", "65536"], 2, "65536 is not in the range"),
        (["--replicas", "-1"], 2, "-1 is not in the range"),
        (["--port", "0", "--directory", "/etc/passwd/no"], 2, "pgamb: error: /etc/passwd/no cannot be used"),
        (["--port", "0", "--directory", "/usr"], 2, "pgamb: error: /usr is not empty"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(words: list[str], status: int, says: str) -> None:
    done = demo(*words)
    assert done.returncode == status
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = demo("--port", str(port))
    assert done.returncode == 2
    assert f"port {port} is taken" in done.stderr
    assert "--port 0" in done.stderr


@pytest.mark.parametrize(
    ("variable", "says"), [("PGAMB_PG_BIN", "has no postgres, initdb"), ("PGAMB_ETCD", "does not run")]
)
def test_missing_programs_are_named(tmp_path: Path, variable: str, says: str) -> None:
    done = demo("--port", "0", **{variable: str(tmp_path / "nothing")})
    assert done.returncode == 2
    assert says in done.stderr
    assert variable in done.stderr


class Terminal:
    """`pgamb demo` at a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.text = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ["COLUMNS"] = "120"
            os.execv(DEMO[0], [*DEMO, *words])

    def read_until(self, pattern: str) -> str:
        end = time.monotonic() + DEADLINE_S
        while not (found := re.search(pattern, self.text)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.text}"
            ready, _, _ = select.select([self._fd], [], [], 0.2)
            if ready:
                try:
                    self.text += os.read(self._fd, 65536).decode()
                except OSError as error:  # the other side has closed: EIO on Linux
                    raise AssertionError(f"it ended before {pattern!r}: {self.text}") from error
        return found.group()

    def press(self, key: bytes) -> None:
        os.write(self._fd, key)

    def wait(self) -> int:
        """Return the exit status; goes on reading, or the other side would wait for us."""

        def ended() -> int | None:
            if select.select([self._fd], [], [], 0)[0]:
                with contextlib.suppress(OSError):  # the other side has closed: EIO on Linux
                    self.text += os.read(self._fd, 65536).decode()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return os.waitstatus_to_exitcode(status) + 1000 if pid else None

        return (wait_for(ended, DEADLINE_S, "the demo has ended") or 0) - 1000


@pytest.mark.parametrize(("end", "status"), [("ctrl-c", 0), (signal.SIGTERM, 0), (signal.SIGKILL, -9)])
def test_the_picture_at_a_terminal_until_it_is_stopped(end: str | signal.Signals, status: int) -> None:
    terminal = Terminal("--port", str(free_port()), "--replicas", "1")
    terminal.read_until(r"pg2 .*replica.* 0 B .*\d")
    said, _, _ = terminal.text.partition("\x1b")
    assert len(said.splitlines()) <= 10
    line = re.search(r"psql (\S+)", said)
    assert line is not None
    answer = subprocess.run(["psql", line[1], "-Atc", "SELECT 1"], capture_output=True, text=True, timeout=20)
    assert answer.stdout == "1\n", answer.stderr
    folder = Path(re.search(r"files, logs +([^,]+),", said)[1])  # type: ignore[index]
    assert {log.name for log in (folder / "logs").iterdir()} == {
        *("client.log", "etcd.log", "pg1.log", "pg1-agent.log", "pg2.log", "pg2-agent.log")
    }
    family = descendants(terminal.pid)
    if isinstance(end, str):
        terminal.press(b"\x03")
    else:
        os.kill(terminal.pid, end)
    assert terminal.wait() == status, terminal.text
    wait_for(lambda: all(gone(pid) for pid in family), 10, "every process has ended")
    wait_for(lambda: not folder.exists(), 10, f"{folder} is gone")


def test_a_directory_is_kept() -> None:
    with server_folder() as folder:
        done = demo("--port", "0", "--replicas", "0", "--directory", str(folder / "kept"), "--", "true")
        assert done.returncode == 0, done.stderr
        assert (folder / "kept" / "logs" / "client.log").stat().st_size > 0
        assert (folder / "kept" / "pg1" / "data" / "PG_VERSION").exists()
        assert not (folder / "kept" / "pg1" / "data" / "postmaster.pid").exists(), "it was stopped in order"


COUNT_INTERRUPTS = """
import signal, sys, time
seen = []
signal.signal(signal.SIGINT, lambda *_: (seen.append(1), print("interrupted", flush=True)))
print("begun", flush=True)
while not seen:
    time.sleep(0.01)
time.sleep(1)
print("counted", len(seen), flush=True)
sys.exit(5)
"""


def test_ctrl_c_reaches_the_command_once_and_it_decides() -> None:
    terminal = Terminal("--port", "0", "--replicas", "0", "--", sys.executable, "-c", COUNT_INTERRUPTS)
    terminal.read_until("begun")
    family = descendants(terminal.pid)
    # The demo sees the signal only when the command has had it: two at the same moment would count as one.
    os.kill(terminal.pid, signal.SIGSTOP)
    terminal.press(b"\x03")
    terminal.read_until("interrupted")
    os.kill(terminal.pid, signal.SIGCONT)
    assert terminal.wait() == 5
    assert "counted 1" in terminal.text
    wait_for(lambda: all(gone(pid) for pid in family), 10, "every process has ended")


def test_sigterm_goes_to_the_command_and_orphans_go_with_it() -> None:
    run = subprocess.Popen(
        [*DEMO, "--port", "0", "--replicas", "0", "--", "sh", "-c", "sleep 600 & echo begun; trap 'exit 9' TERM; wait"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    with run.stdout:
        assert run.stdout.readline() == "begun\n"
        family = descendants(run.pid)
        run.terminate()
        assert run.wait(DEADLINE_S) == 9
    wait_for(lambda: all(gone(pid) for pid in family), 10, "every process has ended")
