"""`pgamb check` and the files of a configuration: unreadable, wrong, not matching, expired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from pgamb.cli.check_files import check_files
from pgamb.cli.finding import State
from pgamb.config import ClientOptions

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(authority: trustme.CA, tmp_path: Path) -> tuple[Path, Path]:
    issued = authority.issue_cert("db.internal", not_after=NOW + timedelta(days=90))
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    key.write_bytes(issued.private_key_pem.bytes())
    key.chmod(0o600)
    return certificate, key


def check(now: datetime = NOW, /, **files: Path) -> list[tuple[State, str]]:
    options = ClientOptions(registry="etcd://h", **{name: str(path) for name, path in files.items()})  # type: ignore[arg-type]
    return [(found.state, str(found)) for found in check_files(options, now)]


def only(findings: list[tuple[State, str]], state: State) -> str:
    (line,) = [line for found, line in findings if found is state]
    return line


@pytest.mark.parametrize("name", ["tls", "server", "registry"])
def test_a_pair_that_is_right(pair: tuple[Path, Path], name: str) -> None:
    findings = check(**{f"{name}_cert": pair[0], f"{name}_key": pair[1]})
    assert [state for state, _ in findings] == [State.OK, State.OK]
    assert f"--{name}-cert" in findings[0][1]
    assert f"is the key of {pair[0]}" in findings[1][1]


def test_a_file_that_is_not_there(pair: tuple[Path, Path], tmp_path: Path) -> None:
    findings = check(tls_cert=pair[0], tls_key=tmp_path / "no")
    assert "/no cannot be read: No such file or directory -> " in only(findings, State.FAILED)
    findings = check(tls_cert=tmp_path / "no", tls_key=pair[1])
    assert "--tls-cert" in only(findings, State.FAILED)


def test_an_expired_one(pair: tuple[Path, Path]) -> None:
    line = only(check(NOW + timedelta(days=91), tls_cert=pair[0], tls_key=pair[1]), State.FAILED)
    assert "expired on" in line
    assert "-> renew it" in line


def test_one_that_expires_soon(pair: tuple[Path, Path]) -> None:
    findings = check(NOW + timedelta(days=80), tls_cert=pair[0], tls_key=pair[1])
    assert "expires on" in only(findings, State.ODD)


def test_one_of_the_future(pair: tuple[Path, Path]) -> None:
    findings = check(datetime(1990, 1, 1, tzinfo=UTC), tls_cert=pair[0], tls_key=pair[1])
    assert "is not valid before" in only(findings, State.FAILED)


def test_a_key_of_another(pair: tuple[Path, Path], authority: trustme.CA) -> None:
    pair[1].write_bytes(authority.issue_cert("other").private_key_pem.bytes())
    line = only(check(tls_cert=pair[0], tls_key=pair[1]), State.FAILED)
    assert "does not belong to the certificate" in line


def test_a_key_that_others_may_read(pair: tuple[Path, Path]) -> None:
    pair[1].chmod(0o644)
    assert "chmod 600" in only(check(tls_cert=pair[0], tls_key=pair[1]), State.ODD)


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"-----BEGIN PRIVATE KEY-----\njunk\n-----END PRIVATE KEY-----\n", b"\xff"]
)
def test_what_is_no_key_and_no_certificate(pair: tuple[Path, Path], tmp_path: Path, content: bytes) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(content)
    assert "no private key in PEM" in only(check(tls_cert=pair[0], tls_key=junk), State.FAILED)
    assert "no certificate in PEM" in only(check(tls_cert=junk, tls_key=pair[1]), State.FAILED)
    assert "no certificate in PEM" in only(check(server_ca=junk), State.FAILED)


def test_authorities(authority: trustme.CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(file))
    assert [state for state, _ in check(server_ca=file, registry_ca=file)] == [State.OK, State.OK]


@pytest.mark.parametrize(
    ("content", "state", "words"),
    [
        ('"a" "SCRAM-SHA-256$4096:x$y:z"\n; comment\n\n"b""c" "md5x" extra\n', State.OK, "names 2 users"),
        ('"a" "x"\ns3cret\n', State.FAILED, "line 2 is not understood"),
        ("", State.FAILED, "names no user"),
    ],
    ids=["right", "wrong", "empty"],
)
def test_users(tmp_path: Path, content: str, state: State, words: str) -> None:
    file = tmp_path / "users"
    file.write_text(content)
    line = only(check(auth_file=file), state)
    assert words in line
    assert "s3cret" not in line
