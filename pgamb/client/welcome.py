"""What a new session is told: the parameters that PostgreSQL would report, for what it asked for when it connected.

PostgreSQL judges startup parameters (`options`, client_encoding, anything else): a connection is opened with them, as
the application would have, and what it reports is remembered for others that ask for the same. In `password` mode
this connection is also what checks the password, at every log-in.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from pgamb.client.opener import Opened, Opener
from pgamb.errors import CannotConnectNow, ConnectionFailure, PgambError, PostgresError
from pgamb.registry.model import Member
from pgamb.session.backend_login import Credentials
from pgamb.session.limits import LIMITS, Limits
from pgamb.session.parameters import EMPTY, ParameterSet, ParameterSets, is_ambiguous, items_of_rows, settings_query
from pgamb.session.query import simple_query
from pgamb.session.reported import Reported, ReportedSets
from pgamb.wire import messages
from pgamb.wire.startup import parse_options

# Long enough to make log-ins cheap, short enough for an upgrade of the server to be noticed.
KEEP_S = 60.0
KEEP_COUNT = 1000

_ISOLATION = "default_transaction_isolation"
_DEFAULTS_QUERY = (
    "SELECT name, setting FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) ANY"
    f" ('{{{_ISOLATION},{','.join(LIMITS)}}}'::pg_catalog.text[])"
)
# Where statements go may be said of a role or a database as well.
_OWN_PARAMETERS = frozenset((b"pgamb.role", b"pgamb.min_lsn"))

# The server cannot take this connection just now; another member may.
_PASSING = ("57P01", "57P02", "57P03", "53300")


@dataclass(frozen=True, slots=True)
class Welcome:
    """What a session begins with: its parameters, its time limits, and what PostgreSQL told at its log-in."""

    parameters: ParameterSet
    told: bytes
    reported: Reported
    limits: Limits
    made_at: float


class Welcomer:
    """Finds out, and remembers, what a new session is to be told."""

    def __init__(self, opener: Opener, parameter_sets: ParameterSets, reported_sets: ReportedSets) -> None:
        self._opener = opener
        self._sets = parameter_sets
        self._reported_sets = reported_sets
        self._kept: dict[tuple[str, str, tuple[tuple[str, str], ...]], Welcome] = {}

    def forget(self) -> None:
        """Ask again: the servers have changed."""
        self._kept.clear()

    def known(self, database: str, user: str, startup: Mapping[str, str]) -> Welcome | None:
        """Return what is remembered."""
        welcome = self._kept.get(_key(database, user, startup))
        if welcome is None or time.monotonic() - welcome.made_at > KEEP_S:
            return None
        return welcome

    async def ask(
        self,
        members: tuple[Member, ...],
        database: str,
        user: str,
        startup: Mapping[str, str],
        credentials: Credentials,
    ) -> Welcome:
        """Log in as the application would, at the first member that answers.

        Raises PostgresError with PostgreSQL's refusal, word for word, or CannotConnectNow.
        """
        failure: PgambError = CannotConnectNow("no member of the service is known yet")
        for member in members:
            try:
                opened = await self._opener.open(member, database, user, credentials, startup)
            except ConnectionFailure as error:
                failure = CannotConnectNow(f"no member could be reached: {error.message}")
                continue
            except PostgresError as error:
                if error.sqlstate in _PASSING:
                    failure = error
                    continue
                raise
            try:
                return await self._learn(opened, database, user, startup)
            except ConnectionFailure as error:
                failure = CannotConnectNow(f"{member.node} was lost: {error.message}")
            finally:
                opened.channel.close()
        raise failure

    async def _learn(self, opened: Opened, database: str, user: str, startup: Mapping[str, str]) -> Welcome:
        rows = await opened.channel.converse(simple_query(messages.decode_text(settings_query(_custom_names(startup)))))
        defaults = await opened.channel.converse(simple_query(_DEFAULTS_QUERY))
        await opened.channel.send(messages.terminate())
        items = items_of_rows([None if value is None else messages.encode_text(value) for value in row] for row in rows)
        isolation = next((value for name, value in defaults if name == _ISOLATION), None)
        if isolation not in (None, "read committed"):
            # The role or the database may say so; transactions that do not say hang on it.
            items[b"default_transaction_isolation"] = messages.encode_text(isolation)
        reported = dict(opened.greeting.parameters)
        # What the role or database sets by itself counts as well, for those that change how SQL is to be read.
        for name in {"standard_conforming_strings", "client_encoding"} & reported.keys():
            value = {messages.encode_text(name): messages.encode_text(reported[name])}
            if is_ambiguous(value):
                items.update(value)
        if "in_hot_standby" in reported:
            # The application believes in one PostgreSQL, which takes its writes.
            reported["in_hot_standby"] = "off"
        welcome = Welcome(
            self._sets.of(items) if items else EMPTY,
            opened.greeting.notices + messages.parameter_statuses(reported),
            self._reported_sets.of_statuses(reported),
            Limits.of(defaults),
            time.monotonic(),
        )
        if len(self._kept) >= KEEP_COUNT:
            self._kept.clear()
        self._kept[_key(database, user, startup)] = welcome
        return welcome


def _custom_names(startup: Mapping[str, str]) -> frozenset[bytes]:
    names = [*startup, *parse_options(startup.get("options", ""))]
    return _OWN_PARAMETERS | {messages.encode_text(name).lower() for name in names if "." in name}


def _key(database: str, user: str, startup: Mapping[str, str]) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    return database, user, tuple(sorted(startup.items()))
