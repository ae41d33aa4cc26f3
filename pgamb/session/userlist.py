"""The user file: who may log in, and against which secret, in PgBouncer's format.

    "user" "secret"     ; a SCRAM verifier, an md5 hash, or a password in clear text

A quote inside a string is doubled. `;` and `#` begin a comment. What follows the secret on its line is ignored, as
PgBouncer does. Text comes in; reading the file, and seeing to who else can, is the caller's.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Final

from pgamb.errors import ConfigError
from pgamb.wire.messages import encode_text
from pgamb.wire.scram import InvalidVerifier, ScramVerifier

_QUOTED: Final = r'"((?:[^"]|"")*)"'
_LINE: Final = re.compile(rf"\s*{_QUOTED}\s*{_QUOTED}(?:\s.*)?")
_MD5: Final = re.compile(r"md5[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class UserSecret:
    """What is known of one user: one of the three, or none, if the file has an empty secret: no password fits."""

    user: str
    password: str | None = field(default=None, repr=False)
    verifier: ScramVerifier | None = field(default=None, repr=False)
    md5: str | None = field(default=None, repr=False)

    def matches(self, password: str) -> bool:
        """Tell whether this is the user's password."""
        if self.verifier is not None:
            return self.verifier.matches(password)
        if self.md5 is not None:
            digest = hashlib.md5(encode_text(password) + encode_text(self.user), usedforsecurity=False).hexdigest()
            return hmac.compare_digest(f"md5{digest}", self.md5)
        return self.password is not None and hmac.compare_digest(encode_text(self.password), encode_text(password))


def parse_userlist(text: str) -> dict[str, UserSecret]:
    """Read a user file; raises ConfigError that names the line, and never shows a secret."""
    users: dict[str, UserSecret] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip().removeprefix("\ufeff")
        if not stripped or stripped[0] in ";#":
            continue
        match = _LINE.fullmatch(stripped)
        if match is None:
            raise ConfigError(f'user file, line {number}: not a line of the form "user" "secret"', hint=_HINT)
        user, secret = (part.replace('""', '"') for part in match.groups())
        if not user:
            raise ConfigError(f"user file, line {number}: the user name is empty", hint=_HINT)
        if user in users:
            raise ConfigError(
                f'user file, line {number}: user "{user}" is there twice', hint="Remove one of the lines."
            )
        users[user] = _secret(user, secret, number)
    return users


_HINT: Final = (
    'Write one user a line, both strings in double quotes, a quote inside a string doubled; "#" begins a comment.'
)


def _secret(user: str, secret: str, number: int) -> UserSecret:
    if secret.startswith("SCRAM-SHA-256$"):
        try:
            return UserSecret(user, verifier=ScramVerifier.parse(secret))
        except InvalidVerifier as error:
            raise ConfigError(f'user file, line {number}: user "{user}": {error.message}', hint=error.hint) from None
    if _MD5.fullmatch(secret):
        return UserSecret(user, md5=secret)
    # PostgreSQL lets nobody in with an empty password; PgBouncer's files have such lines for users of other methods.
    return UserSecret(user, password=secret or None)
