"""PostgreSQL as the judge of statements: what running one does to a transaction, its locks, a sequence, the session."""

from __future__ import annotations

import psycopg
from psycopg import pq

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from tests.support import wait_for

# Did it get a transaction id; has the sequence stayed; its locks beyond those of reading; how many statements it has
# prepared and cursors opened; the parameters that tests change.
EFFECTS = """
    SELECT pg_current_xact_id_if_assigned() IS NOT NULL,
           (SELECT (last_value, is_called) = (1, false) FROM seq),
           (SELECT count(*) FROM pg_locks
            WHERE pid = pg_backend_pid()
              AND (locktype = 'advisory' OR mode NOT IN ('AccessShareLock', 'ExclusiveLock'))),
           (SELECT count(*) FROM pg_prepared_statement()) + (SELECT count(*) FROM pg_cursor() WHERE name <> ''),
           current_setting('work_mem') || coalesce(nullif(current_setting('my.x', true), ''), '-')
"""
NO_EFFECT = [b"f", b"t", b"0", b"0", b"4MB-"]
# What outlives a transaction that is rolled back.
REMAINS = """
    SELECT (SELECT (last_value, is_called) = (1, false) FROM seq),
           (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory')
"""
NO_REMAINS = [b"t", b"0"]


class Backend:
    """A connection that runs SQL as it stands, by the simple protocol."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self._connection = pq.PGconn.connect(server.dsn(database=database).encode())
        assert self._connection.status == pq.ConnStatus.OK, self._connection.error_message

    def run(self, sql: str) -> list[bytes | None]:
        """Run it, and give the first row of its last result. Raises psycopg.Error."""
        rows = self.rows(sql)
        return rows[0] if rows else []

    def rows(self, sql: str, parameters: int = 0) -> list[list[bytes | None]]:
        """Run it, and give all rows of its last result, or all that it copies out. Raises psycopg.Error.

        Parameters are NULL; with them, it is the extended protocol.
        """
        if parameters:
            self._connection.send_query_params(sql.encode(), [None] * parameters)
        else:
            self._connection.send_query(sql.encode())
        rows: list[list[bytes | None]] = []
        error: psycopg.Error | None = None
        while (result := self._connection.get_result()) is not None:
            if result.status == pq.ExecStatus.COPY_OUT:
                rows = []
                while (data := self._connection.get_copy_data(0))[0] >= 0:
                    rows.append([bytes(data[1])])
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
                error = psycopg.errors.lookup(state)(result.error_message.decode())
            elif result.ntuples:
                rows = [
                    [result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)
                ]
        if error is not None:
            raise error
        return rows

    def close(self) -> None:
        self._connection.finish()


def create_database(cluster: Cluster, database: str, schema: str) -> tuple[PostgresServer, PostgresServer]:
    """Make a database with a schema, and give the primary and a replica that has it."""
    primary, replica = cluster.primary, cluster.replicas[0]
    primary.query(f"CREATE DATABASE {database}")
    backend = Backend(primary, database)
    backend.run(schema)
    backend.close()
    position = primary.query("SELECT pg_current_wal_insert_lsn()::text")[0][0]
    wait_for(
        lambda: replica.query("SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", position) == [(True,)],
        10,
        "the replica has the schema",
    )
    return primary, replica
