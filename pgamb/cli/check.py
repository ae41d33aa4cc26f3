"""`pgamb check`: verify a configuration of `pgamb client`, one line a check."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import click

from pgamb.cli.check_files import check_files
from pgamb.cli.check_listen import check_listen
from pgamb.cli.check_member import check_member
from pgamb.cli.failure import FAILED
from pgamb.cli.finding import Finding, State, failed, odd, ok, refused, skipped
from pgamb.cli.options import OptionsCommand, read
from pgamb.cli.picture import Picture, registry_doubt
from pgamb.cli.view import open_view
from pgamb.config import ClientOptions, Loaded
from pgamb.errors import ConfigError, PgambError
from pgamb.observe.logs import setup_logging
from pgamb.registry.model import Address, Member, Topology
from pgamb.registry.source import StaticSource, parse_registry_url

HELP = """Verify a configuration of `pgamb client`, one line a check.

Takes the options of `pgamb client`, and says of each part whether it works, and what to do where it does not: files,
addresses to listen at, registry, service, primary, and every member with its TLS and its log-in. Nothing is changed.

\b
Exit status: 0  everything works
             1  something does not
             2  not even the command line is understood

\b
    pgamb check --config /etc/pgamb.toml
"""


def _check(**given: object) -> int:
    # Everything that there is to say is a finding.
    setup_logging("text", "error")
    return asyncio.run(_run(given))


async def _run(given: dict[str, object]) -> int:
    status = 0
    async for finding in _findings(given):
        click.echo(str(finding))
        if finding.state is State.FAILED:
            status = FAILED
    return status


async def _findings(given: dict[str, object]) -> AsyncIterator[Finding]:
    try:
        loaded = read(ClientOptions, given)
    except ConfigError as error:
        yield refused("configuration", error)
        return
    options = loaded.options
    for finding in _configuration(loaded):
        yield finding
    for finding in check_files(options, datetime.now(UTC)):
        yield finding
    for finding in check_listen("--listen", options.listen):
        yield finding
    if options.status_listen is not None:
        for finding in check_listen("--status-listen", (options.status_listen,)):
            yield finding
    try:
        async with open_view(options, timeout_s=options.connect_timeout_s, login_dsn=options.auth_dsn) as view:
            topology, seen = view.newest, await view.picture()
    except (PgambError, OSError) as error:
        yield _registry_failed(error)
        yield skipped("members", "the registry has to be reached first")
        return
    async for finding in _service(topology, seen, options):
        yield finding


def _configuration(loaded: Loaded[ClientOptions]) -> Iterator[Finding]:
    given = sum(origin != "default" for origin in loaded.origins.values())
    yield ok("configuration", f"{given} option{'s' if given != 1 else ''} given, the others have their defaults")
    for oddity in loaded.warnings:
        yield odd("configuration", oddity.message, oddity.hint)


def _registry_failed(error: PgambError | OSError) -> Finding:
    if isinstance(error, PgambError):
        return refused("registry", error)
    return failed("registry", error.strerror or str(error), "see --registry")


async def _service(topology: Topology, seen: Picture, options: ClientOptions) -> AsyncIterator[Finding]:
    doubt = registry_doubt(seen.registry)
    if doubt is None:
        yield ok("registry", f"{seen.registry.endpoint or seen.registry.source} answers")
    elif seen.registry.connected:
        yield odd("registry", doubt.removeprefix("registry: "), "see the members' own lines")
    else:
        yield failed("registry", doubt.removeprefix("registry: "), "see --registry and --auth-dsn")
    for note in seen.registry.notes:
        if note != seen.why:
            yield odd("registry", note, "see `pgamb status`")
    count = len(topology.members)
    if count:
        yield ok("service", f'"{options.service}" has {count} member{"s" if count != 1 else ""}')
    else:
        yield failed("service", f'"{options.service}" has no members', f"{seen.why}; or is --service wrong?")
    if seen.primary is not None:
        yield ok("primary", seen.why)
    elif count:
        yield failed("primary", "none", seen.why)
    for member in seen.members:
        for note in member.notes:
            yield odd(f"member {member.node}", note, "see `pgamb status`")
    async with asyncio.TaskGroup() as group:
        checks = [
            group.create_task(check_member(member, address, options)) for member, address in _places(topology, options)
        ]
    for check in checks:
        for finding in check.result():
            yield finding


def _places(topology: Topology, options: ClientOptions) -> Iterator[tuple[Member | None, Address]]:
    """Give every address of every member, and those that static:// names though no member was found there."""
    known = set()
    for member in topology.members:
        for address in member.addresses:
            known.add(address)
            yield member, address
    source = parse_registry_url(options.registry)
    if isinstance(source, StaticSource):
        for address in source.addresses:
            if address not in known:
                yield None, address


command = OptionsCommand("check", ClientOptions, _check, help_text=HELP)
