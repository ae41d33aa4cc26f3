"""Removes the folder of a cluster, also when its owner is killed and can do nothing any more.

The processes of a cluster die with their owner by the kernel's doing; its files do not. So a shell waits at the other
end of a pipe: what wakes it is a word from us, or our end.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

# A killed PostgreSQL also leaves one small System V segment; postmaster.pid tells which (line 7: key, id).
SCRIPT = """
read -r _ || sleep 1
for file in "$1"/*/data/postmaster.pid; do
    id=$(sed -n '7s/^.* //p' "$file" 2>/dev/null)
    [ -n "$id" ] && ipcrm -m "$id" 2>/dev/null
done
[ "$2" = remove ] || exit 0
rm -rf "$1" 2>/dev/null || { sleep 2; rm -rf "$1"; }
"""
WAIT_S = 20.0


class Janitor:
    """Waits from its making on; `keep` leaves the folder, and cleans only what is outside of it."""

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        self._shell = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT, "janitor", str(folder), "keep" if keep else "remove"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C and a closed terminal are not meant for it
        )

    def clean(self) -> None:
        """Clean up now, and wait until that is done. Only once everything that uses the folder has ended."""
        if self._shell.poll() is None:
            try:
                self._shell.communicate(b"now\n", timeout=WAIT_S)
            except subprocess.TimeoutExpired:
                self._shell.kill()
                self._shell.wait()
