"""A batch that comes in pieces is looked at once, not once for each piece."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from pgamb.wire import messages
from tests.support.compiling import ROOT, compile_module


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    folder: Path = tmp_path_factory.mktemp("batches")
    return compile_module(ROOT / "tests" / "support" / "batches.pyx", folder)


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("count", [100, 200])
def test_a_batch_in_pieces_is_looked_at_once(batches: ModuleType, count: int, size: int) -> None:
    batch = b"".join(messages.parse(f"s{number}", f"SELECT {number}") for number in range(count)) + messages.sync()
    assert batches.looks([batch[at : at + size] for at in range(0, len(batch), size)]) == count
