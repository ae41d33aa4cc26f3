"""Asks every proxy of a service to send nothing new to one member, so that it can be stopped without an error.

The request is a key of its own, beside the member's: its agent, who may be dead, has no part in it, and a proxy hears
of it as fast as of anything else. It ends with its lease: whoever asked and forgot leaves nothing behind.
"""

from __future__ import annotations

from pgamb.errors import ConfigError
from pgamb.registry.keys import DEFAULT_PREFIX, Keys, decode, encode
from pgamb.registry.lease import new_lease_id
from pgamb.registry.model import DrainRequest, Member
from pgamb.registry.store import Put, Store


class Drains:
    """The drain requests of one service; raises RegistryError where the store does. `close` closes the store."""

    def __init__(self, store: Store, service: str, *, prefix: str = DEFAULT_PREFIX) -> None:
        self._store = store
        self._keys = Keys(service, prefix)

    async def member(self, node: str) -> Member:
        """Return the member of that name. Raises ConfigError, which names those that there are."""
        problems: list[str] = []
        item = await self._store.get(self._keys.member(node))
        member = None if item is None else decode(item, Member, problems)
        if member is None:
            listing = await self._store.list(self._keys.members_range)
            known = ", ".join(filter(None, (self._keys.member_node(item.key) for item in listing.items)))
            raise ConfigError(
                problems[0] if problems else f'no member "{node}" is registered in service "{self._keys.service}"',
                hint=f"Registered are: {known}." if known else "Nothing is registered there: see --service.",
            )
        return member

    async def begin(self, member: Member, hold_s: int) -> None:
        """Let `member` drain, for `hold_s` at most."""
        lease_id = new_lease_id()
        await self._store.grant(lease_id, hold_s)
        await self._store.put(
            Put(self._keys.drain(member.node), encode(DrainRequest(member.role, member.timeline)), lease_id)
        )

    async def end(self, node: str) -> bool:
        """Take the request back; return whether there was one."""
        return await self._store.delete(self._keys.drain(node))

    async def close(self) -> None:
        await self._store.close()
