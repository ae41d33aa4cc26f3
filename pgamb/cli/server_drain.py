"""`pgamb server drain`: let a member's work end before its PostgreSQL is stopped."""

from __future__ import annotations

import asyncio
import socket
import time

import asyncpg
import click

from pgamb.cli.failure import FAILED
from pgamb.cli.options import OptionsCommand, read
from pgamb.config import DrainOptions
from pgamb.errors import ConnectionFailure
from pgamb.observe.logs import setup_logging
from pgamb.registry.drain import Drains
from pgamb.registry.source import open_drains
from pgamb.server.advertise import node_name
from pgamb.server.probe import APPLICATION_NAME, Prober
from pgamb.server.reading import Unreachable
from pgamb.server.target import parse_target

HELP = """Let the work of one member end, before its PostgreSQL is stopped: a switchover without an error.

Every `pgamb client` of the service is asked to begin nothing new there: transactions that are running end, new work
for a primary is held until there is another one, reads go to other replicas. Returns when no session is in a
transaction any more. The member takes work again when it has another role, when --drain-hold is over, or at --undo.

\b
Exit status: 0  no session is in a transaction
             1  some still were after --drain-timeout; new work stays away
             2  bad input
             3  the registry cannot be reached

\b
    pgamb server drain --dsn postgresql://monitor@127.0.0.1/postgres --registry etcd://127.0.0.1:2379 && pg_ctl stop
"""

# Whoever has just begun something when it was told to begin nothing more needs a moment to be seen.
QUIET_S = 0.3
LOOK_S = 0.05

# Sessions of applications that would get an error if the server stopped now; pgamb's own questions would not.
BUSY_SQL = f"""
SELECT pid, coalesce(application_name, '') AS application, state
  FROM pg_catalog.pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_catalog.pg_backend_pid()
   AND state IS DISTINCT FROM 'idle' AND state IS DISTINCT FROM 'disabled'
   AND application_name NOT IN ('{APPLICATION_NAME}', 'pgamb_monitor', 'pgamb_freshness')
 ORDER BY pid
"""


def _drain(**given: object) -> int:
    undo = given.pop("undo") is True
    options = read(DrainOptions, given).options
    # What the registry's client has to say of an outage is in the error that ends us.
    setup_logging("text", "error")
    return asyncio.run(_run(options, undo=undo))


async def _run(options: DrainOptions, *, undo: bool) -> int:
    node = await _node(options)
    drains = open_drains(
        options.registry,
        options.service,
        ca_file=options.registry_ca,
        cert_file=options.registry_cert,
        key_file=options.registry_key,
    )
    try:
        if undo:
            was = await drains.end(node)
            click.echo(f"{node} takes new work again." if was else f"{node} was not draining.")
            return 0
        return await _until_quiet(options, drains, node)
    finally:
        await drains.close()


async def _until_quiet(options: DrainOptions, drains: Drains, node: str) -> int:
    member = await drains.member(node)
    connection = await asyncpg.connect(
        options.dsn, statement_cache_size=0, server_settings={"application_name": APPLICATION_NAME}
    )
    try:
        await drains.begin(member, options.drain_hold_s)
        deadline = time.monotonic() + options.drain_timeout_s
        quiet_since: float | None = None
        while True:
            busy = await connection.fetch(BUSY_SQL)
            now = time.monotonic()
            quiet_since = None if busy else quiet_since or now
            if quiet_since is not None and now - quiet_since >= QUIET_S:
                click.echo(f"{node} is drained: no session is in a transaction. {_until(options)}")
                return 0
            if busy and now > deadline:
                break
            await asyncio.sleep(LOOK_S)
    finally:
        await connection.close()
    click.echo(f"{node} drains, and {len(busy)} sessions are still in a transaction:")
    for row in busy[:10]:
        click.echo(f"  pid {row['pid']}, {row['state']}, application_name {row['application'] or '(none)'}")
    click.echo(f"{_until(options)} Stopping PostgreSQL now ends them with an error.")
    return FAILED


def _until(options: DrainOptions) -> str:
    return f"New work stays away for {options.drain_hold_s} s, or until it has another role."


async def _node(options: DrainOptions) -> str:
    """Return the member's name, found as its agent finds it."""
    if options.node is not None:
        return options.node
    target = parse_target(options.dsn)
    prober = Prober(target)
    try:
        probe = await prober.probe()
    finally:
        prober.close()
    if isinstance(probe, Unreachable):
        raise ConnectionFailure(
            f"cannot connect to PostgreSQL at {target.address}: {probe.reason}",
            hint="--node names a member whose PostgreSQL cannot be asked.",
        )
    return node_name(None, probe.cluster_name, socket.gethostname(), target.address.port)


command = OptionsCommand(
    "drain",
    DrainOptions,
    _drain,
    help_text=HELP,
    own=(click.Option(["--undo"], is_flag=True, help="Let new work go there again, at once."),),
)
