"""What the documentation names exists: linked files and headings, make targets, modules to run."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_MAKE = re.compile(r"\bmake\s+(?:[A-Z]+=\S+\s+)*([a-z][a-z-]*)\b")
_MODULE = re.compile(r"python[\d.]*\s+-m\s+((?:pgamb|tests)[\w.]*)")


def links(text: str) -> Iterator[str]:
    """Yield the targets of links, those inside code left out."""
    prose = re.sub(r"`[^`\n]*`", lambda found: "x" * len(found[0]), _FENCE.sub("", text))
    for found in _LINK.finditer(prose):
        yield found[1] or found[2]


def code(text: str) -> Iterator[str]:
    """Yield the pieces of code: between backquotes, fenced, and indented."""
    for found in _FENCE.finditer(text):
        yield found[0]
    rest = _FENCE.sub("", text)
    yield from re.findall(r"`([^`\n]+)`", rest)
    yield from re.findall(r"^ {4}(.+)$", rest, re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the names that headings can be linked by, as GitHub makes them."""
    headings = re.findall(r"^#{1,6}\s+(.+?)\s*$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(document: Path, text: str) -> list[str]:
    broken = []
    for link in links(text):
        if re.match(r"[a-z][a-z+.-]*:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        if name and not (target.exists() and target.is_relative_to(ROOT)):
            broken.append(link)
        elif anchor and target.suffix == ".md":
            known = anchors(text if target == document else target.read_text(encoding="utf-8"))
            if anchor not in known:
                broken.append(link)
    return broken


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(document: Path) -> None:
    assert broken_links(document, document.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_make_targets_exist(document: Path) -> None:
    named = {target for piece in code(document.read_text(encoding="utf-8")) for target in _MAKE.findall(piece)}
    assert named <= make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_modules_to_run_exist(document: Path) -> None:
    named = {module for piece in code(document.read_text(encoding="utf-8")) for module in _MODULE.findall(piece)}
    assert not {module for module in named if importlib.util.find_spec(module) is None}


def test_every_decision_has_its_own_number() -> None:
    names = [path.name for path in (ROOT / "docs" / "decisions").glob("*.md")]
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name) for name in names), names
    assert len({name[:4] for name in names}) == len(names), names


def test_every_run_time_dependency_has_its_reason() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    reasons = (ROOT / "docs" / "decisions" / "0002-dependencies.md").read_text(encoding="utf-8")
    named = re.findall(r'^    "([A-Za-z0-9-]+)[\[>"]', project, re.MULTILINE)
    named += re.findall(r'"([A-Za-z0-9-]+)>=', project)
    assert not {name for name in named if f"`{name}`" not in reasons}


def test_what_is_wrong_is_seen() -> None:
    document = ROOT / "docs" / "page.md"
    text = "# A `b`: c!\n\n[x](nowhere.md) [y](#a-b-c) [z](#a-b) `[code](no.md)` [web](https://example.org/no.md)\n"
    assert broken_links(document, text) == ["nowhere.md", "#a-b"]
    assert broken_links(document, "[out](../../elsewhere)") == ["../../elsewhere"]
    assert [_MAKE.findall(piece) for piece in code("`PYTHON=x make test` make sense\n\n    make demo A=1\n")] == [
        ["test"],
        ["demo"],
    ]
    assert make_targets("demo: x\nBIN := y\ntest:\n") == {"demo", "test"}
