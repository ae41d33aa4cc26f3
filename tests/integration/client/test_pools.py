"""What pools do when attempts to open backends fail, and when backends are lost: real sockets, scripted openers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from pgamb.client.catalogue_reader import CatalogueReader
from pgamb.client.catalogues import Catalogues
from pgamb.client.channel import Channel
from pgamb.client.opener import Opened, Opener
from pgamb.client.pools import Pools
from pgamb.client.waiting import Patience
from pgamb.config import ClientOptions
from pgamb.errors import ConnectionFailure, PgambError, PostgresError
from pgamb.registry.model import Address, Member, PrimaryRecord, Role, Topology
from pgamb.relay.freshness import Freshness
from pgamb.relay.frontend import Frontend
from pgamb.relay.reactor import Reactor, Source
from pgamb.relay.session import Relay
from pgamb.session.backend_login import Credentials, Greeting
from pgamb.session.limits import Limits
from pgamb.session.parameters import EMPTY, ParameterSets
from pgamb.session.reported import ReportedSets
from tests.support import wait_for_async

DEADLINE_S = 20.0
REPORTED = ReportedSets()
QUERY = b"Q\0\0\0\x0dSELECT 1\0"
PRIMARY = Member("pg1", Role.PRIMARY, (Address("127.0.0.1", 5432),), 1, "7", 150000)


class ScriptedOpener(Opener):
    """Opens what `answers` has for a user: an error, or one end of a pair of sockets."""

    def __init__(self) -> None:
        self.answers: dict[str, asyncio.Future[PgambError | socket.socket]] = {}
        self.asked: list[str] = []

    def __getitem__(self, user: str) -> asyncio.Future[PgambError | socket.socket]:
        return self.answers.setdefault(user, asyncio.get_running_loop().create_future())

    async def open(
        self,
        member: Member,
        database: str,
        user: str,
        credentials: Credentials,
        parameters: Mapping[str, str] | None = None,
    ) -> Opened:
        self.asked.append(user)
        answer = await asyncio.shield(self[user])
        if isinstance(answer, PgambError):
            raise answer
        # A socket is given once; who asks again waits for another one.
        del self.answers[user]
        return Opened(Channel(answer), Greeting({}, 1, b"abcd"), member.addresses[0], (0, ""))


@dataclass(slots=True)
class Rig:
    """Pools in front of one member, with applications to want something of them."""

    reactor: Reactor
    relay: Relay
    opener: ScriptedOpener
    pools: Pools
    stack: ExitStack
    tasks: set[asyncio.Task[None]]
    failures: list[BaseException] = field(default_factory=list)
    refreshed: int = 0

    def pair(self) -> tuple[socket.socket, socket.socket]:
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
        return ours, self.stack.enter_context(theirs)

    def query(self, user: str) -> socket.socket:
        """Let an application of that user ask something; returns its end."""
        ours, theirs = self.pair()
        pid = len(self.relay.frontends) + 1
        Frontend(
            self.reactor,
            ours.detach(),
            self.relay,
            self.pools.group("db", user),
            pid=pid,
            secret=b"abcd",
            parameters=EMPTY,
            startup=EMPTY,
            told=REPORTED.of({}),
            limits=Limits(),
        )
        theirs.sendall(QUERY)
        return theirs


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    loop = asyncio.get_running_loop()
    failures: list[BaseException] = []
    tasks: set[asyncio.Task[None]] = set()

    def defect(source: Source, error: Exception) -> None:
        failures.append(error)

    def spawn(work: Coroutine[object, object, None]) -> None:
        task = loop.create_task(work)
        tasks.add(task)

    reactor = Reactor(loop, defect)
    relay = Relay(
        ParameterSets(),
        Freshness(reactor, consistency="ambassador", replica_wait_s=0.0, max_lag_s=60.0, max_lag_bytes=1 << 30),
        session_mode=False,
        prepared_limit=10,
        on_frontend_closed=lambda frontend: None,
    )
    opener = ScriptedOpener()
    options = ClientOptions(registry="static://127.0.0.1:5432")
    statements = Catalogues(CatalogueReader(opener, None, {})).statements
    pools = Pools(options, reactor, opener, {}, spawn, statements, REPORTED)
    pools.apply(Topology("db", (PRIMARY,), PrimaryRecord("pg1", 1)))
    spawn(Patience(options, pools).tick_forever())
    with ExitStack() as stack:
        made = Rig(reactor, relay, opener, pools, stack, tasks, failures)

        def refresh() -> None:
            made.refreshed += 1

        pools.refresh = refresh
        yield made
        for frontend in list(relay.frontends.values()):
            frontend.close()
        for pool in pools.pools():
            pool.retire()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        reactor.close()
    assert not failures
    assert not [task for task in tasks if not task.cancelled() and task.exception()]


async def test_room_that_a_failed_attempt_leaves_is_used(rig: Rig) -> None:
    # Another pool that had found no room waited to its timeout: only a backend that closed made it try again.
    # Now everybody who waits at a member with room tries again within a tick.
    rig.pools.group("db", "first")
    used = rig.pools.used("pg1")
    assert used is not None
    used.limit = 1
    rig.query("first")
    await wait_for_async(lambda: rig.opener.asked == ["first"], DEADLINE_S, "the first is being opened")
    rig.query("second")
    (pool,) = [pool for pool in rig.pools.pools() if pool.user == "second"]
    await wait_for_async(lambda: pool.waiting_count == 1 and not pool.opening, DEADLINE_S, "the second finds no room")
    assert rig.opener.asked == ["first"]
    rig.opener["first"].set_result(PostgresError({"S": "FATAL", "C": "28P01", "M": "no"}))
    await wait_for_async(lambda: "second" in rig.opener.asked, DEADLINE_S, "the second is opened")


async def test_a_member_that_cannot_be_reached_makes_the_registry_look_again(rig: Rig) -> None:
    # Nobody told the registry: static:// noticed a promotion up to a second later than it could have.
    rig.query("first")
    await wait_for_async(lambda: bool(rig.opener.asked), DEADLINE_S, "it is being opened")
    rig.opener["first"].set_result(ConnectionFailure("gone"))
    await wait_for_async(lambda: rig.refreshed > 0, DEADLINE_S, "the registry is asked")


async def test_a_lost_backend_makes_the_registry_look_again(rig: Rig) -> None:
    rig.pools.group("db", "first")
    used = rig.pools.used("pg1")
    assert used is not None
    used.limit = 10
    ours, server = rig.pair()
    rig.opener["first"].set_result(ours)
    rig.query("first")
    loop = asyncio.get_running_loop()
    received = await asyncio.wait_for(loop.sock_recv(server, 1000), DEADLINE_S)
    assert received.endswith(QUERY)
    assert rig.refreshed == 0
    server.close()
    await wait_for_async(lambda: rig.refreshed > 0, DEADLINE_S, "the registry is asked")
