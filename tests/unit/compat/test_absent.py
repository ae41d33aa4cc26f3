"""A suite whose sources cannot be had: named, and no error unless it was asked for."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from tests.compat import __main__ as compat
from tests.compat.debian import Missing
from tests.compat.outcome import Outcome


def absent(place: object, *, short: bool) -> Outcome:
    raise Missing("it is nowhere", hint="look again")


def present(place: object, *, short: bool) -> Outcome:
    return Outcome("1", {"a": True}, {"a": True})


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    suites = {
        "libpq_pipeline": SimpleNamespace(NAME="present", run=present),
        "psycopg": SimpleNamespace(NAME="absent", run=absent),
    }
    monkeypatch.setattr(compat, "suites", lambda: suites)
    monkeypatch.setattr(compat, "_check_machine", lambda chosen: None)
    monkeypatch.setattr(compat, "running_place", lambda *arguments: contextlib.nullcontext())
    return CliRunner()


def test_it_is_named_and_the_others_run(runner: CliRunner) -> None:
    result = runner.invoke(compat.main, [])
    assert result.exit_code == 0
    assert "not run: absent: it is nowhere; look again" in result.output
    assert "| present | 1 | 1 | 1 | 1 | 0 |" in result.output


def test_it_is_missing_where_it_was_asked_for(runner: CliRunner) -> None:
    result = runner.invoke(compat.main, ["--suite", "psycopg"])
    assert result.exit_code == 2
    assert "it is nowhere; look again" in result.output
