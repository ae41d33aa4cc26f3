"""The table of options, derived from the structs: what each one is called as a flag, a variable and a TOML key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

import msgspec

from pgamb.config.kinds import Kind, ListenList, Switch
from pgamb.config.options import (
    GROUPS,
    ClientOptions,
    DrainOptions,
    ExplainOptions,
    Option,
    ServerOptions,
    StatusOptions,
)

PREFIX = "PGAMB_"
CONFIG_VARIABLE = "PGAMB_CONFIG"

# The TOML table in which a command's own values may stand, before those at the top level.
SECTIONS: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("client", ClientOptions),
    ("server", ServerOptions),
    ("drain", DrainOptions),
    ("status", StatusOptions),
    ("explain", ExplainOptions),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One option of one command. `default` is None where there is none, and `required` says whether that matters."""

    field: str
    key: str
    option: Option
    default: object
    required: bool

    @property
    def flag(self) -> str:
        return "--" + self.key.replace("_", "-")

    @property
    def variable(self) -> str:
        return PREFIX + self.key.upper()

    @property
    def file_variable(self) -> str | None:
        """The variable that names a file with the value in it; only secrets have one."""
        return self.variable + "_FILE" if self.option.secret else None

    @property
    def kind(self) -> Kind:
        return self.option.kind

    @property
    def is_switch(self) -> bool:
        return isinstance(self.kind, Switch)

    @property
    def is_repeatable(self) -> bool:
        return isinstance(self.kind, ListenList)

    @property
    def default_text(self) -> str | None:
        """The default as one would write it; None where there is none."""
        if self.default is None or self.default == "":
            return None
        return self.kind.render(self.default)


@cache
def table(options: type[msgspec.Struct]) -> tuple[Row, ...]:
    """Give the options of one command, in the order of their groups and declarations."""
    hints = get_type_hints(options, include_extras=True)
    rows = [_row(field, hints[field.name]) for field in msgspec.structs.fields(options)]
    rows.sort(key=lambda row: (GROUPS.index(row.option.group), not row.required))
    return tuple(rows)


def section_of(options: type[msgspec.Struct]) -> str:
    return next(name for name, known in SECTIONS if known is options)


def _row(field: msgspec.structs.FieldInfo, hint: Any) -> Row:
    option = next(extra for extra in hint.__metadata__ if isinstance(extra, Option))
    return Row(
        field=field.name,
        key=field.name.removesuffix("_s"),
        option=option,
        default=None if field.required else field.default,
        required=field.required,
    )
