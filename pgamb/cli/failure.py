"""How a command says that it failed: `pgamb: error: ...` with a hint, on stderr, and an exit status."""

from __future__ import annotations

import click

from pgamb.errors import ConfigError, PgambError, RegistryError
from pgamb.observe.logs import mask_dsn

FAILED = 1
BAD_INPUT = 2
NO_REGISTRY = 3
INTERRUPTED = 130


def report(error: PgambError) -> int:
    """Print what went wrong and what to do about it; return the exit status that belongs to it."""
    _print(error.message, error.detail, error.hint)
    if isinstance(error, ConfigError):
        return BAD_INPUT
    return NO_REGISTRY if isinstance(error, RegistryError) else FAILED


def report_usage(error: click.ClickException) -> int:
    """Print what is wrong with a command line."""
    context = getattr(error, "ctx", None)
    hint = f"see `{context.command_path} --help`" if context is not None else None
    _print(error.format_message(), None, hint)
    return BAD_INPUT if isinstance(error, click.UsageError) else error.exit_code


def _print(message: str, detail: str | None, hint: str | None) -> None:
    click.echo(f"pgamb: error: {mask_dsn(message)}", err=True)
    for name, text in (("detail", detail), ("hint", hint)):
        if text:
            click.echo(f"{name}: {mask_dsn(text)}", err=True)
