"""An application cannot tell pgamb from PostgreSQL, whatever it says: random conversations, held direct and through,
and compared message by message, but for keys, process ids and times.

Every message that a frontend may send, well-formed or not, in any order, in packets of any size, cut anywhere; by one
session, or by two or three in turn, for whom there are few backends that keep few statements. `PGAMB_LONG=1` makes it
5,000 conversations, other ones each time; `PGAMB_CONVERSATIONS` any number.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from pgamb.demo.cluster import Cluster
from tests.support import talk
from tests.support.cutting import AtPosition, AtRandom, Cut, CuttingRelay, byte_by_byte, whole
from tests.support.exchanges import (
    NOTHING,
    Exchange,
    bind,
    cancel,
    close,
    close_statement,
    describe,
    describe_statement,
    execute,
    flush,
    parse,
    query,
    run,
    sync,
)
from tests.support.found_conversations import FOUND
from tests.support.twins import Twins, running_relays

LONG = bool(os.environ.get("PGAMB_LONG"))
CONVERSATIONS = int(os.environ.get("PGAMB_CONVERSATIONS", "5000" if LONG else "150"))
TURNS = 40
RANDOM = settings(
    max_examples=CONVERSATIONS,
    stateful_step_count=TURNS,
    # The same ones in every ordinary run: what the long run finds becomes an example.
    derandomize=not LONG,
    deadline=None,
    database=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)
# Backends per member, and statements that each of them keeps: sessions take one another's place all the time.
OPTIONS = ("--pool-size", "3", "--prepared-statements", "4")
AFTER = (query("ROLLBACK"), query("SELECT count(*), max(n) FROM lazy"), run("SELECT n FROM lazy ORDER BY n") + sync())

NAMES = st.sampled_from(["n0", "n1", "n2", ""])
PORTALS = st.sampled_from(["", "", "", "p", "c"])
LIMITS = st.sampled_from([0, 0, 0, 1, 2, 100])
VALUES = st.sampled_from([b"2", b"2", b"2", b"x", None])
SPEAKERS = st.integers(0, 2)
# What comes behind a message of the extended protocol. wait: Sync, and the answer is waited for; send: Sync, and what
# follows goes into the same packet; join: nothing; flush: Flush, and the answer is waited for.
LINKS = st.sampled_from(["wait"] * 4 + ["send", "join", "join", "flush"])
PACKETS = st.sampled_from(["wait"] * 4 + ["send"])
CUTS: st.SearchStrategy[Cut] = st.one_of(
    st.just(whole),
    st.just(whole),
    st.just(byte_by_byte),
    st.integers(1, 60).map(AtPosition),
    st.integers(0, 9).map(AtRandom),
    st.integers(0, 9).map(lambda seed: AtRandom(seed, 60)),
)
WAYS: dict[str, Cut] = {"whole": whole, "bytes": byte_by_byte, "random": AtRandom(5), "once": AtPosition(100)}
SERIAL = itertools.count(1)


class Conversation(RuleBasedStateMachine):
    """What is said is gathered, and held at the end: first with PostgreSQL, then through pgamb."""

    def __init__(self, twins: Twins, relays: list[CuttingRelay]) -> None:
        super().__init__()
        self._twins = twins
        self._relays = relays
        self._serial = next(SERIAL)
        self._cut: Cut = whole
        self._sessions = 1
        self._vocabulary: list[str] = []
        self._said: list[Exchange] = []
        self._speakers: list[int] = []
        self._packets = [NOTHING] * 3
        self._unsynced = [False] * 3
        self._gone = [False] * 3

    @initialize(
        cut=CUTS,
        sessions=st.sampled_from([1, 1, 2, 3]),
        themes=st.lists(st.sampled_from(sorted(talk.THEMES)), min_size=1, max_size=3),
    )
    def begin(self, cut: Cut, sessions: int, themes: list[str]) -> None:
        self._cut = cut
        self._sessions = sessions
        usual = (talk.TRANSACTIONS, talk.READS, talk.WRITES, talk.FAILURES)
        chosen = [talk.THEMES[theme] for theme in themes]
        self._vocabulary = [sql for theme in (*usual, *chosen, *chosen) for sql in theme]

    # Statements.

    @rule(speaker=SPEAKERS, number=st.integers(0), link=PACKETS)
    def say(self, speaker: int, number: int, link: str) -> None:
        self._add(speaker, query(self._sql(speaker, number)), link)

    @rule(speaker=SPEAKERS, numbers=st.lists(st.integers(0), min_size=2, max_size=3), link=PACKETS)
    def say_several(self, speaker: int, numbers: list[int], link: str) -> None:
        self._add(speaker, query("; ".join(self._sql(speaker, number) for number in numbers)), link)

    @rule(speaker=SPEAKERS, number=st.integers(0), value=VALUES, link=LINKS)
    def run(self, speaker: int, number: int, value: bytes | None, link: str) -> None:
        sql = self._sql(speaker, number)
        self._batch(speaker, run(sql, *self._values(sql, value)), link)

    @rule(speaker=SPEAKERS, number=st.integers(0), name=NAMES, link=LINKS)
    def prepare(self, speaker: int, number: int, name: str, link: str) -> None:
        self._batch(speaker, parse(self._sql(speaker, number), name), link)

    @rule(speaker=SPEAKERS, number=st.integers(0), name=NAMES, portal=PORTALS, limit=LIMITS, value=VALUES, link=LINKS)
    def prepare_and_execute(
        self, speaker: int, number: int, name: str, portal: str, limit: int, value: bytes | None, link: str
    ) -> None:
        sql = self._sql(speaker, number)
        bound = bind(*self._values(sql, value), statement=name, portal=portal)
        self._batch(speaker, parse(sql, name) + bound + execute(portal, limit), link)

    @rule(speaker=SPEAKERS, name=NAMES, portal=PORTALS, limit=LIMITS, values=st.lists(VALUES, max_size=2), link=LINKS)
    def execute_prepared(
        self, speaker: int, name: str, portal: str, limit: int, values: list[bytes | None], link: str
    ) -> None:
        bound = bind(*values, statement=name, portal=portal)
        self._batch(speaker, bound + describe(portal) + execute(portal, limit), link)

    @rule(speaker=SPEAKERS, name=NAMES, portal=PORTALS, limit=LIMITS, what=st.integers(0, 5), link=LINKS)
    def speak_of_names(self, speaker: int, name: str, portal: str, limit: int, what: int, link: str) -> None:
        said = (
            *(describe_statement(name), close_statement(name), bind(statement=name, portal=portal)),
            *(describe(portal), execute(portal, limit), close(portal)),
        )
        self._batch(speaker, said[what], link)

    @rule(speaker=SPEAKERS, link=LINKS)
    def say_nothing(self, speaker: int, link: str) -> None:
        self._batch(speaker, NOTHING, link)

    # Other messages.

    @rule(
        speaker=SPEAKERS,
        sql=st.sampled_from(talk.COPIES_IN),
        extended=st.booleans(),
        feed=st.integers(0),
        pause=st.booleans(),
    )
    def copy_in(self, speaker: int, sql: str, extended: bool, feed: int, pause: bool) -> None:
        feeds = talk.feeds(speaker % self._sessions + 1)
        begin = parse(sql) + bind() + execute() if extended else query(sql)
        if pause:
            # As libpq does it: with a Sync that PostgreSQL eats.
            self._add(speaker, begin + sync() if extended else begin, "wait")
            begin = NOTHING
        self._add(speaker, begin + feeds[feed % len(feeds)] + (sync() if extended else NOTHING), "wait")

    @rule(speaker=SPEAKERS, feed=st.integers(0))
    def feed_nobody(self, speaker: int, feed: int) -> None:
        feeds = talk.feeds(speaker % self._sessions + 1)
        self._add(speaker, feeds[feed % len(feeds)], "send")

    @rule(speaker=SPEAKERS, sql=st.sampled_from(talk.COPIES_OUT), extended=st.booleans(), link=LINKS)
    def copy_out(self, speaker: int, sql: str, extended: bool, link: str) -> None:
        if extended:
            self._batch(speaker, run(sql), link)
        else:
            self._add(speaker, query(sql), link)

    @rule(speaker=SPEAKERS, number=st.integers(0), link=PACKETS)
    def call(self, speaker: int, number: int, link: str) -> None:
        calls = talk.calls(speaker % self._sessions + 1)
        self._add(speaker, calls[number % len(calls)], link)

    @rule(speaker=SPEAKERS, message=st.sampled_from(talk.BROKEN), link=LINKS)
    def break_a_message(self, speaker: int, message: Exchange, link: str) -> None:
        self._batch(speaker, message, link)

    @rule(speaker=SPEAKERS, asleep=st.booleans())
    def cancel(self, speaker: int, asleep: bool) -> None:
        # What has been sent before must have been answered: it is not to be cancelled.
        self._batch(speaker, NOTHING, "wait")
        self._add(speaker, (query("SELECT pg_sleep(3)") + cancel()) if asleep else cancel(), "wait")

    @rule(speaker=SPEAKERS, large=st.sampled_from([70_000, 300_000, 1_100_000]), extended=st.booleans(), link=LINKS)
    @precondition(lambda self: self._cut is whole and len(self._said) > 5)
    def say_much(self, speaker: int, large: int, extended: bool, link: str) -> None:
        if extended:
            self._batch(speaker, run("SELECT length($1::text)", b"x" * large), link)
        else:
            self._add(speaker, Exchange(query(f"SELECT 1 --{'x' * large}").data, ("q",), f"Large({large})"), link)

    @rule(speaker=SPEAKERS, words=st.sampled_from(talk.LAST_WORDS))
    @precondition(lambda self: len(self._said) > 10)
    def end(self, speaker: int, words: Exchange) -> None:
        self._add(speaker, words, "wait")
        self._gone[speaker % self._sessions] = True

    def teardown(self) -> None:
        for speaker in range(self._sessions):
            self._batch(speaker, NOTHING, "wait")
            for exchange in AFTER:
                self._add(speaker, exchange, "wait")
        found = compare(self._twins, self._relays, self._cut, self._said, self._speakers)
        if found:
            pytest.fail(f"cut: {self._cut}\n{found}", pytrace=False)

    # Putting it together.

    def _sql(self, speaker: int, number: int) -> str:
        k = speaker % self._sessions + 1
        sql = self._vocabulary[number % len(self._vocabulary)]
        return sql.replace("{k}", str(k)).replace("{own}", f"{k}_{self._serial}")

    def _values(self, sql: str, value: bytes | None) -> list[bytes | None]:
        return [value for number in (1, 2) if f"${number}" in sql]

    def _batch(self, speaker: int, exchange: Exchange, link: str) -> None:
        """Add messages of the extended protocol."""
        speaker %= self._sessions
        if link == "flush":
            exchange += flush()
        elif link != "join":
            exchange += sync()
        self._add(speaker, exchange, "send" if link == "join" else link)
        self._unsynced[speaker] = link in ("join", "flush")

    def _add(self, speaker: int, exchange: Exchange, link: str) -> None:
        speaker %= self._sessions
        if self._gone[speaker]:
            return
        self._packets[speaker] += exchange
        if link != "send" and (self._packets[speaker].data or self._packets[speaker].cancels):
            self._said.append(self._packets[speaker])
            self._speakers.append(speaker)
            self._packets[speaker] = NOTHING


def compare(
    twins: Twins, relays: list[CuttingRelay], cut: Cut, said: Sequence[Exchange], speakers: Sequence[int] = ()
) -> str:
    # The log-in is not what is cut here: the relays read this at every piece.
    try:
        for relay in relays:
            relay.cut = cut
        return twins.compare(said, speakers=speakers, port=relays[0].port)
    finally:
        for relay in relays:
            relay.cut = whole


@pytest.fixture(scope="module")
def relays(bare_cluster: Cluster) -> Iterator[list[CuttingRelay]]:
    with running_relays(bare_cluster, *OPTIONS) as relays:
        yield relays


@pytest.mark.parametrize("cut", WAYS)
@pytest.mark.parametrize("name", FOUND)
def test_what_random_conversations_have_found(twins: Twins, relays: list[CuttingRelay], name: str, cut: str) -> None:
    found = compare(twins, relays, WAYS[cut], [*FOUND[name], *AFTER])
    if found:
        pytest.fail(found, pytrace=False)


def test_random_conversations(twins: Twins, relays: list[CuttingRelay]) -> None:
    class Held(Conversation):
        def __init__(self) -> None:
            super().__init__(twins, relays)

    run_state_machine_as_test(Held, settings=RANDOM)
