"""Checks that time never runs backwards for a session: a counter that somebody else raises never falls for it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from pgamb.demo.postgres import PostgresServer
from tests.support.ambassador import Ambassador
from tests.support.application import Answer, Application
from tests.support.freshness import connect

READ = "SELECT value, current_setting('cluster_name') FROM counter WHERE key = 0"
RAISE = "UPDATE counter SET value = value + 1 WHERE key = 0"
# How far a session watches the counter rise, and for how long at most.
RISES = 12
DEADLINE_S = 30.0
READS_PER_TRANSACTION = 3


@dataclass(frozen=True, slots=True)
class Fall:
    """A session that saw the counter fall."""

    session: int
    read: int
    before: tuple[int, str]
    after: tuple[int, str]

    def __str__(self) -> str:
        return (
            f"session {self.session}, read {self.read}: {self.after[0]} from {self.after[1]}, "
            f"after {self.before[0]} from {self.before[1]}"
        )


@dataclass(slots=True)
class Watched:
    """What all sessions saw. `mixed` are the transactions of reads that more than one member answered."""

    falls: list[Fall] = field(default_factory=list)
    members: Counter[str] = field(default_factory=Counter)
    mixed: list[set[str]] = field(default_factory=list)
    sessions: int = 0

    def __str__(self) -> str:
        lines = [f"{len(self.falls)} falls in {self.sessions} sessions; answered by {dict(self.members)}"]
        return "\n".join([*lines, *map(str, self.falls[:10])])


async def watch_from_many_sessions(
    ambassador: Ambassador, primary: PostgresServer, *, transactions: bool, sessions: int, at_a_time: int = 12
) -> Watched:
    """Have many sessions, some at a time, read a counter that a connection to `primary` itself raises meanwhile.

    Each reads until the counter has risen a number of times under its eyes; with `transactions`, a few reads each.
    """
    watched = Watched()
    numbers = iter(range(sessions))
    raising = asyncio.create_task(_raise_for_ever(primary))

    async def one_after_the_other() -> None:
        for number in numbers:
            application = await connect(ambassador.port, primary)
            try:
                await _watch(application, number, watched, transactions=transactions)
            finally:
                application.vanish()
            watched.sessions += 1

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_a_time):
                group.create_task(one_after_the_other())
    finally:
        raising.cancel()
        await asyncio.wait([raising])
    if not raising.cancelled():
        raising.result()
    return watched


async def _raise_for_ever(primary: PostgresServer) -> None:
    application = await connect(primary.port, primary)
    try:
        while True:
            answer = await application.query(RAISE)
            assert answer.tags == ["UPDATE 1"], answer.errors
            # The pace of the writer, which need not wait for anything.
            await asyncio.sleep(0.005)
    finally:
        application.vanish()


async def _watch(application: Application, number: int, watched: Watched, *, transactions: bool) -> None:
    end = time.monotonic() + DEADLINE_S
    newest = (-1, "nobody")
    reads = rises = 0
    while rises < RISES:
        assert time.monotonic() < end, f"session {number}: for {DEADLINE_S:g} s the counter rose {rises} times only"
        found = await (_read_in_a_transaction(application) if transactions else _read_alone(application))
        members = {member for _, member in found}
        if len(members) > 1:
            watched.mixed.append(members)
        for seen in found:
            reads += 1
            watched.members[seen[1]] += 1
            if seen[0] < newest[0]:
                watched.falls.append(Fall(number, reads, newest, seen))
            rises += seen[0] > newest[0]
            newest = max(newest, seen)


async def _read_alone(application: Application) -> list[tuple[int, str]]:
    return _rows(await application.query(READ))


async def _read_in_a_transaction(application: Application) -> list[tuple[int, str]]:
    found = []
    for sql in ("BEGIN", *[READ] * READS_PER_TRANSACTION, "COMMIT"):
        found += _rows(await application.query(sql))
    return found


def _rows(answer: Answer) -> list[tuple[int, str]]:
    assert not answer.errors, answer.errors
    return [(int(value or b""), (member or b"").decode()) for value, member in answer.rows]
