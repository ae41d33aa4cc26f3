"""What is a read while the catalogue of a database is not known: what names no relation of a user's."""

from __future__ import annotations

import pytest

from pgamb.routing.catalog import Unread
from pgamb.routing.classify import classify
from pgamb.routing.intent import Need

UNREAD = Unread("not read yet")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT current_setting('cluster_name'), lower('A')",
        "VALUES (1)",
        "SELECT * FROM pg_catalog.pg_class",
        "SELECT * FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace n ON true",
        "SELECT * FROM information_schema.tables WHERE table_name = 'x'",
        "TABLE pg_catalog.pg_class",
        "COPY pg_catalog.pg_class TO STDOUT",
        "SHOW work_mem",
    ],
)
def test_what_names_no_relation_of_a_user_is_a_read(sql: str) -> None:
    assert classify(sql.encode(), catalog=UNREAD).need & Need.READ


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM t",
        "SELECT (SELECT a FROM s.t)",
        "SELECT * FROM pg_class",
        "SELECT * FROM pg_catalog.pg_class, t",
        "SELECT * FROM pg_catalog.pg_class c, t",
        "SELECT * FROM pg_catalog.pg_class AS c, t",
        "SELECT * FROM pg_catalog.pg_class c (a), t",
        "SELECT * FROM pg_catalog.pg_class JOIN t ON true",
        'SELECT * FROM "pg_catalog"."t"',
        "TABLE t",
        "WITH x AS (TABLE t) SELECT 1",
        "COPY t TO STDOUT",
        "COPY (SELECT * FROM t) TO STDOUT",
        "EXPLAIN SELECT * FROM t",
        "DECLARE c CURSOR FOR SELECT * FROM t",
    ],
)
def test_every_other_query_belongs_on_the_primary_and_harms_nothing(sql: str) -> None:
    intent = classify(sql.encode(), catalog=UNREAD)
    assert intent.need & Need.NEUTRAL
    assert sql.startswith("DECLARE") or intent.reason == "not read yet"


def test_what_is_no_read_anyway_keeps_its_reason() -> None:
    assert classify(b"SELECT f(1) FROM t", catalog=UNREAD).writes
    assert classify(b"INSERT INTO t VALUES (1)", catalog=UNREAD).writes
