"""The address and the name that a member is announced with."""

from __future__ import annotations

import pytest

from pgamb.config.listen import ListenAddress
from pgamb.registry.model import Address
from pgamb.server.advertise import advertised_address, is_local, node_name

LOCAL, REMOTE = ("127.0.0.1",), ("10.0.0.9", "127.0.0.1")


def choose(
    advertise: str | None = None,
    listen: str | None = None,
    postgres: str = "10.0.0.1",
    registry: tuple[str, ...] = REMOTE,
) -> tuple[str, bool]:
    """Answer the address, and whether there is a warning."""
    chosen = advertised_address(
        advertise=None if advertise is None else Address(advertise, 1),
        listen=None if listen is None else ListenAddress(listen, 0),
        listen_port=6000,
        postgres=Address(postgres, 5433),
        own_ip="192.0.2.7",
        registry_hosts=registry,
    )
    return str(chosen.address), chosen.warning is not None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ("10.0.0.1:5433", False)),
        ({"postgres": "127.0.0.1"}, ("127.0.0.1:5433", True)),
        ({"postgres": "127.0.0.1", "registry": LOCAL}, ("127.0.0.1:5433", False)),
        ({"postgres": "/run/postgresql"}, ("/run/postgresql:5433", True)),
        ({"listen": "*"}, ("192.0.2.7:6000", False)),
        ({"listen": "192.0.2.8"}, ("192.0.2.8:6000", False)),
        ({"listen": "localhost"}, ("localhost:6000", True)),
        ({"listen": "localhost", "advertise": "db1"}, ("db1:1", False)),
        ({"postgres": "127.0.0.1", "advertise": "127.0.0.1"}, ("127.0.0.1:1", False)),
    ],
)
def test_the_advertised_address(arguments: dict[str, object], expected: tuple[str, bool]) -> None:
    assert choose(**arguments) == expected  # type: ignore[arg-type]


def test_the_warning_says_what_to_do() -> None:
    chosen = advertised_address(
        advertise=None,
        listen=None,
        listen_port=0,
        postgres=Address("127.0.0.1"),
        own_ip="192.0.2.7",
        registry_hosts=REMOTE,
    )
    assert chosen.warning is not None
    assert "127.0.0.1:5432" in chosen.warning
    assert "--advertise HOST:PORT" in chosen.warning


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("/run", True),
        ("10.0.0.1", False),
        ("db", False),
    ],
)
def test_local_addresses(host: str, local: bool) -> None:
    assert is_local(Address(host)) is local


@pytest.mark.parametrize(
    ("wanted", "cluster_name", "expected"),
    [
        ("mine", "pg1", "mine"),
        (None, "pg1", "pg1"),
        (None, "", "host-5432"),
        (None, "15/main", "host-5432"),
        (None, "a b", "host-5432"),
        (None, "x" * 64, "host-5432"),
    ],
)
def test_node_names(wanted: str | None, cluster_name: str, expected: str) -> None:
    assert node_name(wanted, cluster_name, "host", 5432) == expected


def test_a_host_name_is_made_fit_for_a_key() -> None:
    assert node_name(None, "", "a/b c", 1) == "a-b-c-1"
    assert len(node_name(None, "", "h" * 200, 65535)) <= 63
