"""Debian's source packages, by `apt-get source` with an apt state of our own: no root, and /etc/apt is only read.

The archive is the one that this machine's own apt has: its `deb` lines are taken as they are, for the release that is
asked for, as `deb-src` lines. What was fetched stays in `.compat/`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgamb.errors import PgambError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# The archive proper and its security updates end so on every mirror; other people's archives have other components.
_ARCHIVE = re.compile(r"/debian(-security)?/?$")
ALWAYS_NEEDED = ("dpkg-dev",)


class Missing(PgambError):
    """Something that has to be on this machine is not."""


def missing_packages(needed: Sequence[str]) -> list[str]:
    """Return those of Debian's packages that are not installed here."""
    if shutil.which("dpkg-query") is None:
        raise Missing("the suites are built from Debian's source packages, and this is no Debian")
    return [package for package in needed if _installed_source(package) is None]


@dataclass(frozen=True, slots=True)
class Debian:
    """The packages that lie, or will, in the folder `cache`."""

    cache: Path

    @property
    def release(self) -> str:
        """The code name of this machine's own release."""
        return _codename() or ""

    def source(self, package: str, release: str) -> Path:
        """Return the folder of an unpacked source package, patches applied: of the version installed here, if it is.

        Raises Missing when it cannot be had.
        """
        folder = self.cache / "source" / f"{package}-{release}"
        with self._locked():
            done = folder / ".unpacked"
            wanted = _installed_source(package)
            if not done.exists() or (wanted and done.read_text() != wanted):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                options = self._apt_options(release)
                self._apt([*options, "update"], folder)
                try:
                    self._apt([*options, "source", f"{package}={wanted}" if wanted else package], folder)
                except Missing:
                    # The archive keeps only the newest versions; any of that release is better than none.
                    if not wanted:
                        raise
                    self._apt([*options, "source", package], folder)
                done.write_text(wanted or "")
        return next(path for path in sorted(folder.iterdir()) if path.is_dir())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.cache.mkdir(parents=True, exist_ok=True)
        with (self.cache / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _apt_options(self, release: str) -> list[str]:
        apt = self.cache / "apt" / release
        for name in ("state/lists/partial", "cache/archives/partial", "empty"):
            (apt / name).mkdir(parents=True, exist_ok=True)
        sources = apt / "release.sources"
        sources.write_text("\n".join(_sources(release)))
        return [
            *("-o", f"Dir::State={apt / 'state'}", "-o", f"Dir::Cache={apt / 'cache'}"),
            *("-o", f"Dir::Etc::SourceList={sources}", "-o", f"Dir::Etc::SourceParts={apt / 'empty'}"),
            # As root, apt would fetch as another user, who may not write here.
            *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "-qq"),
        ]

    def _apt(self, words: Sequence[str], folder: Path) -> None:
        done = subprocess.run(
            ["apt-get", *words], cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True
        )
        if done.returncode:
            raise Missing(f"`apt-get {' '.join(words[-2:])}` failed", detail=done.stderr.strip()[-2000:])


def _sources(release: str) -> Iterator[str]:
    """Yield the stanzas of a `.sources` file: the archives of this machine, for that release, source packages only."""
    words = ["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"]
    known = subprocess.run(["apt-get", *words], capture_output=True, text=True, check=True).stdout
    found = False
    for line in dict.fromkeys(known.splitlines()):
        uri, suite, component = line.split()
        base, dash, kind = suite.partition("-")
        if not _ARCHIVE.search(uri) or component != "main" or base not in (_codename(), "stable"):
            continue
        found = True
        signed = f"Signed-By: {KEYRING}\n" if KEYRING.exists() else ""
        yield f"Types: deb-src\nURIs: {uri}\nSuites: {release}{dash}{kind}\nComponents: main\n{signed}"
    if not found:
        raise Missing("this machine's apt names no Debian archive", hint="add Debian's to /etc/apt/sources.list.d")


def _codename() -> str | None:
    found = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    return found[1] if found else None


def _installed_source(package: str) -> str | None:
    """Return the version of the source that an installed package was built from; None if it is not installed."""
    words = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${source:Version}", package]
    done = subprocess.run(words, capture_output=True, text=True)
    status, _, version = done.stdout.partition(" ")
    return version if done.returncode == 0 and status == "installed" else None
