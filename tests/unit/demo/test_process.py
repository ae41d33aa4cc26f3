"""The owner of a child process: start, stop, kill, freeze, and what it says of a child that fails."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from pgamb.demo.process import ChildProcess, descendants, run_to_end
from pgamb.errors import ProcessFailed
from tests.support import wait_for


def shell(script: str, folder: Path) -> ChildProcess:
    return ChildProcess("the child", ["/bin/sh", "-c", script], log=folder / "child.log")


def state_of(pid: int) -> str:
    """Return the letter of proc(5), or nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_it_ends_with_its_own_status_and_its_words_are_in_the_log(tmp_path: Path) -> None:
    child = shell("echo out; echo err >&2; exit 5", tmp_path)
    assert repr(child) == "<the child: not started>"
    child.start()
    assert child.wait(10) == 5
    assert (tmp_path / "child.log").read_text() == "out\nerr\n"
    assert repr(child) == "<the child: ended with 5>"


def test_the_pid_is_that_of_the_program(tmp_path: Path) -> None:
    child = shell("echo $$", tmp_path)
    child.start()
    child.wait(10)
    assert (tmp_path / "child.log").read_text() == f"{child.pid}\n"


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    # The kernel sends a death signal when the *thread* that forked ends.
    child = shell("echo up; exec sleep 60", tmp_path)

    def start() -> None:
        child.start()
        wait_for(lambda: "up" in (tmp_path / "child.log").read_text(), 10, "the child is up")

    starter = threading.Thread(target=start)
    starter.start()
    starter.join()
    with pytest.raises(ProcessFailed, match="still runs"):
        child.wait(0.1)
    child.stop()
    assert child.returncode == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    child = shell("trap '' TERM; echo up; while :; do sleep 0.01; done", tmp_path)
    child.start()
    wait_for(lambda: "up" in (tmp_path / "child.log").read_text(), 10, "the child is up")
    child.stop(grace_s=0.1)
    assert child.returncode == -signal.SIGKILL


def test_kill_takes_its_children_too(tmp_path: Path) -> None:
    child = shell("sleep 60 & sleep 60 & wait", tmp_path)
    child.start()
    family = wait_for(lambda: len(found := descendants(child.pid)) == 2 and found, 10, "it has two children")
    assert family
    child.kill()
    assert child.returncode == -signal.SIGKILL
    for pid in family:
        wait_for(lambda pid=pid: state_of(pid) in ("", "Z"), 5, f"{pid} has ended")  # type: ignore[misc]


def test_a_frozen_child_goes_on_where_it_was(tmp_path: Path) -> None:
    child = shell("sleep 60 & echo up; wait", tmp_path)
    child.start()
    wait_for(lambda: "up" in (tmp_path / "child.log").read_text(), 10, "the child is up")
    family = [child.pid, *descendants(child.pid)]
    assert len(family) == 2
    child.pause()
    wait_for(lambda: all(state_of(pid) == "T" for pid in family), 5, "all are frozen")
    child.resume()
    wait_for(lambda: all(state_of(pid) == "S" for pid in family), 5, "all go on")
    child.pause()
    child.kill()
    assert not child.running


@pytest.mark.parametrize("act", ["stop", "kill", "pause", "resume"])
def test_nothing_is_hurt_when_it_is_gone_already(tmp_path: Path, act: str) -> None:
    child = shell("exit 0", tmp_path)
    child.start()
    child.wait(10)
    getattr(child, act)()
    assert child.returncode == 0


def test_a_child_that_ends_instead_of_getting_ready_shows_its_log(tmp_path: Path) -> None:
    child = shell("echo first; echo the reason; exit 3", tmp_path)
    child.start()
    with pytest.raises(ProcessFailed, match="the child ended with status 3 while waiting for nothing") as caught:
        child.wait_until(lambda: False, 10, "while waiting for nothing")
    assert str(caught.value).endswith(f"the end of {tmp_path}/child.log:\nfirst\nthe reason")


def test_a_child_that_is_late_is_named_with_the_time(tmp_path: Path) -> None:
    child = shell("exec sleep 60", tmp_path)
    child.start()
    with pytest.raises(ProcessFailed, match=r"was not ready after 0\.1 s while waiting for nothing"):
        child.wait_until(lambda: False, 0.1, "while waiting for nothing")
    child.kill()


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProcessFailed, match="the set-up ended with status 127") as caught:
        run_to_end("the set-up", [tmp_path / "nonesuch"], log=tmp_path / "log")
    assert "nonesuch: No such file or directory" in str(caught.value)


def test_it_starts_again_after_its_end_but_not_before(tmp_path: Path) -> None:
    child = shell("exec sleep 60", tmp_path)
    child.start()
    first = child.pid
    with pytest.raises(ProcessFailed, match="runs already"):
        child.start()
    child.kill()
    child.start()
    assert child.pid != first
    child.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may change the user")
def test_another_account_has_no_rights_of_ours(tmp_path: Path) -> None:
    from pgamb.demo.account import unprivileged_account

    account = unprivileged_account()
    assert account is not None
    child = ChildProcess(
        "the child", ["/bin/sh", "-c", "id -u; id -g; id -G"], log=tmp_path / "child.log", account=account
    )
    child.start()
    assert child.wait(10) == 0
    assert (tmp_path / "child.log").read_text().split() == [str(account.uid), str(account.gid), str(account.gid)]
