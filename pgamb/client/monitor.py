"""Asks the members themselves what they are: the eyes of `static://`, where no registry tells, and of a registry that
tells late.

It logs in as `--auth-dsn` says, else as an application that has logged in: before that, nobody may ask.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from pgamb.client.channel import Channel
from pgamb.client.opener import Opener
from pgamb.errors import ConnectionFailure, PgambError
from pgamb.registry.model import Address, Role, Stats
from pgamb.registry.static import Observation
from pgamb.session.backend_login import Credentials
from pgamb.session.query import simple_query

# A primary's timeline is that of the WAL file it writes: pg_control_checkpoint() is late after a promotion. Each
# function of the other role would fail, so that CASE keeps them apart, and OFFSET 0 asks for the role but once.
_QUESTION = """
SELECT r.standby,
       CASE WHEN r.standby THEN GREATEST(
              (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()),
              (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery()))
            ELSE ('x' || pg_catalog.substr(
                pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int
       END,
       (SELECT system_identifier FROM pg_catalog.pg_control_system()),
       pg_catalog.current_setting('server_version_num'),
       pg_catalog.current_setting('cluster_name'),
       pg_catalog.pg_wal_lsn_diff(CASE WHEN r.standby THEN pg_catalog.pg_last_wal_replay_lsn()
                                       ELSE pg_catalog.pg_current_wal_lsn() END, '0/0')::int8
  FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby OFFSET 0) AS r
"""


@dataclass(frozen=True, slots=True)
class Asker:
    """Whom the monitor logs in as."""

    database: str
    user: str
    credentials: Credentials


def asker_from_dsn(dsn: str) -> Asker:
    """Take user, password and database from a DSN; its hosts are of no interest here."""
    parts = urlsplit(dsn)
    user = unquote(parts.username or "postgres")
    password = unquote(parts.password) if parts.password is not None else None
    return Asker(unquote(parts.path.lstrip("/")) or user, user, Credentials(password=password))


class MemberProber:
    """Implements `registry.static.Prober`, over one kept connection per address."""

    def __init__(self, opener: Opener, asker: Asker | None) -> None:
        self._opener = opener
        self._fixed = asker is not None
        self._asker = asker
        self._channels: dict[Address, Channel] = {}

    def lend(self, asker: Asker) -> bool:
        """Ask as this application from now on, unless there is a log-in of our own; tells whether that is news."""
        news = self._asker is None
        if not self._fixed:
            self._asker = asker
        return news

    async def probe(self, address: Address) -> Observation:
        """Ask one server; raises ConnectionFailure or PostgresError."""
        channel = self._channels.pop(address, None)
        if channel is not None:
            try:
                return await self._ask(address, channel)
            except ConnectionFailure:
                # It was restarted, or gave up on an idle session: the next connection tells.
                pass
        if self._asker is None:
            raise ConnectionFailure(
                "nobody has logged in yet, so that nobody can ask", hint="Give --auth-dsn to ask at once."
            )
        opened = await self._opener.open_address(
            address,
            self._asker.database,
            self._asker.user,
            self._asker.credentials,
            {"application_name": "pgamb_monitor"},
        )
        return await self._ask(address, opened.channel)

    def close(self) -> None:
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()

    async def _ask(self, address: Address, channel: Channel) -> Observation:
        try:
            async with asyncio.timeout(2.0):
                rows = await channel.converse(simple_query(_QUESTION))
        except TimeoutError:
            channel.close()
            raise ConnectionFailure(f"{address} did not answer within 2 s") from None
        except PgambError:
            channel.close()
            raise
        except BaseException:
            channel.close()
            raise
        self._channels[address] = channel
        standby, timeline, identifier, version, name, lsn = rows[0]
        position = int(lsn) if lsn is not None else None
        replica = standby == "t"
        return Observation(
            node=name or str(address),
            role=Role.REPLICA if replica else Role.PRIMARY,
            timeline=int(timeline or 0),
            # int8 is signed, the identifier is not.
            system_identifier=str(int(identifier or 0) & 0xFFFF_FFFF_FFFF_FFFF),
            server_version=int(version or 0),
            stats=Stats(
                node=name or str(address),
                wal_lsn=None if replica else position,
                replay_lsn=position if replica else None,
            ),
        )
