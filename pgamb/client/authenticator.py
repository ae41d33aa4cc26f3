"""Who may log in: PostgreSQL decides, pgamb asks it.

`scram`: the verifier is looked up, at every log-in, in PostgreSQL (`--auth-dsn`) or in the user file; the application
proves its password to us, and with the key that the proof gives away we log in to any member.
`password`: the application sends its password, and PostgreSQL is asked at every log-in by logging in with it.
`trust`: nobody is asked; backends are opened with what the user file has, if anything.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from pgamb.client.channel import Channel
from pgamb.config import ClientOptions
from pgamb.errors import CannotConnectNow, ConfigError, InvalidAuthorization, PgambError, PostgresError
from pgamb.session.backend_login import Credentials
from pgamb.session.login import password_login, scram_login, wrong_password
from pgamb.session.userlist import UserSecret, parse_userlist
from pgamb.wire.scram import InvalidVerifier, ScramVerifier, make_verifier

log = logging.getLogger(__name__)

# VALID UNTIL counts (CVE-2025-2291), and so do NOLOGIN, a dropped database and CONNECT on it.
_LOOK_UP = """
SELECT r.rolpassword, r.rolcanlogin,
       coalesce(r.rolvaliduntil OPERATOR(pg_catalog.<=) pg_catalog.now(), false),
       d.datallowconn, pg_catalog.has_database_privilege(r.oid, d.oid, 'CONNECT')
  FROM pg_catalog.pg_authid AS r
  LEFT JOIN pg_catalog.pg_database AS d ON d.datname OPERATOR(pg_catalog.=) $2::pg_catalog.name
 WHERE r.rolname OPERATOR(pg_catalog.=) $1::pg_catalog.name
"""


@dataclass(frozen=True, slots=True)
class Login:
    """What an application has logged in as, and what backends are opened with for it."""

    credentials: Credentials
    # PostgreSQL has not seen these credentials yet: they are believed when a log-in with them succeeds.
    unverified: bool = False


@dataclass(slots=True)
class _KeptVerifier:
    """A verifier made of a plain password in the user file, so that its 4,096 hashes are computed once."""

    password: str = field(repr=False)
    verifier: ScramVerifier = field(repr=False)


class Authenticator:
    """Logs applications in by the rules of `--auth`."""

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._method = options.auth
        if self._method == "auto":
            self._method = "scram" if options.auth_dsn or options.auth_file else "password"
        self._users = _read_users(options.auth_file) if options.auth_file else {}
        self._made: dict[str, _KeptVerifier] = {}
        self._mock_key = os.urandom(32)
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._lock = asyncio.Lock()
        self.credentials: dict[str, Credentials] = {}

    @property
    def method(self) -> str:
        """The method in force: scram, password or trust."""
        return self._method

    async def login(self, channel: Channel, user: str, database: str | None, *, private: bool) -> Login:
        """Log an application in, up to but without AuthenticationOk.

        `database` is None for what belongs to none; `private`: nobody else can listen to its connection. Raises what
        the application is to be told.
        """
        if self._method == "trust":
            return Login(self._own_credentials(user))
        if self._method == "password":
            if not private:
                raise InvalidAuthorization(
                    f'user "{user}" cannot send a password over an unencrypted network connection',
                    hint="Connect with TLS (sslmode=require), or let pgamb look verifiers up (--auth-dsn).",
                )
            password = await channel.converse(password_login())
            secret = self._users.get(user)
            if secret is not None and not secret.matches(password):
                raise wrong_password(user)
            return Login(Credentials(password=password), unverified=True)
        return await self._scram(channel, user, database)

    async def close(self) -> None:
        """Close the look-up connection."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _scram(self, channel: Channel, user: str, database: str | None) -> Login:
        verifier: ScramVerifier | None
        refusal: PgambError | None = None
        password: str | None = None
        secret = self._users.get(user)
        if secret is not None:
            password = secret.password
            verifier = secret.verifier or self._verifier_of(user, secret)
        elif self._options.auth_dsn is not None:
            verifier, refusal = await self._look_up(user, database)
        else:
            verifier = None
        nonce = base64.b64encode(os.urandom(18)).decode()
        keys = await channel.converse(scram_login(verifier, user=user, nonce=nonce, mock_key=self._mock_key))
        if refusal is not None:
            raise refusal
        known = self.credentials.get(user)
        if known is not None and known.scram_keys == keys and known.password == password:
            return Login(known)
        return Login(Credentials(password=password, scram_keys=keys if password is None else None))

    def _verifier_of(self, user: str, secret: UserSecret) -> ScramVerifier | None:
        if secret.password is None:
            return None
        made = self._made.get(user)
        if made is None or made.password != secret.password:
            made = _KeptVerifier(secret.password, make_verifier(secret.password, os.urandom(16)))
            self._made[user] = made
        return made.verifier

    def _own_credentials(self, user: str) -> Credentials:
        secret = self._users.get(user)
        return Credentials(password=secret.password if secret is not None else None)

    async def _look_up(self, user: str, database: str | None) -> tuple[ScramVerifier | None, PgambError | None]:
        """Return the user's verifier, and why the log-in fails even with the right password.

        PostgreSQL, too, tells a stranger no more than that the password is wrong.
        """
        row = await self._fetch(user, database)
        if row is None:
            return None, None
        stored, can_login, expired, allows, may_connect = row
        verifier: ScramVerifier | None = None
        if stored is not None and not expired:
            try:
                verifier = ScramVerifier.parse(stored)
            except InvalidVerifier:
                log.warning("login.no_verifier", extra={"kv": {"user": user, "stored": stored[:3]}})
        refusal = None
        if not can_login:
            refusal = _fatal("28000", f'role "{user}" is not permitted to log in')
        elif database is None:
            pass
        elif allows is None:
            refusal = _fatal("3D000", f'database "{database}" does not exist')
        elif not allows:
            refusal = _fatal("55000", f'database "{database}" is not currently accepting connections')
        elif not may_connect:
            refusal = _fatal(
                "42501", f'permission denied for database "{database}"', "User does not have CONNECT privilege."
            )
        return verifier, refusal

    async def _fetch(self, user: str, database: str | None) -> asyncpg.Record | None:
        """Ask PostgreSQL, over one connection that is made again when it breaks."""
        deadline = asyncio.get_running_loop().time() + self._options.hold_timeout_s
        failure: BaseException | None = None
        while True:
            async with self._lock:
                try:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._connect()
                    found: asyncpg.Record | None = await self._connection.fetchrow(
                        _LOOK_UP, user, database, timeout=self._options.connect_timeout_s
                    )
                    return found
                except asyncpg.InsufficientPrivilegeError as error:
                    raise CannotConnectNow(
                        "pgamb cannot look up who may log in: --auth-dsn may not read pg_authid",
                        hint="Give --auth-dsn a superuser, or a role with SELECT on pg_catalog.pg_authid.",
                    ) from error
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError) as error:
                    # None of the servers answers, or this one goes down: wait as for a primary.
                    failure = error
                    if self._connection is not None:
                        self._connection.terminate()
                        self._connection = None
            if asyncio.get_running_loop().time() >= deadline:
                log.warning("login.look_up_failed", extra={"kv": {"error": str(failure) or type(failure).__name__}})
                raise CannotConnectNow(
                    "pgamb cannot look up who may log in now", detail=str(failure) or type(failure).__name__
                )
            await asyncio.sleep(0.2)

    async def _connect(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            self._options.auth_dsn,
            timeout=self._options.connect_timeout_s,
            server_settings={"application_name": "pgamb_auth", "search_path": "pg_catalog"},
        )


def _fatal(sqlstate: str, message: str, detail: str | None = None) -> PostgresError:
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": message}
    if detail is not None:
        fields["D"] = detail
    return PostgresError(fields)


def _read_users(path: str) -> dict[str, UserSecret]:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(
            f"--auth-file {path}: {error.strerror}", hint="give a file that this user can read"
        ) from error
    return parse_userlist(text)
