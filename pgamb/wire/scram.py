"""SCRAM-SHA-256 (RFC 5802, RFC 7677), both sides, as PostgreSQL speaks it.

What a server holds is a verifier; what the other side proves is that it knows the ClientKey. A proof that is right
gives the ClientKey away to whoever checks it, and with the ClientKey one can log in to every server that holds
the same verifier. That is how an ambassador logs in for an application whose password it never saw.

Invariants: nonces come in as arguments; every comparison of a secret takes the same time whatever it finds; nothing
secret is in a `repr`. A user that does not exist is given a made-up verifier and refused at the very end, so that the
exchange does not tell which users there are (PostgreSQL's "mock authentication").
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from typing import Final

from pgamb.errors import FeatureNotSupported, InvalidAuthorization, PgambError, ProtocolViolation
from pgamb.wire.saslprep import prepare_password

KEY_BYTES: Final = 32
DEFAULT_SALT_BYTES: Final = 16
# PostgreSQL's default (RFC 7677's minimum); also what the made-up verifier of an unknown user claims.
DEFAULT_ITERATIONS: Final = 4096
MAX_ITERATIONS: Final = 2**31 - 1
# A server that has proved nothing yet says how long we must compute. A million rounds take about 0.5 s, and exceed
# what OWASP asks for (600,000).
CLIENT_MAX_ITERATIONS: Final = 1_000_000

_VERIFIER: Final = re.compile(r"SCRAM-SHA-256\$([0-9]{1,10}):([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+):([A-Za-z0-9+/=]+)")


class InvalidVerifier(PgambError):
    """Text that should be a SCRAM verifier is none."""


@dataclass(frozen=True, slots=True)
class ScramVerifier:
    """What `pg_authid.rolpassword` holds: enough to check a proof, not enough to make one."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> ScramVerifier:
        """Read `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`; raises InvalidVerifier."""
        match = _VERIFIER.fullmatch(text)
        if match is None:
            raise InvalidVerifier("not a SCRAM-SHA-256 verifier", hint=_VERIFIER_HINT)
        iterations = int(match[1])
        try:
            salt, stored_key, server_key = (b64decode(part, validate=True) for part in match.group(2, 3, 4))
        except binascii.Error:
            raise InvalidVerifier("SCRAM-SHA-256 verifier with broken base64", hint=_VERIFIER_HINT) from None
        if not 1 <= iterations <= MAX_ITERATIONS or not salt or not len(stored_key) == len(server_key) == KEY_BYTES:
            raise InvalidVerifier("SCRAM-SHA-256 verifier with impossible values", hint=_VERIFIER_HINT)
        return cls(iterations, salt, stored_key, server_key)

    def __str__(self) -> str:
        return (
            f"SCRAM-SHA-256${self.iterations}:{b64encode(self.salt).decode()}"
            f"${b64encode(self.stored_key).decode()}:{b64encode(self.server_key).decode()}"
        )

    def matches(self, password: str) -> bool:
        """Tell whether this is the verifier of that password."""
        keys = derive_keys(password, self.salt, self.iterations)
        return hmac.compare_digest(keys.stored_key, self.stored_key)


_VERIFIER_HINT: Final = "Take it as PostgreSQL has it: SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = ..."


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What one needs to log in without a password; good for servers that hold this salt and iteration count."""

    client_key: bytes = field(repr=False)
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)
    salt: bytes = b""
    iterations: int = 0

    def fits(self, salt: bytes, iterations: int) -> bool:
        """Tell whether a server with this salt and count can accept these keys (unknown counts as yes)."""
        return self.iterations == 0 or (self.salt == salt and self.iterations == iterations)


def derive_keys(password: str, salt: bytes, iterations: int) -> ScramKeys:
    """Compute the keys of a password; `iterations` rounds of HMAC, about 0.3 µs each."""
    salted = hashlib.pbkdf2_hmac("sha256", prepare_password(password), salt, iterations)
    client_key = _hmac(salted, b"Client Key")
    return ScramKeys(client_key, _sha256(client_key), _hmac(salted, b"Server Key"), salt, iterations)


def make_verifier(password: str, salt: bytes, iterations: int = DEFAULT_ITERATIONS) -> ScramVerifier:
    """Compute what a server would hold for a password."""
    keys = derive_keys(password, salt, iterations)
    return ScramVerifier(iterations, salt, keys.stored_key, keys.server_key)


def mock_verifier(user: str, mock_key: bytes) -> ScramVerifier:
    """Make up the verifier of a user that does not exist: for one key, always the same salt, and no password fits."""
    salt = _hmac(mock_key, user.encode("utf-8", "surrogateescape"))[:DEFAULT_SALT_BYTES]
    return ScramVerifier(DEFAULT_ITERATIONS, salt, bytes(KEY_BYTES), bytes(KEY_BYTES))


class ScramServer:
    """Our side towards a frontend: `first`, then `final`, once each.

    Errors are PostgreSQL's: ProtocolViolation for malformed messages, FeatureNotSupported for what it lacks too.
    """

    __slots__ = ("_auth_message_start", "_channel_binding", "_nonce", "_verifier", "_verifier_is_real")

    def __init__(self, verifier: ScramVerifier | None, *, user: str, nonce: str, mock_key: bytes) -> None:
        self._verifier_is_real = verifier is not None
        self._verifier = verifier or mock_verifier(user, mock_key)
        self._nonce = _checked_nonce(nonce)
        self._channel_binding = b""
        self._auth_message_start = b""

    def first(self, client_first: bytes) -> bytes:
        """Answer client-first-message with server-first-message."""
        header, bare = _split_gs2_header(client_first)
        attributes = _attributes(bare)
        if attributes[0].startswith(b"m="):
            raise FeatureNotSupported("client requires an unsupported SCRAM extension")
        # The user name is the startup packet's; PostgreSQL too ignores this one, which libpq leaves empty.
        _value(attributes, 0, b"n")
        client_nonce = _value(attributes, 1, b"r")
        if not client_nonce or not _is_printable(client_nonce):
            raise _malformed("Non-printable characters in SCRAM nonce.")
        self._channel_binding = b"c=" + b64encode(header)
        self._nonce = client_nonce.decode("ascii") + self._nonce
        salt = b64encode(self._verifier.salt).decode()
        server_first = f"r={self._nonce},s={salt},i={self._verifier.iterations}".encode()
        self._auth_message_start = bare + b"," + server_first + b","
        return server_first

    def final(self, client_final: bytes) -> tuple[bytes, ScramKeys | None]:
        """Check client-final-message: server-final-message, and the client's keys, or None if its proof is wrong."""
        attributes = _attributes(client_final)
        channel_binding = _value(attributes, 0, b"c")
        if b"c=" + channel_binding != self._channel_binding:
            raise ProtocolViolation("unexpected SCRAM channel-binding attribute in client-final-message")
        if not hmac.compare_digest(_value(attributes, 1, b"r"), self._nonce.encode()):
            raise ProtocolViolation("invalid SCRAM response", detail="Nonce does not match.")
        without_proof, found, proof_text = client_final.rpartition(b",p=")
        proof = _base64(proof_text, "Malformed proof in client-final-message.")
        if not found or len(proof) != KEY_BYTES:
            raise _malformed("Malformed proof in client-final-message.")
        verifier = self._verifier
        auth_message = self._auth_message_start + without_proof
        client_key = _xor(proof, _hmac(verifier.stored_key, auth_message))
        proved = hmac.compare_digest(_sha256(client_key), verifier.stored_key)
        server_final = b"v=" + b64encode(_hmac(verifier.server_key, auth_message))
        if not (proved and self._verifier_is_real):
            return server_final, None
        keys = ScramKeys(client_key, verifier.stored_key, verifier.server_key, verifier.salt, verifier.iterations)
        return server_final, keys


class ScramClient:
    """Our side towards a server: `first`, `final`, `verify`, once each.

    Logs in with a password or with keys; with both, the keys are taken where the server's salt fits them. After
    `final`, `keys` holds what was used. `channel_binding` is the hash of the server's certificate
    (tls-server-end-point): with it and `plus`, SCRAM-SHA-256-PLUS is spoken; without `plus`, the server is told that
    we could have.
    """

    __slots__ = ("_auth_message", "_bare", "_header", "_nonce", "_password", "_tail", "keys")

    def __init__(
        self,
        *,
        nonce: str,
        password: str | None = None,
        keys: ScramKeys | None = None,
        channel_binding: bytes | None = None,
        plus: bool = False,
    ) -> None:
        if password is None and keys is None:
            raise InvalidAuthorization(
                "the server wants SCRAM, but there is neither a password nor a key for this user"
            )
        self._password = password
        self.keys = keys
        self._nonce = _checked_nonce(nonce)
        # The user name stays empty: PostgreSQL takes the startup packet's.
        self._bare = f"n=,r={nonce}".encode()
        if channel_binding is None:
            self._header, self._tail = b"n,,", b""
        elif plus:
            self._header, self._tail = b"p=tls-server-end-point,,", channel_binding
        else:
            self._header, self._tail = b"y,,", b""
        self._auth_message = b""

    def first(self) -> bytes:
        """Give client-first-message."""
        return self._header + self._bare

    def final(self, server_first: bytes) -> bytes:
        """Answer server-first-message with client-final-message, which carries the proof."""
        attributes = _attributes(server_first)
        if attributes[0].startswith(b"m="):
            raise FeatureNotSupported("server requires an unsupported SCRAM extension")
        nonce = _value(attributes, 0, b"r")
        if not _is_printable(nonce) or not nonce.startswith(self._nonce.encode()) or len(nonce) == len(self._nonce):
            raise ProtocolViolation("invalid SCRAM response", detail="The server's nonce does not begin with ours.")
        salt = _base64(_value(attributes, 1, b"s"), "Malformed salt in server-first-message.")
        iterations = _iterations(_value(attributes, 2, b"i"))
        keys = self.keys = self._keys_for(salt, iterations)
        without_proof = b"c=" + b64encode(self._header + self._tail) + b",r=" + nonce
        self._auth_message = b",".join((self._bare, server_first, without_proof))
        proof = _xor(keys.client_key, _hmac(keys.stored_key, self._auth_message))
        return without_proof + b",p=" + b64encode(proof)

    def verify(self, server_final: bytes) -> None:
        """Check server-final-message: a server that does not know our verifier raises InvalidAuthorization."""
        attributes = _attributes(server_final)
        if attributes[0].startswith(b"e="):
            reason = attributes[0][2:].decode("utf-8", "backslashreplace")
            raise InvalidAuthorization(f"the server refused the SCRAM exchange: {reason}")
        signature = _base64(_value(attributes, 0, b"v"), "Malformed signature in server-final-message.")
        if self.keys is None or not self._auth_message:
            raise ProtocolViolation("server-final-message before the proof was sent")
        if not hmac.compare_digest(signature, _hmac(self.keys.server_key, self._auth_message)):
            raise InvalidAuthorization(
                "the server's SCRAM signature is wrong",
                detail="It let us in without knowing this user's verifier: it may be an impostor.",
            )

    def _keys_for(self, salt: bytes, iterations: int) -> ScramKeys:
        if self.keys is not None and self.keys.fits(salt, iterations):
            return self.keys
        if self._password is not None:
            return derive_keys(self._password, salt, iterations)
        raise InvalidAuthorization(
            "the server's SCRAM verifier for this user is not the one that the login was checked with",
            hint="Give all servers the same verifier (physical replicas have it), and look it up on one of them.",
        )


def _split_gs2_header(message: bytes) -> tuple[bytes, bytes]:
    """Take client-first-message apart: the GS2 header with its commas, and client-first-message-bare."""
    flag, first_comma, rest = message.partition(b",")
    authzid, second_comma, bare = rest.partition(b",")
    if not first_comma or not second_comma:
        raise _malformed("Comma expected in client-first-message.")
    if flag.startswith(b"p="):
        raise ProtocolViolation(
            "client selected channel binding, which SCRAM-SHA-256 without -PLUS does not have",
            hint="Connect with channel_binding=prefer or disable.",
        )
    # `y`, "I can bind, but think that you cannot", is right: SCRAM-SHA-256-PLUS was not offered.
    if flag not in (b"n", b"y"):
        raise _malformed("Unexpected channel-binding flag.")
    if authzid:
        raise FeatureNotSupported("client uses authorization identity, but it is not supported")
    return message[: len(message) - len(bare)], bare


def _attributes(message: bytes) -> list[bytes]:
    if b"\0" in message:
        raise _malformed("Message length does not match input length.")
    return message.split(b",")


def _value(attributes: list[bytes], index: int, name: bytes) -> bytes:
    if index >= len(attributes) or not attributes[index].startswith(name + b"="):
        raise _malformed(f'Expected attribute "{name.decode()}".')
    return attributes[index][2:]


def _base64(text: bytes, detail: str) -> bytes:
    try:
        data = b64decode(text, validate=True)
    except binascii.Error:
        raise _malformed(detail) from None
    if not data:
        raise _malformed(detail)
    return data


def _iterations(text: bytes) -> int:
    if not text.isdigit() or len(text) > 10 or int(text) < 1:
        raise _malformed("Malformed iteration count in server-first-message.")
    iterations = int(text)
    if iterations > CLIENT_MAX_ITERATIONS:
        raise FeatureNotSupported(
            f"the server asks for {iterations} SCRAM iterations; at most {CLIENT_MAX_ITERATIONS} are computed",
            hint="Lower scram_iterations on the server and set the password again.",
        )
    return iterations


def _is_printable(text: bytes) -> bool:
    return all(0x21 <= byte <= 0x7E for byte in text)


def _checked_nonce(nonce: str) -> str:
    if not nonce or not nonce.isascii() or "," in nonce or not _is_printable(nonce.encode()):
        raise ValueError("a SCRAM nonce is printable ASCII without commas")
    return nonce


def _malformed(detail: str) -> ProtocolViolation:
    return ProtocolViolation("malformed SCRAM message", detail=detail)


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))
