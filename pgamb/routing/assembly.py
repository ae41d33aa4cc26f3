"""Makes a `ServerCatalog` of what was read from a server.

Every definition is examined by the catalogue as far as it is known; where that makes a name mean more than before,
the definitions which have that name in them are examined again, until nothing changes. Nothing ever comes to mean
less, so this ends. It is a generator, so that whoever runs it can give way to others between two steps.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from pgamb.routing.bodies import (
    SCRIPTS,
    effect_of_plpgsql,
    effect_of_query,
    effect_of_script,
    effect_of_sql_body,
    words_of,
)
from pgamb.routing.catalog import BuiltIn, Effect, Hazard
from pgamb.routing.catalog_rows import (
    FIRST_USER_OID,
    LONGEST_TEXT,
    CatalogRows,
    FunctionRow,
    FunctionUse,
    RelationRow,
)
from pgamb.routing.names import as_bytes
from pgamb.routing.server_catalog import HARMLESS, ServerCatalog, stronger

# C functions of contrib that are declared stable and run SQL that they are given (tablefunc, xml2).
_RUN_SQL = frozenset(["crosstab", "crosstab_hash", "connectby_text", "connectby_text_serial", "xpath_table"])
_COMPILED = ("c", "internal")
# A type has names of its grammar besides that in pg_type.
_TYPE_WORDS = {
    "int4": ("int", "integer"),
    "int8": ("bigint",),
    "int2": ("smallint",),
    "float8": ("float", "double"),
    "float4": ("real", "float"),
    "bool": ("boolean",),
    "varchar": ("varying", "nvarchar"),
    "bpchar": ("char", "character", "nchar"),
    "numeric": ("decimal", "dec"),
    "timestamptz": ("timestamp",),
    "timetz": ("time",),
    "varbit": ("bit",),
}


class _Definition:
    """Something that is examined by its text, and what to do with what is found."""

    __slots__ = ("examine", "note", "words")

    def __init__(self, text: bytes, examine: Callable[[], Hazard], note: Callable[[Hazard], set[bytes]]) -> None:
        self.words = words_of(text)
        self.examine = examine
        self.note = note


def assemble(rows: CatalogRows) -> Generator[None, None, ServerCatalog]:
    """Examine everything that was read, a definition a step; returns the catalogue."""
    assembly = _Assembly(rows)
    yield from assembly.prepare()
    changed = assembly.settle()
    pending = assembly.definitions
    while pending:
        for definition in pending:
            changed |= definition.note(definition.examine())
            yield
        changed |= assembly.settle()
        pending = []
        for number, definition in enumerate(assembly.definitions):
            if not definition.words.isdisjoint(changed):
                pending.append(definition)
            if number % 100 == 0:
                yield
        changed = set()
    return assembly.catalog


class _Assembly:
    def __init__(self, rows: CatalogRows) -> None:
        self.catalog = ServerCatalog(rows.server_version, rows.database)
        self.definitions: list[_Definition] = []
        self._built_in = BuiltIn(rows.server_version)
        self._rows = rows
        self._functions = {row.oid: row for row in rows.functions}
        self._effects: dict[int, Hazard] = {}

    def prepare(self) -> Generator[None, None, None]:
        """Note what is declared, and collect the definitions that have to be examined."""
        rows = self._rows
        for function in rows.functions:
            self._add_function(function)
            yield
        for relation in rows.relations:
            self._add_relation(relation)
            yield
        for domain in rows.domains:
            subject = f"domain {domain.name}"
            self._define_query(f"SELECT {domain.check}", domain.name, domain.schema, subject)
            yield

    def settle(self) -> set[bytes]:
        """Let aggregates, operators and casts follow their functions. Returns the words that mean more than before."""
        changed: set[bytes] = set()
        for row in self._rows.functions:
            # An aggregate's functions are no aggregates themselves, so that one look is enough.
            for oid in row.support:
                found = self._effects.get(oid, HARMLESS)
                if found.effect is not Effect.HARMLESS:
                    changed |= self._raise(row, _about(f"aggregate {row.name}", found))
        for use in self._rows.operators:
            found = _about(f"operator {use.name}", self._effect_of_use(use))
            changed |= self.catalog.add_operator(as_bytes(use.name), found)
        for use in self._rows.casts:
            for word in (use.name, *_TYPE_WORDS.get(use.name, ())):
                found = _about(f"a cast to {word}", self._effect_of_use(use))
                changed |= self.catalog.add_relation(word, None, found)
        return changed

    def _effect_of_use(self, use: FunctionUse) -> Hazard:
        own = self._effects.get(use.function)
        if own is not None:
            return own
        if use.volatile or use.function >= FIRST_USER_OID:
            return Hazard(Effect.UNKNOWN, f"function {use.function_name} is volatile or not known")
        effect = self._built_in.function(None, use.function_name)
        # Those that PostgreSQL has for its own use only are not known by name.
        return HARMLESS if effect is Effect.UNKNOWN else Hazard(effect, f"function {use.function_name}")

    def _add_function(self, row: FunctionRow) -> None:
        declared = self._declared(row)
        self._raise(row, declared)
        if row.defaults:
            text = as_bytes(f"SELECT {row.defaults}")
            self._define(
                text,
                lambda: effect_of_query(text, self.catalog),
                lambda found: self._raise(row, _about(f"a default of function {row.name}", found)),
            )
        if declared.effect is not Effect.HARMLESS or row.support or row.language in _COMPILED:
            return
        body = as_bytes(row.source)
        catalog, language = self.catalog, row.language

        def examine() -> Hazard:
            if language == "sql":
                return effect_of_sql_body(body, catalog)
            if language == "plpgsql":
                return effect_of_plpgsql(body, row.arguments, catalog)
            return effect_of_script(body, language, catalog)

        self._define(body, examine, lambda found: self._raise(row, _about(f"function {row.name}", found)))

    def _declared(self, row: FunctionRow) -> Hazard:
        """Tell what a function does as far as its declaration says."""
        subject = f"function {row.name}"
        if row.volatile or row.volatile_support:
            return Hazard(Effect.UNKNOWN, f"{subject} is declared volatile")
        if row.language == "c" and row.source in _RUN_SQL:
            return Hazard(Effect.UNKNOWN, f"{subject} runs SQL that it is given")
        if row.language == "internal":
            effect = self._built_in.function(None, row.source)
            return HARMLESS if effect is Effect.UNKNOWN else Hazard(effect, f"{subject} is PostgreSQL's {row.source}")
        if row.language not in (*_COMPILED, "sql", "plpgsql", *SCRIPTS):
            return Hazard(Effect.UNKNOWN, f"{subject} is written in {row.language}, which is not looked into")
        if len(row.source) > LONGEST_TEXT or len(row.defaults) > LONGEST_TEXT:
            return Hazard(Effect.UNKNOWN, f"{subject} is too long to look into")
        if "standard_conforming_strings" in row.settings:
            return Hazard(Effect.UNKNOWN, f"{subject} changes how strings are read")
        return HARMLESS

    def _raise(self, row: FunctionRow, found: Hazard) -> set[bytes]:
        """Let a function do at least this. Returns the words that mean more than before."""
        known = self._effects.get(row.oid)
        if known is not None and stronger(known, found) is known:
            return set()
        self._effects[row.oid] = found
        return self.catalog.add_function(row.schema, row.name, found, attribute=row.attribute)

    def _add_relation(self, row: RelationRow) -> None:
        if row.kind == "view":
            self._define_query(row.definition, row.name, row.schema, f"view {row.name}")
        elif row.kind == "policy":
            self._define_query(f"SELECT {row.definition}", row.name, row.schema, f"a policy of {row.name}")
        else:
            self.catalog.add_relation(row.name, row.schema, Hazard(Effect.PRIMARY, f"{row.name} is {row.kind}"))

    def _define_query(self, text: str, name: str, schema: str, subject: str) -> None:
        if len(text) > LONGEST_TEXT:
            found = Hazard(Effect.UNKNOWN, f"{subject} is too long to look into")
            self.catalog.add_relation(name, schema, found)
            return
        query = as_bytes(text)
        self._define(
            query,
            lambda: effect_of_query(query, self.catalog),
            lambda found: self.catalog.add_relation(name, schema, _about(subject, found)),
        )

    def _define(self, text: bytes, examine: Callable[[], Hazard], note: Callable[[Hazard], set[bytes]]) -> None:
        self.definitions.append(_Definition(text, examine, note))


def _about(subject: str, found: Hazard) -> Hazard:
    return Hazard(found.effect, f"{subject}: {found.reason}")
