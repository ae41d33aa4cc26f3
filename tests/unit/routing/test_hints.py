"""pgamb's own words in SQL: what they mean, and what is said when they mean nothing."""

from __future__ import annotations

import pytest

from pgamb.routing.classify import classify
from pgamb.routing.hints import Wish, in_quotes, raising, refusal, wish_of_comment, wish_of_role


@pytest.mark.parametrize(
    ("sql", "wish"),
    [
        ("/* pgamb: primary */ SELECT 1", Wish.PRIMARY),
        ("  /*pgamb:REPLICA*/ SELECT 1", Wish.REPLICA),
        ("/* pgamb: nonsense */ SELECT 1", Wish.AUTO),
        ("SELECT 1 /* pgamb: primary */", Wish.AUTO),
        ("SELECT '/* pgamb: primary */'", Wish.AUTO),
        ("/* other */ /* pgamb: primary */ SELECT 1", Wish.AUTO),
    ],
)
def test_only_a_leading_comment_counts(sql: str, wish: Wish) -> None:
    assert wish_of_comment(sql.encode()) is wish


@pytest.mark.parametrize(
    ("value", "wish"),
    [("primary", Wish.PRIMARY), (" Replica ", Wish.REPLICA), ("auto", Wish.AUTO), ("", Wish.AUTO), ("slave", None)],
)
def test_a_role_is_one_of_three_words(value: str, wish: Wish | None) -> None:
    assert wish_of_role(value) is wish


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("SET pgamb.role = replica", None),
        ("SET pgamb.role TO 'primary'", None),
        ("SET SESSION pgamb.role = DEFAULT", None),
        ("RESET pgamb.role", None),
        ("SET pgamb.role = 'slave'", "slave"),
        ("SET pgamb.role = standby;", "standby"),
        ("SET pgamb.min_lsn = '0/1375C000'", None),
        ("SET pgamb.min_lsn = 'A/1@3'", None),
        ("SET pgamb.min_lsn = ''", None),
        ("SET pgamb.min_lsn = 'yesterday'", "yesterday"),
        ("SET pgamb.min_lsn = '0/123456789'", "0/123456789"),
        ("SET pgamb.lsn = '0/1'", "pgamb.lsn"),
        ("SET pgamb.last_route = 'x'", "pgamb.last_route"),
        ("SET tenant.id = 'x'", None),
        ("SET work_mem = '1MB'", None),
    ],
)
def test_a_wrong_value_is_named(sql: str, named: str | None) -> None:
    wrong = refusal(classify(sql.encode()), sql.encode())
    if named is None:
        assert wrong is None
    else:
        assert wrong is not None
        assert named in wrong[0]
        assert wrong[1]


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        ("SET pgamb.role = primary", "SET pgamb.role = 'primary'"),
        ("set pgamb.role to PRIMARY ;", "set pgamb.role to 'primary' ;"),
        ("SET pgamb.role = 'primary'", None),
        ("SET pgamb.role = replica", None),
        ("SET work_mem = primary", None),
    ],
)
def test_the_reserved_word_is_put_in_quotes(sql: str, sent: str | None) -> None:
    found = in_quotes(classify(sql.encode()), sql.encode())
    assert (found.decode() if found is not None else None) == sent


def test_what_is_raised_cannot_be_broken_out_of() -> None:
    sql = raising("it's \\ 'quoted'", 'say "it\'s"')
    assert sql.count(b"'") % 2 == 0
    assert b"\\" not in sql
