"""The same conversation held with the primary and through an ambassador, from the same contents of the database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from pgamb.demo.cluster import Cluster
from pgamb.demo.postgres import PostgresServer
from pgamb.wire import messages
from tests.support.ambassador import running_ambassador
from tests.support.cutting import CuttingRelay, running_relay
from tests.support.exchanges import Exchange, Heard, Transcript, difference, query
from tests.support.waiting import wait_for
from tests.support.wire import Wire, errors

DATABASE = "lazy"
DEADLINE_S = 20.0

SCHEMA_SQL = (
    "CREATE TABLE lazy (n int PRIMARY KEY, t text)",
    "CREATE SEQUENCE counter",
    "CREATE TABLE generation (g int)",
    "CREATE VIEW seen AS SELECT n, t FROM lazy WHERE n < 5",
    # A read that talks, one that fails with every field an error may have, and one that lies about being a read.
    "CREATE FUNCTION loud(n int) RETURNS int STABLE LANGUAGE plpgsql AS "
    "$$BEGIN RAISE NOTICE 'number %', n USING DETAIL = 'loud', HINT = 'quiet'; RETURN n; END$$",
    "CREATE FUNCTION broken() RETURNS int STABLE LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no %', 1 "
    "USING ERRCODE = 'P1234', DETAIL = 'd', HINT = 'h', TABLE = 'lazy', COLUMN = 'n', SCHEMA = 'public'; END$$",
    "CREATE FUNCTION sly() RETURNS bigint STABLE LANGUAGE sql AS $$SELECT nextval('counter')$$",
    "INSERT INTO generation VALUES (0)",
    # What waits for a lock here waits for something that does not come.
    f"ALTER DATABASE {DATABASE} SET lock_timeout = '1s'",
)
RESTORE_SQL = (
    # Rows come in the order of their places: those of a new file are the same each time.
    "DO $$ DECLARE made text; BEGIN FOR made IN SELECT relname FROM pg_class WHERE relname ~ '^made' AND relkind = 'r' "
    "LOOP EXECUTE 'DROP TABLE ' || made; END LOOP; END $$; "
    "CREATE TABLE IF NOT EXISTS due (n int UNIQUE DEFERRABLE INITIALLY DEFERRED); "
    "ALTER TABLE due DROP COLUMN IF EXISTS u; TRUNCATE due, lazy; "
    "SELECT lo_unlink(oid) FROM pg_largeobject_metadata; "
    "INSERT INTO lazy SELECT g, 't' || g FROM generate_series(1, 10) AS g; SELECT setval('counter', 1, false); "
    "UPDATE generation SET g = g + 1 RETURNING g"
)
CONTENTS_SQL = (
    "SELECT n, t FROM lazy ORDER BY n; SELECT count(*) FROM seen; SELECT last_value, is_called FROM counter; "
    "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND NOT attisdropped"
    " WHERE relnamespace = 'public'::regnamespace AND relkind <> 'i' AND attnum > 0 ORDER BY 1, 2; "
    "SELECT gid FROM pg_prepared_xacts WHERE database = current_database(); SELECT n FROM due ORDER BY n; "
    "SELECT oid FROM pg_largeobject_metadata ORDER BY 1; SELECT loid, data FROM pg_largeobject ORDER BY loid, pageno"
)
OPEN_SQL = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND backend_type = 'client backend' AND state <> 'idle'"
)
ASLEEP_SQL = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"

# What a session begins with: nothing that another has left, neither where reads go nor on the primary.
PROBES = (
    query(
        "SELECT current_setting('work_mem'), current_setting('search_path'), current_setting('application_name'),"
        " current_setting('TimeZone'), current_setting('default_transaction_isolation'),"
        " current_setting('default_transaction_read_only'), (SELECT count(*) FROM lazy), (SELECT max(t) FROM seen)"
    ),
    query(
        "SELECT (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_listening_channels()),"
        " (SELECT count(*) FROM pg_prepared_statements WHERE from_sql), to_regclass('mine'), pg_is_in_recovery(),"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), current_setting('work_mem')"
    ),
)


class Twins:
    """Direct and through. Both speak to one database, one after the other, so that every name and oid is the same."""

    def __init__(self, cluster: Cluster) -> None:
        """`port` is the ambassador's; `watching` has a session of ours with each member."""
        self.cluster = cluster
        self.port = 0
        self.watching: dict[str, Wire] = {}
        self._password = cluster.credentials.superuser
        self._pristine: list[str] = []

    def start(self) -> None:
        primary = self.cluster.primary
        primary.query(f"CREATE DATABASE {DATABASE}")
        for sql in SCHEMA_SQL:
            primary.query(sql, database=DATABASE)
        for server in self.cluster.servers:
            wait_for(lambda s=server: self._watch(s), DEADLINE_S, "the database is there")  # type: ignore[misc]
        self.restore()
        self._pristine = self.contents()

    def stop(self) -> None:
        for wire in self.watching.values():
            wire.close()
        self.cluster.primary.query(f"DROP DATABASE {DATABASE} WITH (FORCE)")

    # The two sides

    def direct(self, parameters: Mapping[str, str] | None = None) -> Wire:
        return self._connect(self.cluster.primary.port, parameters)

    def through(self, parameters: Mapping[str, str] | None = None, port: int = 0) -> Wire:
        return self._connect(port or self.port, parameters)

    def compare(
        self,
        exchanges: Sequence[Exchange],
        *,
        parameters: Mapping[str, str] | None = None,
        leaves: bool = False,
        port: int = 0,
        speakers: Sequence[int] = (),
    ) -> str:
        """Hold it with PostgreSQL and through pgamb (or another `port`); return what differs, empty for nothing.

        Who `leaves` closes the connection without a word. `speakers` has the session, from 0, that says each exchange,
        where it is not always the same one.
        """
        sessions = max(speakers, default=0) + 1
        said = [*PROBES * sessions, *exchanges]
        turns = [number // len(PROBES) for number in range(len(PROBES) * sessions)]
        turns += speakers or [0] * len(exchanges)
        direct, kept = self._hold([self.direct(parameters) for _ in range(sessions)], said, turns, leaves)
        through, ours = self._hold([self.through(parameters, port) for _ in range(sessions)], said, turns, leaves)
        shown = (
            said if sessions == 1 else [replace(e, says=f"{turn}: {e}") for e, turn in zip(said, turns, strict=True)]
        )
        if found := difference(shown, direct, through):
            return found
        if kept != ours:
            return f"said: {shown}\nPostgreSQL has kept {kept}\nthrough pgamb it has kept {ours}"
        return ""

    def _hold(
        self, wires: list[Wire], exchanges: Sequence[Exchange], turns: Sequence[int], leaves: bool
    ) -> tuple[list[Heard], list[str]]:
        heard: list[Heard] = []
        with ExitStack() as stack:
            for wire in wires:
                stack.enter_context(wire)
            transcripts = [Transcript(wire, self._cancel) for wire in wires]
            for number, (exchange, turn) in enumerate(zip(exchanges, turns, strict=True)):
                heard += transcripts[turn].hold(number, exchange)
            if not leaves:
                for wire in wires:
                    wire.send_all(messages.terminate())
        kept = self.contents()
        if kept != self._pristine:
            self.restore()
        return heard, kept

    def _cancel(self, wire: Wire, asleep: bool) -> None:
        """Ask that what runs be cancelled; if it is to be `asleep`, once it is, or once there is an answer."""
        wait_for(
            lambda: not asleep or wire.is_ready() or any(w.value(ASLEEP_SQL) != "0" for w in self.watching.values()),
            DEADLINE_S,
            "there is something to cancel",
        )
        assert wire.greeting is not None
        with Wire(wire.port) as canceller:
            canceller.send(messages.cancel_request(wire.greeting.pid, wire.greeting.secret))
            canceller.until_closed()

    # The database

    def contents(self) -> list[str]:
        """What is committed, once nobody is in a transaction any more. Raises AssertionError when somebody stays."""
        primary = self.watching[self.cluster.primary.name]
        wait_for(lambda: primary.value(OPEN_SQL) == "0", DEADLINE_S, "no transaction is left open")
        # An error is an answer too: the last of these tables may have been dropped.
        return [f"{chr(m.type)} {m.payload!r}" for m in primary.query(CONTENTS_SQL) if chr(m.type) in "DCE"]

    def restore(self) -> None:
        """Make everything as it was, and wait until the replicas know."""
        primary = self.watching[self.cluster.primary.name]
        for message in primary.query("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
            if message.type == ord("D"):
                gid = messages.parse_data_row(message.payload)[0]
                assert gid is not None
                primary.query(f"ROLLBACK PREPARED '{gid.decode()}'")
        found = primary.query(RESTORE_SQL)
        assert not errors(found), errors(found)
        self.wait_for_replicas()

    def wait_for_replicas(self) -> None:
        """Wait until the replicas have what `restore` wrote."""
        generation = self.watching[self.cluster.primary.name].value("SELECT g FROM generation")
        for server in self.cluster.replicas:
            wire = self.watching[server.name]
            wait_for(
                lambda wire=wire: wire.value("SELECT g FROM generation") == generation,  # type: ignore[misc]
                DEADLINE_S,
                f"{server.name} replays",
            )

    def _connect(self, port: int, parameters: Mapping[str, str] | None) -> Wire:
        return Wire(port, deadline_s=DEADLINE_S).log_in(self._password, database=DATABASE, parameters=parameters)

    def _watch(self, server: PostgresServer) -> bool:
        if server.query(f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'") != [(1,)]:
            return False
        wire = self._connect(server.port, None)
        if wire.value("SELECT to_regclass('generation')") is None:
            wire.close()
            return False
        self.watching[server.name] = wire
        return True


@contextmanager
def running_twins(cluster: Cluster) -> Iterator[Twins]:
    """Run an ambassador with default options in front of the cluster."""
    with ExitStack() as stack:
        twins = Twins(cluster)
        stack.callback(twins.stop)
        twins.start()
        twins.port = stack.enter_context(running_ambassador(cluster.servers, "--replica-wait", "5")).port
        yield twins


@contextmanager
def running_relays(cluster: Cluster, *options: str) -> Iterator[list[CuttingRelay]]:
    """Run an ambassador between relays that can cut: the first before it, then one before each member."""
    with ExitStack() as stack:
        behind = [stack.enter_context(running_relay(server.port)) for server in cluster.servers]
        url = "static://" + ",".join(f"127.0.0.1:{relay.port}" for relay in behind)
        options = ("--replica-wait", "5", "--registry", url, *options)
        ambassador = stack.enter_context(running_ambassador(cluster.servers, *options))
        yield [stack.enter_context(running_relay(ambassador.port)), *behind]
