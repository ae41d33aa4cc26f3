"""Which programs are taken, and what is said when there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgamb.demo import binaries
from pgamb.demo.binaries import NEEDED, find_etcd, find_postgres
from pgamb.errors import ConfigError


def install(folder: Path, version: str, *, without: str = "") -> Path:
    """Make programs that only know their version."""
    folder.mkdir(parents=True)
    for name in NEEDED:
        if name != without:
            program(folder / name, f"{name} (PostgreSQL) {version}")
    return folder


def program(path: Path, says: str, status: int = 0) -> Path:
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without any PostgreSQL or etcd but those that the test makes."""
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(()))
    monkeypatch.setattr(binaries, "_package_folder", lambda name: None)


@pytest.mark.parametrize(("said", "major"), [("15.20 (Debian 15.20-0+deb12u1)", 15), ("17.10", 17), ("19beta2", 19)])
def test_the_named_folder_is_taken(tmp_path: Path, said: str, major: int) -> None:
    folder = install(tmp_path / "bin", said)
    found = find_postgres(environ={"PGAMB_PG_BIN": str(folder)})
    assert (found.folder, found.major, found.origin) == (folder, major, "PGAMB_PG_BIN")
    assert found.tool("psql") == folder / "psql"


@pytest.mark.parametrize(
    ("version", "without", "words"),
    [
        ("15.1", "pg_rewind", "has no pg_rewind"),
        ("12.9", "", "is PostgreSQL 12.9, and pgamb needs 13 or newer"),
        ("none", "", "its --version says"),
    ],
)
def test_a_named_folder_that_will_not_do_is_an_error(tmp_path: Path, version: str, without: str, words: str) -> None:
    folder = install(tmp_path / "bin", version, without=without)
    with pytest.raises(ConfigError, match=words) as caught:
        find_postgres(environ={"PGAMB_PG_BIN": str(folder)})
    assert "PGAMB_PG_BIN" in str(caught.value.hint)


@pytest.mark.usefixtures("nothing_else")
def test_initdb_on_the_path_tells_where_the_rest_is(tmp_path: Path) -> None:
    folder = install(tmp_path / "pgsql" / "bin", "16.3")
    assert find_postgres(environ={"PATH": str(folder)}).folder == folder


@pytest.mark.usefixtures("nothing_else")
def test_without_postgresql_the_ways_to_get_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no usable PostgreSQL") as caught:
        find_postgres(environ={"PATH": str(tmp_path)})
    hint = str(caught.value.hint)
    assert "apt-get install postgresql" in hint
    assert "pip install 'pgamb[demo]'" in hint
    assert "PGAMB_PG_BIN" in hint


@pytest.mark.usefixtures("nothing_else")
def test_without_etcd_the_ways_to_get_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no usable etcd") as caught:
        find_etcd(environ={"PATH": str(tmp_path)})
    hint = str(caught.value.hint)
    assert "apt-get install etcd-server" in hint
    assert "pip install 'pgamb[demo]'" in hint


def test_etcd_that_does_not_run_is_an_error_when_it_was_named(tmp_path: Path) -> None:
    path = program(tmp_path / "etcd", "no", status=3)
    with pytest.raises(ConfigError, match="does not run") as caught:
        find_etcd(environ={"PGAMB_ETCD": str(path)})
    assert "PGAMB_ETCD" in str(caught.value.hint)


def test_etcd_on_the_path(tmp_path: Path) -> None:
    path = program(tmp_path / "etcd", "etcd Version: 3.5.16")
    found = find_etcd(environ={"PATH": str(tmp_path)})
    assert (found.path, found.version, found.origin) == (path, "3.5.16", "system")
