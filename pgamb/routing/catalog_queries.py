"""What a server's catalogue is asked, and how its answers become `CatalogRows`.

Any user may ask all of this. Names are qualified, and `search_path` is set besides, so that no operator of a user's is
met, and so that PostgreSQL prints every name of a user's with its schema.
"""

from __future__ import annotations

from collections.abc import Sequence

from pgamb.routing.catalog_rows import (
    FIRST_USER_OID,
    LONGEST_TEXT,
    DomainRow,
    FunctionRow,
    FunctionUse,
    RelationRow,
)

Row = Sequence[str | None]

# Printing a view takes the lock of a reader on all that it reads. Who waits for locks may be waited for: not here.
BEGIN = """
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL search_path = pg_catalog;
SET LOCAL client_encoding = 'UTF8';
SET LOCAL standard_conforming_strings = on;
SET LOCAL quote_all_identifiers = off;
SET LOCAL lock_timeout = '10ms';
SET LOCAL statement_timeout = '30s';
"""

# What a replica cannot read or reads elsewhere, and the parents through which it is read: oid, child.
_ODD = """
WITH RECURSIVE odd (oid, child) AS (
    SELECT c.oid, c.oid FROM pg_catalog.pg_class AS c
     WHERE c.relkind = 'f' OR (c.relpersistence = 'u' AND c.relkind IN ('r', 'p', 'm'))
     UNION
    SELECT i.inhparent, odd.child FROM odd JOIN pg_catalog.pg_inherits AS i ON i.inhrelid = odd.oid
)"""


def _state(rows: str) -> str:
    """Ask for one number that changes with any of the rows: every change of a row gives it another xmin."""
    return f"""(
    SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.sum(
           pg_catalog.hashint8extended((x.oid::int8 << 32) | x.xmin::text::int8, 0)))
      FROM {rows})"""


def _state_of(catalog: str, condition: str = "true") -> str:
    return _state(f"pg_catalog.{catalog} AS x WHERE x.oid >= {FIRST_USER_OID} AND {condition}")


# Column defaults that call currval() or lastval(), by oid, as they are stored.
_SEQUENCE_DEFAULTS = "pg_catalog.pg_attrdef AS x WHERE x.adbin::text ~ ':funcid (1575|2559) '"

_STATES = (
    _state_of("pg_proc"),
    _state_of("pg_operator"),
    _state_of("pg_cast"),
    _state_of("pg_policy"),
    _state_of("pg_rewrite", "x.ev_type = '1'"),
    _state_of("pg_constraint", "x.contypid <> 0"),
    _state_of("pg_type", "x.typtype = 'd'"),
    # Even `public`, which initdb makes, may be renamed.
    _state("pg_catalog.pg_namespace AS x WHERE x.nspname !~ '^pg_(toast_)?temp_'"),
    _state_of("pg_class", "x.relpersistence <> 't' AND (x.relkind IN ('v', 'S') OR x.relrowsecurity)"),
    _state("pg_catalog.pg_class AS x WHERE x.oid IN (SELECT odd.oid FROM odd)"),
    _state(_SEQUENCE_DEFAULTS),
)

STATE = f"""{_ODD}
SELECT pg_catalog.current_setting('server_version_num')::int / 10000,
       pg_catalog.current_database(),
       pg_catalog.concat_ws(' ', {", ".join(_STATES)})
"""
"""Answers with the major version, the database, and a text that changes when anything of interest has changed.

Its cost is that of looking at all functions and relations of the database once; plain tables do not change the text.
"""


ASKS_SEQUENCES = f"SELECT EXISTS (SELECT 1 FROM {_SEQUENCE_DEFAULTS})"
"""Answers whether an INSERT may ask what its session got from a sequence before, without saying so."""


def _body(server_version: int) -> str:
    return "p.prosrc" if server_version < 14 else "coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc)"


# As `set_config('a.b',` and `SET a.b =`, in a literal of dynamic SQL, too.
_SETS = (
    r"""(set_config"?\s*\(\s*''+[^'']+''+[^,'']*,"""
    r"""|\mset\s+(?:session\s+|local\s+)?["\w$]+(?:\s*\.\s*["\w$]+)+\s*(?:=|\mto\M))"""
)


def parameters(server_version: int) -> str:
    """Ask for the pieces of functions' bodies that look as if they set a custom parameter."""
    return f"""
SELECT DISTINCT found[1]
  FROM pg_catalog.pg_proc AS p
 CROSS JOIN LATERAL pg_catalog.regexp_matches({_body(server_version)}, '{_SETS}', 'gi') AS f (found)
 WHERE p.oid >= {FIRST_USER_OID} AND p.prokind IN ('f', 'p')
"""


def functions(server_version: int) -> str:
    """Ask for `function_row`s."""
    body = _body(server_version)
    support = "aggtransfn aggfinalfn aggcombinefn aggserialfn aggdeserialfn aggmtransfn aggminvtransfn aggmfinalfn"
    supports = ", ".join(f"a.{name}::oid" for name in support.split())
    return f"""
SELECT p.oid, n.nspname, p.proname, p.provolatile = 'v', l.lanname,
       CASE WHEN p.provolatile <> 'v' THEN pg_catalog.left({body}, {LONGEST_TEXT + 1}) END,
       pg_catalog.left(pg_catalog.pg_get_expr(p.proargdefaults, 0), {LONGEST_TEXT + 1}),
       pg_catalog.array_to_string(p.proargnames, E'\\t'),
       pg_catalog.array_to_string(p.proconfig, ' '),
       p.pronargs > 0 AND p.pronargs - p.pronargdefaults <= 1 AND EXISTS (
           SELECT 1 FROM pg_catalog.pg_type AS t WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p')),
       pg_catalog.array_to_string(s.oids, ' '),
       EXISTS (SELECT 1 FROM pg_catalog.pg_proc AS b
                WHERE b.oid = ANY (s.oids) AND b.oid < {FIRST_USER_OID} AND b.provolatile = 'v')
  FROM pg_catalog.pg_proc AS p
  JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
  JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
  LEFT JOIN pg_catalog.pg_aggregate AS a ON a.aggfnoid = p.oid
 CROSS JOIN LATERAL (SELECT CASE WHEN a.aggfnoid IS NOT NULL THEN
                            pg_catalog.array_remove(ARRAY[{supports}], 0::oid) END) AS s (oids)
 WHERE p.oid >= {FIRST_USER_OID} AND p.prokind IN ('f', 'a', 'w') AND n.nspname !~ '^pg_temp_'
   AND p.prorettype NOT IN ('pg_catalog.trigger'::pg_catalog.regtype, 'pg_catalog.event_trigger'::pg_catalog.regtype)
"""


RELATIONS = f"""{_ODD}
SELECT n.nspname, c.relname, 'view', pg_catalog.left(pg_catalog.pg_get_viewdef(c.oid), {LONGEST_TEXT + 1})
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.oid >= {FIRST_USER_OID} AND c.relkind = 'v' AND c.relpersistence <> 't'
 UNION ALL
SELECT n.nspname, c.relname, 'policy',
       pg_catalog.left(pg_catalog.pg_get_expr(p.polqual, p.polrelid), {LONGEST_TEXT + 1})
  FROM pg_catalog.pg_policy AS p
  JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relrowsecurity AND p.polcmd IN ('r', '*') AND p.polqual IS NOT NULL
 UNION ALL
SELECT n.nspname, c.relname, 'a sequence', NULL
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
 WHERE c.relkind = 'S' AND c.relpersistence <> 't'
 UNION ALL
SELECT DISTINCT n.nspname, c.relname,
       pg_catalog.concat(CASE WHEN odd.oid <> odd.child THEN 'a parent of one that is ' END,
                         CASE k.relkind WHEN 'f' THEN 'a foreign table' ELSE 'unlogged' END), NULL
  FROM odd
  JOIN pg_catalog.pg_class AS c ON c.oid = odd.oid
  JOIN pg_catalog.pg_class AS k ON k.oid = odd.child
  JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
"""

OPERATORS = f"""
SELECT o.oprname, o.oprcode::oid, p.proname, p.provolatile = 'v'
  FROM pg_catalog.pg_operator AS o
  JOIN pg_catalog.pg_proc AS p ON p.oid = o.oprcode
 WHERE o.oid >= {FIRST_USER_OID}
"""

# A domain over a domain has the conditions of both.
DOMAINS = f"""
WITH RECURSIVE over (oid, base) AS (
    SELECT t.oid, t.oid FROM pg_catalog.pg_type AS t WHERE t.typtype = 'd' AND t.oid >= {FIRST_USER_OID}
     UNION
    SELECT over.oid, t.typbasetype FROM over JOIN pg_catalog.pg_type AS t ON t.oid = over.base AND t.typtype = 'd'
)
SELECT n.nspname, t.typname, pg_catalog.left(pg_catalog.pg_get_expr(c.conbin, 0), {LONGEST_TEXT + 1})
  FROM over
  JOIN pg_catalog.pg_constraint AS c ON c.contypid = over.base AND c.contype = 'c'
  JOIN pg_catalog.pg_type AS t ON t.oid = over.oid
  JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
"""

CASTS = f"""
SELECT t.typname, c.castfunc::oid, p.proname, p.provolatile = 'v'
  FROM pg_catalog.pg_cast AS c
  JOIN pg_catalog.pg_proc AS p ON p.oid = c.castfunc
  JOIN pg_catalog.pg_type AS t ON t.oid = c.casttarget
 WHERE c.oid >= {FIRST_USER_OID}
"""


def function_row(row: Row) -> FunctionRow:
    """Read an answer to `functions`."""
    oid, schema, name, volatile, language, source, defaults, arguments, *rest = row
    settings, attribute, support, volatile_support = rest
    return FunctionRow(
        oid=int(oid or 0),
        schema=schema or "",
        name=name or "",
        volatile=volatile == "t",
        language=language or "",
        source=source or "",
        defaults=defaults or "",
        arguments=tuple((arguments or "").split("\t")) if arguments else (),
        settings=settings or "",
        attribute=attribute == "t",
        support=tuple(int(each) for each in (support or "").split()),
        volatile_support=volatile_support == "t",
    )


def relation_row(row: Row) -> RelationRow:
    """Read an answer to RELATIONS."""
    schema, name, kind, definition = row
    return RelationRow(schema or "", name or "", kind or "", definition or "")


def use_row(row: Row) -> FunctionUse:
    """Read an answer to OPERATORS or CASTS."""
    name, function, function_name, volatile = row
    return FunctionUse(name or "", int(function or 0), function_name or "", volatile == "t")


def domain_row(row: Row) -> DomainRow:
    """Read an answer to DOMAINS."""
    schema, name, check = row
    return DomainRow(schema or "", name or "", check or "")
