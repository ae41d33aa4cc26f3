"""A small load of writes, transactions and reads, which remembers what it was told of each write."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

OUTCOME_UNKNOWN = "08007"
PACE_S = 0.01
# How long an application has something else to do within a transaction: most of them are open at any moment.
THINKING_S = 0.015
JOIN_S = 90.0


class Load:
    """`connections` threads, each with one connection that it never replaces; keys of writes are unique in `table`."""

    def __init__(self, dsn: str, table: str, connections: int) -> None:
        self.errors: list[psycopg.Error] = []
        self.dropped = 0
        self.reads = 0
        self.longest_s = 0.0
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.unknown: set[int] = set()
        self._dsn = dsn
        self._table = table
        self._keys = itertools.count(1)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(connections)]
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE {table} (key int)")

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(JOIN_S)
            assert not thread.is_alive(), "a statement got no answer"

    def check(self) -> None:
        """Compare what is in the table with what was said: nothing lost, nothing doubled, nothing made up."""
        assert self.dropped == 0, self.summary
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            # Whatever a replica may have: the primary's table counts.
            connection.execute("SET pgamb.role = primary")
            found = [key for (key,) in connection.execute(f"SELECT key FROM {self._table}").fetchall()]
        assert len(found) == len(set(found)), "a write was done twice"
        assert set(found) >= self.acknowledged, "an acknowledged write is lost"
        assert not set(found) & self.refused, "a write that was refused is there"
        assert set(found) <= self.acknowledged | self.unknown

    @property
    def summary(self) -> str:
        counts: dict[str, int] = {}
        for error in self.errors:
            counts[f"{error.sqlstate} {error}"] = counts.get(f"{error.sqlstate} {error}", 0) + 1
        return (
            f"{len(self.acknowledged)} writes, {self.reads} reads, longest pause {self.longest_s:.2f} s, "
            f"{self.dropped} connections dropped, errors {counts or 'none'}"
        )

    def _work(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            for turn in itertools.count():
                if self._stop.wait(PACE_S):
                    return
                if connection.closed:
                    self.dropped += 1
                    return
                self._turn(connection, turn)

    def _turn(self, connection: psycopg.Connection, turn: int) -> None:
        keys = [next(self._keys), *([next(self._keys)] if turn % 3 == 2 else [])]
        began = time.monotonic()
        try:
            if turn % 3 == 0:
                keys = []
                connection.execute(f"SELECT count(*) FROM {self._table}")
                self.reads += 1
            elif turn % 3 == 1:
                connection.execute(f"INSERT INTO {self._table} VALUES (%s)", keys)
            else:
                with connection.transaction():
                    for key in keys:
                        connection.execute(f"INSERT INTO {self._table} VALUES (%s)", [key])
                        time.sleep(THINKING_S)
            self.acknowledged.update(keys)
        except psycopg.Error as error:
            self.errors.append(error)
            (self.unknown if error.sqlstate == OUTCOME_UNKNOWN else self.refused).update(keys)
        self.longest_s = max(self.longest_s, time.monotonic() - began)


@contextmanager
def running_load(dsn: str, table: str, connections: int = 4) -> Iterator[Load]:
    """Run a load until the end of the block; `check` it afterwards."""
    load = Load(dsn, table, connections)
    load.start()
    try:
        yield load
    finally:
        load.stop()
