"""An asyncio loop that waits for both planes at once."""

from __future__ import annotations

import asyncio

from pgamb.relay.selector import Selector


class SharedLoop(asyncio.SelectorEventLoop):
    """asyncio's own loop on our selector; a `Reactor` made on it shares that."""

    def __init__(self) -> None:
        self.selector = Selector()
        super().__init__(self.selector)
