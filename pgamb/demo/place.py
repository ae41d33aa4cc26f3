"""What has to be true of this machine before a cluster is started on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from pgamb.demo.ports import is_free
from pgamb.errors import ConfigError

# Three fresh servers need 150 MB; the rest is what a first pgbench writes, and its WAL.
NEEDED_BYTES = 500 * 1000 * 1000
LOOPBACK = ("127.0.0.1", "::1")


def check_port(port: int) -> None:
    """Raise ConfigError when nobody could listen on this port of the loopback interface."""
    for host in LOOPBACK:
        try:
            free = is_free(host, port)
        except PermissionError:
            raise ConfigError(
                f"port {port} is reserved for root (as all below 1024 are)",
                hint="take another, or a free one: --port 0",
            ) from None
        if not free:
            hint = "take another with --port, or a free one with --port 0"
            if port == 5432:
                hint += "; a PostgreSQL of this machine has it, perhaps: `systemctl status postgresql`"
            raise ConfigError(f"port {port} is taken: something listens on {host} already", hint=hint)


def check_disk(folder: Path, free_bytes: int | None = None) -> None:
    """Raise ConfigError when the disk under `folder` (or under the nearest of its parents that exists) is too small."""
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free if free_bytes is None else free_bytes
    if free < NEEDED_BYTES:
        raise ConfigError(
            f"{place} has {free // 1_000_000} MB left, and a cluster needs {NEEDED_BYTES // 1_000_000} MB",
            hint="make room, or name a folder on another disk with --directory",
        )
