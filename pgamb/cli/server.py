"""`pgamb server`: the agent beside one PostgreSQL."""

from __future__ import annotations

import importlib
from typing import Any

import click

from pgamb.cli.activated import activated_options
from pgamb.cli.options import OptionsCommand, read
from pgamb.cli.process import run
from pgamb.config import ServerOptions

HELP = """Announce a PostgreSQL in the registry, beside it.

It asks its PostgreSQL for role, timeline and positions, keeps the registration truthful, and, with --listen, exposes
the server on the network. It waits for a PostgreSQL or an etcd that is not there yet, and runs until SIGTERM or SIGINT.

\b
    pgamb server drain ...   lets the member's work end before PostgreSQL is stopped; see `pgamb server drain --help`

\b
    pgamb server --dsn postgresql://monitor:secret@127.0.0.1:5433/postgres --registry etcd://127.0.0.1:2379
"""


def _server(**given: object) -> None:
    loaded, sockets = activated_options(read(ServerOptions, given))
    # Imported late: `--help` and a bad option need none of it.
    from pgamb.server.service import serve

    run(lambda: serve(loaded.options, sockets), loaded)


class ServerCommand(OptionsCommand):
    """Itself without a further word; `drain` is another command of the same member."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] == ["drain"]:
            drain: click.Command = importlib.import_module("pgamb.cli.server_drain").command
            return drain.make_context(f"{info_name} drain", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


command = ServerCommand("server", ServerOptions, _server, help_text=HELP)
