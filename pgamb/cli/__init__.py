"""The `pgamb` command. One file a subcommand; each is imported only when it runs."""

from __future__ import annotations

import importlib

import click

import pgamb

COMMANDS = {
    "client": "Pretend to be PostgreSQL, beside an application.",
    "server": "Announce a PostgreSQL in the registry, beside it.",
    "status": "Show the members of a service.",
    "check": "Verify a configuration, one line a check.",
    "demo": "Start a real cluster on this machine.",
}


class _Lazy(click.Group):
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


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pgamb.__version__, prog_name="pgamb")
def main() -> None:
    """A protocol-aware PostgreSQL ambassador."""
