"""Claims of `primary`: one of two wins, nothing is overwritten that was not looked at, nothing goes downwards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pgamb.errors import RegistryUnavailable
from pgamb.registry.keys import Keys, encode
from pgamb.registry.model import PrimaryRecord, Role
from pgamb.registry.store import Compare, KeyValue, Outcome, OutcomeUnknown, Put, Store
from tests.conformance.conftest import Subject
from tests.conformance.registering import announcing, member, revision


async def test_a_claim_fails_on_anything_that_changed_meanwhile(subject: Subject) -> None:
    keys = Keys("db", subject.prefix)
    async with (
        announcing(subject.store, subject.prefix, "pg1") as one,
        announcing(subject.store, subject.prefix, "pg2") as two,
    ):
        assert not await one.claim_primary(PrimaryRecord("pg1", 1), 0), "who is not registered claims nothing"
        await one.announce(member("pg1", Role.PRIMARY, 2))
        await two.announce(member("pg2", Role.PRIMARY, 2))
        claims = await asyncio.gather(
            one.claim_primary(PrimaryRecord("pg1", 2), 0), two.claim_primary(PrimaryRecord("pg2", 2), 0)
        )
        assert sorted(claims) == [False, True], "exactly one of two wins"
        winner = PrimaryRecord("pg1" if claims[0] else "pg2", 2)
        loser, other = (two, "pg2") if claims[0] else (one, "pg1")
        at = await revision(loser, winner)
        assert not await loser.claim_primary(PrimaryRecord(other, 1), at), "never downwards"
        assert not await loser.claim_primary(PrimaryRecord(other, 3), at - 1), "not on an old view"
        assert not await loser.claim_primary(PrimaryRecord(other, 3), 0)
        item = await subject.store.get(keys.primary)
        assert item is not None
        assert item.value == encode(winner)
        assert item.lease_id == 0, "the record outlives its writer"
        assert await loser.claim_primary(PrimaryRecord(other, 3), at)
        assert await loser.claim_primary(PrimaryRecord(other, 3), at), "what is written already is ours"


async def test_a_claim_loses_to_what_is_written_between_its_look_and_its_write(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, store = Keys("db", subject.prefix).primary, subject.store
    rival = encode(PrimaryRecord("pg2", 2))
    look = store.get

    async def look_slowly(wanted: str) -> KeyValue | None:
        item = await look(wanted)
        if wanted == key and item is None:
            await store.put(Put(key, rival))
        return item

    async with announcing(store, subject.prefix, "pg1") as agent:
        await agent.announce(member("pg1", Role.PRIMARY, 2))
        monkeypatch.setattr(store, "get", look_slowly)
        assert not await agent.claim_primary(PrimaryRecord("pg1", 2), 0)
        item = await look(key)
        assert item is not None
        assert (item.value, item.version) == (rival, 1)


async def test_a_claim_needs_its_own_registration_untouched(subject: Subject) -> None:
    keys = Keys("db", subject.prefix)
    async with announcing(subject.store, subject.prefix, "pg1") as agent:
        await agent.announce(member("pg1", Role.PRIMARY))
        await subject.store.put(Put(keys.member("pg1"), b"another agent of the same name"))
        assert not await agent.claim_primary(PrimaryRecord("pg1", 1), 0)
        assert await subject.store.get(keys.primary) is None


class LostAnswers:
    """Takes the answers of the next `count` transactions away; those happen all the same, or not, with `drop`."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.drop = False
        self._transact = store.transact
        monkeypatch.setattr(store, "transact", self)

    async def __call__(self, compares: Sequence[Compare], puts: Sequence[Put]) -> Outcome:
        if not self.count:
            return await self._transact(compares, puts)
        self.count -= 1
        if not self.drop:
            await self._transact(compares, puts)
        raise OutcomeUnknown("the answer got lost")


@pytest.mark.parametrize("happened", [True, False])
async def test_a_claim_without_an_answer_is_read_before_it_is_repeated(
    subject: Subject, happened: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard 16."""
    lost = LostAnswers(subject.store, monkeypatch)
    async with announcing(subject.store, subject.prefix, "pg1") as agent:
        await agent.announce(member("pg1", Role.PRIMARY))
        lost.count, lost.drop = 1, not happened
        assert await agent.claim_primary(PrimaryRecord("pg1", 1), 0)
        item = await subject.store.get(Keys("db", subject.prefix).primary)
        assert item is not None
        assert item.version == 1
        lost.count, lost.drop = 100, True
        with pytest.raises(RegistryUnavailable, match="not known yet"):
            await agent.claim_primary(PrimaryRecord("pg1", 2), item.mod_revision)
