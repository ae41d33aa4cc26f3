"""Notices, parameters and notifications between any two messages of a server disturb nothing, and arrive."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgamb.demo.postgres import PostgresServer
from pgamb.session.conversation import Message
from pgamb.wire import messages
from tests.support.ambassador import Ambassador, running_ambassador
from tests.support.chatty import ChattyRelay, is_chatter, running_chatter
from tests.support.cutting import AtRandom, Cut, byte_by_byte, whole
from tests.support.wire import Wire


def run(sql: str, *, name: str = "", limit: int = 0) -> bytes:
    return (
        messages.parse(name, sql)
        + messages.describe(b"S", name)
        + messages.bind("", name, [])
        + messages.describe(b"P", "")
        + messages.execute("", limit)
        + messages.close(b"S", name)
        + messages.sync()
    )


def copied(*lines: str) -> bytes:
    return b"".join(b"d" + (len(line) + 5).to_bytes(4, "big") + f"{line}\n".encode() for line in lines) + b"c\0\0\0\4"


FUNCTION_CALL = b"F" + (4 + 4 + 2 + 2 + 4 + 4 + 2).to_bytes(4, "big") + b"\0\0\5\x71\0\0\0\1\0\0\0\1\x39\0\0"
# What is said, and how many ReadyForQuery answer it.
CONVERSATION: tuple[tuple[bytes, int], ...] = (
    (messages.query("CREATE TEMP TABLE talk (n int, t text); DISCARD ALL"), 1),
    (messages.query("SELECT 1; SELECT 2; SELECT 1/0; SELECT 3"), 1),
    (messages.query(""), 1),
    (run("SELECT g FROM generate_series(1, 20) AS g"), 1),
    (run("SELECT g FROM generate_series(1, 20) AS g", limit=5), 1),
    (run("SELECT 'named'", name="s") + run("SELECT 1/0") + run("SELECT 'behind'", name="s"), 3),
    (messages.query("BEGIN"), 1),
    (messages.query("CREATE TABLE talk (n int, t text)"), 1),
    (messages.query("COPY talk FROM STDIN") + copied("1\tone", "2\ttwo"), 1),
    (messages.query("COPY talk TO STDOUT"), 1),
    (messages.query("COPY talk FROM STDIN") + copied("x"), 1),
    (messages.query("SELECT 1"), 1),
    (messages.query("ROLLBACK"), 1),
    (messages.query("DO $$BEGIN RAISE NOTICE 'real'; END$$"), 1),
    (messages.query("SET work_mem = '5MB'; SET TimeZone = 'UTC'"), 1),
    (messages.query("SHOW work_mem"), 1),
    (run("SHOW TimeZone"), 1),
    (messages.query("LISTEN here"), 1),
    (messages.query("NOTIFY here, 'real'"), 1),
    (messages.query("UNLISTEN *; RESET ALL"), 1),
    (messages.query("SELECT repeat('x', 200000)"), 1),
)


@pytest.fixture(scope="module")
def chatter(postgres: PostgresServer) -> Iterator[tuple[ChattyRelay, Ambassador]]:
    with running_chatter(postgres.port) as relay:
        registry = ("--registry", f"static://127.0.0.1:{relay.port}")
        with running_ambassador([postgres], *registry, "--pool-size", "2") as ambassador:
            yield relay, ambassador


def hold(port: int, password: str) -> tuple[list[list[Message]], int]:
    """Return the answers without what the relay has said, and how much of that there was."""
    heard, said = [], 0
    with Wire(port).log_in(password) as wire:
        for packet, answers in CONVERSATION:
            wire.send(packet)
            found = wire.until_ready(answers)
            said += sum(map(is_chatter, found))
            heard.append([message for message in found if not is_chatter(message)])
    return heard, said


def shown(answers: list[list[Message]]) -> list[list[tuple[str, bytes]]]:
    """Show what must be the same: not process ids, nor where a notification stands among its neighbours."""
    return [
        [(chr(m.type), m.payload[4:] if m.type == ord("A") else m.payload) for m in found if m.type != ord("S")]
        for found in answers
    ]


@pytest.mark.parametrize("cut", [whole, byte_by_byte, AtRandom(11, longest=300)], ids=["whole", "bytes", "random"])
def test_a_conversation_is_the_same_among_chatter(
    postgres: PostgresServer, chatter: tuple[ChattyRelay, Ambassador], cut: Cut
) -> None:
    relay, ambassador = chatter
    relay.cut = cut
    password = postgres.credentials.superuser
    direct, _ = hold(postgres.port, password)
    through, said = hold(ambassador.port, password)
    assert shown(through) == shown(direct)
    assert said > 100
    assert "backend.lost" not in ambassador.log


def test_what_is_said_at_the_log_in_reaches_the_application(
    postgres: PostgresServer, chatter: tuple[ChattyRelay, Ambassador]
) -> None:
    _, ambassador = chatter
    with Wire(ambassador.port).log_in(postgres.credentials.superuser, parameters={"application_name": "new"}) as wire:
        assert wire.greeting is not None
        assert b"chatter" in wire.greeting.notices
        assert "chatter.said" in wire.greeting.parameters
