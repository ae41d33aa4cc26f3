"""Looks at everything in this process at once, for whoever watches it. Nothing here is done per query."""

from __future__ import annotations

import time
from collections import Counter

from pgamb import __version__
from pgamb.client.login import LoginDesk
from pgamb.client.pools import Pools
from pgamb.client.positions import Positions
from pgamb.client.reach import Reach
from pgamb.client.replication import Replications
from pgamb.config import ClientOptions
from pgamb.observe.snapshot import (
    SESSION_STATES,
    FreshnessUse,
    Held,
    Logins,
    MemberUse,
    PoolUse,
    Readiness,
    RegistryState,
    Routes,
    Sessions,
    Snapshot,
)
from pgamb.registry.model import Member, Role
from pgamb.registry.source import Registry
from pgamb.relay.frontend import Frontend
from pgamb.relay.pool import Group, Pool
from pgamb.relay.routes import NAMES
from pgamb.relay.session import Relay
from pgamb.routing.freshness import format_floor, format_lsn

# The data plane's words for what a frontend does, where they are not the ones for people.
_STATES = {
    "settling": "preparing",
    "asking": "preparing",
    "restoring": "preparing",
    "stalled": "running",
    "active": "running",
}
_IDLE_STATUS = ord("I")


class Observer:
    """Implements `observe.snapshot.Observed`."""

    def __init__(
        self,
        options: ClientOptions,
        *,
        relay: Relay,
        pools: Pools,
        positions: Positions,
        desk: LoginDesk,
        replications: Replications,
        registry: Registry,
        reach: Reach,
        listening: tuple[str, ...],
    ) -> None:
        self._options = options
        self._relay = relay
        self._pools = pools
        self._positions = positions
        self._desk = desk
        self._replications = replications
        self._registry = registry
        self._reach = reach
        self._listening = listening
        self._started_at = time.monotonic()

    async def snapshot(self) -> Snapshot:
        """Look once; waits for a member's answer where nobody knows whether it is there."""
        readiness = await self.readiness()
        now = time.monotonic()
        topology = self._pools.topology
        primary = topology.primary_member() if topology is not None else None
        groups = self._pools.groups()
        return Snapshot(
            version=__version__,
            service=self._options.service,
            listening=self._listening,
            uptime_s=now - self._started_at,
            draining=self._desk.draining,
            readiness=readiness,
            registry=self._registry_state(),
            primary=primary.node if primary is not None else None,
            conflict=topology.conflict if topology is not None else (),
            topology_revision=topology.revision if topology is not None else None,
            members=tuple(self._member(member, now) for member in topology.members) if topology is not None else (),
            pools=tuple(_pool(pool, now) for pool in [*self._pools.pools(), *self._pools.ending()]),
            held=tuple(_held(group, now) for group in groups if group.held_count),
            sessions=self._sessions(),
            routes=self._routes(),
            freshness=self._freshness(),
            logins=self._logins(),
            gave_up=dict(self._pools.tally.gave_up),
        )

    async def readiness(self) -> Readiness:
        """Say whether a new application would be served, and why."""
        if self._desk.draining:
            return Readiness(False, "shutting down: no new application is let in")
        limit = self._options.max_connections
        if self._desk.sessions >= limit:
            return Readiness(False, f"all {limit} connections are in use (--max-connections)")
        return await self._reach.readiness(self._pools.topology, self._registry.status().last_error)

    def _registry_state(self) -> RegistryState:
        status = self._registry.status()
        return RegistryState(
            status.source, status.endpoint, status.connected, status.age_s, status.last_error, status.notes
        )

    def _member(self, member: Member, now: float) -> MemberUse:
        used = self._pools.used(member.node)
        tally = self._pools.tally
        down = used is not None and used.down_since is not None
        position = self._positions.position(member.node) if member.role is Role.REPLICA else None
        answer = position if position is not None and position.answered_at else None
        return MemberUse(
            node=member.node,
            role=member.role.value,
            state=member.state.value,
            addresses=tuple(map(str, member.addresses)),
            timeline=member.timeline,
            zone=member.zone,
            weight=member.weight,
            down_s=now - used.down_since if used is not None and used.down_since is not None else None,
            last_error=used.last_error if used is not None and down else None,
            backends=used.open if used is not None else 0,
            backends_limit=used.limit if used is not None else None,
            walsenders=self._replications.by_member()[member.node],
            opened=tally.backends_opened[member.node],
            refused=tally.backends_refused[member.node],
            lost=tally.backends_lost[member.node],
            replay_lsn=format_lsn(answer.replay_lsn) if answer is not None else None,
            lag_s=answer.lag_s if answer is not None else None,
            lag_bytes=answer.lag_bytes if answer is not None else None,
            unread_because=position.why_not if position is not None else "",
        )

    def _freshness(self) -> FreshnessUse:
        freshness = self._positions.freshness
        known = 0 < freshness.required <= freshness.answered
        return FreshnessUse(
            consistency=self._options.consistency,
            floor=format_floor(freshness.floor_lsn, freshness.timeline) if known else None,
            questions=freshness.questions,
            waiting=freshness.waiting_count,
            waits=freshness.waits,
            waits_ended_by_timeout=freshness.waits_ended_by_timeout,
        )

    def _routes(self) -> Routes:
        relay = self._relay
        by_reason = {name: count for (name, _), count in zip(NAMES, relay.routes, strict=True) if count}
        repeated = {"refused": relay.refusals, "conflict": relay.conflicts, "lost": relay.losses}
        return Routes(relay.to_primary, relay.to_replica, by_reason, repeated)

    def _sessions(self) -> Sessions:
        states = dict.fromkeys(SESSION_STATES, 0)
        pins: Counter[int] = Counter()
        names: dict[int, list[str]] = {}
        for frontend in self._relay.frontends.values():
            states[_doing(frontend)] += 1
            if frontend.pins:
                pins[frontend.pins] += 1
                if frontend.pins not in names:
                    names[frontend.pins] = frontend.pin_names
        replicating = self._replications.sessions.values()
        for session in replicating:
            states[session.state_name] += 1
        pinned_by: Counter[str] = Counter({"replication": len(replicating)} if replicating else {})
        for bits, count in pins.items():
            for name in names[bits]:
                pinned_by[name] += count
        return Sessions(
            open=self._desk.sessions,
            limit=self._options.max_connections,
            by_state=states,
            pinned=pins.total() + len(replicating),
            pinned_by=dict(pinned_by),
        )

    def _logins(self) -> Logins:
        tally = self._pools.tally
        return Logins(
            under_way=self._desk.logging_in,
            accepted=tally.accepted,
            refused=dict(tally.refused),
            timed_out=tally.timed_out,
            left=tally.left,
            cancel_requests=tally.cancel_requests,
        )


def _doing(frontend: Frontend) -> str:
    """Say what a session does, in one of SESSION_STATES."""
    state = frontend.state_name
    backend = frontend.backend
    if state != "active" or backend is None:
        return _STATES.get(state, state)
    if backend.owed:
        return "running"
    return "pinned" if backend.status == _IDLE_STATUS else "in_transaction"


def _pool(pool: Pool, now: float) -> PoolUse:
    first = pool.longest_waiting()
    holder = pool.longest_held()
    return PoolUse(
        member=pool.name,
        role="replica" if pool.replica else "primary",
        database=pool.database,
        user=pool.user,
        limit=pool.limit,
        open=pool.open_count,
        active=pool.active,
        idle=pool.idle_count,
        opening=pool.opening,
        waiting=pool.waiting_count,
        longest_wait_s=max(0.0, now - first.waiting_since) if first is not None else 0.0,
        longest_held_s=holder[1] if holder is not None else 0.0,
        longest_held_pid=holder[0].pid if holder is not None else None,
        longest_held_pins=tuple(holder[0].pin_names) if holder is not None else (),
        retired=pool.retired,
        checkouts=pool.checkouts,
        waits=pool.waits,
        units=pool.units,
        received_bytes=pool.received_bytes,
        sent_bytes=pool.sent_bytes,
    )


def _held(group: Group, now: float) -> Held:
    first = group.longest_held()
    return Held(
        database=group.database,
        user=group.user,
        sessions=group.held_count,
        longest_s=max(0.0, now - first.waiting_since) if first is not None else 0.0,
    )
