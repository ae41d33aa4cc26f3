"""What one check found, and how it is printed: one line, with what to do where something is to be done."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pgamb.errors import PgambError
from pgamb.observe.logs import mask_dsn


class State(StrEnum):
    OK = "ok"
    ODD = "odd"
    SKIPPED = "skipped"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is what was checked, `advice` what to do. Only FAILED makes the whole check fail."""

    state: State
    subject: str
    message: str
    advice: str | None = None

    def __str__(self) -> str:
        advice = f" -> {self.advice}" if self.advice else ""
        return mask_dsn(" ".join(f"{self.state:7} {self.subject}: {self.message}{advice}".split("\n")))


def ok(subject: str, message: str) -> Finding:
    return Finding(State.OK, subject, message)


def odd(subject: str, message: str, advice: str) -> Finding:
    """Make a finding about what works, but probably not as it was meant, or not for long."""
    return Finding(State.ODD, subject, message, advice)


def skipped(subject: str, message: str) -> Finding:
    return Finding(State.SKIPPED, subject, message)


def failed(subject: str, message: str, advice: str | None) -> Finding:
    return Finding(State.FAILED, subject, message, advice)


def refused(subject: str, error: PgambError) -> Finding:
    """Make a finding of an exception."""
    detail = f" ({error.detail})" if error.detail else ""
    return Finding(State.FAILED, subject, f"{error.message}{detail}", error.hint)
