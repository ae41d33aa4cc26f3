"""The same conversation with PostgreSQL and through pgamb, whole and cut in any way: message by message the same."""

from __future__ import annotations

import pytest

from pgamb.session.conversation import Message
from pgamb.wire.messages import parse_error_fields
from tests.integration.client.conftest import Path
from tests.support.conversations import CONVERSATIONS, PREPARE_SQL, Step
from tests.support.cutting import AtRandom, Cut, byte_by_byte, whole
from tests.support.malformed import MALFORMED
from tests.support.wire import Wire, errors

SAID = CONVERSATIONS | MALFORMED
CUTS: dict[str, Cut] = {"whole": whole, "bytes": byte_by_byte, "random": AtRandom(11), "pieces": AtRandom(5, 60)}


def hold(wire: Wire, steps: tuple[Step, ...]) -> list[str]:
    """Hold a conversation and return what was answered, a line a message."""
    heard: list[str] = []
    for number, step in enumerate(steps):
        wire.send_all(step.data)
        wanted = step.until
        while wanted:
            message = wire.receive()
            if message is None:
                heard.append(f"{number}: closed")
                return heard
            heard.append(f"{number}: {show(message)}")
            if message.type == ord(wanted[0]):
                wanted = wanted[1:]
    return heard


def prepare(path: Path) -> None:
    with path.direct() as wire:
        assert not errors(wire.query(PREPARE_SQL)), PREPARE_SQL


def show(message: Message) -> str:
    """Show a message without what must differ: source lines of an error, process ids."""
    if chr(message.type) in "EN":
        fields = parse_error_fields(message.payload)
        return chr(message.type) + " " + repr({k: v for k, v in fields.items() if k not in "FLR"})
    return f"{chr(message.type)} {message.payload!r}"


@pytest.fixture(scope="module")
def direct(path: Path) -> dict[str, list[str]]:
    """What PostgreSQL itself answers."""
    answers = {}
    for name, steps in SAID.items():
        prepare(path)
        with path.direct() as wire:
            answers[name] = hold(wire, steps)
    return answers


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("cut", CUTS)
def test_a_conversation_is_the_same(path: Path, direct: dict[str, list[str]], name: str, cut: str) -> None:
    prepare(path)
    try:
        # Whichever backend the last one used, and however it left it.
        with path.through_relay() as wire:
            path.cut(CUTS[cut])
            assert hold(wire, SAID[name]) == direct[name]
    finally:
        path.cut(whole)
