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
    PatroniSource,
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
        ("patroni+etcd://h/service/demo", PatroniSource(EtcdSource((H,), "/service/demo"))),
        ("patroni+etcd://h/demo", PatroniSource(EtcdSource((H,), "/service/demo"))),
        ("patroni+etcd://h,h2:1/a/b/demo/", PatroniSource(EtcdSource((H, Address("h2", 1)), "/a/b/demo"))),
        ("patroni+etcd://h//demo", PatroniSource(EtcdSource((H,), "/demo"))),
        ("PATRONI+ETCDS://h/demo", PatroniSource(EtcdSource((H,), "/service/demo", tls=Tls()))),
        (
            "patroni+etcd://u:p%2F@h/n/demo?ca=c",
            PatroniSource(EtcdSource((H,), "/n/demo", Credentials("u", "p/"), Tls("c"))),
        ),
        ("static://h", StaticSource((Address("h", 5432),))),
        ("static:///run/pg:1,[::1]", StaticSource((Address("/run/pg", 1), Address("::1", 5432)))),
    ],
)
def test_urls_are_read(url: str, source: EtcdSource | PatroniSource | StaticSource) -> None:
    assert parse_registry_url(url) == source


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("h:2379", "no scheme"),
        ("", "no scheme"),
        ("redis://h", "redis://"),
        ("patroni+consul://h/scope", "in etcd v3"),
        ("patroni://h/scope", "in etcd v3"),
        ("patroni+etcd://h", "names no scope"),
        ("patroni+etcd://h/", "names no scope"),
        ("patroni+etcd://h/a/%20b", "is not a namespace or scope name"),
        ("patroni+etcd:///service/demo", "names no host"),
        ("patroni+etcd://u@h/demo", "without a password"),
        ("patroni+etcd://h/demo?scope=x", "not understood"),
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
    patroni = parse_registry_url("patroni+etcd://user:secret@h/demo?ca=c")
    assert str(patroni) == "patroni+etcds://user@h:2379/service/demo"
    assert "secret" not in repr(patroni)


def test_a_static_list_needs_somebody_who_asks_and_announces_nothing() -> None:
    with pytest.raises(ConfigError, match="needs somebody who asks"):
        open_registry("static://h", "db")
    for opening in (lambda: open_store("static://h"), lambda: open_announcer("static://h", "db", "pg1")):
        with pytest.raises(ConfigError, match="no registry to announce"):
            opening()
    for opening in (
        lambda: open_store("patroni+etcd://h/d"),
        lambda: open_announcer("patroni+etcd://h/d", "db", "pg1"),
    ):
        with pytest.raises(ConfigError, match="announces no member there"):
            opening()
    with pytest.raises(ConfigError, match="TTL"):
        open_announcer("etcd://h", "db", "pg1", 0)
    with pytest.raises(ConfigError, match="is not a service name"):
        open_registry("etcd://h", "a/b")


def test_grpc_is_not_imported_before_an_etcd_is_opened() -> None:
    program = "import sys, pgamb.registry.source; print('grpc' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert answer.stdout.strip() == "False"
