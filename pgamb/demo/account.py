"""The account that PostgreSQL runs as: PostgreSQL refuses to run as root."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from pgamb.errors import ConfigError

# The first exists where PostgreSQL came from a distribution's package, the second everywhere.
CANDIDATES = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, by number."""

    name: str
    uid: int
    gid: int

    def give(self, folder: Path) -> None:
        """Make this account the owner of `folder` and of everything in it."""
        os.chown(folder, self.uid, self.gid)
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(os.path.join(parent, name), self.uid, self.gid, follow_symlinks=False)

    def blocked_at(self, path: Path) -> Path | None:
        """Return the first folder on the way to `path` that this account cannot enter, by its mode bits."""
        for folder in reversed((path, *path.parents)):
            if not folder.is_dir():
                continue
            status = folder.stat()
            shift = 6 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 0
            if not status.st_mode >> shift & 1:
                return folder
        return None


def unprivileged_account() -> Account | None:
    """Return whom PostgreSQL has to run as: None where that is simply us, an ordinary account where we are root."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise ConfigError(
        "PostgreSQL refuses to run as root, and this machine has no ordinary user to run it as",
        hint="add one with `useradd --system postgres`, or run this as an ordinary user",
    )
