"""Names of custom parameters in SQL.

What happened: `SET tenant.id = 1` was seen by the next session on the same backend, because pg_settings does not list
such parameters. It cannot now: every text that may set one tells its name, or that it hides it.
"""

from __future__ import annotations

import pytest

from pgamb.session.custom import CustomParameters, bound_names, names_in_functions
from pgamb.session.parameters import SETTINGS_QUERY, ParameterSets, settings_query


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("SET tenant.id = 1", ["tenant.id"]),
        ("set session Tenant.Id to 'x'", ["tenant.id"]),
        ('SET LOCAL "Tenant" . "Id" = 1', ["tenant.id"]),
        ("SET a.b.c = 1; SET\n\td.e TO DEFAULT", ["a.b.c", "d.e"]),
        (
            "SELECT set_config('tenant.id', $1, false), pg_catalog.\"set_config\" ( 'x.y' , 'z', true)",
            ["tenant.id", "x.y"],
        ),
        ("DO $$ BEGIN PERFORM set_config('tenant.id', 'x', false); SET LOCAL x.y = 1; END $$", ["tenant.id", "x.y"]),
        ("SET work_mem = '1MB'; SELECT set_config('work_mem', '1MB', false)", []),
        ("SELECT set_config($1, $2, true)", []),
    ],
)
def test_names_that_a_text_shows(sql: str, names: list[str]) -> None:
    found = CustomParameters.of(sql.encode())
    assert sorted(found.names) == [name.encode() for name in names]
    assert not found.hidden


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config($1 || 'b', $2, false)",
        "SELECT set_config('a.' || 'b', 'x', false)",
        "SELECT set_config(lower('A.b'), 'x', true)",
        "DO 'BEGIN PERFORM set_config(''a.b'', ''x'', false); END'",
        "SELECT set_config(E'a\\.b', 'x', false)",
    ],
)
def test_names_that_a_text_hides(sql: str) -> None:
    assert CustomParameters.of(sql.encode()).hidden


@pytest.mark.parametrize(
    ("sql", "positions"),
    [
        ("SELECT set_config($1, $2, false)", (0,)),
        ("SELECT set_config($2::text, $1, $3), set_config( $4 :: pg_catalog.text , 'x', false)", (1, 3)),
        ("SELECT set_config('a.b', $1, false)", ()),
    ],
)
def test_names_that_are_bound(sql: str, positions: tuple[int, ...]) -> None:
    found = CustomParameters.of(sql.encode())
    assert found.bound == positions
    assert not found.hidden


@pytest.mark.parametrize("formats", [b"\0\0", b"\0\1\0\1", b"\0\3\0\1\0\0\0\1"])
def test_bound_names_are_found_among_the_values(formats: bytes) -> None:
    def bound(*values: bytes | None) -> bytes:
        texts = [b"\xff" * 4 if value is None else len(value).to_bytes(4, "big") + value for value in values]
        return formats + len(values).to_bytes(2, "big") + b"".join(texts) + b"\0\0"

    assert bound_names(bound(b"Tenant.Id", b"x.y", b"f"), (0,)) == {b"tenant.id"}
    assert bound_names(bound(None, b"x.y", b"a.b"), (0, 2)) == {b"a.b"}
    assert bound_names(bound(b"work_mem", b"1MB", b"f"), (0,)) == frozenset()
    for size in range(len(bound(b"tenant.id"))):
        # Malformed: PostgreSQL refuses it.
        bound_names(bound(b"tenant.id")[:size], (0, 7))


def test_names_in_functions() -> None:
    pieces = [
        b"set_config('tenant.id',",
        b"SET a.b =",
        b"set local c.d to",
        b"set_config(''e.f'' ,",
        b"SET x =",
        b"set_config('g.h'::text,",
    ]
    assert names_in_functions(pieces) == {b"tenant.id", b"a.b", b"c.d", b"e.f", b"g.h"}


def test_only_what_may_be_set_is_asked_for() -> None:
    assert settings_query() == SETTINGS_QUERY
    assert b"(E'a.b'), (E'it''s.c')" in settings_query([b"it's.c", b"a.b"])


def test_a_custom_parameter_is_empty_after_a_reset_and_then_what_it_was_at_the_start() -> None:
    sets = ParameterSets()
    startup = sets.of({b"tenant.id": b"17"})
    emptied = sets.of({b"tenant.id": b""})
    assert sets.overlay(startup, emptied) is emptied
    assert sets.overlay(startup, emptied, after_reset=True) is startup
