"""Logs: one line an event, on stderr, as `key=value` text or as JSON.

An event is a logging record whose message is the event's name (`registry.connected`) and whose attribute `kv` is a
dict: `log.info("registry.connected", extra={"kv": {"endpoint": endpoint}})`. Records of other libraries are sentences:
they become the event `log`. Secrets in values are masked here as well, so that no caller can forget it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Literal, TextIO

MASK = "***"

_EVENT = re.compile(r"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*")
_PLAIN = re.compile(r"[^\s\"'=\\\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_LEVELS = {"WARNING": "WARN", "CRITICAL": "FATAL"}

_URL = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)(?P<rest>\S*)", re.IGNORECASE)
_SECRET_KEYS = r"password|passwd|sslpassword|passphrase|secret|token"
_PARAMETER = re.compile(
    rf"\b(?P<key>{_SECRET_KEYS})(?P<is>\s*=\s*)(?P<value>'(?:\\.|[^'\\])*'?|[^\s&\"']+)", re.IGNORECASE
)
_SECRET_NAME = re.compile(rf"(^|[_.-])({_SECRET_KEYS}|proof|verifier)$", re.IGNORECASE)
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_VERIFIER = re.compile(r"SCRAM-SHA-256\$[0-9]+:[^\s\"']+|\bmd5[0-9a-f]{32}\b")


def mask_dsn(text: str) -> str:
    """Replace passwords in a URL, a `key=value` DSN, or any text around them; also private keys and verifiers."""
    text = _URL.sub(lambda found: found["scheme"] + _mask_authority(found["rest"]), text)
    text = _PARAMETER.sub(rf"\g<key>\g<is>{MASK}", text)
    return _VERIFIER.sub(MASK, _KEY_BLOCK.sub(MASK, text))


def setup_logging(form: Literal["text", "json"], level: str, *, stream: TextIO | None = None) -> None:
    """Send every event from `level` (a name such as "info") on to `stream` (stderr); for a process's start."""
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("pgamb").setLevel(number)
    # Others' chatter ("Using selector: ...") is no event of ours, at whatever level.
    root.setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)


class TextFormatter(logging.Formatter):
    """`2026-07-01T12:00:00.000Z INFO  event key=value key="quoted value"`."""

    def format(self, record: logging.LogRecord) -> str:
        event, values = _event(record)
        line = f"{_timestamp(record)} {_level(record):5} {event}"
        return line + "".join(f" {key}={_quoted(value)}" for key, value in values.items())


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `event`, then the event's own keys."""

    def format(self, record: logging.LogRecord) -> str:
        event, values = _event(record)
        head: dict[str, object] = {"time": _timestamp(record), "level": _level(record).lower(), "event": event}
        body = {f"{key}_" if key in head else key: value for key, value in values.items()}
        return json.dumps(head | body, ensure_ascii=False, allow_nan=False)


def _event(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """Give the event's name and its values, masked and reduced to what JSON knows."""
    message = record.getMessage()
    given = getattr(record, "kv", None)
    values: dict[str, object] = {}
    if not _EVENT.fullmatch(message):
        values |= {"message": mask_dsn(message), "logger": record.name}
        message = "log"
    if isinstance(given, Mapping):
        values |= {str(key): MASK if _SECRET_NAME.search(str(key)) else _plain(value) for key, value in given.items()}
    if record.exc_info and record.exc_info[1] is not None:
        values.setdefault("error", _plain(record.exc_info[1]))
        values["traceback"] = mask_dsn(logging.Formatter().formatException(record.exc_info))
    return message, values


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float):
        return round(value, 6) if value - value == 0 else str(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, BaseException):
        return mask_dsn(str(value) or type(value).__name__)
    return mask_dsn(str(value))


def _quoted(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        value = ",".join(str(item) for item in value)
    elif isinstance(value, dict):
        value = json.dumps(value, ensure_ascii=False)
    text = str(value)
    if _PLAIN.fullmatch(text):
        return text
    # A line break or an escape sequence in a value must neither begin a new event nor reach a terminal.
    return re.sub(
        r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]",
        lambda found: f"\\u{ord(found[0]):04x}",
        json.dumps(text, ensure_ascii=False),
    )


def _mask_authority(rest: str) -> str:
    """Mask `user:PASSWORD@`; a password with an unescaped slash in it takes the hosts with it, rather than show."""
    end = next((index for index, character in enumerate(rest) if character in "/?#"), len(rest))
    at = rest.rfind("@", 0, end)
    if at < 0 and ":" in rest[:end]:
        at = rest.rfind("@")
    user, colon, _ = rest[: max(at, 0)].partition(":")
    return f"{user}:{MASK}{rest[at:]}" if colon else rest


def _level(record: logging.LogRecord) -> str:
    return _LEVELS.get(record.levelname, record.levelname)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
