"""What tests do to an etcd beyond starting and stopping it (`tests.support.servers` does that): its own etcdctl."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pgamb.demo.binaries import find_etcd
from pgamb.demo.etcd import EtcdServer

DEADLINE_S = 20


def etcdctl(server: EtcdServer, *words: str, user: str | None = None) -> str:
    """Run etcdctl against one node, as `user` ("name:password"), and return what it says."""
    program = find_etcd().path.with_name("etcdctl")
    argv: list[str | Path] = [program, "--endpoints", server.endpoint, "--command-timeout", "10s"]
    if user is not None:
        argv += ["--user", user]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ETCDCTL_")}
    answer = subprocess.run(
        [*argv, *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        env=environ | {"ETCDCTL_API": "3"},
        check=False,
    )
    assert answer.returncode == 0, f"etcdctl {' '.join(words)}: {answer.stderr}"
    return answer.stdout


def enable_authentication(server: EtcdServer, prefix: str = "/pgamb/") -> None:
    """Make root:root an administrator, and pgamb:secret a user who may do everything below `prefix` only."""
    for words in (
        ["user", "add", "root:root"],
        ["user", "grant-role", "root", "root"],
        ["role", "add", "pgamb"],
        ["role", "grant-permission", "pgamb", "readwrite", "--prefix=true", prefix],
        ["user", "add", "pgamb:secret"],
        ["user", "grant-role", "pgamb", "pgamb"],
        ["auth", "enable"],
    ):
        etcdctl(server, *words)
