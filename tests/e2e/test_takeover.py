"""`pgamb client --takeover`: the next process serves, and nobody is refused, or hears of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import msgspec
import psycopg
import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.sockets.control import Hello, Refused
from tests.e2e.conftest import MakeCluster
from tests.support import free_port, wait_for
from tests.support.silent import running_silent
from tests.support.successors import generations

DEADLINE_S = 60.0
CLIENTS = 32

Session = psycopg.Connection[tuple[object, ...]]


class Callers:
    """Connect, ask, and leave, all the time; `errors` is what any of them was told."""

    def __init__(self, *dsns: str) -> None:
        self._dsns = dsns
        self._ended = threading.Event()
        self.errors: list[str] = []
        self.served: Counter[str] = Counter()

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self._call, args=(self._dsns[index % len(self._dsns)],)) for index in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join(DEADLINE_S)

    def wait_for_more(self) -> None:
        """Wait until they have been served often again."""
        before = self.served.total()
        wait_for(lambda: self.served.total() > before + 200, DEADLINE_S, "they are served")

    def _call(self, dsn: str) -> None:
        while not self._ended.is_set():
            try:
                with psycopg.connect(dsn, connect_timeout=30) as session:
                    session.execute("SELECT 1")
                    session.execute("SELECT pg_sleep(0.001)")
                self.served[dsn] += 1
            except psycopg.Error as error:
                self.errors.append(repr(error))


def test_nobody_is_refused_while_one_process_takes_over_after_another(postgres: PostgresServer) -> None:
    port, status = free_port(), free_port()
    with generations(postgres) as processes:
        unix = processes.folder / "u"
        unix.mkdir()
        listen = ["--listen", str(port), "--listen", f"{unix}:{port}", "--status-listen", str(status)]
        old = processes.start("--takeover", *listen)
        # There was none, and it says so.
        assert "takeover.nobody" in old.text
        dsn = processes.dsn(port)
        callers = Callers(dsn, f"{dsn}?host={unix}")
        with callers.calling():
            for count in range(1, 4):
                callers.wait_for_more()
                new = processes.start("--takeover", *listen)
                assert old.wait_for_end() == 0
                assert f'in_place_of="process {old.pid}, ' in new.text
                assert len(processes.control_sockets) == 1
                answer = urllib.request.urlopen(f"http://127.0.0.1:{status}/status.json", timeout=10)
                assert json.load(answer)["logins"]["accepted"] >= 0, count
                old = new
            callers.wait_for_more()
        assert callers.errors == []
        assert set(callers.served) == {dsn, f"{dsn}?host={unix}"}
        old.send(signal.SIGTERM)
        assert old.wait_for_end() == 0
        assert not (unix / f".s.PGSQL.{port}").exists()
        assert processes.control_sockets == []


def test_a_transaction_ends_where_it_began_and_can_be_cancelled_through_the_new_process(
    postgres: PostgresServer,
) -> None:
    port = free_port()
    with generations(postgres) as processes:
        listen = ["--listen", f"127.0.0.1:{port}", "--drain-timeout", "60"]
        old = processes.start(*listen)
        dsn = processes.dsn(port)
        with psycopg.connect(dsn) as busy, psycopg.connect(dsn, autocommit=True) as asleep:
            busy.execute("CREATE TEMPORARY TABLE here (n int) ON COMMIT DROP")
            failures: list[str | None] = []

            def sleep() -> None:
                try:
                    asleep.execute("SELECT pg_sleep(300)")
                except psycopg.Error as error:
                    failures.append(error.sqlstate)

            sleeping = threading.Thread(target=sleep)
            sleeping.start()
            wait_for(lambda: _sleepers(postgres) == 1, DEADLINE_S, "it sleeps")
            new = processes.start("--takeover", *listen)
            old.wait_for_log("client.draining")
            # The request goes to the new process; its session is in the old one.
            asleep.cancel()
            sleeping.join(DEADLINE_S)
            assert failures == ["57014"]
            # A request with a wrong key is answered, too: by closing.
            assert _cancel(port, busy.info.backend_pid, 1) == b""
            busy.execute("INSERT INTO here VALUES (1)")
            assert busy.execute("SELECT count(*) FROM here").fetchone() == (1,)
            busy.commit()
        assert old.wait_for_end() == 0
        assert new.running
        with psycopg.connect(dsn) as session:
            assert session.execute("SELECT 1").fetchone() == (1,)


def test_what_one_process_has_committed_the_other_reads(make_cluster: MakeCluster) -> None:
    # The new process knew of no commit of the old one's, nor that one of its: for as long as both had sessions, reads
    # on a replica could be older than what the same ambassador had acknowledged.
    cluster = make_cluster(replicas=1, etcd=0, agents=False, client=False)
    primary, (replica,) = cluster.primary, cluster.replicas
    port = free_port()
    with generations(primary, replica) as processes:
        options = ["--listen", f"127.0.0.1:{port}", "--drain-timeout", "60", "--max-lag", "1h"]
        old = processes.start(*options)
        dsn = processes.dsn(port)
        with psycopg.connect(dsn) as early, psycopg.connect(replica.dsn(), autocommit=True) as standby:
            early.execute("CREATE TABLE seen (n int)")
            early.commit()
            early.execute("INSERT INTO seen VALUES (1)")
            processes.start("--takeover", *options)
            old.wait_for_log("client.draining")
            early.commit()
            early.autocommit = True
            with psycopg.connect(dsn, autocommit=True) as late:

                def both(reader: Session, other: Session) -> bool:
                    other.execute("SELECT 1")
                    return _reads_at_a_replica(reader)

                def pause() -> None:
                    """Let both read at the replica, and that stay as it is then. Who is idle for long is ended."""
                    standby.execute("SELECT pg_wal_replay_resume()")
                    for one, other in ((late, early), (early, late)):
                        wait_for(partial(both, one, other), DEADLINE_S, "it reads at the replica")
                    standby.execute("SELECT pg_wal_replay_pause()")

                pause()
                early.execute("INSERT INTO seen VALUES (2)")
                assert late.execute("SELECT count(*) FROM seen").fetchone() == (2,)
                pause()
                late.execute("INSERT INTO seen VALUES (3)")
                assert early.execute("SELECT count(*) FROM seen").fetchone() == (3,)
                pause()
                early.execute("INSERT INTO seen VALUES (4)")
                early.close()
                assert old.wait_for_end() == 0
                # What was the last that it did counts when it is gone, too.
                assert late.execute("SELECT count(*) FROM seen").fetchone() == (4,)
                standby.execute("SELECT pg_wal_replay_resume()")
                wait_for(lambda: _reads_at_a_replica(late), DEADLINE_S, "it reads at the replica again")


def test_a_log_in_that_is_half_done_is_completed_where_it_began(postgres: PostgresServer) -> None:
    port = free_port()
    with generations(postgres) as processes:
        old = processes.start("--listen", f"127.0.0.1:{port}")
        # The first message of the log-in comes only when the other process serves already.
        with running_silent(port, silent=True) as slow:
            sessions: list[Session] = []

            def connect() -> None:
                sessions.append(psycopg.connect(processes.dsn(slow.port), autocommit=True))

            connecting = threading.Thread(target=connect)
            connecting.start()
            slow.wait_connected()
            processes.start("--takeover", "--listen", f"127.0.0.1:{port}")
            old.wait_for_log("client.draining")
            assert old.running
            slow.speak()
            connecting.join(DEADLINE_S)
            with sessions[0] as session:
                assert session.execute("SELECT 1").fetchone() == (1,)
        assert old.wait_for_end() == 0


def test_a_process_that_cannot_serve_takes_nothing_over(postgres: PostgresServer) -> None:
    port, nobody, taken = free_port(), free_port(), free_port()
    with generations(postgres) as processes:
        old = processes.start("--listen", f"127.0.0.1:{port}")
        dsn = processes.dsn(port)
        with psycopg.connect(dsn, autocommit=True) as session:
            # Its configuration does not hold.
            bad = ["--tls-cert", "/nowhere", "--tls-key", "/nowhere"]
            wrong = processes.start("--takeover", "--listen", f"127.0.0.1:{port}", *bad, wait=False)
            assert wrong.wait_for_end() == 2
            # An address more, which somebody has.
            with socket.create_server(("127.0.0.1", taken)):
                more = ["--listen", f"127.0.0.1:{port}", "--listen", f"127.0.0.1:{taken}"]
                blocked = processes.start("--takeover", *more, wait=False)
                assert blocked.wait_for_end() == 2
            assert f"127.0.0.1:{taken} is already in use" in blocked.text
            # No member answers: it is stopped before its patience ends.
            registry = ["--registry", f"static://127.0.0.1:{nobody}"]
            unready = processes.start("--takeover", "--listen", f"127.0.0.1:{port}", *registry, wait=False)
            old.wait_until(lambda: old.text.count("takeover.asked") == 2, DEADLINE_S, "it asks for the sockets")
            unready.send(signal.SIGTERM)
            assert unready.wait_for_end() == 0
            # One that is killed has not taken anything with it.
            killed = processes.start("--takeover", "--listen", f"127.0.0.1:{port}", *registry, wait=False)
            old.wait_until(lambda: old.text.count("takeover.asked") == 3, DEADLINE_S, "it asks for the sockets")
            killed.kill()
            assert session.execute("SELECT 1").fetchone() == (1,)
        for _ in range(20):
            psycopg.connect(dsn).close()
        assert "draining" not in old.text
        assert len(processes.control_sockets) == 1


def test_addresses_come_and_go_with_the_new_process(postgres: PostgresServer) -> None:
    kept, dropped, added = free_port(), free_port(), free_port()
    with generations(postgres) as processes:
        unix = processes.folder / "u"
        unix.mkdir()
        before = ["--listen", f"127.0.0.1:{kept}", "--listen", f"127.0.0.1:{dropped}", "--listen", str(unix)]
        old = processes.start(*before)
        processes.start("--takeover", "--listen", f"127.0.0.1:{added}", "--listen", f"127.0.0.1:{kept}")
        assert old.wait_for_end() == 0
        for port in (kept, added):
            psycopg.connect(processes.dsn(port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", dropped)).close()
        assert os.listdir(unix) == []


def test_one_that_speaks_another_protocol_is_told_so_and_the_process_goes_on(postgres: PostgresServer) -> None:
    port = free_port()
    with generations(postgres) as processes:
        old = processes.start("--listen", f"127.0.0.1:{port}")
        (path,) = processes.control_sockets
        assert path.stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            caller.settimeout(DEADLINE_S)
            caller.connect(str(path))
            caller.send(msgspec.json.encode(Hello(protocol=99, release="9.9", pid=os.getpid())))
            answer = msgspec.json.decode(caller.recv(65536), type=Refused)
            assert "hands over by protocol 1, pgamb 9.9 takes over by 99" in answer.message
            assert answer.at == (f"127.0.0.1:{port}",)
            assert caller.recv(65536) == b""
        for garbage in (b"", b"x", b"{}", b'{"type":"serving"}', os.urandom(1000)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
                caller.settimeout(DEADLINE_S)
                caller.connect(str(path))
                caller.send(garbage)
                assert caller.recv(65536) == b""
        psycopg.connect(processes.dsn(port)).close()
        assert old.running


def test_one_that_stops_half_way_gives_the_sockets_back(postgres: PostgresServer) -> None:
    port = free_port()
    with generations(postgres) as processes:
        old = processes.start("--listen", f"127.0.0.1:{port}")
        (path,) = processes.control_sockets
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
            caller.settimeout(DEADLINE_S)
            caller.connect(str(path))
            caller.send(msgspec.json.encode(Hello(protocol=1, release="1", pid=os.getpid())))
            assert b'"offer"' in caller.recv(65536)
            caller.send(b'{"type":"stop","keep":[]}')
            assert b'"stopped"' in caller.recv(65536)
            started = time.monotonic()
            waiting = threading.Thread(target=lambda: psycopg.connect(processes.dsn(port)).close())
            waiting.start()
            waiting.join(0.3)
            # Who comes now is not refused, but waits in the kernel.
            assert waiting.is_alive()
        waiting.join(DEADLINE_S)
        assert not waiting.is_alive()
        assert time.monotonic() - started < 5
        assert "takeover.undone" in old.text
        # The next one succeeds.
        processes.start("--takeover", "--listen", f"127.0.0.1:{port}")
        assert old.wait_for_end() == 0


def test_a_folder_that_others_can_write_to_is_refused(postgres: PostgresServer) -> None:
    port = free_port()
    with generations(postgres) as processes:
        processes.runtime.mkdir(mode=0o777)
        processes.runtime.chmod(0o777)
        wrong = processes.start("--listen", f"127.0.0.1:{port}", wait=False)
        assert wrong.wait_for_end() == 2
        assert "nobody else can write to" in wrong.text


def _reads_at_a_replica(session: Session) -> bool:
    session.execute("SELECT count(*) FROM seen")
    row = session.execute("SHOW pgamb.last_route").fetchone()
    assert row is not None
    return "(replica)" in str(row[0])


def _sleepers(postgres: PostgresServer) -> int:
    with psycopg.connect(postgres.dsn()) as session:
        row = session.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(300)' AND state = 'active'"
        ).fetchone()
    assert row is not None
    return int(str(row[0]))


def _cancel(port: int, pid: int, secret: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as caller:
        caller.sendall(b"".join(number.to_bytes(4, "big") for number in (16, 80877102, pid, secret)))
        return caller.recv(1)
