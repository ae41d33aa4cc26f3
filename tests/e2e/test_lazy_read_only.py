"""An application cannot tell a READ ONLY transaction from PostgreSQL's, wherever it runs and whatever it asks for."""

from __future__ import annotations

import pytest

from tests.support.renderings import RENDERED
from tests.support.transaction_cases import READ_ONLY_CELLS
from tests.support.twins import Twins


@pytest.mark.parametrize("name", READ_ONLY_CELLS)
def test_a_statement_in_a_read_only_transaction(twins: Twins, name: str) -> None:
    # Nothing has been written by this session, so that nothing keeps it from a replica.
    difference = twins.compare(RENDERED["simple"](READ_ONLY_CELLS[name]))
    if difference:
        pytest.fail(difference, pytrace=False)
