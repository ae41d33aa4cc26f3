"""Registry URLs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pgamb.errors import ConfigError
from pgamb.registry.etcd.security import Credentials, Tls
from pgamb.registry.model import Address
from pgamb.registry.source import (
    EtcdSource,
    StaticSource,
    open_announcer,
    open_registry,
    open_store,
    parse_registry_url,
)

H = Address("h", 2379)


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("etcd://h", EtcdSource((H,))),
        ("ETCD://h:2379/", EtcdSource((H,))),
        ("etcd://h,h2:1,[::1]:2", EtcdSource((H, Address("h2", 1), Address("::1", 2)))),
        ("etcd://h/a/b", EtcdSource((H,), prefix="/a/b")),
        ("etcd://u:p%40%2F:x@h", EtcdSource((H,), credentials=Credentials("u", "p@/:x"))),
        ("etcds://h", EtcdSource((H,), tls=Tls())),
        ("etcd://h?ca=/c%20a&cert=c&key=k", EtcdSource((H,), tls=Tls("/c a", "c", "k"))),
        ("etcds://u:p@h:1/x?ca=c", EtcdSource((Address("h", 1),), "/x", Credentials("u", "p"), Tls("c"))),
        ("static://h", StaticSource((Address("h", 5432),))),
        ("static:///run/pg:1,[::1]", StaticSource((Address("/run/pg", 1), Address("::1", 5432)))),
    ],
)
def test_urls_are_read(url: str, source: EtcdSource | StaticSource) -> None:
    assert parse_registry_url(url) == source


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("h:2379", "no scheme"),
        ("", "no scheme"),
        ("redis://h", "redis://"),
        ("patroni+etcd://h/scope", "not supported yet"),
        ("etcd://", "names no host"),
        ("etcd:///prefix", "names no host"),
        ("etcd://h,", "not an address"),
        ("etcd://h:x", "not a port"),
        ("etcd://h,h", "twice"),
        ("etcd://u@h", "without a password"),
        ("etcd://h?cafile=x", "not understood"),
        ("etcd://h?ca=", "not understood"),
        ("static://", "names no host"),
        ("static://h:70000", "not a port"),
    ],
)
def test_what_is_no_url_is_refused_with_advice(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_registry_url(url)
    assert caught.value.hint


def test_files_given_beside_the_url_come_first() -> None:
    source = parse_registry_url("etcd://h?ca=url&cert=c&key=k", ca_file="option")
    assert source == EtcdSource((H,), tls=Tls("option", "c", "k"))
    with pytest.raises(ConfigError):
        parse_registry_url("static://h", ca_file="x")


def test_the_password_is_never_shown() -> None:
    source = parse_registry_url("etcds://user:secret@h:1,[::1]:2/x")
    assert str(source) == "etcds://user@h:1,[::1]:2/x"
    assert "secret" not in repr(source)


def test_a_static_list_needs_somebody_who_asks_and_announces_nothing() -> None:
    with pytest.raises(ConfigError, match="needs somebody who asks"):
        open_registry("static://h", "db")
    for opening in (lambda: open_store("static://h"), lambda: open_announcer("static://h", "db", "pg1")):
        with pytest.raises(ConfigError, match="no registry to announce"):
            opening()
    with pytest.raises(ConfigError, match="TTL"):
        open_announcer("etcd://h", "db", "pg1", 0)
    with pytest.raises(ConfigError, match="is not a service name"):
        open_registry("etcd://h", "a/b")


def test_grpc_is_not_imported_before_an_etcd_is_opened() -> None:
    program = "import sys, pgamb.registry.source; print('grpc' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert answer.stdout.strip() == "False"
