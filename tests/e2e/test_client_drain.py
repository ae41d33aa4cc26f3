"""`pgamb client` after SIGTERM: whoever is idle is told at once, whoever is in a transaction may end it."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.demo.process import ChildProcess, clean_environment
from tests.support import free_port, wait_for
from tests.support.servers import server_folder

DEADLINE_S = 30.0

Session = psycopg.Connection[tuple[object, ...]]


def is_closed(session: Session) -> bool:
    """Say whether the session has been closed, by reading only: nothing is sent."""
    try:
        for _ in session.notifies(timeout=0.05):
            pass
    except psycopg.OperationalError:
        return True
    return False


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_idle_sessions_are_not_waited_for_and_transactions_are(postgres: PostgresServer, mode: str) -> None:
    # An idle session that was pinned, in session mode every one, was waited for like a transaction: a stop took 10 s.
    # Now what counts is whether PostgreSQL says that a transaction is open.
    port = free_port()
    dsn = postgres.dsn().replace(f":{postgres.port}/", f":{port}/")
    words = ["--listen", f"127.0.0.1:{port}", "--registry", f"static://127.0.0.1:{postgres.port}"]
    words += ["--auth", "scram", "--pool-mode", mode]
    with server_folder() as folder:
        process = ChildProcess(
            "pgamb client",
            [sys.executable, "-m", "pgamb", "client", *words],
            log=folder / "client.log",
            env={**clean_environment(), "PGAMB_AUTH_DSN": postgres.dsn()},
            cwd=Path.cwd(),
        )
        process.start()
        try:
            process.wait_until(
                lambda: "client.listening" in process.log_tail(), DEADLINE_S, "while waiting for it to listen"
            )
            with (
                psycopg.connect(dsn, autocommit=True) as idle,
                psycopg.connect(dsn, autocommit=True) as pinned,
                psycopg.connect(dsn) as busy,
            ):
                idle.execute("SELECT 1")
                pinned.execute("LISTEN news")
                busy.execute("SELECT 1")
                process.send(signal.SIGTERM)
                wait_for(lambda: is_closed(idle), DEADLINE_S, "the idle one is closed")
                wait_for(lambda: is_closed(pinned), DEADLINE_S, "the pinned one is closed")
                # Had they been closed at the deadline of the drain, this one would be gone with them.
                assert busy.execute("SELECT 2").fetchone() == (2,)
                busy.commit()
                assert process.wait(DEADLINE_S) == 0
        finally:
            process.stop(grace_s=2.0)
