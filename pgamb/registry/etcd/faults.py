"""What etcd's refusals mean, as decisions: try elsewhere, authenticate again, or tell the operator."""

from __future__ import annotations

from enum import Enum

import grpc

from pgamb.errors import RegistryError, RegistryUnavailable
from pgamb.registry.store import LeaseGone


class Fault(Enum):
    """`ELSEWHERE`: another endpoint may do better. `TOKEN`: the token is no good (any more)."""

    ELSEWHERE = "elsewhere"
    TOKEN = "token"
    DENIED = "denied"
    LEASE_GONE = "lease gone"
    REFUSED = "refused"


# The texts are etcd's (api/v3rpc/rpctypes/error.go); codes alone do not tell these apart. The words are the same in the
# reason of a cancelled watch, which carries no code at all.
_TOKEN_TEXTS = ("invalid auth token", "revision of auth store is old", "user name is empty")
_LEASE_TEXTS = ("requested lease not found",)
_DENIED_TEXTS = ("permission denied",)

# A member without a leader, or overloaded, answers UNAVAILABLE too. UNKNOWN is what a proxy or a dying server leaves.
_ELSEWHERE_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
    }
)


def classify(code: grpc.StatusCode | None, text: str) -> Fault:
    """Tell what to do about a status; `code` is None for the reason of a cancelled watch."""
    if any(known in text for known in _TOKEN_TEXTS):
        return Fault.TOKEN
    if any(known in text for known in _LEASE_TEXTS):
        return Fault.LEASE_GONE
    if code is grpc.StatusCode.PERMISSION_DENIED or any(known in text for known in _DENIED_TEXTS):
        return Fault.DENIED
    if code is None or code in _ELSEWHERE_CODES:
        return Fault.ELSEWHERE
    return Fault.REFUSED


def translate(fault: Fault, text: str, endpoint: str, user: str | None) -> RegistryError:
    """Make the error that callers see; `text` is etcd's own."""
    if fault is Fault.ELSEWHERE:
        return RegistryUnavailable(f"etcd at {endpoint} does not answer: {text}")
    if fault is Fault.LEASE_GONE:
        return LeaseGone(f"the lease is gone: {text}")
    if fault in (Fault.DENIED, Fault.TOKEN) and not user:
        return RegistryError(
            f"etcd at {endpoint} wants a log-in: {text}",
            hint="Write etcd://user:password@host:2379, or give --ca, --cert, --key.",
        )
    if fault in (Fault.DENIED, Fault.TOKEN):
        return RegistryError(
            f"etcd at {endpoint} does not allow this to user {user}: {text}",
            hint="Let the user's role: etcdctl role grant-permission ROLE readwrite --prefix=true /pgamb/",
        )
    if "database space exceeded" in text:
        return RegistryError(
            f"etcd at {endpoint} is full: {text}", hint="Compact and defragment it, then: etcdctl alarm disarm"
        )
    return RegistryError(f"etcd at {endpoint} refuses: {text}")
