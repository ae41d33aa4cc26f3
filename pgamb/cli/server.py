"""`pgamb server`: the agent beside one PostgreSQL."""

from __future__ import annotations

from pgamb.cli.activated import activated_options
from pgamb.cli.options import OptionsCommand, read
from pgamb.cli.process import run
from pgamb.config import ServerOptions

HELP = """Announce a PostgreSQL in the registry, beside it.

It asks its PostgreSQL for role, timeline and positions, keeps the registration truthful, and, with --listen, exposes
the server on the network. It waits for a PostgreSQL or an etcd that is not there yet, and runs until SIGTERM or SIGINT.

\b
    pgamb server --dsn postgresql://monitor:secret@127.0.0.1:5433/postgres --registry etcd://127.0.0.1:2379
"""


def _server(**given: object) -> None:
    loaded, sockets = activated_options(read(ServerOptions, given))
    # Imported late: `--help` and a bad option need none of it.
    from pgamb.server.service import serve

    run(lambda: serve(loaded.options, sockets), loaded)


command = OptionsCommand("server", ServerOptions, _server, help_text=HELP)
