"""What is said of a machine where a cluster cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgamb.demo import place
from pgamb.demo.account import Account
from pgamb.demo.cluster import Cluster
from pgamb.errors import ConfigError
from tests.support.servers import server_folder


def test_a_small_disk_is_named_with_what_it_has_and_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path} has 499 MB left, and a cluster needs 500 MB") as caught:
        place.check_disk(tmp_path / "not" / "yet", free_bytes=499_900_000)
    assert "--directory" in str(caught.value.hint)
    place.check_disk(tmp_path, free_bytes=500_000_000)


@pytest.mark.parametrize(("port", "word"), [(6000, "--port 0"), (5432, "systemctl status postgresql")])
def test_a_taken_port_comes_with_a_way_out(monkeypatch: pytest.MonkeyPatch, port: int, word: str) -> None:
    monkeypatch.setattr(place, "is_free", lambda host, port: host != "::1")
    with pytest.raises(ConfigError, match=f"port {port} is taken: something listens on ::1") as caught:
        place.check_port(port)
    assert word in str(caught.value.hint)


def test_a_port_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(host: str, port: int) -> bool:
        raise PermissionError

    monkeypatch.setattr(place, "is_free", refuse)
    with pytest.raises(ConfigError, match="port 80 is reserved for root"):
        place.check_port(80)


def test_the_folder_that_an_account_cannot_enter() -> None:
    stranger = Account("stranger", os.getuid() + 4321, os.getgid() + 4321)
    with server_folder() as folder:
        closed = folder / "closed"
        (closed / "inner").mkdir(parents=True)
        closed.chmod(0o711)
        assert stranger.blocked_at(closed / "inner") is None
        closed.chmod(0o700)
        assert stranger.blocked_at(closed / "inner" / "not yet") == closed
        assert Account("owner", os.getuid(), os.getgid()).blocked_at(closed) is None


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgamb.demo.cluster.unprivileged_account", lambda: None)
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        Cluster(directory=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_agents_without_etcd_are_refused() -> None:
    with pytest.raises(ConfigError, match="agents need an etcd"):
        Cluster(etcd=False)
