"""Which address and name a member is announced with, and whether others can do anything with that address."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from pgamb.config.listen import EVERYWHERE, ListenAddress
from pgamb.registry.model import Address

# What can be part of a registry key and of a file name. Debian's default cluster_name, "15/main", is the same on every
# machine: it names no node.
_NODE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Advertised:
    """The address to announce; `warning` says why others may not reach it, and what to do."""

    address: Address
    warning: str | None = None


def advertised_address(
    *,
    advertise: Address | None,
    listen: ListenAddress | None,
    listen_port: int,
    postgres: Address,
    own_ip: str,
    registry_hosts: tuple[str, ...],
) -> Advertised:
    """Choose the address: what was asked for, else where we listen, else PostgreSQL's own.

    `listen_port` is the one really listened at; `own_ip` is the address that this machine reaches the registry from,
    and stands for "all interfaces".
    """
    if advertise is not None:
        return Advertised(advertise)
    if listen is None:
        address, what = postgres, "the address in --dsn"
    elif listen.host == EVERYWHERE:
        address, what = Address(own_ip, listen_port), "the address that this machine has towards the registry"
    else:
        address, what = Address(listen.host, listen_port), "the address of --listen"
    if not is_local(address) or all(is_local(Address(host)) for host in registry_hosts):
        return Advertised(address)
    return Advertised(
        address,
        f"{what}, {address}, can be reached on this machine only, and the registry is on another: "
        "give --advertise HOST:PORT, or --listen :PORT to expose PostgreSQL here",
    )


def is_local(address: Address) -> bool:
    """Tell whether an address means something on its own machine only."""
    if address.is_unix or address.host.lower() == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address.host)
    except ValueError:
        return False
    return ip.is_loopback or ip.is_unspecified


def node_name(wanted: str | None, cluster_name: str, hostname: str, port: int) -> str:
    """Choose the member's name: what was asked for, else PostgreSQL's cluster_name, else host and port."""
    if wanted is not None:
        return wanted
    if _NODE_NAME.fullmatch(cluster_name):
        return cluster_name
    return f"{re.sub(r'[^A-Za-z0-9_.-]', '-', hostname)[:57] or 'node'}-{port}"
