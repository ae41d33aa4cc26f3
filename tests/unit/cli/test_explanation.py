"""What `pgamb explain` says of an intent, and of members."""

from __future__ import annotations

import pytest

from pgamb.cli.explain import judge
from pgamb.cli.explanation import explanation
from pgamb.cli.picture import picture
from pgamb.config import ExplainOptions
from pgamb.registry.model import Address, Member, MemberState, PrimaryRecord, RegistryStatus, Role, Stats, Topology
from pgamb.routing.catalog import BUILT_IN

REPLICA = "a replica that is new enough, else the primary"
OPENS = "opens the real transaction, on the primary"


def explained(sql: str, options: ExplainOptions | None = None) -> dict[str, str]:
    """Give the lines by their headings; of several with one heading, the last."""
    return dict(explanation(judge(sql, BUILT_IN), options or ExplainOptions(), None).lines)


@pytest.mark.parametrize(
    ("sql", "intent", "alone", "in_begin"),
    [
        ("SELECT 1", "read", REPLICA, "can be virtual: runs alone, on the transaction's replica"),
        ("SELECT now()", "read", REPLICA, f"{OPENS}: one transaction has one now()"),
        ("SELECT nextval('s')", "write", "the primary", OPENS),
        ("SELECT pg_is_in_recovery()", "no read and no write", "the primary", OPENS),
        ("SET work_mem = 1", "no read and no write", "the primary", OPENS),
        ("SELECT 1; SET work_mem = 1", "no read and no write", "the primary", OPENS),
        ("SAVEPOINT a; INSERT INTO t VALUES (1)", "write", "the primary", OPENS),
        ("", "nothing", "the primary", "answered without a backend"),
        ("COMMIT", "no read and no write", "the primary", "ends the transaction without a backend"),
        ("SAVEPOINT a", "no read and no write", "the primary", "kept, and answered without a backend"),
        (
            "ROLLBACK TO a",
            "no read and no write",
            "the primary",
            "answered without a backend, if the savepoint is known",
        ),
        (
            "COMMIT AND CHAIN",
            "no read and no write",
            "the primary",
            "ends the transaction and begins the next without a backend",
        ),
        ("COMMIT PREPARED 'x'", "write", "the primary", OPENS),
        (
            "SELECT currval('s')",
            "no read and no write",
            "the backend on which the session has used the sequence",
            OPENS,
        ),
    ],
)
def test_where_a_statement_goes(sql: str, intent: str, alone: str, in_begin: str) -> None:
    lines = explained(sql)
    assert (lines["intent"], lines["alone"], lines["in BEGIN"]) == (intent, alone, in_begin)


@pytest.mark.parametrize(
    ("sql", "transactions", "alone"),
    [
        ("BEGIN", "lazy", "nowhere yet: answered at once, and sent when a statement needs a real transaction"),
        (
            "BEGIN READ ONLY",
            "lazy",
            "nowhere yet: answered at once, and sent when a statement needs a real transaction",
        ),
        ("BEGIN", "exact", "the primary"),
        ("BEGIN READ ONLY", "exact", REPLICA),
        (
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "lazy",
            "nowhere yet: answered at once, and sent when a statement needs a real transaction",
        ),
        ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "exact", REPLICA),
        ("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY", "exact", "the primary"),
    ],
)
def test_where_a_transaction_begins(sql: str, transactions: str, alone: str) -> None:
    lines = explained(sql, ExplainOptions(transactions=transactions))  # type: ignore[arg-type]
    assert lines["alone"] == alone
    assert "in BEGIN" not in lines


@pytest.mark.parametrize(
    ("sql", "alone", "in_begin"),
    [
        ("/* pgamb: primary */ SELECT 1", "the primary", "can be virtual: runs alone, on the primary"),
        ("/* pgamb: replica */ SELECT f()", REPLICA, "can be virtual: runs alone, on the transaction's replica"),
        ("/* pgamb: replica */ SET work_mem = 1", "the primary", OPENS),
        ("/* pgamb: replica */ LISTEN x", "the primary", OPENS),
        ("SET pgamb.role = primary", "the primary", OPENS),
    ],
)
def test_words_of_our_own(sql: str, alone: str, in_begin: str) -> None:
    lines = explained(sql)
    assert (lines["alone"], lines["in BEGIN"]) == (alone, in_begin)
    assert lines.get("hint", "").startswith("a leading comment asks for ") is sql.startswith("/*")
    assert "refused" not in lines


def test_a_parameter_of_ours_that_cannot_be_set_so() -> None:
    assert explained("SET pgamb.role = nobody")["refused"].startswith('invalid value for parameter "pgamb.role"')


def test_exact_transactions_stay_where_they_are() -> None:
    assert explained("SELECT 1", ExplainOptions(transactions="exact"))["in BEGIN"].startswith(
        "where its transaction is"
    )


def test_pins_are_named() -> None:
    assert explained("LISTEN x")["pins"] == "its session keeps one backend, because of LISTEN"
    assert explained("DISCARD ALL")["unpins"] == "lifts every pin"
    assert explained("DISCARD TEMP")["unpins"] == "may lift the pin of something temporary"


def test_headings_are_aligned() -> None:
    text = str(explanation(judge("LISTEN x", BUILT_IN), ExplainOptions(), None))
    assert text.splitlines()[0] == "intent    no read and no write"
    assert len({line.index(line.split("  ")[-1].strip()) for line in text.splitlines()}) == 1


def service(*members: Member, primary: str | None = "pg1", stats: tuple[Stats, ...] = ()) -> dict[str, object]:
    record = PrimaryRecord(primary, 3) if primary else None
    topology = Topology("db", members, record)
    return {"seen": picture(topology, stats, RegistryStatus("etcd://h", "h", True, 0.0, None))}


def member(node: str, role: Role = Role.REPLICA, timeline: int = 3, zone: str = "", **fields: object) -> Member:
    return Member(node, role, (Address("10.0.0.1"),), timeline, "77", 150004, zone=zone, **fields)  # type: ignore[arg-type]


PRIMARY = member("pg1", Role.PRIMARY)


def now(sql: str, options: ExplainOptions | None, given: dict[str, object]) -> dict[str, str]:
    lines = explanation(judge(sql, BUILT_IN), options or ExplainOptions(), **given).lines  # type: ignore[arg-type]
    headings = [heading for heading, _ in lines]
    return dict(lines[headings.index("now") :])


def test_a_read_goes_to_any_usable_replica() -> None:
    given = service(PRIMARY, member("pg2"), member("pg3"), stats=(Stats("pg2", lag_bytes=0, lag_s=300.0),))
    assert now("SELECT 1", None, given) == {
        "now": "pg2 or pg3, whichever has the least outstanding for its weight",
        "pg1": "primary",
        "pg2": "replica, caught up",
        "pg3": "replica; how far behind is not known",
    }


def test_the_own_zone_goes_first() -> None:
    given = service(PRIMARY, member("pg2", zone="a"), member("pg3", zone="b"), member("pg4", zone="b"))
    assert now("SELECT 1", ExplainOptions(zone="a"), given)["now"] == "pg2, the usable replica in zone a"
    assert now("SELECT 1", ExplainOptions(zone="b"), given)["now"].startswith("pg3 or pg4, ")
    assert now("SELECT 1", ExplainOptions(zone="c"), given)["now"].startswith("pg2, pg3 or pg4, ")


@pytest.mark.parametrize(
    ("replica", "stats", "why"),
    [
        (
            member("pg2"),
            Stats("pg2", lag_bytes=5_000_000, lag_s=1.0),
            "5.0 MB, 1.0 s behind, --max-lag-bytes is 1.0 MB",
        ),
        (member("pg2"), Stats("pg2", lag_bytes=500, lag_s=90.0), "500 B, 90.0 s behind, --max-lag is 60 s"),
        (member("pg2", state=MemberState.DRAINING), Stats("pg2", lag_bytes=0), "it is draining"),
        (member("pg2", Role.STALE_PRIMARY, 2), Stats("pg2"), "it is a stale-primary"),
        (member("pg2", weight=0), Stats("pg2", lag_bytes=0), "it is of weight 0"),
        (member("pg2", timeline=2), Stats("pg2", lag_bytes=0), "follows timeline 2, the primary is on 3"),
    ],
)
def test_a_replica_that_is_not_usable_and_why(replica: Member, stats: Stats, why: str) -> None:
    lines = now("SELECT 1", ExplainOptions(max_lag_bytes=1_000_000), service(PRIMARY, replica, stats=(stats,)))
    assert lines["pg2"] == f"not usable: {why}"
    assert lines["now"] == "pg1, the primary, because no replica is usable"


def test_a_write_goes_to_the_primary_and_waits_for_one() -> None:
    assert now("DELETE FROM t", None, service(PRIMARY, member("pg2")))["now"].startswith(
        "pg1, because pg1 says primary"
    )
    assert now("DELETE FROM t", None, service(member("pg2"), primary=None))["now"].startswith(
        "held until there is a primary, for --hold-timeout at most: all members are replicas"
    )
    assert now("SELECT 1", None, service(member("pg2"), primary=None))["now"] == "pg2, the only usable replica"
    assert now("BEGIN", None, service(PRIMARY))["now"] == "nowhere yet"
    contender = now("DELETE FROM t", None, service(PRIMARY, member("pg2", Role.PRIMARY)))["pg2"]
    assert contender.startswith("says primary, and gets nothing: ")
