import ssl

from pgamb.errors import PgambError
from pgamb.relay.reactor import Reactor, Source
from pgamb.session.parameters import ParameterSet
from pgamb.session.reported import Reported

class Owner(Source):
    @property
    def waiting_since(self) -> float: ...

class Home: ...

class Backend(Source):
    parameters: ParameterSet
    cancels: int
    tainted: bool
    sequences_of: int
    idle_since: float
    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        home: Home,
        parameters: ParameterSet,
        pid: int,
        secret: bytes,
        *,
        reported: Reported | None = None,
        in_recovery: bool = False,
        tls: ssl.SSLObject | None = None,
        tls_in: ssl.MemoryBIO | None = None,
        tls_out: ssl.MemoryBIO | None = None,
    ) -> None: ...
    @property
    def pid(self) -> int: ...
    @property
    def secret(self) -> bytes: ...
    @property
    def in_recovery(self) -> bool: ...
    @property
    def owner(self) -> Owner | None: ...
    @property
    def home(self) -> Home: ...
    @property
    def owed(self) -> int: ...
    @property
    def prepared(self) -> int: ...
    @property
    def status(self) -> int: ...
    @property
    def units(self) -> int: ...
    @property
    def received_bytes(self) -> int: ...
    @property
    def sent_bytes(self) -> int: ...
    def close(self) -> int: ...
    def fail(self, error: PgambError) -> None: ...
