"""Which command tags say that a catalogue has changed."""

from __future__ import annotations

import pytest

from pgamb.routing.ddl import Change, change_of, makes_plain_table


@pytest.mark.parametrize(
    ("tag", "change"),
    [
        (b"CREATE FUNCTION", Change.AT_ONCE),
        (b"CREATE TABLE\0", Change.AT_ONCE),
        (b"CREATE VIEW", Change.AT_ONCE),
        (b"CREATE EXTENSION", Change.AT_ONCE),
        (b"CREATE SCHEMA", Change.AT_ONCE),
        (b"CREATE SOMETHING NEW", Change.AT_ONCE),
        (b"CREATE OPERATOR", Change.AT_ONCE),
        (b"CREATE OPERATOR CLASS", Change.NONE),
        (b"CREATE INDEX", Change.NONE),
        (b"CREATE TRIGGER", Change.NONE),
        (b"CREATE DATABASE", Change.NONE),
        (b"CREATE USER MAPPING", Change.NONE),
        (b"ALTER TABLE", Change.AT_ONCE),
        (b"ALTER ROLE", Change.NONE),
        (b"IMPORT FOREIGN SCHEMA", Change.AT_ONCE),
        (b"DROP TABLE", Change.LOOSENED),
        (b"DROP OWNED", Change.LOOSENED),
        (b"DROP INDEX", Change.NONE),
        (b"DO", Change.PERHAPS),
        (b"CALL", Change.PERHAPS),
        (b"SELECT 1", Change.NONE),
        (b"INSERT 0 1", Change.NONE),
        (b"COMMIT", Change.NONE),
        (b"GRANT", Change.NONE),
        (b"", Change.NONE),
    ],
)
def test_tags(tag: bytes, change: Change) -> None:
    assert change_of(tag) is change


@pytest.mark.parametrize(
    ("sql", "plain"),
    [
        ("CREATE TABLE t (id int PRIMARY KEY, t text DEFAULT 'x')", True),
        ("create table if not exists t (id int);", True),
        ("CREATE UNLOGGED TABLE t (id int)", False),
        ("CREATE TEMP TABLE t (id int)", False),
        ("CREATE TABLE t PARTITION OF p FOR VALUES IN (1)", False),
        ("CREATE TABLE t (id int) PARTITION BY LIST (id)", False),
        ("CREATE TABLE t (id int) INHERITS (p)", False),
        ("CREATE TABLE t OF kind", False),
        ("CREATE TABLE t AS SELECT 1", False),
        ("CREATE TABLE t (id int); CREATE VIEW v AS SELECT 1", False),
        ("CREATE VIEW v AS SELECT 1", False),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", False),
    ],
)
def test_a_plain_table_changes_no_query(sql: str, plain: bool) -> None:
    assert makes_plain_table(sql.encode()) is plain
