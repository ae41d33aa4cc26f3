"""The applications: 32 connections that write, read, and do both in transactions."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress

import psycopg

from tests.chaos.history import Failure, History, Outcome

SCHEMA = """
CREATE TABLE history (id bigserial PRIMARY KEY, worker int NOT NULL, n int NOT NULL);
CREATE INDEX history_newest ON history (worker, n)
"""
WRITE = "INSERT INTO history (worker, n) VALUES ($1, $2)"
NEWEST = "SELECT coalesce(max(n), -1) FROM history WHERE worker = $1"

# How many connections do what.
MIX = {"write": 10, "transaction": 6, "read": 12, "reads": 4}
# Between two things that one connection does, on average.
PAUSE_S = 0.04
# What tells that a transaction, or a statement, has had no effect.
_NO_EFFECT = ("40001", "25P02", "57P03", "53300")


class Load:
    """Runs the applications in a thread of its own, from `start` to `stop`; `history` is what they were told."""

    def __init__(self, dsn: str, *, mix: dict[str, int] = MIX, seed: int = 1, pause_s: float = PAUSE_S) -> None:
        self.history = History()
        self._dsn = dsn
        self._mix = mix
        self._random = random.Random(seed)
        self._pause_s = pause_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        self._failure: BaseException | None = None
        self.writers = mix["write"] + mix["transaction"]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let every worker end what it does. Raises what a worker was not prepared for."""
        self._stopping.set()
        self._thread.join(120)
        if self._failure is not None:
            raise self._failure
        assert not self._thread.is_alive(), "an application hangs"

    @property
    def connections(self) -> int:
        return sum(self._mix.values())

    async def _run(self) -> None:
        # Writers first: what they are numbered, readers look for.
        kinds = [kind for kind in ("write", "transaction", "read", "reads") for _ in range(self._mix[kind])]
        does: dict[str, Callable[[Worker], Coroutine[object, object, None]]] = {
            "write": Worker.write,
            "transaction": Worker.transaction,
            "read": Worker.read,
            "reads": Worker.reads,
        }
        workers = [Worker(self, number, random.Random(self._random.random())) for number in range(len(kinds))]
        try:
            await asyncio.gather(*(self._work(worker, does[kind]) for worker, kind in zip(workers, kinds, strict=True)))
        except BaseException as error:
            self._failure = error

    async def _work(self, worker: Worker, does: Callable[[Worker], Coroutine[object, object, None]]) -> None:
        try:
            while not self._stopping.is_set():
                if not worker.connected and not await worker.connect(self._dsn):
                    await asyncio.sleep(0.05)
                    continue
                await does(worker)
                await asyncio.sleep(worker.random.uniform(0, 2 * self._pause_s))
        finally:
            await worker.close()


class Worker:
    """One application with one connection."""

    def __init__(self, load: Load, number: int, randomness: random.Random) -> None:
        self.random = randomness
        self._load = load
        self._history = load.history
        self._number = number
        self._n = 0
        self._seen: dict[int, int] = {}
        self._connection: psycopg.AsyncConnection[tuple[object, ...]] | None = None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def connect(self, dsn: str) -> bool:
        try:
            self._connection = await psycopg.AsyncConnection.connect(
                dsn, autocommit=True, cursor_factory=psycopg.AsyncRawCursor, connect_timeout=30
            )
        except psycopg.Error as error:
            self._history.refused.append(_failure("connect", error))
            return False
        # Monotonic is what one connection reads.
        self._seen = {}
        return True

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()

    async def write(self) -> None:
        """Write one row, outside of transactions."""
        self._n += 1
        outcome = await self._ask("write", WRITE, self._number, self._n)
        self._told((self._n,), outcome)

    async def transaction(self) -> None:
        """Write two rows in a transaction, and read what it has written."""
        first, second = self._n + 1, self._n + 2
        self._n += 2
        begun = time.monotonic()
        outcome = await self._ask("begin", "BEGIN")
        if outcome is Outcome.ACKNOWLEDGED:
            outcome = await self._ask("write in a transaction", WRITE, self._number, first)
        if outcome is Outcome.ACKNOWLEDGED:
            outcome = await self._ask("read in a transaction", NEWEST, self._number)
            if outcome is Outcome.ACKNOWLEDGED and self._answer != first:
                self._history.stale.append(f"worker {self._number} wrote {first} and reads {self._answer}")
        if outcome is Outcome.ACKNOWLEDGED:
            outcome = await self._ask("write in a transaction", WRITE, self._number, second)
        if outcome is Outcome.ACKNOWLEDGED:
            outcome = await self._ask("commit", "COMMIT")
        elif not await self._roll_back() or outcome is Outcome.UNKNOWN:
            # No COMMIT was sent, so that there is nothing to be in doubt about.
            outcome = Outcome.FAILED
        self._history.took("transaction", time.monotonic() - begun)
        self._told((first, second), outcome)

    async def read(self) -> None:
        """Read one writer's newest row, outside of transactions."""
        await self._read("read")

    async def reads(self) -> None:
        """Read in a transaction that writes nothing."""
        if await self._ask("begin of reads", "BEGIN") is not Outcome.ACKNOWLEDGED:
            return
        for _ in range(2):
            if not await self._read("read in a transaction of reads"):
                await self._roll_back()
                return
        await self._ask("commit of reads", "COMMIT")

    async def _read(self, what: str) -> bool:
        writer = self.random.randrange(self._load.writers)
        floor = max(self._history.newest.get(writer, -1), self._seen.get(writer, -1))
        if await self._ask(what, NEWEST, writer) is not Outcome.ACKNOWLEDGED:
            return False
        self._history.reads += 1
        assert isinstance(self._answer, int)
        if self._answer < floor:
            self._history.stale.append(
                f"connection {self._number} reads {self._answer} of worker {writer}, and {floor} was there"
            )
        self._seen[writer] = self._answer
        return True

    async def _roll_back(self) -> bool:
        return self._connection is None or await self._ask("rollback", "ROLLBACK") is Outcome.ACKNOWLEDGED

    async def _ask(self, what: str, sql: str, *arguments: int) -> Outcome:
        """Run one statement; its first value is `_answer`."""
        connection = self._connection
        if connection is None:
            return Outcome.FAILED
        begun = time.monotonic()
        try:
            cursor = await connection.execute(sql, arguments or None)
            if cursor.description is not None:
                row = await cursor.fetchone()
                self._answer = row[0] if row is not None else None
        except psycopg.Error as error:
            self._history.failures.append(_failure(what, error))
            if connection.closed:
                self._history.dropped += 1
                await self.close()
            return Outcome.FAILED if error.sqlstate in _NO_EFFECT else Outcome.UNKNOWN
        finally:
            self._history.took(what, time.monotonic() - begun)
        return Outcome.ACKNOWLEDGED

    _answer: object = None

    def _told(self, numbers: tuple[int, ...], outcome: Outcome) -> None:
        self._history.told(self._number, numbers, outcome, time.monotonic())


def _failure(what: str, error: psycopg.Error) -> Failure:
    return Failure(time.monotonic(), what, error.sqlstate or "", str(error).strip())
