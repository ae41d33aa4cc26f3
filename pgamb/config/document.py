"""docs/configuration.md, from the table of options: `python -m pgamb.config.document > docs/configuration.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import msgspec

from pgamb.config.options import GROUPS, ClientOptions, DrainOptions, ExplainOptions, ServerOptions, StatusOptions
from pgamb.config.table import Row, table

_INTRODUCTION = """\
# Configuration

<!-- Written by `python -m pgamb.config.document` from pgamb/config/options.py; a test compares. -->

Every option can be given in three ways, and has one name in all of them:

| | for example |
| --- | --- |
| a flag | `pgamb client --pool-size 40` |
| a variable | `PGAMB_POOL_SIZE=40` |
| a key in the TOML file that `--config` or `PGAMB_CONFIG` names | `pool_size = 40` |

**A flag goes before its variable, the variable before the file, the file before the default.** There is no other source
and no other order. A value is never mixed from two sources: `--listen` replaces the whole list that a file gives.

* **Durations** are seconds, or a number with PostgreSQL's units: `500ms`, `30s`, `5min`, `1h`, `1d`.
* **Switches** are `true` or `false` (`on`, `off`, `yes`, `no`, `1`, `0`); as a flag, `--tls-required` or
  `--no-tls-required`.
* **Lists** are a repeated flag, commas in a variable, an array in TOML.
* **An empty variable counts as not set**, so that `PGAMB_ZONE: ${ZONE:-}` in a compose file does no harm.
* **Secrets from files.** `PGAMB_DSN_FILE`, `PGAMB_AUTH_DSN_FILE` and `PGAMB_REGISTRY_FILE` name a file that holds the
  value, as Docker and Kubernetes mount secrets. Such a variable and the plain one together are an error. A flag is seen
  by everyone who lists processes: prefer a file for what has a password in it. Logs and error messages show passwords
  as `***`.
* A bad value, an unknown key and two options that contradict each other end the command with status 2 before it does
  anything, with a message that names the option, the place and what would be right.

## Listen addresses

| text | listens |
| --- | --- |
| `5432` | on this machine only: 127.0.0.1 and ::1 |
| `:5432` | on all interfaces, IPv4 and IPv6 |
| `db.internal:5432`, `10.0.0.5:5432`, `[::1]:5432` | there |
| `/run/pgamb` | at the unix socket `/run/pgamb/.s.PGSQL.5432` |
| `/run/pgamb:6432` | at the unix socket `/run/pgamb/.s.PGSQL.6432` |

Port 0 takes a free port; the log says which.

## The file

Keys at the top level are for every command that knows them; a table named after a command (`[client]`, `[server]`,
`[drain]`, `[status]`, `[explain]`) goes before them. So one file can serve all commands of a machine. Relative file
names are relative to the folder of the TOML file. An unknown key is an error, with the nearest known one.

```toml
registry = "etcd://10.0.0.1:2379,10.0.0.2:2379,10.0.0.3:2379"
service = "db"

[client]
listen = ["5432", "/run/pgamb"]
pool_size = 40
hold_timeout = "1min"

[server]
probe_interval = "500ms"
```
"""

_COMMANDS: tuple[tuple[str, str, type[msgspec.Struct]], ...] = (
    ("pgamb client", "`pgamb check` takes the same options, and says whether they work.", ClientOptions),
    ("pgamb server", "", ServerOptions),
    ("pgamb server drain", "Besides these it has `--undo` ([reliability](reliability.md)).", DrainOptions),
    ("pgamb status", "Besides these it has `--json` and `--watch` ([operations](operations.md)).", StatusOptions),
    (
        "pgamb explain",
        "Besides these it has `--standard-conforming-strings` and `--server-version` ([operations](operations.md)).",
        ExplainOptions,
    ),
)


def document() -> str:
    """Write the whole page."""
    return _INTRODUCTION + "".join(line + "\n" for line in _lines())


def _lines() -> Iterator[str]:
    for command, remark, options in _COMMANDS:
        yield from ("", f"## {command}", "")
        if remark:
            yield from (remark, "")
        rows = table(options)
        for group in GROUPS:
            members = [row for row in rows if row.option.group == group]
            if members:
                yield from (f"### {group} ({command.removeprefix('pgamb ')})", "")
                yield from ("| flag | variable | TOML | value | default | |", "| --- | --- | --- | --- | --- | --- |")
                yield from map(_line, members)
                yield ""
        yield from _pointers(rows)


def _line(row: Row) -> str:
    default = "**required**" if row.required else f"`{row.default_text}`" if row.default_text is not None else ""
    value = _cell(row.kind.right)
    return f"| `{row.flag}` | `{row.variable}` | `{row.key}` | {value} | {default} | {_cell(row.option.help)} |"


def _pointers(rows: tuple[Row, ...]) -> Iterator[str]:
    names = [f"`{row.file_variable}`" for row in rows if row.file_variable]
    yield f"From files: {', '.join(names)}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(document())
