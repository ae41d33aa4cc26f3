"""`pgamb status`: the members of a service, who is primary and why."""

from __future__ import annotations

import asyncio
from datetime import datetime

import click
import msgspec
from rich.console import Console
from rich.live import Live

from pgamb.cli.failure import FAILED
from pgamb.cli.options import OptionsCommand, read
from pgamb.cli.picture import Picture, table
from pgamb.cli.view import ServiceView, open_view
from pgamb.config import StatusOptions
from pgamb.observe.logs import setup_logging

HELP = """Show the members of a service: role, timeline, lag, who is primary and why.

\b
Exit status: 0  there is a primary
             1  there is none
             2  bad input
             3  the registry cannot be reached

\b
    pgamb status --registry etcd://127.0.0.1:2379 --service db --watch
"""

REFRESH_S = 1.0


def _status(**given: object) -> int:
    as_json, watch = given.pop("as_json") is True, given.pop("watch") is True
    options = read(StatusOptions, given).options
    # What the registry's client has to say of an outage is in the picture, or in the error that ends us.
    setup_logging("text", "error")
    try:
        return asyncio.run(_show(options, as_json=as_json, watch=watch))
    except KeyboardInterrupt:
        if watch:
            return 0
        raise


async def _show(options: StatusOptions, *, as_json: bool, watch: bool) -> int:
    async with open_view(options, timeout_s=options.timeout_s, login_dsn=options.auth_dsn) as view:
        if watch:
            await _watch(view, as_json=as_json)
        seen = await view.picture()
        _print(seen, as_json=as_json)
        return 0 if seen.primary is not None else FAILED


async def _watch(view: ServiceView, *, as_json: bool) -> None:
    """Show a new picture each second, and whenever something changes, until interrupted."""
    console = Console()
    if as_json or not console.is_terminal:
        while True:
            _print(await view.picture(), as_json=as_json)
            await view.wait(REFRESH_S)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(table(await view.picture(), now=_now()), refresh=True)
            await view.wait(REFRESH_S)


def _print(seen: Picture, *, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode(seen))
        return
    console = Console()
    if not console.is_terminal:
        # A pipe has no width: nothing may be folded away in it.
        console = Console(width=300, soft_wrap=True)
    console.print(table(seen))


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")


command = OptionsCommand(
    "status",
    StatusOptions,
    _status,
    help_text=HELP,
    own=(
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON: one object, on one line."),
        click.Option(["--watch"], is_flag=True, help="Show a new picture each second, until interrupted."),
    ),
)
