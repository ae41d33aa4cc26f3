"""The `pgamb` command. One file a subcommand; each is imported only when it runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

import click

import pgamb
from pgamb.cli import failure
from pgamb.errors import PgambError

COMMANDS = {
    "client": "Pretend to be PostgreSQL, beside an application.",
    "server": "Announce a PostgreSQL in the registry, beside it.",
    "status": "Show the members of a service.",
    "explain": "Say what a statement needs, and where it would go.",
    "check": "Verify a configuration, one line a check.",
    "demo": "Start a real cluster on this machine.",
}


class Commands(click.Group):
    """The group of all commands; it alone turns exceptions into messages and exit statuses."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"pgamb.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; in standalone mode, exit with its status: 0, or what `failure` says."""
        arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
        try:
            result = super().main(arguments, prog_name or "pgamb", complete_var, standalone_mode=False, **extra)
        except PgambError as error:
            if not standalone_mode:
                raise
            sys.exit(failure.report(error))
        except click.ClickException as error:
            if not standalone_mode:
                raise
            sys.exit(failure.report_usage(error))
        except click.Abort:
            if not standalone_mode:
                raise
            sys.exit(failure.INTERRUPTED)
        if standalone_mode:
            sys.exit(result if isinstance(result, int) else 0)
        return result


@click.group("pgamb", cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(pgamb.__version__, prog_name="pgamb")
def main() -> None:
    """A protocol-aware PostgreSQL ambassador: one ordinary PostgreSQL on localhost, wherever the cluster really is."""
