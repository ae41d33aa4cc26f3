"""A snapshot to look at: two members, one of them down, names that want escaping, somebody held."""

from __future__ import annotations

from pgamb.observe.snapshot import (
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

EVIL = '<script>alert("x")</script>\n\\'


def member(node: str, **changes: object) -> MemberUse:
    given: dict[str, object] = {
        "node": node,
        "role": "replica",
        "state": "running",
        "addresses": ("10.0.0.1:5432",),
        "timeline": 3,
        "zone": "",
        "weight": 1,
        "down_s": None,
        "last_error": None,
        "backends": 4,
        "backends_limit": None,
        "walsenders": 1,
        "opened": 9,
        "refused": 2,
        "lost": 1,
        "replay_lsn": "0/3000000",
        "lag_s": 0.5,
        "lag_bytes": 2048,
        "unread_because": "",
        **changes,
    }
    return MemberUse(**given)  # type: ignore[arg-type]


def pool(name: str, **changes: object) -> PoolUse:
    given: dict[str, object] = {
        "member": name,
        "role": "primary",
        "database": "shop",
        "user": "app",
        "limit": 20,
        "open": 4,
        "active": 3,
        "idle": 1,
        "opening": 2,
        "waiting": 5,
        "longest_wait_s": 1.5,
        "longest_held_s": 75.0,
        "longest_held_pid": 17,
        "longest_held_pins": ("listen",),
        "retired": False,
        "checkouts": 1000,
        "waits": 50,
        "units": 1200,
        "received_bytes": 123_456,
        "sent_bytes": 123_000,
        **changes,
    }
    return PoolUse(**given)  # type: ignore[arg-type]


def snapshot(**changes: object) -> Snapshot:
    given: dict[str, object] = {
        "version": "1.2",
        "service": "db",
        "listening": ("127.0.0.1:5432",),
        "uptime_s": 3700.0,
        "draining": False,
        "readiness": Readiness(True, "pg1, the primary, answers"),
        "registry": RegistryState("etcd://10.0.0.9:2379", "10.0.0.9:2379", True, 0.25, None),
        "primary": "pg1",
        "conflict": (),
        "topology_revision": 7,
        "members": (
            member("pg1", role="primary", backends_limit=97, replay_lsn=None, lag_s=None, lag_bytes=None),
            member("pg2", down_s=12.0, last_error="Connection refused", unread_because="too far behind (--max-lag)"),
        ),
        "pools": (pool("pg1"), pool("pg2", role="replica", database=EVIL)),
        "held": (Held("shop", "app", 3, 2.5),),
        "sessions": Sessions(
            open=8,
            limit=10_000,
            by_state={"idle": 1, "running": 2, "in_transaction": 0, "pinned": 1, "waiting": 4, "preparing": 0},
            pinned=2,
            pinned_by={"listen": 2, "temporary": 1},
        ),
        "routes": Routes(100, 900, {"read": 890, "write": 100}, {"refused": 1, "conflict": 2, "lost": 0}),
        "freshness": FreshnessUse("ambassador", "0/3000800@3", 5000, 2, 70, 8),
        "logins": Logins(1, 30, {"28P01": 4}, 2, 3, 6),
        "gave_up": {"53300": 11},
        **changes,
    }
    return Snapshot(**given)  # type: ignore[arg-type]
