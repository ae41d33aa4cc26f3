"""A process that serves: its loop, its logs, and what becomes of an error that ends it."""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import TypeVar

from pgamb.config import Loaded, ProcessOptions, bind_error
from pgamb.errors import ConfigError, PgambError
from pgamb.observe.logs import setup_logging
from pgamb.relay.loop import SharedLoop

Options = TypeVar("Options", bound=ProcessOptions)

log = logging.getLogger(__name__)

CRASHED = 1

_BIND_ERRORS = frozenset({errno.EADDRINUSE, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL})
# asyncio puts the address into the text only: "error while attempting to bind on address ('::1', 5432, 0, 0): ...".
_BIND_PLACE = re.compile(r"address \('([^']+)', ([0-9]+)")


def run(serve: Callable[[], Coroutine[object, object, None]], loaded: Loaded[Options]) -> None:
    """Run `serve` until it ends, on a loop that both planes share.

    Raises the PgambError that ended it, or a ConfigError for an address that cannot be bound. Anything else is a
    defect of ours: it is logged with its traceback, and the exit status is 1.
    """
    setup_logging(loaded.options.log_format, loaded.options.log_level)
    for oddity in loaded.warnings:
        log.warning("config.odd", extra={"kv": {"what": oddity.message, "hint": oddity.hint}})
    try:
        with asyncio.Runner(loop_factory=SharedLoop) as runner:
            runner.run(serve())
    except Exception as error:
        reason = explain(error)
        if reason is not None:
            raise reason from None
        log.critical("process.crashed", exc_info=error)
        raise SystemExit(CRASHED) from None


def explain(error: BaseException) -> PgambError | None:
    """Find in an exception, or a group of them, what a person can do something about; None where nothing is."""
    leaves = list(_leaves(error))
    # The cause goes before its consequences, and what can be mended by configuration before all.
    for kind in (ConfigError, PgambError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    for leaf in leaves:
        if isinstance(leaf, OSError) and leaf.errno in _BIND_ERRORS:
            place = _BIND_PLACE.search(str(leaf))
            return bind_error(f"{place[1]}:{place[2]}" if place else "an address", leaf)
    return None


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
