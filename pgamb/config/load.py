"""Flags over environment over TOML file over defaults, to one validated value of the options."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from pgamb.config.kinds import File
from pgamb.config.rules import Oddity, judge
from pgamb.config.table import CONFIG_VARIABLE, PREFIX, SECTIONS, Row, section_of, table
from pgamb.errors import ConfigError

Options = TypeVar("Options", bound=msgspec.Struct)

# A variable this much like one of ours is taken for a slip. Kubernetes makes PGAMB_SERVICE_HOST for a service called
# `pgamb`: that must stay below.
_LIKENESS = 0.88


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Options]):
    """The options, where each value came from (`default`, `environment`, a flag, ...), and what looks odd."""

    options: Options
    origins: Mapping[str, str]
    warnings: tuple[Oddity, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A value as it was written, and how to call the place where it was."""

    value: object
    place: str
    origin: str
    folder: Path | None = None


def load(
    options: type[Options],
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    config: str | None = None,
) -> Loaded[Options]:
    """Build `options` from what was given; `flags` maps field names to text, a bool or texts (None: not given).

    `config` is the TOML file of `--config`; else `PGAMB_CONFIG` names it. Raises ConfigError naming the option, where
    its value came from, the value, and what would be right.
    """
    rows = table(options)
    path = config or environ.get(CONFIG_VARIABLE) or None
    tables = _read_file(path, "--config" if config else CONFIG_VARIABLE, options) if path else ()
    values: dict[str, object] = {}
    origins: dict[str, str] = {}
    for row in rows:
        found = _from_flags(row, flags) or _from_environment(row, environ) or _from_file(row, tables)
        if found is not None:
            values[row.field] = _parse(row, found)
            origins[row.field] = found.origin
        elif row.required:
            raise ConfigError(f"{row.flag} is missing", hint=_how_to_give(row))
        else:
            origins[row.field] = "default"
    built = options(**values)
    return Loaded(built, origins, (*_slips(rows, environ), *judge(built)))


def _from_flags(row: Row, flags: Mapping[str, object]) -> _Found | None:
    value = flags.get(row.field)
    return None if value is None or value == () else _Found(value, row.flag, row.flag)


def _from_environment(row: Row, environ: Mapping[str, str]) -> _Found | None:
    # An empty variable is no value: that is what `${NAME:-}` in a compose file leaves of one that is not set.
    value = environ.get(row.variable) or None
    pointer = environ.get(row.file_variable) or None if row.file_variable else None
    if value is not None and pointer is not None:
        raise ConfigError(
            f"{row.variable} and {row.file_variable} are both set", hint="unset one of them: they name the same option"
        )
    if pointer is not None:
        try:
            text = Path(pointer).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(
                f'{row.file_variable}: "{pointer}" cannot be read: {_why(error)}',
                hint=f"name a text file that holds nothing but the value of {row.flag}",
            ) from None
        if not text:
            raise ConfigError(f'{row.file_variable}: "{pointer}" is empty', hint=f"give {row.kind.right}")
        return _Found(text, f"{row.file_variable} ({pointer})", str(row.file_variable))
    return None if value is None else _Found(value, row.variable, row.variable)


@dataclass(frozen=True, slots=True)
class _Table:
    path: Path
    name: str | None
    values: Mapping[str, object]


def _from_file(row: Row, tables: Iterable[_Table]) -> _Found | None:
    for found in tables:
        if row.key in found.values:
            key = f"{found.name}.{row.key}" if found.name else row.key
            return _Found(found.values[row.key], f"{found.path}: {key}", str(found.path), found.path.parent)
    return None


def _read_file(name: str, source: str, options: type[msgspec.Struct]) -> tuple[_Table, ...]:
    """Read a TOML file to the tables that count for `options`, the nearest first."""
    path = Path(name).expanduser()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path}: not TOML: {error}", hint='write one option a line: pool_size = 20, service = "db"'
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'{source}: "{name}" cannot be read: {_why(error)}', hint="name a TOML file that this user can read"
        ) from None
    sections = {section for section, _ in SECTIONS}
    top = {key: value for key, value in content.items() if key not in sections}
    _refuse_unknown(path, None, top, {row.key for _, known in SECTIONS for row in table(known)} | sections)
    tables = [_Table(path, None, top)]
    for section, known in SECTIONS:
        inner = content.get(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{path}: {section} is not a table", hint=f"write [{section}] and the options below it")
        _refuse_unknown(path, section, inner, {row.key for row in table(known)})
        if section == section_of(options):
            tables.insert(0, _Table(path, section, inner))
    return tuple(tables)


def _refuse_unknown(path: Path, section: str | None, given: Iterable[str], known: set[str]) -> None:
    for key in given:
        if key in known:
            continue
        written = f"{section}.{key}" if section else key
        near = _nearest(key, known)
        hint = f'did you mean "{near}"?' if near else f"known here: {', '.join(sorted(known))}"
        raise ConfigError(f'{path}: unknown key "{written}"', hint=hint)


def _nearest(key: str, known: set[str]) -> str | None:
    """Find what was probably meant: the flag's or the field's spelling first, then the most alike."""
    plain = key.lower().replace("-", "_").removesuffix("_s")
    near = [plain] if plain in known else difflib.get_close_matches(plain, sorted(known), n=1, cutoff=0.6)
    return near[0] if near else None


def _parse(row: Row, found: _Found) -> object:
    try:
        value = row.kind.parse(found.value)
    except ConfigError as error:
        raise ConfigError(f"{found.place}: {error.message}", hint=error.hint or f"give {row.kind.right}") from None
    except ValueError as error:
        shown = "the value" if row.option.secret else _shown(found.value)
        raise ConfigError(f"{found.place}: {shown} {error}", hint=f"give {row.kind.right}") from None
    if isinstance(row.kind, File) and isinstance(value, str) and found.folder is not None:
        return os.fspath(found.folder / value)
    return value


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 200 else f'"{value[:200]}..."'
    return str(value)[:200]


def _how_to_give(row: Row) -> str:
    ways = f"give {row.flag} {row.kind.metavar}, set {row.variable}"
    if row.file_variable:
        ways += f" (or {row.file_variable})"
    return f"{ways}, or write {row.key} in the file of --config: {row.kind.right}"


def _slips(rows: Iterable[Row], environ: Mapping[str, str]) -> list[Oddity]:
    """Find variables that are not ours but nearly: PGAMB_POOLSIZE."""
    known = {CONFIG_VARIABLE}
    for _, options in SECTIONS:
        for row in table(options):
            known.update(name for name in (row.variable, row.file_variable) if name)
    found = []
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=_LIKENESS)
            if near:
                found.append(Oddity(f"{name} is not a variable of pgamb", f"did you mean {near[0]}?"))
    return found


def _why(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8 text"
