"""What is read from a server's catalogue, as values: only what could make a query more than a read.

Left out are PostgreSQL's own objects (oid below 16384), plain tables, procedures, and everything temporary: who has
temporary objects is pinned to the primary. Texts are as PostgreSQL prints them with `search_path = pg_catalog`.
"""

from __future__ import annotations

import msgspec

FIRST_USER_OID = 16384
"""Smaller oids are PostgreSQL's own objects."""

LONGEST_TEXT = 50_000
"""Longer definitions (in characters) are not looked into. A longer text means: cut behind this."""


class FunctionRow(msgspec.Struct, frozen=True):
    """A function, aggregate or window function."""

    oid: int
    schema: str
    name: str
    volatile: bool
    language: str
    source: str = ""
    """The body, the C symbol, or the name of the internal function."""
    defaults: str = ""
    """The default values of its arguments, separated by commas."""
    arguments: tuple[str, ...] = ()
    """The names of its arguments, as far as they have any."""
    settings: str = ""
    """Its SET clauses."""
    attribute: bool = False
    """It can be written like a column of its argument: `t.f` for `f(t)`."""
    support: tuple[int, ...] = ()
    """The functions that an aggregate calls."""
    volatile_support: bool = False
    """One of PostgreSQL's own among them is volatile."""


class RelationRow(msgspec.Struct, frozen=True):
    """A relation that may be more than a plain table."""

    schema: str
    name: str
    kind: str
    """`view`, `policy`, or what it is in words (`a sequence`, `unlogged`)."""
    definition: str = ""
    """The query of a view, the expression of a policy."""


class FunctionUse(msgspec.Struct, frozen=True):
    """An operator, or a cast to a type, and its function."""

    name: str
    function: int
    function_name: str
    volatile: bool


class DomainRow(msgspec.Struct, frozen=True):
    """A domain with one of its conditions."""

    schema: str
    name: str
    check: str


class CatalogRows(msgspec.Struct, frozen=True):
    """All that has been read from one database at one moment; `server_version` is the major one."""

    server_version: int
    database: str
    functions: tuple[FunctionRow, ...] = ()
    operators: tuple[FunctionUse, ...] = ()
    relations: tuple[RelationRow, ...] = ()
    domains: tuple[DomainRow, ...] = ()
    casts: tuple[FunctionUse, ...] = ()
    parameters: tuple[str, ...] = ()
    """Pieces of functions' bodies that look as if they set a custom parameter."""
