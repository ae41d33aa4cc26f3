"""Compiles a test's own Cython: what the data plane calls in C can be called, and be, in no other way."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


def compile_module(source: Path, folder: Path) -> ModuleType:
    """Compile a .pyx in `folder` and import it. Raises AssertionError with the compiler's words."""
    shutil.copy(source, folder)
    answer = subprocess.run(
        [sys.executable, "-m", "Cython.Build.Cythonize", "--quiet", "--inplace", str(folder / source.name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    built = folder / (source.stem + str(sysconfig.get_config_var("EXT_SUFFIX")))
    loader = importlib.machinery.ExtensionFileLoader(source.stem, str(built))
    spec = importlib.util.spec_from_file_location(source.stem, built, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module
