from collections.abc import Callable

from pgamb.relay.freshness import Freshness
from pgamb.relay.frontend import Frontend
from pgamb.relay.statement import Plan
from pgamb.session.parameters import ParameterSets

class Relay:
    def __init__(
        self,
        parameter_sets: ParameterSets,
        freshness: Freshness,
        *,
        session_mode: bool,
        prepared_limit: int,
        on_frontend_closed: Callable[[Frontend], object],
        lazy: bool = True,
        on_repeated: Callable[[Frontend, Plan | None], object] | None = None,
        on_changed: Callable[[str, bytes], object] | None = None,
        on_unfinished: Callable[[Frontend], object] | None = None,
        on_named: Callable[[Frontend, int, bytes, list[int], set[int]], object] | None = None,
        told_pid: Callable[[int], int] | None = None,
        on_limited: Callable[[Frontend], object] | None = None,
    ) -> None: ...
    @property
    def frontends(self) -> dict[int, Frontend]: ...
    @property
    def to_primary(self) -> int: ...
    @property
    def to_replica(self) -> int: ...
    @property
    def routes(self) -> list[int]: ...
    @property
    def refusals(self) -> int: ...
    @property
    def conflicts(self) -> int: ...
    @property
    def losses(self) -> int: ...
