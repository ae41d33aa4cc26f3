"""What `pgamb client` and `pgamb server` say when they cannot start: status 2, an error, a hint, no traceback."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_status import pgamb

REGISTRY = ("--registry", "etcd://127.0.0.1:1")
COMMANDS = {
    "client": ("client", *REGISTRY, "--listen"),
    "server": ("server", *REGISTRY, "--dsn", "postgresql://127.0.0.1:1/postgres", "--listen"),
}
either = pytest.mark.parametrize("command", COMMANDS)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def refusal(command: str, listen: str) -> str:
    ended = pgamb(*COMMANDS[command], listen)
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    (error,) = [line for line in ended.stderr.splitlines() if line.startswith("pgamb: error: ")]
    assert any(line.startswith("hint: ") for line in ended.stderr.splitlines())
    return error


@either
def test_a_port_that_is_taken(command: str, taken: int) -> None:
    assert refusal(command, f"127.0.0.1:{taken}") == f"pgamb: error: --listen: 127.0.0.1:{taken} is already in use"


@either
def test_an_address_of_another_machine(command: str) -> None:
    assert refusal(command, "192.0.2.1:0").endswith("192.0.2.1:0 is not an address of this machine")


@either
def test_a_folder_that_is_not_there(command: str, tmp_path: Path) -> None:
    assert refusal(command, str(tmp_path / "no")).endswith("/no/.s.PGSQL.5432 does not exist")
