"""`pgamb client`: PostgreSQL to an application."""

from __future__ import annotations

from pgamb.cli.activated import activated_options
from pgamb.cli.options import OptionsCommand, read
from pgamb.cli.process import run
from pgamb.config import ClientOptions

HELP = """Pretend to be PostgreSQL, beside an application.

It finds the members of a service in the registry, sends writes to the primary and reads to replicas, pools connections
and follows a failover. It runs until SIGTERM or SIGINT, or until another one takes its place.

\b
    pgamb client --registry etcd://127.0.0.1:2379 --service db
    pgamb client --listen /run/pgamb --registry static://pg1:5432,pg2:5432
    pgamb client --takeover ...     the next version, without one refused connection
"""


def _client(**given: object) -> None:
    loaded, sockets = activated_options(read(ClientOptions, given))
    # Imported late: `--help` and a bad option need none of it.
    from pgamb.client.service import serve

    run(lambda: serve(loaded.options, sockets), loaded)


command = OptionsCommand("client", ClientOptions, _client, help_text=HELP)
