"""What systemd's listening sockets change in the options of a process: they stand in for the addresses."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from pgamb.config import ClientOptions, Loaded, ProcessOptions
from pgamb.config.rules import judge
from pgamb.errors import ConfigError
from pgamb.sockets.activation import activated, address_of
from pgamb.sockets.binding import Listening

Options = TypeVar("Options", bound=ProcessOptions)

# FileDescriptorName= of the status page's socket; whatever the others are called, they are for applications.
STATUS = "status"


def activated_options(loaded: Loaded[Options]) -> tuple[Loaded[Options], dict[str, list[Listening]]]:
    """Return the options as the sockets make them, and the sockets by the option that each is for.

    What must hold of an address holds of a socket, too. Raises ConfigError.
    """
    given: dict[str, list[Listening]] = {}
    for name, listening in activated().items():
        given.setdefault("--status-listen" if name == STATUS else "--listen", []).extend(listening)
    if not given:
        return loaded, given
    changes: dict[str, object] = {}
    for flag, listening in given.items():
        addresses = tuple(map(address_of, listening))
        field = flag[2:].replace("-", "_")
        if not hasattr(loaded.options, field):
            raise ConfigError(f"LISTEN_FDS has a socket for {flag}, which this command does not have")
        if isinstance(loaded.options, ClientOptions) and field == "listen":
            changes[field] = addresses
        elif len(addresses) == 1:
            changes[field] = addresses[0]
        else:
            raise ConfigError(f"LISTEN_FDS has {len(addresses)} sockets for {flag}, one at most can be used")
    options = msgspec.structs.replace(loaded.options, **changes)
    # What is odd about the addresses that are not used concerns nobody.
    before = judge(loaded.options)
    slips = tuple(oddity for oddity in loaded.warnings if oddity not in before)
    return Loaded(options, loaded.origins, (*slips, *judge(options))), given
