"""`pgamb explain`: what a statement needs, the evidence for it, and where it would go."""

from __future__ import annotations

import asyncio
import sys

import click

from pgamb.cli.explanation import Judged, explanation
from pgamb.cli.options import OptionsCommand, read
from pgamb.cli.picture import Picture
from pgamb.cli.view import open_view
from pgamb.client.catalogue_reader import CatalogueReader
from pgamb.client.monitor import asker_from_dsn
from pgamb.client.opener import Opener
from pgamb.config import ClientOptions, ExplainOptions
from pgamb.errors import ConfigError
from pgamb.observe.logs import setup_logging
from pgamb.registry.model import Topology
from pgamb.routing.catalog import BuiltIn, Catalog
from pgamb.routing.classify import classify
from pgamb.routing.control import NO_CONTROL, control_of
from pgamb.routing.hints import refusal, wish_of_comment
from pgamb.routing.intent import Need

HELP = """Say what SQL needs, the evidence for it, and where it would go.

SQL is one argument, the text of one Query; with `-` it is read from standard input. Nothing is run. With --registry
also the members are looked at: where the text would go now, and why.

\b
Exit status: 0  explained
             2  bad input
             3  the registry cannot be reached

\b
    pgamb explain "SELECT now(), count(*) FROM orders"
    pgamb explain --registry etcd://127.0.0.1:2379 --service db - < query.sql
"""

# Of the functions that we know of; what other releases have is told apart by the server's own number.
DEFAULT_SERVER_VERSION = 15


def _explain(**given: object) -> int:
    sql, conforming = str(given.pop("sql")), given.pop("conforming") != "off"
    version = given.pop("server_version")
    options = read(ExplainOptions, given).options
    text = _text(sql)
    # What the registry's client has to say of an outage is in the error that ends us.
    setup_logging("text", "error")
    topology, seen, catalog = asyncio.run(_look(options)) if options.registry else (None, None, None)
    known = catalog or BuiltIn(version if isinstance(version, int) else _server_version(topology))
    click.echo(str(explanation(judge(text, known, conforming=conforming), options, seen)))
    if catalog is None:
        click.echo("unseen    what the database's own functions, views and tables add to it")
    return 0


def judge(text: str, catalog: Catalog, *, conforming: bool = True) -> Judged:
    """Judge a text as `pgamb client` does; `catalog` knows the functions that it may call."""
    sql = text.encode()
    intent = classify(sql, standard_conforming_strings=conforming, catalog=catalog)
    is_control = intent.need & Need.CONTROL and not intent.need & Need.MULTIPLE
    wrong = refusal(intent, sql)
    return Judged(
        intent,
        control_of(sql) if is_control else NO_CONTROL,
        wish_of_comment(sql),
        ". ".join(wrong) if wrong is not None else None,
    )


def _text(sql: str) -> str:
    if sql == "-":
        try:
            sql = sys.stdin.buffer.read().decode()
        except UnicodeDecodeError:
            raise ConfigError("standard input is not UTF-8 text", hint="give the SQL in UTF-8") from None
    if "\0" in sql:
        raise ConfigError("the SQL has a zero byte in it", hint="PostgreSQL's protocol cannot carry one in a text")
    return sql


async def _look(options: ExplainOptions) -> tuple[Topology, Picture, Catalog | None]:
    async with open_view(options, timeout_s=options.timeout_s, login_dsn=options.auth_dsn) as view:
        topology = view.newest
        return topology, await view.picture(), await _catalogue(options, topology)


async def _catalogue(options: ExplainOptions, topology: Topology) -> Catalog | None:
    """Read the catalogue of the database that --auth-dsn names, as `pgamb client` does; None without one."""
    if options.auth_dsn is None:
        return None
    primary = topology.primary_member()
    members = [*([primary] if primary is not None else []), *topology.replicas()]
    login = asker_from_dsn(options.auth_dsn)
    reader = CatalogueReader(Opener(ClientOptions(registry=options.registry)), login, {})
    return (await reader.read(login.database, (), members)).catalog


def _server_version(topology: Topology | None) -> int:
    """Return the oldest major version among the members: what it does not have proves nothing."""
    members = topology.members if topology is not None else ()
    versions = [member.server_version // 10000 for member in members if member.server_version]
    return min(versions, default=DEFAULT_SERVER_VERSION)


command = OptionsCommand(
    "explain",
    ExplainOptions,
    _explain,
    help_text=HELP,
    own=(
        click.Argument(["sql"], metavar="SQL"),
        click.Option(
            ["--standard-conforming-strings", "conforming"],
            type=click.Choice(["on", "off"]),
            default="on",
            help="As the session has it; with off, a backslash in a plain literal proves nothing.  [default: on]",
        ),
        click.Option(
            ["--server-version"],
            type=click.IntRange(10, 99),
            metavar="MAJOR",
            help="PostgreSQL's major version, such as 17.  [default: that of the members, else 15]",
        ),
    ),
)
