"""Checks of the files that a configuration names: certificates with their keys, authorities, users."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pgamb.cli.finding import Finding, failed, odd, ok
from pgamb.config import ClientOptions

# Time enough to renew, and less than the ninety days that short-lived certificates are issued for.
EXPIRES_SOON = timedelta(days=14)

# PgBouncer's userlist: "user" "password or verifier", a quote in either doubled, a comment behind ";" or "#".
_USER_LINE = re.compile(r'\s*"(?:[^"]|"")+"\s+"(?:[^"]|"")*"(\s.*)?')


def check_files(options: ClientOptions, now: datetime) -> Iterator[Finding]:
    """Check every file that is named; `now` decides what has expired."""
    for name, certificate, key in (
        ("tls", options.tls_cert, options.tls_key),
        ("server", options.server_cert, options.server_key),
        ("registry", options.registry_cert, options.registry_key),
    ):
        if certificate is not None and key is not None:
            yield from _check_pair(f"--{name}-cert", certificate, f"--{name}-key", key, now)
    for flag, authorities in (("--server-ca", options.server_ca), ("--registry-ca", options.registry_ca)):
        if authorities is not None:
            yield from _check_certificates(flag, authorities, now)
    if options.auth_file is not None:
        yield _check_users("--auth-file", options.auth_file)


def _check_pair(flag: str, path: str, key_flag: str, key_path: str, now: datetime) -> Iterator[Finding]:
    yield from _check_certificates(flag, path, now)
    content = _read(key_flag, key_path)
    if isinstance(content, Finding):
        yield content
        return
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        yield failed(key_flag, f"{key_path} is encrypted", "nobody can type a passphrase: store the key without one")
        return
    except (ValueError, UnsupportedAlgorithm):
        yield failed(
            key_flag, f"{key_path} holds no private key in PEM", "it begins with -----BEGIN ... PRIVATE KEY-----"
        )
        return
    certificates = _certificates(_read(flag, path))
    if certificates:
        own = certificates[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if own != key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
            advice = f"the certificate comes first in its file, its issuers follow; is {key_flag} of an older one?"
            yield failed(key_flag, f"{key_path} does not belong to the certificate in {path}", advice)
            return
    if Path(key_path).stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        yield odd(key_flag, f"{key_path} can be read by other users", f"chmod 600 {key_path}")
    else:
        yield ok(key_flag, f"{key_path} is the key of {path}")


def _check_certificates(flag: str, path: str, now: datetime) -> Iterator[Finding]:
    content = _read(flag, path)
    if isinstance(content, Finding):
        yield content
        return
    certificates = _certificates(content)
    if not certificates:
        yield failed(flag, f"{path} holds no certificate in PEM", "it begins with -----BEGIN CERTIFICATE-----")
        return
    worst = min(certificates, key=lambda certificate: certificate.not_valid_after_utc)
    late = max(certificates, key=lambda certificate: certificate.not_valid_before_utc)
    end, begin = worst.not_valid_after_utc, late.not_valid_before_utc
    if end <= now:
        yield failed(flag, f"{_name(worst)} in {path} expired on {end:%Y-%m-%d %H:%M} UTC", "renew it")
    elif begin > now:
        yield failed(
            flag, f"{_name(late)} in {path} is not valid before {begin:%Y-%m-%d %H:%M} UTC", "is the clock right?"
        )
    elif end - now < EXPIRES_SOON:
        yield odd(flag, f"{_name(worst)} in {path} expires on {end:%Y-%m-%d %H:%M} UTC", "renew it")
    else:
        yield ok(flag, f"{_name(certificates[0])} in {path} is valid until {end:%Y-%m-%d}")


def _check_users(flag: str, path: str) -> Finding:
    content = _read(flag, path)
    if isinstance(content, Finding):
        return content
    lines = content.decode("utf-8", "replace").splitlines()
    entries = [(n, line) for n, line in enumerate(lines, 1) if line.strip() and line.lstrip()[0] not in ";#"]
    wrong = [number for number, line in entries if not _USER_LINE.fullmatch(line)]
    if wrong:
        # The line itself may hold a password.
        return failed(
            flag, f"{path}: line {wrong[0]} is not understood", 'write "user" "SCRAM-SHA-256$..." on each line'
        )
    if not entries:
        return failed(flag, f"{path} names no user", 'write "user" "SCRAM-SHA-256$..." on each line')
    return ok(flag, f"{path} names {len(entries)} user{'s' if len(entries) > 1 else ''}")


def _certificates(content: bytes | Finding) -> list[x509.Certificate]:
    if isinstance(content, Finding):
        return []
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        return []


def _read(flag: str, path: str) -> bytes | Finding:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        return failed(flag, f"{path} cannot be read: {error.strerror}", "the user that pgamb runs as needs to read it")


def _name(certificate: x509.Certificate) -> str:
    return f'"{certificate.subject.rfc4514_string()}"'
