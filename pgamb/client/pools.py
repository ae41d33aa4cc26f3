"""The pools of a process: opens backends for them, and follows the topology.

Responsibility: everything about pools that is not done per query. The data plane asks for backends (`opener`); they
are opened here, one task each, and a member that cannot be reached is left out until it answers again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping

from pgamb.client.capacity import ask_capacity
from pgamb.client.member import UsedMember, forsake_stale
from pgamb.client.opener import Opened, Opener
from pgamb.client.tally import Tally
from pgamb.config import ClientOptions
from pgamb.errors import ConnectionFailure, PgambError, PostgresError
from pgamb.registry.model import Member, MemberState, Topology
from pgamb.relay.backend import Backend
from pgamb.relay.freshness import Position
from pgamb.relay.pool import Group, Pool
from pgamb.relay.reactor import Reactor
from pgamb.relay.statement import Statements
from pgamb.session.backend_login import Credentials
from pgamb.session.parameters import EMPTY
from pgamb.session.reported import ReportedSets

log = logging.getLogger(__name__)

# How soon, and how seldom at most, a member that failed is tried again.
RETRY_FIRST_S = 0.2
RETRY_LAST_S = 2.0

# The server is starting, stopping, or full: what a moment may change.
_PASSING = ("57P01", "57P02", "57P03", "53300", "53400")


class Pools:
    """All pools of a process, by member, database and user."""

    def __init__(
        self,
        options: ClientOptions,
        reactor: Reactor,
        opener: Opener,
        credentials: Mapping[str, Credentials],
        spawn: Callable[..., object],
        statements: Callable[[str, str], Statements],
        reported_sets: ReportedSets,
    ) -> None:
        self._options = options
        self._reactor = reactor
        self._opener = opener
        self._credentials = credentials
        self._spawn = spawn
        self._statements = statements
        self._reported_sets = reported_sets
        self._members: dict[str, UsedMember] = {}
        self._groups: dict[tuple[str, str], Group] = {}
        self._backends: dict[Backend, tuple[UsedMember, Opened]] = {}
        self.topology: Topology | None = None
        self.tally = Tally()
        self.refresh: Callable[[], object] = lambda: None
        self.position: Callable[[str], Position | None] = lambda node: None

    # Asking.

    def group(self, database: str, user: str) -> Group:
        """Return the pools of a database and user, made when they are first asked for."""
        key = (database, user)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(database, user, self._statements(database, user))
            self._assign(group)
        return group

    def welcomers(self) -> tuple[Member, ...]:
        """Return the members that a new session's parameters can be asked of, the primary first."""
        if self.topology is None:
            return ()
        primary = self.topology.primary_member()
        return ((primary,) if primary is not None else ()) + self.topology.replicas()

    def pools(self) -> list[Pool]:
        """Return all pools in use."""
        return [pool for state in self._members.values() for pool in state.pools.values()]

    def ending(self) -> list[Pool]:
        """Return the pools that are used no more, but have backends whose transactions have not ended."""
        homes = {backend.home for backend in self._backends}
        return [home for home in homes if isinstance(home, Pool) and home.retired]

    def used(self, node: str) -> UsedMember | None:
        """Return what is known of a member that has been used."""
        return self._members.get(node)

    def groups(self) -> list[Group]:
        return list(self._groups.values())

    def backends(self) -> Iterable[Backend]:
        """Give all that are open."""
        return self._backends.keys()

    def address_of(self, backend: Backend) -> Opened | None:
        """Return how a backend was opened, None if it is gone."""
        entry = self._backends.get(backend)
        return entry[1] if entry is not None else None

    def node_of(self, backend: Backend) -> str | None:
        """Return the member that a backend is of, None if it is gone."""
        entry = self._backends.get(backend)
        return entry[0].member.node if entry is not None else None

    # The topology.

    def apply(self, topology: Topology) -> None:
        """Use what the registry says from now on."""
        self.topology = topology
        wanted = {member.node: member for member in topology.members}
        retired = []
        for node, state in list(self._members.items()):
            member = wanted.get(node)
            if member is None or member.addresses != state.member.addresses or member.role != state.member.role:
                retired.append(self._members.pop(node))
            else:
                state.member = member
        for group in self._groups.values():
            self._assign(group)
        draining = [state for state in self._members.values() if state.member.state is MemberState.DRAINING]
        for pool in [pool for state in draining for pool in state.pools.values()]:
            self._requeue(pool)  # what waits has not begun
        for state in retired:
            for pool in state.pools.values():
                pool.retire()
                if state.member.node not in wanted:
                    pool.forsake_reads(ConnectionFailure("it is no member any more"))
                self._requeue(pool)
        forsake_stale([*self.pools(), *self.ending()], topology.primary)

    def _assign(self, group: Group) -> None:
        """Give a group its pools by what is known now."""
        topology = self.topology
        if topology is None:
            return
        primary = topology.primary_member()
        replicas = [m for m in topology.replicas() if not self._is_down(m)]
        if self._options.zone and any(m.zone == self._options.zone for m in replicas):
            replicas = [m for m in replicas if m.zone == self._options.zone]
        group.set_members(
            self._pool(primary, group, replica=False)
            if primary is not None and primary.state is MemberState.RUNNING
            else None,
            [self._pool(member, group, replica=True) for member in replicas],
        )

    def _is_down(self, member: Member) -> bool:
        state = self._members.get(member.node)
        return state is not None and state.down_since is not None

    def _pool(self, member: Member, group: Group, *, replica: bool) -> Pool:
        state = self._members.setdefault(member.node, UsedMember(member))
        key = (group.database, group.user)
        pool = state.pools.get(key)
        if pool is None:
            pool = state.pools[key] = Pool(
                member,
                name=member.node,
                database=group.database,
                user=group.user,
                replica=replica,
                limit=self._options.pool_size,
                weight=max(1, member.weight),
                lifetime_s=self._options.backend_lifetime_s,
                opener=self._wanted,
                on_backend_gone=self._gone,
                on_backend_closed=self._closed,
                on_abandoned=self._abandoned,
                on_role=self._role_reported,
            )
        pool.position = self.position(member.node)
        return pool

    def forsake_reads(self, node: str) -> None:
        """A replica has fallen silent: reads that it has not begun to answer are asked of others."""
        state = self._members.get(node)
        for pool in state.pools.values() if state is not None else ():
            if pool.replica:
                pool.forsake_reads(ConnectionFailure("it has fallen silent"))

    def give_up_at(self, place: object, error: ConnectionFailure) -> None:
        """Lose all backends that are there, and leave their member out until it answers."""
        lost = [(backend, state) for backend, (state, opened) in self._backends.items() if opened.reached == place]
        for state in {id(state): state for _, state in lost}.values():
            if self._members.get(state.member.node) is state:
                self._down(state, error.message)
        for backend, _ in lost:
            backend.fail(error)

    def _requeue(self, pool: Pool) -> None:
        """Find new places for those who wait at a pool that cannot serve them."""
        waiting = pool.take_waiting()
        if waiting:
            self.group(pool.database, pool.user).requeue(waiting)

    # Opening.

    def _wanted(self, pool: Pool) -> None:
        """The data plane wants one more backend (called in C: nothing may be done here and now)."""
        self._spawn(self._open(pool))

    async def _open(self, pool: Pool) -> None:
        state = self._members.get(pool.name)
        if pool.retired or state is None or state.pools.get((pool.database, pool.user)) is not pool:
            pool.open_ended()
            return
        if not state.room and not self._make_room(state, pool):
            # Whoever closes a backend of this member makes us try again.
            pool.open_ended()
            return
        state.open += 1
        try:
            opened = await self._opener.open(
                pool.member, pool.database, pool.user, self._credentials.get(pool.user, Credentials())
            )
            if state.limit is None:
                state.limit = await ask_capacity(opened)
        except BaseException as error:
            state.open -= 1
            pool.open_ended()
            if not isinstance(error, PgambError):
                raise
            self._open_failed(pool, state, error)
            return
        self._up(state)
        self.adopt(pool, state, opened)

    def adopt(self, pool: Pool, state: UsedMember, opened: Opened) -> None:
        """Give a new connection to its pool."""
        given = opened.channel.hand_over()
        backend = Backend(
            self._reactor,
            given.fd,
            pool,
            EMPTY,
            opened.greeting.pid,
            opened.greeting.secret,
            reported=self._reported_sets.of_statuses(opened.greeting.parameters),
            in_recovery=opened.greeting.parameters.get("in_hot_standby") == "on",
            tls=given.tls,
            tls_in=given.tls_in,
            tls_out=given.tls_out,
        )
        self._backends[backend] = (state, opened)
        self.tally.backends_opened[pool.name] += 1
        pool.add(backend)

    def _make_room(self, state: UsedMember, pool: Pool) -> bool:
        """Close the idle backend of this member that has been idle longest; return whether there was one."""
        others = [p for p in state.pools.values() if p is not pool and p.open_count]
        idle = [p for p in others if p.idle_count]
        if idle:
            min(idle, key=lambda p: p.oldest_idle()).close_oldest()
            return True
        if others and not pool.open_count:
            # Nobody may starve because others are busy: the largest pool gives one up when it comes back.
            max(others, key=lambda p: p.open_count).surrender = 1
        return False

    def _open_failed(self, pool: Pool, state: UsedMember, error: PgambError) -> None:
        self.tally.backends_refused[pool.name] += 1
        passing = isinstance(error, ConnectionFailure) or (
            isinstance(error, PostgresError) and error.sqlstate in _PASSING
        )
        if not passing:
            # PostgreSQL refuses this user or database: waiting would not change that.
            kv = {"member": pool.name, "database": pool.database, "user": pool.user, "error": error.message}
            log.warning("backend.refused", extra={"kv": kv})
            pool.fail_waiting(error)
            return
        if isinstance(error, PostgresError) and error.sqlstate == "53300":
            # Others use this server, too: what we have is what it leaves us, for now.
            state.limit = max(1, state.open)
            log.warning("member.full", extra={"kv": {"member": pool.name, "open": state.open, "error": error.message}})
            self._spawn(self._retry_later(pool, state))
            return
        self._down(state, error.message)

    async def _retry_later(self, pool: Pool, state: UsedMember) -> None:
        await asyncio.sleep(RETRY_LAST_S)
        # Ask again what there is room for.
        state.limit = None
        pool.retry()

    # Members that fail.

    def _down(self, state: UsedMember, error: str) -> None:
        """Leave a member out, and look after it until it answers."""
        state.last_error = error
        if state.down_since is None:
            state.down_since = time.monotonic()
            self.refresh()
            log.warning("member.down", extra={"kv": {"member": state.member.node, "error": error}})
            for group in self._groups.values():
                self._assign(group)
            for pool in state.pools.values():
                if pool.replica:
                    self._requeue(pool)
        if not state.reviving:
            state.reviving = True
            self._spawn(self._revive(state))

    def _up(self, state: UsedMember) -> None:
        if state.down_since is None:
            return
        log.info(
            "member.up",
            extra={"kv": {"member": state.member.node, "after_s": round(time.monotonic() - state.down_since, 1)}},
        )
        state.down_since = None
        for group in self._groups.values():
            self._assign(group)
        for pool in state.pools.values():
            pool.retry()

    async def _revive(self, state: UsedMember) -> None:
        """Try to log in until it works; then the member takes part again."""
        delay_s = RETRY_FIRST_S
        try:
            while state.down_since is not None and self._members.get(state.member.node) is state:
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_LAST_S)
                for pool in list(state.pools.values()):
                    state.open += 1
                    try:
                        opened = await self._opener.open(
                            pool.member, pool.database, pool.user, self._credentials.get(pool.user, Credentials())
                        )
                    except PgambError as error:
                        state.open -= 1
                        self.tally.backends_refused[pool.name] += 1
                        if isinstance(error, PostgresError) and error.sqlstate not in _PASSING:
                            # It answers; that this user may not log in is another matter.
                            self._up(state)
                            break
                        state.last_error = error.message
                        continue
                    except BaseException:
                        state.open -= 1
                        raise
                    if pool.retired:
                        state.open -= 1
                        opened.channel.close()
                        continue
                    pool.expect_one()
                    self.adopt(pool, state, opened)
                    self._up(state)
                    break
                if not state.pools:
                    return
        finally:
            state.reviving = False

    # What the data plane tells.

    def _gone(self, pool: Pool, backend: Backend, error: PgambError) -> None:
        """A backend was lost."""
        self.tally.backends_lost[pool.name] += 1
        entry = self._backends.get(backend)
        now = time.monotonic()
        if entry is not None and now - entry[0].lost_logged_at > 1.0:
            # A server that stops ends all its sessions: one line tells of it.
            entry[0].lost_logged_at = now
            self.refresh()
            log.info("backend.lost", extra={"kv": {"member": pool.name, "pid": backend.pid, "error": error.message}})
        self._closed(pool, backend)

    def _closed(self, pool: Pool, backend: Backend) -> None:
        """A backend was closed, by whoever: there is room for another one."""
        entry = self._backends.pop(backend, None)
        if entry is None:
            return
        state = entry[0]
        state.open -= 1
        for other in state.pools.values():
            if other is not pool and other.waiting_count:
                self._reactor.call_soon(other.retry)

    def _abandoned(self, pool: Pool, backend: Backend) -> None:
        """A backend was closed in the middle of a statement: end the statement, too."""
        opened = self.address_of(backend)
        self._closed(pool, backend)
        if opened is not None:
            self._spawn(self._opener.send_cancel(opened))

    def _role_reported(self, pool: Pool, in_recovery: bool) -> None:
        """A backend says that its server was promoted: what the registry says will follow."""
        log.info("member.role_changed", extra={"kv": {"member": pool.name, "in_recovery": in_recovery}})
        self.refresh()
