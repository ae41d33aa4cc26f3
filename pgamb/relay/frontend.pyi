import ssl

from pgamb.errors import PgambError
from pgamb.relay.backend import Backend, Owner
from pgamb.relay.pool import Group, Pool
from pgamb.relay.reactor import Reactor
from pgamb.relay.session import Relay
from pgamb.session.parameters import ParameterSet

class Frontend(Owner):
    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        relay: Relay,
        group: Group,
        *,
        pid: int,
        secret: bytes,
        parameters: ParameterSet,
        startup: ParameterSet,
        rest: bytes = b"",
        tls: ssl.SSLObject | None = None,
        tls_in: ssl.MemoryBIO | None = None,
        tls_out: ssl.MemoryBIO | None = None,
    ) -> None: ...
    @property
    def pid(self) -> int: ...
    @property
    def secret(self) -> bytes: ...
    @property
    def backend(self) -> Backend | None: ...
    @property
    def pool(self) -> Pool | None: ...
    @property
    def group(self) -> Group: ...
    @property
    def parameters(self) -> ParameterSet: ...
    @property
    def state_name(self) -> str: ...
    @property
    def pins(self) -> int: ...
    @property
    def pin_names(self) -> list[str]: ...
    @property
    def units(self) -> int: ...
    @property
    def last_route(self) -> str: ...
    @property
    def routed(self) -> Pool | None: ...
    def close(self, error: PgambError | None = None) -> None: ...
    def fail_waiting(self, error: PgambError) -> None: ...
