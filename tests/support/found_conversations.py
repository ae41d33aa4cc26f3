"""What random conversations have found: each was answered otherwise than by PostgreSQL once, for the reason given."""

from __future__ import annotations

from tests.support.exchanges import (
    Exchange,
    bind,
    broken,
    close_statement,
    copied,
    copy_data,
    describe,
    describe_statement,
    execute,
    fatal,
    flush,
    parse,
    query,
    run,
    sync,
    terminate,
)
from tests.support.renderings import WRITE

# By name: what becomes the session's own at the end of a batch is prepared anew, behind what the batch has prepared.
LOOK = query("SELECT name, statement, from_sql FROM pg_prepared_statements ORDER BY name")
Q, R, P, B, X, S = query, run, parse, bind, execute, sync()

FOUND: dict[str, tuple[Exchange, ...]] = {
    # Data that nobody wanted came in pieces, and the session let go of its backend, which waited for a Sync.
    "data while everything is skipped": (
        *(
            B(statement="nothing") + Q("SELECT 1"),
            copy_data(b"1\n" * 90),
            copied(b"2\n"),
            Q("SELECT 2"),
            S,
            Q("SELECT 3"),
        ),
    ),
    # What ends the connection was heard before the answers to what stood before it.
    "last words come last": (P("SELECT 1") + B() + X() + S + Q("SELECT 2") + fatal("?", b"x"),),
    "last words behind a batch without an end": (Q("BEGIN"), P("SELECT 1", "n") + R("SELECT 2") + fatal("?", b"x")),
    "last words behind what fails": (B(statement="nothing") + X() + fatal("?", b"x"),),
    "last words in a COPY": (Q("COPY lazy FROM STDIN"), copy_data(b"21\ta\n") + fatal("?", b"x")),
    # Its backend is told of no end, so the answers to what was sent before it were lost.
    "goodbye behind a question": (Q("SELECT 1") + R("INSERT INTO lazy VALUES (21)") + S + Q("SELECT 2") + terminate(),),
    # A batch without an end was followed by pgamb's own, which PostgreSQL skipped: the backend was stuck for ever.
    "goodbye behind what fails": (R("INSERT INTO lazy VALUES (10, 'taken')") + terminate(),),
    "goodbye behind an error": (Q("SELECT 1") + describe("nothing") + terminate(),),
    "goodbye in the middle of a transaction": (Q("BEGIN") + Q(WRITE) + R("SELECT 1") + terminate(),),
    "goodbye in a COPY": (Q("COPY lazy FROM STDIN"), copy_data(b"21\ta\n") + terminate()),
    "goodbye before a COPY begins": (Q("COPY lazy FROM STDIN") + terminate(),),
    # A backend that had been told goodbye went back to its pool.
    "goodbye behind data for nobody": (R("SELECT 1") + S + copied(b"1\n") + terminate(),),
    "goodbye behind data in a batch": (R("SELECT 1") + copied(b"1\n") + S + copied(b"2\n") + terminate(),),
    # What pgamb answers itself was not answered behind the end of data that nobody wanted.
    "an answer of pgamb's behind data for nobody": (
        *(P("SELECT 7", "n") + S, R("SELECT 1") + copied(b"1\n") + close_statement("n") + S),
        *(close_statement("") + copied(b"1\n") + close_statement("n") + close_statement("m") + S, copied(b"1\n") + S),
    ),
    # A Query that was skipped had dropped the unnamed statement all the same.
    "a Query that is skipped": (
        *(P("SELECT 7") + S, B(statement="nothing") + Q("SELECT 1") + S, B() + X() + S, B() + X() + Q("SELECT 8") + S),
        *(B() + S, P("SELECT 9") + B(statement="nothing") + P("SELECT 1") + Q("SELECT 1") + S, B() + X() + S),
    ),
    # A Query that is none dropped it, too.
    "a malformed Query": tuple(
        said
        for body in (b"", b"SELECT 1", b"SELECT 1\0more\0")
        for said in (P("SELECT 7") + S, broken("Q", body), B() + X() + S)
    ),
    # It was waited for the end of a Query that PostgreSQL had skipped.
    "DEALLOCATE ALL that is skipped": (
        *(P("SELECT 7", "n") + S, B(statement="nothing") + Q("SELECT 1; DEALLOCATE ALL"), P("SELECT 1") + S),
        *(B(statement="n") + X() + S, B(statement="nothing") + Q("DISCARD ALL") + B(statement="n") + S),
        B(statement="n") + X() + S,
    ),
    # What a PREPARE in the middle of a batch had made stayed on a backend that went back to its pool.
    "PREPARE in the middle of a batch": (
        *(P("SELECT 7", "m") + S, R("SELECT 1") + flush(), R("PREPARE n AS SELECT 1") + S, Q("PREPARE n AS SELECT 2")),
        *(Q("EXECUTE n"), Q("EXECUTE m"), LOOK, R("SELECT 1") + copied(b"1\n") + R("DEALLOCATE n") + S, Q("EXECUTE n")),
        *(LOOK, Q("DEALLOCATE ALL"), LOOK, R("SELECT 1") + flush(), R("PREPARE n AS SELECT 3") + S),
        *(B(statement="n") + X() + S, LOOK),
    ),
    # The backend still had the statement that it was given for PostgreSQL to speak of.
    "a name that was taken is closed": (
        *(Q("BEGIN"), Q(WRITE), P("SELECT 1", "n") + S, P("SELECT 2", "n") + S, close_statement("n") + S),
        *(B(statement="n") + S, describe_statement("n") + S, Q("ROLLBACK"), B(statement="n") + S, Q("EXECUTE n")),
    ),
    "a name that was not deallocated is closed": (
        *(Q("BEGIN"), Q(WRITE), P("SELECT 1", "n") + S, Q("SELECT 1/0"), Q("DEALLOCATE n"), close_statement("n") + S),
        *(B(statement="n") + S, describe_statement("n") + S, Q("ROLLBACK"), Q("EXECUTE n"), P("SELECT 2", "n") + S),
        *(B(statement="n") + X() + S,),
    ),
}
