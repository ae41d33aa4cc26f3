"""An etcd with users, tokens and certificates: who may do what, and what is said when somebody may not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trustme

from pgamb.demo.etcd import EtcdServer, EtcdTls
from pgamb.errors import ConfigError, RegistryError, RegistryUnavailable
from pgamb.registry.etcd.connection import Connection
from pgamb.registry.etcd.security import Credentials, Tls
from pgamb.registry.etcd.store import EtcdStore
from pgamb.registry.etcd.watch import Heartbeat
from pgamb.registry.lease import new_lease_id
from pgamb.registry.store import Compare, KeyRange, Put
from tests.conformance.conftest import open_store
from tests.conformance.following import DEADLINE_S, PREFIX, RANGE, Following, first_failure, keys
from tests.support.etcd import enable_authentication, etcdctl
from tests.support.servers import running_etcd
from tests.support.waiting import wait_for_async


@pytest.fixture
def locked_etcd() -> Iterator[EtcdServer]:
    """An etcd with authentication, whose tokens live a second."""
    with running_etcd(options=["--auth-token-ttl", "1"]) as server:
        enable_authentication(server)
        yield server


def log_in(server: EtcdServer, user: str = "pgamb", password: str = "secret") -> EtcdStore:
    connection = Connection((server.endpoint,), credentials=Credentials(user, password))
    return EtcdStore(connection, heartbeat=Heartbeat(1.0, 1.0))


async def test_tokens_that_expired_or_are_of_yesterday_are_renewed(locked_etcd: EtcdServer) -> None:
    """Guard 15: after an idle time, after a change of users, after a restart; calls, leases and watches."""
    store = log_in(locked_etcd)
    await store.put(Put(PREFIX + "k", b"1"))
    await asyncio.sleep(2.5)  # etcd looks at its tokens once a second
    await store.put(Put(PREFIX + "k", b"2"))
    await asyncio.to_thread(etcdctl, locked_etcd, "user", "add", "other:other", user="root:root")
    outcome = await store.transact([Compare(PREFIX + "t", 0)], [Put(PREFIX + "t", b"")])
    assert outcome.succeeded
    lease_id = new_lease_id()
    async with Following(store) as mirror:
        await store.grant(lease_id, 30)
        await asyncio.to_thread(locked_etcd.stop)
        await asyncio.to_thread(locked_etcd.start)
        await wait_for_async(partial(kept, store, lease_id), DEADLINE_S, "the lease is kept with a new token")
        await asyncio.to_thread(etcdctl, locked_etcd, "put", PREFIX + "new", "", user="root:root")
        await wait_for_async(lambda: keys(mirror) == ["k", "new", "t"], DEADLINE_S, "the watch with a new token")


async def kept(store: EtcdStore, lease_id: int) -> bool:
    try:
        return await store.keep_alive(lease_id) > 0
    except RegistryError:
        return False


async def test_what_is_not_allowed_is_said_and_not_silent(locked_etcd: EtcdServer) -> None:
    """Guards 1 and 15: a watch without rights, or without a token, is one message and then silence."""
    store = log_in(locked_etcd)
    position = (await store.list(RANGE)).position
    denied = await first_failure(store.watch(KeyRange.prefix("/other/"), position))
    assert "does not allow this to user" in denied.message
    assert denied.hint is not None
    with pytest.raises(RegistryError, match="does not allow this to user"):
        await store.get("/other/k")
    # Rights that are given later count without a restart.
    await asyncio.to_thread(
        etcdctl, locked_etcd, "role", "grant-permission", "pgamb", "read", "/other/k", user="root:root"
    )
    assert await store.get("/other/k") is None
    await store.close()
    anonymous = open_store(locked_etcd)
    with pytest.raises(RegistryError, match="wants a log-in"):
        await anonymous.get(PREFIX)
    assert "wants a log-in" in (await first_failure(anonymous.watch(RANGE, position))).message
    await anonymous.close()


async def test_a_wrong_password_is_named_and_authentication_that_is_off_is_no_obstacle(
    locked_etcd: EtcdServer, etcd: EtcdServer
) -> None:
    wrong = log_in(locked_etcd, password="wrong")
    with pytest.raises(RegistryError, match="refuses the password of user pgamb"):
        await wrong.get(PREFIX)
    await wrong.close()
    open_to_all = log_in(etcd)
    await open_to_all.get(PREFIX)
    await open_to_all.close()


async def test_mutual_tls(tmp_path: Path) -> None:
    """Guard 11: the certificate is checked against the name that was asked for."""
    authority, stranger = trustme.CA(), trustme.CA()
    files = {name: tmp_path / name for name in ("ca", "cert", "key", "our-cert", "our-key", "stranger")}
    authority.cert_pem.write_to_path(files["ca"])
    stranger.cert_pem.write_to_path(files["stranger"])
    served, ours = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("agent@example.org")
    for leaf, cert, key in ((served, "cert", "key"), (ours, "our-cert", "our-key")):
        leaf.cert_chain_pems[0].write_to_path(files[cert])
        leaf.private_key_pem.write_to_path(files[key])
    with running_etcd(tls=EtcdTls(files["cert"], files["key"], files["ca"], require_client=False)) as server:
        both = (server.endpoint, f"localhost:{server.port}")
        store = EtcdStore(Connection(both, tls=Tls(str(files["ca"]), str(files["our-cert"]), str(files["our-key"]))))
        await store.put(Put(PREFIX + "k", b""))
        await store.close()
        for wrong in (Tls(str(files["stranger"])), None):
            refused = EtcdStore(Connection((server.endpoint,), tls=wrong))
            with pytest.raises(RegistryUnavailable):
                await refused.get(PREFIX)
            await refused.close()
    with pytest.raises(ConfigError, match="needs both cert and key"):
        Connection(("h:1",), tls=Tls(cert_file=str(files["our-cert"])))
    with pytest.raises(ConfigError, match="cannot be read"):
        Connection(("h:1",), tls=Tls(ca_file=str(tmp_path / "missing")))
