"""A running aggregator for each test that asks for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
from tests.aggregator.serving import Aggregator, running


@pytest.fixture
async def aggregator() -> AsyncIterator[Aggregator]:
    """An aggregator that keeps nothing."""
    async with running() as aggregator:
        yield aggregator
