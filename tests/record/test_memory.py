"""What a series takes up, beside one of prometheus_client with the same labels."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry, Counter

from emitter.record.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

SERIES = 1_000


def bytes_of_a_series(record: Callable[[list[str]], object], keys: list[str]) -> float:
    """What each of a thousand takes up that are recorded under values of their own."""
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(SERIES):
            record([f"{key} {number}" for key in keys])
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / SERIES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "keys", [["channel"], ["channel", "country", "plan"], ["plan", "country", "channel"]], ids=" ".join
)
def test_a_series_takes_up_no_more_than_that_of_prometheus_client(keys: list[str]) -> None:
    """With one attribute or three, in whatever order they are given."""
    registry = Registry()
    orders = registry.counter("orders")
    rival = Counter("orders", "Orders.", keys, registry=CollectorRegistry())

    ours = bytes_of_a_series(lambda values: orders.add(1_000, dict(zip(keys, values, strict=True))), keys)
    theirs = bytes_of_a_series(lambda values: rival.labels(*values).inc(1_000), keys)

    assert len(orders._series) == 1 + SERIES
    assert ours <= theirs, f"{ours:.0f} bytes a series, and {theirs:.0f}"


def test_a_second_order_of_the_same_attributes_costs_less_than_a_series() -> None:
    """Their keys and values are remembered once."""
    orders = Registry().counter("orders")
    keys = ["channel", "country", "plan"]
    added = bytes_of_a_series(lambda values: orders.add(1_000, dict(zip(keys, values, strict=True))), keys)
    again = bytes_of_a_series(lambda values: orders.add(1_000, dict(zip(keys[::-1], values[::-1], strict=True))), keys)

    assert len(orders._by_order) == 1 + 2 * SERIES
    assert again < added / 2
