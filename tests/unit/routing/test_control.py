"""Transaction control is understood whole, or left to PostgreSQL."""

from __future__ import annotations

import pytest

from pgamb.routing.control import NO_CONTROL, Command, Control, Isolation, control_of

BEGIN = Command(Control.BEGIN)


def _begin(isolation: Isolation = Isolation.DEFAULT, *, read_only: bool | None = None, start: bool = False) -> Command:
    return Command(Control.BEGIN, None, isolation, read_only, plain=False, start=start)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("BEGIN", BEGIN),
        ("begin;", BEGIN),
        ("BEGIN WORK", BEGIN),
        ("BEGIN TRANSACTION ; ;", BEGIN),
        ("/* a */ START TRANSACTION -- b", Command(Control.BEGIN, start=True)),
        ("BEGIN ISOLATION LEVEL READ COMMITTED;", _begin(Isolation.READ_COMMITTED)),
        ("BEGIN ISOLATION LEVEL READ UNCOMMITTED", _begin(Isolation.READ_COMMITTED)),
        (
            "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            _begin(Isolation.REPEATABLE_READ, read_only=True, start=True),
        ),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE", _begin(Isolation.SERIALIZABLE, read_only=True)),
        ("BEGIN READ WRITE, NOT DEFERRABLE", _begin(read_only=False)),
        ("BEGIN READ ONLY, READ WRITE", _begin(read_only=False)),
        ("BEGIN READ ONLY,", NO_CONTROL),
        ("BEGIN READ", NO_CONTROL),
        ("BEGIN ISOLATION LEVEL", NO_CONTROL),
        ("BEGIN NONSENSE", NO_CONTROL),
        ("START", NO_CONTROL),
        ("BEGIN; SELECT 1", NO_CONTROL),
        ("COMMIT", Command(Control.COMMIT)),
        ("END TRANSACTION", Command(Control.COMMIT)),
        ("COMMIT WORK AND NO CHAIN", Command(Control.COMMIT)),
        ("COMMIT AND CHAIN", Command(Control.COMMIT_CHAIN)),
        ("ROLLBACK", Command(Control.ROLLBACK)),
        ("ABORT WORK", Command(Control.ROLLBACK)),
        ("ROLLBACK AND CHAIN", Command(Control.ROLLBACK_CHAIN)),
        ("COMMIT AND", NO_CONTROL),
        ("COMMIT PREPARED 'a'", NO_CONTROL),
        ("ROLLBACK PREPARED 'a'", NO_CONTROL),
        ("SAVEPOINT a", Command(Control.SAVEPOINT, "a")),
        ('SAVEPOINT "A b"', Command(Control.SAVEPOINT, "A b")),
        ('SAVEPOINT "a.b"', Command(Control.SAVEPOINT, "a.b")),
        ("SAVEPOINT A", Command(Control.SAVEPOINT, "a")),
        ("SAVEPOINT a.b", NO_CONTROL),
        ("SAVEPOINT", NO_CONTROL),
        ("SAVEPOINT 'a'", NO_CONTROL),
        ("SAVEPOINT 1", NO_CONTROL),
        ("SAVEPOINT select", NO_CONTROL),
        ("SAVEPOINT left", NO_CONTROL),
        (f"SAVEPOINT {'a' * 64}", NO_CONTROL),
        ("RELEASE a", Command(Control.RELEASE, "a")),
        ("RELEASE SAVEPOINT a", Command(Control.RELEASE, "a")),
        ("RELEASE SAVEPOINT", Command(Control.RELEASE, "savepoint")),
        ("ROLLBACK TO a", Command(Control.ROLLBACK_TO, "a")),
        ("ROLLBACK WORK TO SAVEPOINT a", Command(Control.ROLLBACK_TO, "a")),
        ("ROLLBACK TO", NO_CONTROL),
        (
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            Command(Control.SET_TRANSACTION, None, Isolation.SERIALIZABLE, None, plain=False),
        ),
        ("SET TRANSACTION READ ONLY", Command(Control.SET_TRANSACTION, None, read_only=True, plain=False)),
        ("SET TRANSACTION", NO_CONTROL),
        ("SET TRANSACTION SNAPSHOT 'x'", NO_CONTROL),
        ("PREPARE TRANSACTION 'a'", Command(Control.PREPARE_TRANSACTION)),
        ("SELECT 1", NO_CONTROL),
        ("", NO_CONTROL),
    ],
)
def test_a_statement_means_what_postgresql_makes_of_it(sql: str, expected: Command) -> None:
    assert control_of(sql.encode()) == expected
