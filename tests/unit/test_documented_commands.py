"""Every pgamb command that the documentation shows has the options that it is shown with."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pgamb.cli import main, server_drain

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

# A command in code: at a line's beginning (behind a prompt), or behind a backquote.
_COMMAND = re.compile(r"(?:^(?: {4}|\$ )?|`)pgamb (server drain|[a-z]+)\b([^`\n]*)", re.MULTILINE)
_OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*)")


def shown(text: str) -> list[tuple[str, list[str]]]:
    """Return each command with its own options, those behind `--` left out."""
    return [
        (found[1], _OPTION.findall(re.split(r"(?<!\S)--(?!\S)|#", found[2])[0])) for found in _COMMAND.finditer(text)
    ]


def options(command: str) -> set[str]:
    found = server_drain.command if command == "server drain" else main.get_command(click.Context(main), command)
    assert found is not None, f"there is no command pgamb {command}"
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_have_the_options_shown(document: Path) -> None:
    for command, given in shown(document.read_text(encoding="utf-8")):
        if given:
            assert not set(given) - options(command), f"pgamb {command}"


def test_what_is_wrong_is_seen() -> None:
    assert shown(
        "x `pgamb client --nonsense 1 -- psql --other` y\n\n    pgamb demo # --no\n$ pgamb status --json\n"
    ) == [
        ("client", ["--nonsense"]),
        ("demo", []),
        ("status", ["--json"]),
    ]
    assert "--nonsense" not in options("client")
    assert "--pool-size" in options("client")
