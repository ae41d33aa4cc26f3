"""What README.md shows happens: its psql session is typed, its commands are run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pgamb.demo.cluster import Cluster
from tests.support import wait_for

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
PROMPT = "postgres=# "
DEADLINE_S = 90


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def typed(session: str) -> tuple[list[str], str]:
    """Take a session apart: what was typed, and what psql answered."""
    lines = session.splitlines()
    inputs = [line.removeprefix(PROMPT) for line in lines if line.startswith(PROMPT)]
    return inputs, "\n".join(line for line in lines if not line.startswith(PROMPT))


def alike(text: str) -> list[str]:
    """Any replica will do, and psql prints an empty line behind a table only where another prompt follows."""
    return [re.sub(r"\bpg[23]\b", "replica", line.rstrip()) for line in text.splitlines() if line.strip()]


def test_the_session(cluster: Cluster) -> None:
    (session,) = blocks("console")
    before, again, after = session.partition(f"{PROMPT}\\c\n")
    assert again
    for part in (before, again + after):
        inputs, expected = typed(part)
        done = subprocess.run(
            ["psql", "-X", "-P", "pager=off", cluster.dsn()],
            input="\n".join(inputs) + "\n",
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )
        assert done.stderr == ""
        assert alike(done.stdout) == alike(expected)
        for replica in cluster.replicas:
            # Another session may read from a replica that has not replayed the insert yet: README says so.
            wait_for(lambda r=replica: _has_rows(cluster, r.name), DEADLINE_S, f"{replica.name} has the rows")  # type: ignore[misc]
    cluster.query("DROP TABLE greeting")


def _has_rows(cluster: Cluster, name: str) -> bool:
    server = cluster.server(name)
    return server.query("SELECT to_regclass('greeting')::text") == [("greeting",)] and server.query(
        "SELECT count(*) FROM greeting"
    ) == [(2,)]


DEMO = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("pgamb demo")]


@pytest.mark.parametrize("line", DEMO)
def test_commands_against_the_demo(line: str) -> None:
    assert len(DEMO) >= 2
    words = shlex.split(line)
    at = words.index("--")
    # On whatever port is free: others may be at work on this machine.
    words = [sys.executable, "-m", "pgamb", *words[1:at], "--port", "0", *words[at:]]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    if "psql" in words:
        assert re.search(r"^ pg[23]$", done.stdout, re.MULTILINE)
    else:
        assert "number of failed transactions: 0 " in done.stdout
