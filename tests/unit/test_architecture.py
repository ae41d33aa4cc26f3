"""The shape of the code: layers point down only, the pure packages do no I/O, modules stay small.

Python modules are read as syntax trees, so an import inside a function or under TYPE_CHECKING counts too; Cython
modules line by line, where `cimport` counts like `import`.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "pgamb"

# Top first. A part may import what stands below it, never its own neighbours.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"cli"}),
    frozenset({"client", "server", "demo"}),
    frozenset({"sockets"}),
    frozenset({"config"}),
    frozenset({"relay", "registry", "observe"}),
    frozenset({"routing", "session"}),
    frozenset({"wire"}),
    frozenset({"errors"}),
)
# The demo starts the others as processes, as a user would.
NOT_EVEN_BELOW = {"demo": frozenset({"config", "relay", "routing", "session", "wire"})}

PURE = frozenset({"wire", "session", "routing", "errors"})
IMPURE_MODULES = frozenset(
    {"asyncio", "logging", "os", "random", "secrets", "select", "selectors", "signal", "socket", "ssl"}
    | {"subprocess", "threading", "time"}
)
IMPURE_C_PREFIXES = ("posix", "cpython.time", "libc.time", "libc.signal", "libc.stdio")

NAMES_OF_NOTHING = frozenset({"utils", "util", "helpers", "common", "manager", "base", "misc"})
LONGEST_MODULE_LINES = 400


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, by its absolute name."""

    line: int
    name: str
    compiled: bool  # a cimport


def python_imports(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, compiled=False)
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node.module or "", node.level, module, is_package=is_package)
            for alias in node.names:
                yield Import(node.lineno, f"{origin}.{alias.name}", compiled=False)


_CYTHON_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<dots>\.*)(?P<origin>[\w.]*)\s+(?P<kind>c?import)\s+(?P<names>.+)"
    r"|(?P<plain>c?import)\s+(?P<modules>[\w., ]+))"
)


def cython_imports(source: str, module: str) -> Iterator[Import]:
    for number, line in enumerate(_without_docstrings(source).splitlines(), 1):
        found = _CYTHON_IMPORT.match(line.split("#")[0])
        if found is None:
            continue
        if found["modules"]:
            for name in found["modules"].split(","):
                yield Import(number, name.split(" as ")[0].strip(), compiled=found["plain"] == "cimport")
            continue
        origin = _absolute(found["origin"], len(found["dots"]), module, is_package=False)
        # Names after an opening parenthesis may go on on further lines; the module they come from is what counts.
        first = re.split(r"[\s,()]+", found["names"].strip("( "))[0]
        yield Import(number, f"{origin}.{first}", compiled=found["kind"] == "cimport")


def _without_docstrings(source: str) -> str:
    return re.sub(r'"""(?:.|\n)*?"""', lambda found: "\n" * found[0].count("\n"), source)


def _absolute(origin: str, dots: int, module: str, *, is_package: bool) -> str:
    if not dots:
        return origin
    parts = module.split(".")
    folder = parts[: len(parts) - (dots - is_package)]
    return ".".join([*folder, *([origin] if origin else [])])


def _part(module: str) -> str | None:
    """Name the part of pgamb that a module belongs to; None for other modules, and for `pgamb` itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == "pgamb" and len(parts) > 1 and not parts[1].startswith("__") else None


def _rank(part: str) -> int:
    for rank, layer in enumerate(LAYERS):
        if part in layer:
            return rank
    raise AssertionError(f"pgamb.{part} has no layer: give it one in LAYERS, and in the design's list of packages")


def violations(module: str, imports: Iterator[Import]) -> list[str]:
    """Say what is wrong with the imports of one module, a line each."""
    part = _part(module)
    if part is None:
        return []
    found = []
    for imported in imports:
        target = _part(imported.name)
        where = f"{module}:{imported.line} imports {imported.name}"
        if target is not None and target != part:
            if target in NOT_EVEN_BELOW.get(part, frozenset()):
                found.append(f"{where}: {part} may not use {target}")
            elif _rank(target) <= _rank(part):
                found.append(f"{where}: {target} does not stand below {part}")
        if part in PURE:
            impure = imported.name.startswith(IMPURE_C_PREFIXES) if imported.compiled else False
            if impure or imported.name.split(".")[0] in IMPURE_MODULES:
                found.append(f"{where}: {part} is pure")
    return found


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports_of(path: Path) -> Iterator[Import]:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return python_imports(source, _module_name(path), is_package=path.stem == "__init__")
    return cython_imports(source, _module_name(path))


def _sources(folder: Path, *suffixes: str) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in suffixes)


def test_layers_point_down_and_pure_packages_stay_pure() -> None:
    found = [
        text
        for path in _sources(PACKAGE, ".py", ".pyx", ".pxd")
        for text in violations(_module_name(path), _imports_of(path))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("pgamb.wire.messages", "import asyncio", "wire is pure"),
        ("pgamb.session.login", "from os import path", "session is pure"),
        ("pgamb.routing.router", "def f():\n    import time", "routing is pure"),
        ("pgamb.wire.messages", "from pgamb.session import login", "session does not stand below wire"),
        ("pgamb.wire.messages", "from ..session import login", "session does not stand below wire"),
        ("pgamb.wire.messages", "from .. import session", "session does not stand below wire"),
        ("pgamb.session", "from ..routing import router", "routing does not stand below session"),
        ("pgamb.client.service", "import pgamb.server", "server does not stand below client"),
        (
            "pgamb.relay.pool",
            "if TYPE_CHECKING:\n    from pgamb.client import opener",
            "client does not stand below relay",
        ),
        ("pgamb.errors", "from pgamb.wire import messages", "wire does not stand below errors"),
        ("pgamb.demo.cluster", "from pgamb.relay import reactor", "demo may not use relay"),
    ],
)
def test_a_wrong_python_import_is_seen(module: str, source: str, complaint: str) -> None:
    imports = python_imports(source, module, is_package=module == "pgamb.session")
    assert [text for text in violations(module, imports) if text.endswith(complaint)]


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("pgamb.relay.pool", "from pgamb.client cimport opener", "client does not stand below relay"),
        ("pgamb.relay.pool", "from ..observe cimport metrics", "observe does not stand below relay"),
        ("pgamb.relay.pool", "cimport pgamb.client.opener as opener", "client does not stand below relay"),
        ("pgamb.relay.pool", "    from pgamb.server import (\n    probe)", "server does not stand below relay"),
        ("pgamb.routing.lexer", "from posix.time cimport clock_gettime", "routing is pure"),
        ("pgamb.wire.framer", "import socket, struct", "wire is pure"),
    ],
)
def test_a_wrong_cython_import_is_seen(module: str, source: str, complaint: str) -> None:
    assert [text for text in violations(module, cython_imports(source, module)) if text.endswith(complaint)]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pgamb.relay.pool", "from pgamb.relay.reactor cimport Reactor\nfrom libc.string cimport memcpy"),
        ("pgamb.relay.pool", '"""A pool:\n\nimport pgamb.client is what it never does.\n"""'),
        ("pgamb.relay.pool", "from .backend cimport Backend  # from pgamb.client import opener"),
        ("pgamb.wire.scram", "import hashlib, hmac"),
    ],
)
def test_a_right_cython_import_is_left_alone(module: str, source: str) -> None:
    assert violations(module, cython_imports(source, module)) == []


def test_no_python_module_is_longer_than_a_reader_can_hold() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for folder in (PACKAGE, ROOT / "tests")
        for path in _sources(folder, ".py")
    }
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE_LINES}
    assert not too_long, f"more than {LONGEST_MODULE_LINES} lines: {too_long}"


def test_every_module_is_named_after_something() -> None:
    assert not [
        str(path.relative_to(ROOT)) for path in _sources(PACKAGE, ".py", ".pyx") if path.stem in NAMES_OF_NOTHING
    ]


def test_every_compiled_module_has_a_face_and_is_built() -> None:
    compiled = _sources(PACKAGE, ".pyx")
    assert compiled
    assert not [str(path.relative_to(ROOT)) for path in compiled if not path.with_suffix(".pxd").exists()]
    with (ROOT / "pyproject.toml").open("rb") as file:
        extensions = tomllib.load(file)["tool"]["setuptools"]["ext-modules"]
    built = {extension["name"]: extension["sources"] for extension in extensions}
    assert built == {_module_name(path): [str(path.relative_to(ROOT))] for path in compiled}
