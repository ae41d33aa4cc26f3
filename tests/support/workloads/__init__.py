"""What applications send: recorded texts, each with where it belongs.

A file of SQL for each workload. Blocks are separated by empty lines; the first line of each tells what follows:

    -- schema                       makes what the others need
    -- read                         may run on a replica
    -- primary: locks rows          belongs on the primary, for this reason
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

NAMES = ("pgbench", "tpch", "django", "sqlalchemy")


@dataclass(frozen=True, slots=True)
class Workload:
    """The statements of one kind of application; `others` have the reason why each belongs on the primary."""

    name: str
    schema: str
    reads: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)


def workload(name: str) -> Workload:
    """Read one of NAMES."""
    schema = ""
    reads: list[str] = []
    others: dict[str, str] = {}
    for block in Path(__file__).with_name(f"{name}.sql").read_text().strip().split("\n\n"):
        head, _, sql = block.partition("\n")
        match head.removeprefix("-- ").partition(": "):
            case ("schema", _, _):
                schema = sql
            case ("read", _, _):
                reads.append(sql)
            case ("primary", _, reason):
                others[sql] = reason
    return Workload(name, schema, reads, others)
