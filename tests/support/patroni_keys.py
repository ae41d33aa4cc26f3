"""The keys of a Patroni cluster as Patroni itself writes them, for tests without one."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pgamb.registry.patroni import PatroniKeys
from pgamb.registry.store import KeyValue

CLUSTER = "7412345678901234567"
ROOT = "/service/demo"
KEYS = PatroniKeys(ROOT)


def member(
    name: str, role: str = "replica", timeline: int | None = 1, *, state: str = "running", **more: object
) -> dict[str, object]:
    """Return the value of a member's key; `more` replaces parts of it."""
    value: dict[str, object] = {
        "conn_url": f"postgres://{name}.example:5432/postgres",
        "api_url": f"http://{name}.example:8008/patroni",
        "state": state,
        "role": role,
        "version": "4.1.5",
        "xlog_location": 67108864,
    }
    if timeline is not None:
        value["timeline"] = timeline
    if role == "replica":
        value |= {"replay_lsn": 67108864, "receive_lsn": 67108864, "replication_state": "streaming"}
    return value | more


def keys_of(
    members: Mapping[str, object],
    *,
    leader: str | None = None,
    initialize: str | None = CLUSTER,
    config: object = None,
    failover: object = None,
) -> dict[str, bytes]:
    """Return all keys with their values; what is None is not there, and a value that is bytes stands as it is."""
    texts = {KEYS.leader: leader, KEYS.initialize: initialize}
    values = {KEYS.member(name): value for name, value in members.items()}
    values |= {KEYS.config: config, KEYS.failover: failover}
    found = {key: text.encode() for key, text in texts.items() if text is not None}
    for key, value in values.items():
        if value is not None:
            found[key] = value if isinstance(value, bytes) else json.dumps(value).encode()
    return found


def items_of(keys: Mapping[str, bytes], revision: int = 1) -> dict[str, KeyValue]:
    return {key: KeyValue(key, value, revision) for key, value in keys.items()}
