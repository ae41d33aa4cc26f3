"""click commands out of the table of options: their flags, and a help that is grouped and names every variable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import click
import msgspec

from pgamb.config.load import Loaded, load
from pgamb.config.table import CONFIG_VARIABLE, Row, table

Options = TypeVar("Options", bound=msgspec.Struct)

PRECEDENCE = "A flag goes before its variable, the variable before the file of --config, the file before the default."


class OptionsCommand(click.Command):
    """A command whose options are those of a struct, besides the few that are its own."""

    def __init__(
        self,
        name: str,
        options: type[msgspec.Struct],
        callback: Callable[..., int | None],
        *,
        help_text: str,
        own: Sequence[click.Parameter] = (),
    ) -> None:
        self.rows = table(options)
        self.own = [
            *own,
            click.Option(["--config"], metavar="FILE", help=f"A TOML file of options.  [variable: {CONFIG_VARIABLE}]"),
        ]
        super().__init__(name, params=[*self.own, *map(_flag, self.rows)], callback=callback, help=help_text)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("This command"):
            formatter.write_dl(_records(ctx, [*self.own, *filter(None, [self.get_help_option(ctx)])]))
        for group in dict.fromkeys(row.option.group for row in self.rows):
            with formatter.section(group):
                formatter.write_dl([_record(row) for row in self.rows if row.option.group == group])
        formatter.write_paragraph()
        formatter.write_text(PRECEDENCE)
        if any(row.file_variable for row in self.rows):
            secrets = ", ".join(row.file_variable for row in self.rows if row.file_variable)
            formatter.write_paragraph()
            formatter.write_text(f"Secrets can also be read from a file that a variable names: {secrets}.")


def read(options: type[Options], given: dict[str, object]) -> Loaded[Options]:
    """Build the options from what click collected, the environment and the file; raises ConfigError."""
    config = given.get("config")
    return load(options, flags=given, environ=os.environ, config=config if isinstance(config, str) else None)


def _flag(row: Row) -> click.Option:
    # click only collects: text stays text, so that a bad value is reported alike wherever it came from.
    if row.is_switch:
        return click.Option([row.field, f"{row.flag}/--no-{row.flag[2:]}"], default=None)
    if row.is_repeatable:
        return click.Option([row.field, row.flag], multiple=True, metavar=row.kind.metavar)
    return click.Option([row.field, row.flag], default=None, metavar=row.kind.metavar)


def _record(row: Row) -> tuple[str, str]:
    name = f"{row.flag}, --no-{row.flag[2:]}" if row.is_switch else f"{row.flag} {row.kind.metavar}"
    notes = [f"variable: {row.variable}"]
    if row.required:
        notes.insert(0, "required")
    elif row.default_text is not None:
        notes.insert(0, f"default: {row.default_text}")
    return name, f"{row.option.help}  [{'; '.join(notes)}]"


def _records(ctx: click.Context, options: Iterable[click.Parameter]) -> list[tuple[str, str]]:
    return [
        record
        for option in options
        if isinstance(option, click.Option) and (record := option.get_help_record(ctx)) is not None
    ]
