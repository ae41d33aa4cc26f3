"""Nothing stays behind: no process, no file, whatever ended the run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pgamb.demo.process import descendants
from tests.support import wait_for

ROOT = Path(__file__).resolve().parents[2]

# Starts a cluster from a thread that ends, freezes one server, and tells where all that is.
RUN = """
import json, sys, threading, time
from pgamb.demo.cluster import Cluster
cluster = Cluster(agents=False, client=False, replicas=1)
starter = threading.Thread(target=cluster.start)
starter.start()
starter.join()
cluster.server("pg2").pause()
print(json.dumps(str(cluster.folder)), flush=True)
sys.stdin.read()
if "tidy" in sys.argv:
    cluster.stop()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", ["kill -9", "stop", "exit without a stop"])
def test_a_cluster_goes_with_its_owner(end: str) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, "tidy" if end == "stop" else "untidy"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert run.stdin is not None
    assert run.stdout is not None
    with run.stdin, run.stdout:
        folder = Path(json.loads(run.stdout.readline()))
        family = descendants(run.pid)
        assert len(family) > 10, "two PostgreSQL with their workers, and etcd"
        assert folder.is_dir()
        if end == "kill -9":
            os.kill(run.pid, signal.SIGKILL)
    assert run.wait(30) == (-signal.SIGKILL if end == "kill -9" else 0)
    wait_for(lambda: not any(alive(pid) for pid in family), 10, "every process has ended")
    wait_for(lambda: not folder.exists(), 10, f"{folder} is gone")


PYTEST = """
def test_that_never_ends(postgres, etcd):
    import time
    print(flush=True)
    with open({mark!r}, "w") as mark:
        mark.write(str(postgres.data))
    time.sleep(600)
"""


def test_servers_of_a_killed_pytest_die_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "test_it.py").write_text(PYTEST.format(mark=str(mark)))
    run = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", ROOT / "pyproject.toml", tmp_path],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: mark.exists() and mark.read_text(), 30, "the test runs")
    family = descendants(run.pid)
    assert len(family) > 5
    run.kill()
    run.wait(10)
    wait_for(lambda: not any(alive(pid) for pid in family), 10, "every process has ended")
    data = Path(mark.read_text())
    wait_for(lambda: not data.parent.parent.exists(), 10, f"{data} is gone")
