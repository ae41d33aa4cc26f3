"""What an option's value may be. Each kind reads text (flags, environment) and TOML values alike."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from pgamb.config.listen import ListenAddress
from pgamb.errors import ConfigError, PgambError
from pgamb.registry.model import Address, parse_address

_LISTEN_FORMS = "PORT, :PORT, HOST:PORT, [IPV6]:PORT or a unix socket folder"
_UNIT_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


class Kind(Protocol):
    """Reads one option's value. `metavar` is what the help shows, `right` names a correct value."""

    @property
    def metavar(self) -> str: ...

    @property
    def right(self) -> str: ...

    def parse(self, value: object) -> object:
        """Give the typed value; raise ValueError with what is wrong, or ConfigError when there is a better hint."""

    def render(self, value: object) -> str:
        """Give back text that `parse` reads as the same value."""


@dataclass(frozen=True, slots=True)
class Text:
    metavar: str = "TEXT"
    right: str = "a text"

    def parse(self, value: object) -> str:
        return _text(value)

    def render(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Name:
    """A name that becomes part of a registry key: no slash, no space."""

    metavar: str = "NAME"
    right: str = "a name of letters, digits, dots, dashes and underscores, at most 63"

    def parse(self, value: object) -> str:
        text = _text(value)
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", text):
            raise ValueError("is not a name")
        return text

    def render(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Whole:
    minimum: int
    maximum: int
    metavar: str = "N"

    @property
    def right(self) -> str:
        return f"a whole number from {self.minimum} to {self.maximum}"

    def parse(self, value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("is not a whole number")
        if not self.minimum <= value <= self.maximum:
            raise ValueError("is out of range")
        return value

    def render(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A duration. A bare number is in seconds; units as PostgreSQL's: ms, s, min, h, d."""

    minimum: float
    maximum: float
    metavar: str = "SECONDS"

    @property
    def right(self) -> str:
        shortest, longest = _brief(self.minimum), _brief(self.maximum)
        return f"a duration from {shortest} to {longest}, for example 30 (seconds), 500ms, 5min or 1h"

    def parse(self, value: object) -> float:
        if isinstance(value, str):
            found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) *(ms|s|min|h|d)?", value.strip())
            if found is None:
                raise ValueError("is not a duration")
            value = float(found[1]) * _UNIT_S[found[2] or "s"]
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise ValueError("is not a duration")
        if not self.minimum <= value <= self.maximum:
            raise ValueError("is out of range")
        return float(value)

    def render(self, value: object) -> str:
        return f"{value:g}"


@dataclass(frozen=True, slots=True)
class Switch:
    metavar: str = "true|false"
    right: str = "true or false"

    def parse(self, value: object) -> bool:
        if isinstance(value, bool):
            return value
        word = value.strip().lower() if isinstance(value, str) else ""
        if word in ("true", "on", "yes", "1"):
            return True
        if word in ("false", "off", "no", "0"):
            return False
        raise ValueError("is neither true nor false")

    def render(self, value: object) -> str:
        return "true" if value else "false"


@dataclass(frozen=True, slots=True)
class Choice:
    words: Sequence[str]

    @property
    def metavar(self) -> str:
        return "|".join(self.words)

    @property
    def right(self) -> str:
        return f"one of {', '.join(self.words)}"

    def parse(self, value: object) -> str:
        text = _text(value).lower()
        if text not in self.words:
            raise ValueError("is not one of the words known here")
        return text

    def render(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class File:
    """A path. Whether it can be read is asked when it is used: certificates may come later than the configuration."""

    metavar: str = "FILE"
    right: str = "a file's path"

    def parse(self, value: object) -> str:
        text = _text(value)
        if "\0" in text:
            raise ValueError("is not a path")
        return os.path.expanduser(text)

    def render(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Folder(File):
    """A path as well."""

    metavar: str = "FOLDER"
    right: str = "a folder's path"


@dataclass(frozen=True, slots=True)
class Listen:
    default_port: int = 5432
    metavar: str = "ADDRESS"
    right: str = _LISTEN_FORMS

    def parse(self, value: object) -> ListenAddress:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return ListenAddress.parse(_text(value), default_port=self.default_port)

    def render(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class ListenList:
    """One address or several: a repeated flag, commas in text, a TOML array."""

    metavar: str = "ADDRESS"
    right: str = _LISTEN_FORMS

    def parse(self, value: object) -> tuple[ListenAddress, ...]:
        items: list[object] = []
        for part in value if isinstance(value, list | tuple) else [value]:
            items.extend(part.split(",") if isinstance(part, str) else [part])
        found = tuple(Listen().parse(item) for item in items)
        if not found:
            raise ValueError("names no address")
        if len(set(found)) < len(found):
            raise ValueError("names an address twice")
        return found

    def render(self, value: object) -> str:
        return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True, slots=True)
class HostPort:
    """An address that others connect to, so it must name one host."""

    metavar: str = "HOST:PORT"
    right: str = "HOST:PORT as other machines reach it"

    def parse(self, value: object) -> Address:
        text = _text(value)
        try:
            return parse_address(text)
        except PgambError as error:
            raise ConfigError(error.message, hint=error.hint or f"give {self.right}") from None

    def render(self, value: object) -> str:
        return str(value)


@dataclass(frozen=True, slots=True)
class Url:
    """A URL whose scheme is one of `schemes` and that names something behind it."""

    schemes: Sequence[str]
    example: str
    metavar: str = "URL"

    @property
    def right(self) -> str:
        return f"a URL such as {self.example}"

    def parse(self, value: object) -> str:
        text = _text(value)
        scheme, separator, rest = text.partition("://")
        if not separator:
            raise ValueError("is not a URL")
        if scheme not in self.schemes:
            raise ValueError(f'begins with "{scheme}://", which is not one of {", ".join(self.schemes)}')
        try:
            urlsplit(f"x://{rest}")
        except ValueError as error:
            raise ValueError(f"is not a URL ({error})") from None
        if not rest.strip("/") and "?" not in rest:
            raise ValueError("names no host")
        return text

    def render(self, value: object) -> str:
        return str(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("is not a text")
    text = value.strip()
    if not text:
        raise ValueError("is empty")
    return text


def _brief(seconds: float) -> str:
    """Write a duration in the largest unit that divides it."""
    unit = next(
        (name for name in ("d", "h", "min", "s") if seconds >= _UNIT_S[name] and seconds % _UNIT_S[name] == 0), "ms"
    )
    return f"{seconds / _UNIT_S[unit]:g}{unit}" if seconds else "0"
