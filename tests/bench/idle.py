"""What an idle client costs a proxy: many real log-ins, one query each, then the memory they keep."""

from __future__ import annotations

import resource
import secrets
import socket
import struct
from contextlib import ExitStack

from pgamb.demo.postgres import HOST
from pgamb.session.backend_login import Credentials, Greeting, backend_login
from pgamb.session.conversation import Message, Send
from pgamb.wire import constants as c
from pgamb.wire import messages
from tests.bench.accounting import memory_bytes
from tests.bench.database import DATABASE, USER, Database
from tests.bench.proxies import Proxy

TIMEOUT_S = 30.0
# Opened and closed first, so that what a proxy allocates once is not charged to the clients.
WARM_UP_CLIENTS = 50


def idle_client_bytes(database: Database, proxy: Proxy, clients: int) -> float:
    """Return the memory that each of `clients` logged-in, idle applications adds to the proxy."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65536), hard))
    keys = _hold(database, proxy, WARM_UP_CLIENTS, Credentials(password=database.password))[1]
    return _hold(database, proxy, clients, keys)[0] / clients


def _hold(database: Database, proxy: Proxy, clients: int, credentials: Credentials) -> tuple[int, Credentials]:
    """Hold so many idle clients; returns the memory added, and credentials that cost no further key derivation."""
    before = memory_bytes(proxy.pids)
    with ExitStack() as stack:
        for _ in range(clients):
            client = stack.enter_context(socket.create_connection((HOST, proxy.port), timeout=TIMEOUT_S))
            greeting = log_in(client, credentials)
            credentials = Credentials(password=database.password, scram_keys=greeting.scram_keys)
            select_one(client)
        return memory_bytes(proxy.pids) - before, credentials


def log_in(client: socket.socket, credentials: Credentials) -> Greeting:
    """Log in as an application does. Raises what the conversation raises, and ConnectionError."""
    conversation = backend_login(USER, DATABASE, credentials, parameters={}, nonce=secrets.token_urlsafe(18))
    answer: Message | None = None
    while True:
        try:
            step = conversation.send(answer)
        except StopIteration as end:
            greeting: Greeting = end.value
            return greeting
        if isinstance(step, Send):
            client.sendall(step.data)
            answer = None
        else:
            answer = _receive(client)


def select_one(client: socket.socket) -> None:
    """Run one query to its end. Raises ConnectionError when it fails."""
    client.sendall(messages.query("SELECT 1"))
    while (message := _receive(client)).type != c.READY_FOR_QUERY:
        if message.type == c.ERROR_RESPONSE:
            raise ConnectionError(f"SELECT 1 failed: {message.payload!r}")


def _receive(client: socket.socket) -> Message:
    kind, length = struct.unpack(">BI", _exactly(client, 5))
    return Message(kind, _exactly(client, length - 4))


def _exactly(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = client.recv(count - len(data))
        if not piece:
            raise ConnectionError("the proxy closed the connection")
        data += piece
    return data
