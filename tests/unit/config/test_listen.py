"""Listen addresses: what each form binds, and what is said when it cannot."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgamb.config import ListenAddress, TcpTarget, UnixTarget, bind_error
from pgamb.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "targets", "is_local"),
    [
        ("5432", (TcpTarget("127.0.0.1", 5432), TcpTarget("::1", 5432, optional=True)), True),
        ("localhost:1", (TcpTarget("127.0.0.1", 1), TcpTarget("::1", 1, optional=True)), True),
        (":5432", (TcpTarget("0.0.0.0", 5432), TcpTarget("::", 5432, optional=True)), False),
        ("*:5432", (TcpTarget("0.0.0.0", 5432), TcpTarget("::", 5432, optional=True)), False),
        ("0.0.0.0:0", (TcpTarget("0.0.0.0", 0),), False),
        ("127.0.0.1:5432", (TcpTarget("127.0.0.1", 5432),), True),
        ("127.0.0.1.example.com:1", (TcpTarget("127.0.0.1.example.com", 1),), False),
        ("127.1:1", (TcpTarget("127.1", 1),), False),
        ("db.internal:5432", (TcpTarget("db.internal", 5432),), False),
        ("[::1]:5432", (TcpTarget("::1", 5432),), True),
        ("[fe80::1%eth0]:1", (TcpTarget("fe80::1%eth0", 1),), False),
        ("/run/pgamb", (UnixTarget("/run/pgamb/.s.PGSQL.5432"),), True),
        ("/run/pgamb/:6432", (UnixTarget("/run/pgamb/.s.PGSQL.6432"),), True),
        ("/run/a:b/c", (UnixTarget("/run/a:b/c/.s.PGSQL.5432"),), True),
    ],
)
def test_forms(text: str, targets: tuple[TcpTarget | UnixTarget, ...], is_local: bool) -> None:
    address = ListenAddress.parse(text)
    assert address.targets() == targets
    assert address.is_local is is_local
    assert ListenAddress.parse(str(address)) == address


@given(st.text(alphabet="0123456789:[]/.*-abz% \0é", max_size=20))
def test_any_text_is_read_or_refused_with_a_hint(text: str) -> None:
    try:
        address = ListenAddress.parse(text)
    except ConfigError as refusal:
        said = refusal
    else:
        assert 0 <= address.port <= 65535
        assert ListenAddress.parse(str(address)) == address
        return
    assert said.hint


@pytest.mark.parametrize(
    ("number", "where", "message", "hint"),
    [
        (errno.EADDRINUSE, ListenAddress.parse("5432"), "--listen: localhost:5432 is already in use", "ss -ltnp"),
        (errno.EADDRINUSE, TcpTarget("::1", 5432), "--listen: [::1]:5432 is already in use", "ss -ltnp"),
        (errno.EACCES, TcpTarget("0.0.0.0", 80), "0.0.0.0:80 is not permitted", "below 1024"),
        (errno.EACCES, UnixTarget("/x/.s.PGSQL.1"), "/x/.s.PGSQL.1 is not permitted", "writable"),
        (errno.EADDRNOTAVAIL, "9.9.9.9:1", "9.9.9.9:1 is not an address of this machine", "ip address"),
        (errno.ENOENT, UnixTarget("/x/.s.PGSQL.1"), "does not exist", "create it"),
        (errno.EIO, "h:1", "--listen: cannot listen at h:1: ", ""),
    ],
)
def test_why_it_cannot_be_bound(
    number: int, where: ListenAddress | TcpTarget | UnixTarget | str, message: str, hint: str
) -> None:
    error = bind_error(where, OSError(number, "what the system says"))
    assert message in error.message
    assert hint in (error.hint or "")
