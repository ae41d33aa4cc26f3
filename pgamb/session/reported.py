"""What PostgreSQL reports of itself unasked (ParameterStatus): what a backend has said, what an application was told.

A change of configuration is reported by each backend once, to whom it serves just then. So what every backend has said
last is kept, and an application that comes to one which said something else is told.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping

from pgamb.wire.messages import encode_text

# An application believes in one PostgreSQL, which takes its writes: of this it hears nothing.
UNTOLD = frozenset((b"in_hot_standby",))


class Reported:
    """An immutable set of parameters as they were reported; equal ones of one `ReportedSets` are the same object."""

    __slots__ = ("__weakref__", "_sets", "items")

    def __init__(self, items: Mapping[bytes, bytes], sets: ReportedSets) -> None:
        self.items = items
        self._sets = sets

    def __repr__(self) -> str:
        return f"<Reported {self.items!r}>"

    def changed(self, payload: bytes) -> Reported:
        """Return what is reported after a ParameterStatus with this payload."""
        name, _, value = payload.partition(b"\0")
        return self._sets.of({**self.items, name: value.partition(b"\0")[0]})

    def news_for(self, told: Reported) -> bytes:
        """Return the ParameterStatus messages that are missing to an application which was told something else."""
        return b"".join(
            b"S" + (len(name) + len(value) + 6).to_bytes(4, "big") + name + b"\0" + value + b"\0"
            for name, value in self.items.items()
            if told.items.get(name) != value
        )


class ReportedSets:
    """Makes equal sets the same object for as long as somebody holds it."""

    def __init__(self) -> None:
        self._sets: weakref.WeakValueDictionary[tuple[tuple[bytes, bytes], ...], Reported] = (
            weakref.WeakValueDictionary()
        )

    def of_statuses(self, statuses: Mapping[str, str]) -> Reported:
        """Return the set that a server has told at log-in."""
        return self.of({encode_text(name): encode_text(value) for name, value in statuses.items()})

    def of(self, items: Mapping[bytes, bytes]) -> Reported:
        """Return the set with these values, what nobody is told of left out."""
        told = {name: value for name, value in sorted(items.items()) if name not in UNTOLD}
        key = tuple(told.items())
        found = self._sets.get(key)
        if found is None:
            found = self._sets[key] = Reported(told, self)
        return found
