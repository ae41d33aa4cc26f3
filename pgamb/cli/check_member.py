"""Checks of one member: it can be reached, speaks PostgreSQL, has the TLS that is asked for, and lets us log in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from pgamb.cli.finding import Finding, State, failed, odd, ok
from pgamb.config import ClientOptions
from pgamb.registry.model import Address, Member, Role
from pgamb.wire.messages import ssl_request

_LOGIN_SQL = """
SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
       pg_catalog.has_table_privilege('pg_catalog.pg_authid', 'SELECT') AS may_look_up
"""


async def check_member(member: Member | None, address: Address, options: ClientOptions) -> list[Finding]:
    """Check one address of a member, or one where a member was expected; a failure leaves out what follows from it."""
    subject = f"member {member.node} ({address})" if member else f"member at {address}"
    reached = await _reach(subject, address, options)
    if reached.state is not State.OK or options.auth_dsn is None:
        return [reached]
    return [reached, await _log_in(f"{subject} log-in", member, address, options, options.auth_dsn)]


async def _reach(subject: str, address: Address, options: ClientOptions) -> Finding:
    limit_s = options.connect_timeout_s
    try:
        async with asyncio.timeout(limit_s), _connected(address) as (reader, writer):
            writer.write(ssl_request())
            answer = await reader.readexactly(1)
            if answer not in (b"S", b"N"):
                return failed(subject, "something else than PostgreSQL answers", "is the port right?")
            if address.is_unix:
                return ok(subject, "reached")
            return await _secure(subject, address, options, writer, offers_tls=answer == b"S")
    except TimeoutError:
        return failed(subject, f"no answer within {limit_s:g} s", "does a firewall drop packets? (--connect-timeout)")
    except asyncio.IncompleteReadError:
        return failed(subject, "the connection was closed at once", "is the port right, and does a firewall interfere?")
    except OSError as error:
        return failed(subject, f"cannot be reached: {error.strerror or error}", _advice(address))


async def _secure(
    subject: str, address: Address, options: ClientOptions, writer: asyncio.StreamWriter, *, offers_tls: bool
) -> Finding:
    mode = options.server_tls
    if mode in ("disable", "allow"):
        return ok(subject, f"reached, without TLS (--server-tls {mode})")
    if not offers_tls and mode == "prefer":
        return ok(subject, "reached, without TLS: the server offers none (--server-tls prefer)")
    if not offers_tls:
        return failed(
            subject, f"offers no TLS, and --server-tls is {mode}", "set ssl = on in PostgreSQL, or --server-tls prefer"
        )
    try:
        await writer.start_tls(tls_context(options), server_hostname=address.host)
    except ssl.SSLCertVerificationError as error:
        return failed(
            subject,
            f"its certificate is refused: {error.verify_message}",
            "--server-ca must hold its issuer; verify-full wants its name in the certificate, verify-ca does not",
        )
    except ssl.SSLError as error:
        return failed(subject, f"TLS failed: {error.reason or error}", "see the server's log")
    wire: ssl.SSLObject = writer.get_extra_info("ssl_object")
    verified = "verified" if mode.startswith("verify-") or options.server_ca else "not verified"
    return ok(subject, f"reached, {wire.version()}, certificate {verified} (--server-tls {mode})")


async def _log_in(subject: str, member: Member | None, address: Address, options: ClientOptions, dsn: str) -> Finding:
    limit_s = options.connect_timeout_s
    try:
        async with asyncio.timeout(limit_s):
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                dsn,
                host=address.host,
                port=address.port,
                ssl=_asyncpg_tls(address, options),
                timeout=limit_s,
                statement_cache_size=0,
                target_session_attrs=SessionAttribute.any,
                server_settings={"application_name": "pgamb_check", "search_path": "pg_catalog"},
            )
            try:
                row = await connection.fetchrow(_LOGIN_SQL)
            finally:
                connection.terminate()
    except TimeoutError:
        return failed(subject, f"took longer than {limit_s:g} s", "is the server overloaded? (--connect-timeout)")
    except asyncpg.PostgresError as error:
        return failed(
            subject, f"refused: {_sentence(error)} ({error.sqlstate})", "see --auth-dsn, and pg_hba.conf there"
        )
    except (asyncpg.InterfaceError, OSError, ValueError) as error:
        return failed(subject, f"failed: {_sentence(error)}", "see --auth-dsn")
    if row is None or not row["may_look_up"]:
        return failed(
            subject,
            "works, but may not read pg_authid, so no password can be looked up",
            "use a superuser, or GRANT SELECT ON pg_catalog.pg_authid TO it",
        )
    if member is not None and (member.role is Role.REPLICA) != row["in_recovery"]:
        says = "replica" if row["in_recovery"] else "primary"
        return odd(subject, f"works, but it says {says} and the registry {member.role}", "wait a moment, check again")
    return ok(subject, "works, and may look up passwords")


def tls_context(options: ClientOptions) -> ssl.SSLContext:
    """Make the context that `--server-tls` means; as in libpq, `require` verifies too where there is a --server-ca."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = options.server_tls == "verify-full"
    if options.server_ca is not None and options.server_tls in ("require", "verify-ca", "verify-full"):
        context.load_verify_locations(options.server_ca)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.server_cert is not None:
        context.load_cert_chain(options.server_cert, options.server_key)
    return context


def _asyncpg_tls(address: Address, options: ClientOptions) -> ssl.SSLContext | Literal["disable", "allow", "prefer"]:
    match options.server_tls:
        case _ if address.is_unix:
            return "disable"
        case "disable" | "allow" | "prefer" as mode:
            return mode
        case _:
            return tls_context(options)


@asynccontextmanager
async def _connected(address: Address) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    if address.is_unix:
        reader, writer = await asyncio.open_unix_connection(address.socket_path)
    else:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        # Aborted, not closed: a server that says nothing must not make the check wait.
        writer.transport.abort()


def _advice(address: Address) -> str:
    if address.is_unix:
        return f"is PostgreSQL running, with port {address.port} and unix_socket_directories = {address.host}?"
    return "is PostgreSQL running, with listen_addresses and firewalls that let this machine in?"


def _sentence(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
