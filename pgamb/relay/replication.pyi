import ssl
from collections.abc import Callable
from typing import Generic, TypeVar

from pgamb.errors import PgambError
from pgamb.relay.reactor import Reactor, Source

Origin = TypeVar("Origin")

class Walsender(Source):
    def close(self) -> None: ...

class Replication(Source, Generic[Origin]):
    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        backend_fd: int,
        *,
        pid: int,
        secret: bytes,
        origin: Origin,
        on_closed: Callable[[Replication[Origin]], object],
        rest: bytes = ...,
        tls: ssl.SSLObject | None = ...,
        tls_in: ssl.MemoryBIO | None = ...,
        tls_out: ssl.MemoryBIO | None = ...,
        backend_rest: bytes = ...,
        backend_tls: ssl.SSLObject | None = ...,
        backend_tls_in: ssl.MemoryBIO | None = ...,
        backend_tls_out: ssl.MemoryBIO | None = ...,
    ) -> None: ...
    @property
    def pid(self) -> int: ...
    @property
    def secret(self) -> bytes: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def state_name(self) -> str: ...
    @property
    def is_at_rest(self) -> bool: ...
    @property
    def sent_bytes(self) -> int: ...
    @property
    def received_bytes(self) -> int: ...
    def end(self, error: PgambError) -> None: ...
    def close(self) -> None: ...
