"""What the control plane counts: log-ins, and backends opened and lost. The data plane counts its own work itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Tally:
    """Totals since the start. `refused` and `gave_up` are by SQLSTATE, those of backends by node."""

    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    timed_out: int = 0
    left: int = 0
    cancel_requests: int = 0
    gave_up: Counter[str] = field(default_factory=Counter)
    backends_opened: Counter[str] = field(default_factory=Counter)
    backends_refused: Counter[str] = field(default_factory=Counter)
    backends_lost: Counter[str] = field(default_factory=Counter)
