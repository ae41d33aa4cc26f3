"""`pgamb explain` as a process: without anything, on a registry, and on the servers themselves."""

from __future__ import annotations

import subprocess
import sys

from pgamb.demo.cluster import Cluster
from tests.e2e.test_status import DEADLINE_S, pgamb


def lines(shown: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert (shown.returncode, shown.stderr) == (0, "")
    return {line[:8].strip(): line[8:].strip() for line in shown.stdout.splitlines()}


def test_a_text_without_any_server() -> None:
    assert lines(pgamb("explain", "SELECT count(*) FROM t"))["intent"] == "read"
    # Functions newer than the assumed version prove nothing.
    assert lines(pgamb("explain", "SELECT uuidv7()"))["intent"] == "write"
    assert lines(pgamb("explain", "--server-version", "18", "SELECT uuidv7()"))["intent"] == "read"
    backslash = r"SELECT 'a\' || 'b'"
    assert lines(pgamb("explain", backslash))["intent"] == "read"
    assert lines(pgamb("explain", "--standard-conforming-strings", "off", backslash))["intent"] == "write"


def test_standard_input() -> None:
    def given(text: bytes) -> subprocess.CompletedProcess[bytes]:
        argv = [sys.executable, "-m", "pgamb", "explain", "-"]
        return subprocess.run(argv, input=text, capture_output=True, timeout=DEADLINE_S, check=False)

    assert b"because   INSERT writes\n" in given("INSERT INTO t\n VALUES ('\u00e4')\n".encode()).stdout
    broken = given(b"SELECT '\xff'")
    assert broken.returncode == 2
    assert b"pgamb: error: standard input is not UTF-8 text\nhint: " in broken.stderr


def test_bad_input_and_a_registry_that_does_not_answer() -> None:
    assert pgamb("explain").returncode == 2
    assert "--registry" in pgamb("explain", "--registry", "nonsense", "SELECT 1").stderr
    away = pgamb("explain", "--registry", "etcd://127.0.0.1:1", "--timeout", "1", "SELECT 1")
    assert (away.returncode, away.stdout) == (3, "")
    assert "pgamb: error: the registry etcd://127.0.0.1:1 did not answer within 1 s" in away.stderr


def test_where_it_would_go_now(cluster: Cluster) -> None:
    for registry in (cluster.registry_url, "static://" + ",".join(server.address for server in cluster.servers)):
        words = ("explain", "--registry", registry)
        read = lines(pgamb(*words, "SELECT 1", PGAMB_AUTH_DSN=cluster.dsn(cluster.primary)))
        assert read["now"] == "pg2 or pg3, whichever has the least outstanding for its weight"
        assert read["pg1"] == "primary"
        assert read["pg2"].startswith("replica")
        write = lines(pgamb(*words, "DELETE FROM t", PGAMB_AUTH_DSN=cluster.dsn(cluster.primary)))
        assert write["now"].startswith("pg1, because pg1 says primary")
        exact = lines(pgamb(*words, "--transactions", "exact", "BEGIN", PGAMB_AUTH_DSN=cluster.dsn(cluster.primary)))
        assert exact["now"].startswith("pg1, ")


def test_what_the_database_makes_of_it(cluster: Cluster) -> None:
    cluster.primary.query("CREATE SEQUENCE IF NOT EXISTS explained_numbers")
    cluster.primary.query("CREATE OR REPLACE VIEW explained AS SELECT nextval('explained_numbers')")
    words = ("explain", "--registry", cluster.registry_url, "SELECT * FROM explained")
    unseen = lines(pgamb(*words))
    assert (unseen["intent"], unseen["unseen"][:14]) == ("read", "what the datab")
    seen = lines(pgamb(*words, PGAMB_AUTH_DSN=cluster.dsn(cluster.primary)))
    assert "unseen" not in seen
    assert seen["intent"] == "write"
    assert "explained" in seen["because"]
    cluster.primary.query("DROP VIEW explained")
