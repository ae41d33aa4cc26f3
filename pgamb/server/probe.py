"""Asks a PostgreSQL what it is, over one connection that is kept.

* One statement gives all: what it tells belongs to one moment, and costs one round trip.
* Everything has a deadline: a server that is frozen is as good as none, and must not freeze the agent.
* Every name is qualified and `search_path` is fixed, so that no object of the database can stand in for the catalogue.
* The connection's end is a message: PostgreSQL has stopped, or restarted as something else. `on_lost` hears of it.

Timelines. A primary's is in the name of the WAL file that it writes: `pg_control_checkpoint()` shows the old one
until the first checkpoint after a promotion. No function tells which timeline a replica replays; the newest of those
that it is known to have reached (control file, end of recovery, WAL receiver) is taken, and each of them only grows.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from pgamb.errors import ConfigError
from pgamb.server.reading import Probe, Reading, Unreachable
from pgamb.server.target import Target

log = logging.getLogger(__name__)

APPLICATION_NAME = "pgamb_agent"

# Shorter than the shortest useful lease (5 s): a frozen server is withdrawn by us, not by the end of the lease.
PROBE_TIMEOUT_S = 2.0

# `OFFSET 0` keeps the subquery apart: whether the server is in recovery is asked once, and a promotion between two
# calls can not mix the answers. A CASE evaluates only the branch it takes, and WAL functions fail on the wrong side.
PROBE_SQL = """
SELECT r.in_recovery,
       CASE WHEN r.in_recovery THEN NULL
            ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8)
       END AS written_timeline,
       GREATEST(w.received_tli,
                (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
                (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())) AS reached_timeline,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()) AS system_identifier,
       pg_catalog.current_setting('server_version_num') AS server_version,
       pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) AS started_at_s,
       pg_catalog.current_setting('cluster_name') AS cluster_name,
       pg_catalog.pg_wal_lsn_diff(
           CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_receive_lsn()
                ELSE pg_catalog.pg_current_wal_lsn() END, '0/0')::pg_catalog.int8 AS wal_lsn,
       pg_catalog.pg_wal_lsn_diff(
           CASE WHEN r.in_recovery THEN pg_catalog.pg_last_wal_replay_lsn() END, '0/0')::pg_catalog.int8 AS replay_lsn,
       pg_catalog.pg_wal_lsn_diff(w.latest_end_lsn, '0/0')::pg_catalog.int8 AS upstream_lsn,
       w.pid IS NOT NULL AS is_receiving,
       CASE WHEN r.in_recovery THEN pg_catalog.date_part(
           'epoch', pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()) END AS replayed_ago_s,
       (SELECT pg_catalog.sum(numbackends) FROM pg_catalog.pg_stat_database)::pg_catalog.int8 AS connections,
       pg_catalog.current_setting('max_connections') AS max_connections
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery OFFSET 0) AS r
  LEFT JOIN (SELECT pid, received_tli, latest_end_lsn FROM pg_catalog.pg_stat_get_wal_receiver() WHERE pid IS NOT NULL)
       AS w ON true
"""

_NOBODY = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT, errno.EPIPE)

# The server is stopping, starting, or in crash recovery (appendix "Error Codes", class 57).
_NOT_SERVING = ("57P01", "57P02", "57P03")


class Prober:
    """Asks one server, as often as wanted. `on_lost` is called when the kept connection ends by itself."""

    def __init__(
        self, target: Target, *, timeout_s: float = PROBE_TIMEOUT_S, on_lost: Callable[[], None] | None = None
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._on_lost = on_lost
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def probe(self) -> Probe:
        """Ask now. A lost connection is replaced at once, so that the answer is of now. Raises ConfigError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask()
        except TimeoutError:
            self._drop()
            return Unreachable(f"no answer within {self._timeout_s:g} s", is_gone=False, is_silent=True)
        except asyncpg.ClientConfigurationError as error:
            raise ConfigError(f"--dsn: {error}", hint="See `pgamb server --help`.") from error
        except asyncpg.PostgresError as error:
            self._drop()
            return Unreachable(_sentence(error), is_gone=error.sqlstate in _NOT_SERVING)
        except (OSError, asyncpg.InterfaceError) as error:
            self._drop()
            nobody = _is_nobody(error)
            return Unreachable(_sentence(error), is_gone=nobody, is_silent=nobody)
        except Exception as error:
            # Somebody answers, and it is not PostgreSQL's protocol that asyncpg could make sense of.
            self._drop()
            return Unreachable(f"{type(error).__name__}: {_sentence(error)}", is_gone=False)
        except BaseException:
            self._drop()
            raise

    def close(self) -> None:
        """End the connection at once."""
        self._drop()

    async def _ask(self) -> Reading:
        if self._connection is not None and not self._connection.is_closed():
            try:
                return read_row(await self._connection.fetchrow(PROBE_SQL))
            except Exception as error:
                # Whatever it is that ended here: asyncpg has an internal error for a server that says goodbye just
                # as a statement is sent. A new connection tells the truth.
                log.debug("server.probe.reconnect", extra={"kv": {"why": error}})
        self._drop()
        self._connection = await self._connect()
        return read_row(await self._connection.fetchrow(PROBE_SQL))

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        address = self._target.address
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
            self._target.dsn,
            host=address.host,
            port=address.port,
            timeout=self._timeout_s,
            statement_cache_size=0,
            target_session_attrs=SessionAttribute.any,
            server_settings={
                "application_name": APPLICATION_NAME,
                "search_path": "pg_catalog",
                "statement_timeout": str(int(self._timeout_s * 1000)),
            },
        )
        connection.add_termination_listener(self._ended)
        return connection

    def _ended(self, connection: object) -> None:
        # A connection that we drop ourselves is no longer the kept one.
        if connection is self._connection:
            self._connection = None
            if self._on_lost is not None:
                self._on_lost()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def read_row(row: asyncpg.Record | None) -> Reading:
    """Turn the one row of PROBE_SQL into a reading."""
    if row is None:
        raise asyncpg.InterfaceError("the probe returned no row")
    in_recovery: bool = row["in_recovery"]
    timeline = row["reached_timeline"] if in_recovery else int(row["written_timeline"], 16)
    return Reading(
        in_recovery=in_recovery,
        timeline=timeline or 0,
        # int8 is signed, and the identifier is not: `pg_controldata` shows it as it is here.
        system_identifier=str(row["system_identifier"] & 0xFFFF_FFFF_FFFF_FFFF),
        server_version=int(row["server_version"]),
        started_at_s=row["started_at_s"],
        cluster_name=row["cluster_name"],
        wal_lsn=row["wal_lsn"],
        replay_lsn=row["replay_lsn"],
        lag_bytes=_lag_bytes(row),
        lag_s=_lag_s(row),
        connections=row["connections"],
        max_connections=int(row["max_connections"]),
    )


def _lag_bytes(row: asyncpg.Record) -> int | None:
    """Return what is known to exist and is not replayed; a log-in without pg_monitor sees only what was received."""
    known = [lsn for lsn in (row["wal_lsn"], row["upstream_lsn"]) if lsn is not None]
    if not row["in_recovery"] or row["replay_lsn"] is None or not known:
        return None
    lag_bytes: int = max(known) - row["replay_lsn"]
    return max(0, lag_bytes)


def _lag_s(row: asyncpg.Record) -> float | None:
    """Return the age of the newest transaction replayed; an idle primary makes nobody late."""
    if not row["in_recovery"]:
        return None
    if row["is_receiving"] and _lag_bytes(row) == 0:
        return 0.0
    return None if row["replayed_ago_s"] is None else max(0.0, row["replayed_ago_s"])


def _is_nobody(error: BaseException) -> bool:
    """Tell "nobody listens there" from the complaints of somebody who did answer (asyncpg's are ConnectionErrors too).

    Of a name with several addresses, all failures come as one OSError without a number.
    """
    if isinstance(error, ConnectionRefusedError | ConnectionResetError | FileNotFoundError):
        return True
    if isinstance(error, asyncpg.InterfaceError) or not isinstance(error, OSError):
        return False
    return error.errno in _NOBODY or str(error).startswith("Multiple exceptions")


def _sentence(error: BaseException) -> str:
    """Say what went wrong in one line; asyncpg puts hints on lines of their own."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
