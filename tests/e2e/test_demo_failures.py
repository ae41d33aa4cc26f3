"""`pgamb demo kill-primary` and the others, as somebody uses them who wants to see an application survive."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.support.waiting import wait_for

DEMO = [sys.executable, "-m", "pgamb", "demo"]
DEADLINE_S = 90.0
# What an application may hear when the primary is killed under its hands.
TRUTHS = ("40001", "08007")


def demo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*DEMO, *words], capture_output=True, text=True, timeout=DEADLINE_S, check=False)


class Application:
    """Writes and reads on one connection, which it must never have to open again."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.connection.execute("CREATE TABLE IF NOT EXISTS seen (n int)")
        self.written = 0
        self.errors: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._stopping.wait(0.01):
            try:
                self.connection.execute("INSERT INTO seen VALUES (1)")
                self.connection.execute("SELECT count(*) FROM seen")
                self.written += 1
            except psycopg.Error as error:
                self.errors.append(f"{error.sqlstate} {error}")
                if self.connection.closed:
                    return

    def goes_on(self) -> None:
        """Wait until it has written some more."""
        goal = self.written + 5
        wait_for(lambda: self.written >= goal, 30, f"the application goes on ({self.errors})")

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(30)
        self.connection.close()


@contextmanager
def running_demo(folder: Path) -> Iterator[tuple[str, str]]:
    """Start a demo; give the port and the URL of its application."""
    said = folder / "said"
    with said.open("w") as out:
        process = subprocess.Popen([*DEMO, "--port", "0"], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        dsn, port = wait_for(
            lambda: re.findall(r"(postgresql://\S+:(\d+)/\S+)", said.read_text()), DEADLINE_S, "it is ready"
        )[0]
        yield port, dsn
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
    assert process.returncode == 0, said.read_text()
    done = demo("--port", port, "mend")
    assert (done.returncode, f"no demo of yours is running on port {port}" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    with running_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.mark.parametrize("action", ["kill-replica", "switchover", "stop-etcd", "kill-primary"])
def test_an_application_survives(running: tuple[str, str], action: str) -> None:
    port, dsn = running
    application = Application(dsn)
    try:
        application.goes_on()
        for word in (action, "mend"):
            done = demo("--port", port, word)
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stderr == ""
            assert done.stdout.count("\n") >= 1
            application.goes_on()
        assert "Everything runs." in done.stdout
    finally:
        application.stop()
    allowed = TRUTHS if action == "kill-primary" else ()
    assert [error for error in application.errors if not error.startswith(allowed)] == []
    assert len(application.errors) <= 1


def test_what_cannot_be_done_is_said(running: tuple[str, str]) -> None:
    port, _ = running
    for _ in range(2):
        assert demo("--port", port, "kill-replica").returncode == 0
    done = demo("--port", port, "kill-replica")
    assert done.returncode == 1
    assert "no replica is running" in done.stdout
    assert "mend" in done.stdout
    assert "kill-replica did not succeed" in done.stderr
    assert demo("--port", port, "mend").returncode == 0
    # No port has the number 1 but that of a demo that does not run.
    done = demo("--port", "1", "mend")
    assert done.returncode == 2
    assert "no demo of yours is running on port 1" in done.stderr
    assert port in done.stderr
