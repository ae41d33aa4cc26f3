"""A suite whose sources cannot be had: named, and no error unless it was asked for."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pgamb.errors import PgambError
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


def test_what_there_is_no_time_for_is_named(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "SHORT_S", -1.0)
    result = runner.invoke(compat.main, ["--short"])
    assert result.exit_code == 0
    assert "not run: present:" in result.output
    assert "| present | 1 | 1 | 1 | 1 | 0 |" in runner.invoke(compat.main, []).output


def test_one_that_breaks_off_fails_and_the_others_run(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(place: object, *, short: bool) -> Outcome:
        raise PgambError("it could not be built")

    suites = {**compat.suites(), "broken": SimpleNamespace(NAME="broken", run=breaks)}
    monkeypatch.setattr(compat, "suites", lambda: dict(reversed(suites.items())))
    result = runner.invoke(compat.main, [])
    assert result.exit_code == 1
    assert result.output.endswith("FAILED broken: it did not come to its end\n")
    assert "| present | 1 | 1 | 1 | 1 | 0 |" in result.output


def test_what_takes_long_comes_last() -> None:
    found = [hasattr(suite, "TAKES_LONG") for suite in compat.suites().values()]
    assert found == sorted(found)
    assert True in found


def test_it_is_missing_where_it_was_asked_for(runner: CliRunner) -> None:
    result = runner.invoke(compat.main, ["--suite", "psycopg"])
    assert result.exit_code == 2
    assert "it is nowhere; look again" in result.output
