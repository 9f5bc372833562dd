from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.faults import namespaces
from tests.faults.judgement import complaints
from tests.faults.rows import ROWS, Row, Way
from tests.faults.scenes import set_up
from tests.faults.server import Peers
from tests.faults.trial import run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the faults are made of Linux's own: see rows.py")


@pytest.fixture(scope="module")
def peers() -> Iterator[Peers]:
    with closing(Peers()) as peers:
        yield peers


@pytest.fixture(scope="module")
def why_no_cable() -> str:
    return namespaces.why_not()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_fault_costs_no_more_than_the_budget_and_loses_nothing(row: Row, peers: Peers, why_no_cable: str) -> None:
    """The handler gets its own result, in the budget; nothing piles up; it is counted; in the end totals are exact."""
    if row.way is Way.CABLE and why_no_cable:
        pytest.skip(why_no_cable)

    with set_up(row, peers) as scene:
        trial = run(row, scene)

    assert complaints(row, trial) == []
