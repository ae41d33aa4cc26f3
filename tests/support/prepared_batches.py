"""Conversations about prepared statements in the extended protocol, alone and beside what SQL says of them."""

from __future__ import annotations

from tests.support.exchanges import (
    Exchange,
    bind,
    close_statement,
    describe,
    describe_statement,
    execute,
    parse,
    query,
    run,
    sync,
)
from tests.support.prepared_cases import LOOK, READ_ONE, STATEMENTS

Q, R, P, B, D, X, S = query, run, parse, bind, describe, execute, sync()

BATCHES: dict[str, tuple[Exchange, ...]] = {
    "extended": (
        *(
            R("PREPARE q AS SELECT 1") + S,
            R("EXECUTE q") + S,
            Q("EXECUTE q"),
            LOOK,
            R("DEALLOCATE q") + S,
            R("EXECUTE q") + S,
        ),
        *(
            P(f"PREPARE q (int) AS {READ_ONE}", "prep") + S,
            B(statement="prep") + X() + S,
            B(statement="prep") + X() + S,
        ),
        *(P("EXECUTE q(3)", "exec") + describe_statement("exec") + S, B(statement="exec") + D() + X() + S, LOOK),
        *(R("DEALLOCATE ALL") + S, R("EXECUTE q(3)") + S, LOOK, R("PREPARE z AS SELECT nothing") + S, LOOK),
        *(
            R("EXPLAIN (COSTS OFF) EXECUTE q(3)") + S,
            Q("PREPARE q AS SELECT 1"),
            R("EXPLAIN (COSTS OFF) EXECUTE q") + S,
            R("DISCARD ALL") + S,
        ),
    ),
    "extended, in one batch": (
        *(R("PREPARE q AS SELECT 1") + R("EXECUTE q") + R("DEALLOCATE q") + S, R("EXECUTE q") + S, LOOK),
        *(
            P("SELECT 1", "a") + P("SELECT 2", "b") + S,
            R("DEALLOCATE a") + B(statement="b") + X() + B(statement="a") + X() + S,
        ),
        *(P("SELECT 1", "a") + R(STATEMENTS) + close_statement("a") + R(STATEMENTS) + S, LOOK),
        *(
            Q("PREPARE q AS SELECT 5")
            + B(statement="q")
            + X()
            + S
            + Q("EXECUTE q")
            + Q("DEALLOCATE q")
            + Q("EXECUTE q"),
            LOOK,
        ),
    ),
    "one packet": (
        Q("PREPARE q AS SELECT n FROM lazy WHERE n = $1")
        + Q("EXECUTE q(1)")
        + Q("EXECUTE q(nothing)")
        + Q("DEALLOCATE q")
        + Q("EXECUTE q(2)")
        + LOOK
        + Q("SELECT 1"),
        Q("BEGIN")
        + Q("PREPARE q AS SELECT 1")
        + Q("EXECUTE q")
        + Q("COMMIT")
        + Q("EXECUTE q")
        + Q("DEALLOCATE ALL")
        + LOOK,
        P("SELECT 1", "s") + S + LOOK + Q("EXECUTE s") + close_statement("s") + S + LOOK + R("SELECT 2") + S,
    ),
    "discard and deallocate all": (
        *(
            P(READ_ONE, "s") + S,
            Q("PREPARE q AS SELECT 1"),
            Q("DISCARD PLANS"),
            Q("EXECUTE q"),
            B(b"3", statement="s") + X() + S,
        ),
        *(
            Q("DEALLOCATE ALL"),
            Q("EXECUTE q"),
            B(b"3", statement="s") + X() + S,
            P(READ_ONE, "s") + S,
            Q("PREPARE q AS SELECT 1"),
        ),
        *(
            Q("DISCARD ALL"),
            Q("EXECUTE q"),
            B(b"3", statement="s") + X() + S,
            P(READ_ONE, "s") + S,
            Q("PREPARE q AS SELECT 1"),
        ),
        *(
            Q("BEGIN"),
            Q("DEALLOCATE ALL"),
            Q("EXECUTE q"),
            Q("ROLLBACK"),
            Q("EXECUTE q"),
            B(b"3", statement="s") + X() + S,
        ),
        *(
            P(READ_ONE, "s") + S,
            Q("BEGIN"),
            Q("DISCARD ALL"),
            Q("ROLLBACK"),
            B(b"3", statement="s") + X() + S,
            Q("DISCARD PLANS"),
        ),
        *(
            R("DEALLOCATE ALL") + S,
            B(b"3", statement="s") + X() + S,
            P(READ_ONE, "s") + R("DEALLOCATE PREPARE ALL") + P("SELECT 2", "s") + S,
        ),
        *(B(statement="s") + X() + S, R("DISCARD PLANS") + S, R("DISCARD ALL") + S, B(statement="s") + X() + S, LOOK),
    ),
    "the same name again and again": tuple(
        part
        for turn in range(4)
        for part in (
            P(f"SELECT {turn}", "s") + S,
            B(statement="s") + X() + S,
            Q("DEALLOCATE s"),
            Q(f"PREPARE s AS SELECT {turn}, 'x'"),
            Q("EXECUTE s"),
            close_statement("s") + P(f"SELECT {turn + 1}", "s") + B(statement="s") + X() + close_statement("s") + S,
        )
    ),
    "a query behind a batch without its Sync": (
        *(
            R("SELECT 1") + Q("DEALLOCATE nothing"),
            R("SELECT 1") + Q("PREPARE q AS SELECT 2"),
            R("SELECT 1") + Q("EXECUTE q"),
        ),
        *(P("SELECT 3", "s") + S, R("SELECT 1") + Q("EXECUTE s"), R("SELECT 1") + Q("DEALLOCATE s"), Q("EXECUTE s")),
        *(R("SELECT 1/0") + Q("EXECUTE q") + S, R("SELECT 1/0") + Q("DEALLOCATE q") + S, Q("EXECUTE q"), LOOK),
    ),
    "a name again behind what has failed": (
        P("SELECT nothing", "n") + B(statement="n") + X() + Q("SELECT 1") + P("", "n") + describe_statement("n") + S,
        P("SELECT nothing", "n") + X() + Q("DEALLOCATE n") + Q("EXECUTE n") + LOOK + S,
        P("", "n") + describe_statement("n") + S,
    ),
    "two of one name in a packet": (
        *(P("SELECT nothing", "s") + S + P("SELECT 2", "s") + S, B(statement="s") + X() + S),
        *(P("SELECT nothing", "t") + P("SELECT 2", "t") + S + P("SELECT 3", "t") + S, B(statement="t") + X() + S),
        *(P("SELECT 1", "u") + P("SELECT 2", "u") + S + B(statement="u") + X() + S, LOOK),
        *(
            close_statement("u") + P("SELECT nothing", "u") + S + P("SELECT 4", "u") + S,
            B(statement="u") + X() + S,
            LOOK,
        ),
    ),
    "what fails to parse, and nothing at all": (
        *(
            P("SELECT nothing", "s") + S,
            B(statement="s") + S,
            P("SELEC", "s") + S,
            describe_statement("s") + S,
            P("", "s") + describe_statement("s") + S,
        ),
        *(
            B(statement="s") + D() + X() + S,
            P("SELECT 1; SELECT 2", "m") + S,
            B(statement="m") + S,
            LOOK,
            Q(""),
            P("") + B() + D() + X() + S,
        ),
    ),
}
