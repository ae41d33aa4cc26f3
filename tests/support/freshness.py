"""Checks that nobody reads older than promised: connections that write and read through one ambassador, in rounds.

A row of the table `counter` is a counter that only rises. What has been acknowledged of it, to whomever, is noted
on a board; whoever reads looks at the board *before* it begins, and must find that much at least.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from pgamb.demo.postgres import SUPERUSER, PostgresServer
from pgamb.session.backend_login import Credentials
from pgamb.wire import constants as c
from pgamb.wire import messages
from tests.support.ambassador import Ambassador
from tests.support.application import Answer, Application
from tests.support.waiting import wait_for

CONNECTIONS = 16
RETURN_DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Shape:
    """How an application says it: each of a round's two statements alone or in a transaction, by which protocol, and
    whether all of the round is sent at once.
    """

    transaction: bool = False
    extended: bool = False
    pipelined: bool = False

    def __str__(self) -> str:
        words = ["transaction" if self.transaction else "autocommit", "extended" if self.extended else "simple"]
        return "-".join([*words, "pipelined"] if self.pipelined else words)

    def units(self, sql: str) -> list[bytes]:
        """Give the messages for one statement, a unit that ends with ReadyForQuery each."""
        statements = ["BEGIN", sql, "COMMIT"] if self.transaction else [sql]
        return [_batch(each) if self.extended else messages.query(each) for each in statements]


SHAPES = tuple(Shape(t, e, p) for p in (False, True) for t in (False, True) for e in (False, True))


def _batch(sql: str) -> bytes:
    return b"".join(
        (
            messages.parse("", sql),
            messages.bind("", "", []),
            messages.describe(c.PORTAL, ""),
            messages.execute(""),
            messages.sync(),
        )
    )


@dataclass(frozen=True, slots=True)
class Found:
    """One read: what it must have found at least, what it found, and who answered."""

    connection: int
    round: int
    key: int
    floor: int
    value: int
    member: str
    why: str

    @property
    def is_stale(self) -> bool:
        return self.value < self.floor

    def __str__(self) -> str:
        return (
            f"round {self.round}: connection {self.connection} read {self.value} of counter {self.key} from "
            f"{self.member}, and {self.floor} {self.why}"
        )


@dataclass(slots=True)
class Evidence:
    """All reads of a loop: in the rounds, and until a replica answered again, between epochs.

    `stale` are those that found less than they had to, `avoided` the connections that no replica answered again.
    """

    reads: list[Found] = field(default_factory=list)
    returned: list[Found] = field(default_factory=list)
    avoided: list[int] = field(default_factory=list)

    @property
    def stale(self) -> list[Found]:
        return [found for found in (*self.reads, *self.returned) if found.is_stale]

    @property
    def members(self) -> Counter[str]:
        """How many of the reads that followed a write each member has answered."""
        return Counter(found.member for found in self.reads)

    def share(self, members: Sequence[str]) -> float:
        """Return the part of the reads that followed a write which these members have answered; 0 to 1."""
        return sum(self.members[member] for member in members) / len(self.reads)

    def __str__(self) -> str:
        stale = self.stale
        lines = [f"{len(stale)} of {len(self.reads)} reads are stale; answered by {dict(self.members)}"]
        return "\n".join([*lines, *map(str, stale[:10])])


@dataclass(slots=True)
class Board:
    """What has been acknowledged of each counter, and to which connection."""

    values: dict[int, tuple[int, int]] = field(default_factory=dict)

    def acknowledge(self, key: int, value: int, connection: int) -> None:
        if value > self.values.get(key, (0, 0))[0]:
            self.values[key] = value, connection

    def floor(self, key: int) -> tuple[int, str]:
        value, connection = self.values.get(key, (0, 0))
        return value, f"had been acknowledged to connection {connection}"


@dataclass(slots=True)
class Writer:
    """One connection that writes and reads, round by round. With `own` it touches its own counter only; without, every
    second one never writes: nothing that it has done itself keeps it from old data.
    """

    number: int
    application: Application
    shape: Shape
    own: bool
    board: Board
    evidence: Evidence
    seen: dict[int, int] = field(default_factory=dict)
    round: int = 0
    chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.number)

    @property
    def only_reads(self) -> bool:
        return not self.own and self.number % 2 == 1

    async def write_and_read(self) -> None:
        """Do one round."""
        self.round += 1
        if self.only_reads:
            self.evidence.reads.append(await self._read())
            return
        written = self._key()
        write = self.shape.units(f"UPDATE counter SET value = value + 1 WHERE key = {written} RETURNING value")
        if not self.shape.pipelined:
            self._acknowledged(written, await self._say(write))
            self.evidence.reads.append(await self._read())
            return
        read = self._key()
        look = self.shape.units(_read(read))
        value, why = self.board.floor(read)
        self.application.say(*write, *look)
        own = self._acknowledged(written, [await self.application.answer() for _ in write])
        if read == written and own > value:
            value, why = own, "had been written in the same pipeline"
        self.evidence.reads.append(self._found(read, (value, why), [await self.application.answer() for _ in look]))

    async def read_until_answered_by(self, members: Sequence[str]) -> None:
        """Read until one of these members answers: where a promise breaks that was kept by keeping away from them."""
        end = time.monotonic() + RETURN_DEADLINE_S
        while True:
            found = await self._read()
            self.evidence.returned.append(found)
            if found.member in members:
                return
            if time.monotonic() > end:
                self.evidence.avoided.append(self.number)
                return

    async def _read(self) -> Found:
        key = self._key()
        floor = self.board.floor(key)
        return self._found(key, floor, await self._say(self.shape.units(_read(key))))

    def _key(self) -> int:
        return self.number if self.own else self.chance.randrange(CONNECTIONS)

    async def _say(self, units: list[bytes]) -> list[Answer]:
        answers = []
        for unit in units:
            self.application.say(unit)
            answers.append(await self.application.answer())
        return answers

    def _acknowledged(self, key: int, answers: list[Answer]) -> int:
        value = int(_only_row(answers)[0])
        self.board.acknowledge(key, value, self.number)
        return value

    def _found(self, key: int, floor: tuple[int, str], answers: list[Answer]) -> Found:
        text, member = _only_row(answers)
        value = int(text)
        least, why = floor
        if self.seen.get(key, 0) > least:
            least, why = self.seen[key], "is what it had read before"
        self.seen[key] = max(value, least)
        return Found(self.number, self.round, key, least, value, member, why)


def _read(key: int) -> str:
    return f"SELECT value, current_setting('cluster_name') FROM counter WHERE key = {key}"


def _only_row(answers: list[Answer]) -> list[str]:
    for answer in answers:
        assert not answer.errors, answer.errors
    [row] = [row for answer in answers for row in answer.rows]
    return [(value or b"").decode() for value in row]


async def write_and_read(
    ambassador: Ambassador, shape: Shape, rounds: int, *, own: bool, epochs: int, replicas: Sequence[str] = ()
) -> Evidence:
    """Have 16 connections do so many rounds with a write between them.

    After each epoch all stop writing, and each reads on until one of `replicas` has answered it, where any are named.
    `own`: each connection reads only what it has written.
    """
    board, evidence = Board(), Evidence()
    writers = [
        Writer(number, await connect(ambassador.port, ambassador.servers[0]), shape, own, board, evidence)
        for number in range(CONNECTIONS)
    ]
    each = math.ceil(rounds / (sum(not writer.only_reads for writer in writers) * epochs))
    barrier = asyncio.Barrier(CONNECTIONS)

    async def work(writer: Writer) -> None:
        for _ in range(epochs):
            for _ in range(each):
                await writer.write_and_read()
            await barrier.wait()
            if replicas:
                await writer.read_until_answered_by(replicas)
            await barrier.wait()
            if evidence.avoided:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for writer in writers:
                group.create_task(work(writer))
    finally:
        for writer in writers:
            writer.application.vanish()
    return evidence


async def connect(port: int, server: PostgresServer) -> Application:
    """Log in at a port as `server` would let a superuser in."""
    return await Application.connect(port, Credentials(password=server.credentials.superuser), user=SUPERUSER)


def make_counters(primary: PostgresServer, replicas: Sequence[PostgresServer]) -> None:
    """Make the table, with every counter at 0, and wait until all replicas have it."""
    primary.query("CREATE TABLE IF NOT EXISTS counter (key int PRIMARY KEY, value int NOT NULL) WITH (fillfactor = 20)")
    primary.query("TRUNCATE counter")
    primary.query(f"INSERT INTO counter SELECT key, 0 FROM generate_series(0, {CONNECTIONS - 1}) AS key")
    wait_replayed(primary, replicas)


def wait_replayed(primary: PostgresServer, replicas: Sequence[PostgresServer]) -> None:
    """Wait until these replicas have replayed all that the primary has committed until now."""
    [(position,)] = primary.query("SELECT pg_current_wal_flush_lsn()::text")
    for replica in replicas:
        wait_for(
            lambda replica=replica: (
                replica.query(  # type: ignore[misc]
                    "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position
                )
                == [(True,)]
            ),
            30,
            f"{replica.name} has replayed {position}",
        )


@contextmanager
def late(delays_ms: dict[PostgresServer, int]) -> Iterator[None]:
    """Let each of these replicas replay every commit so many milliseconds late, for as long as the block lasts."""
    try:
        for replica, delay_ms in delays_ms.items():
            _set_delay(replica, delay_ms)
        yield
    finally:
        for replica in delays_ms:
            _set_delay(replica, 0)


def _set_delay(replica: PostgresServer, delay_ms: int) -> None:
    replica.query(f"ALTER SYSTEM SET recovery_min_apply_delay = {delay_ms}")
    replica.query("SELECT pg_reload_conf()")
    now = "SELECT setting::int FROM pg_settings WHERE name = 'recovery_min_apply_delay'"
    wait_for(lambda: replica.query(now) == [(delay_ms,)], 30, f"{replica.name} is {delay_ms} ms late")
