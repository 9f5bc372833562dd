from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING

import pytest

from emitter.errors import ConfigurationError
from emitter.record.registry import Registry
from tests.record.reading import series_of

if TYPE_CHECKING:
    from emitter.record.snapshot import Attributes

OVERFLOW: Attributes = (("otel.metric.overflow", True),)


@pytest.fixture
def registry() -> Registry:
    """A registry whose instruments may have three series each."""
    return Registry(series_limit=3)


def test_beyond_the_limit_everything_goes_to_one_series(registry: Registry) -> None:
    """The overflow series comes on top; no recording is lost, and series that exist go on."""
    orders = registry.counter("orders")
    for number in range(100):
        orders.add(1, number=str(number))
    orders.add(1, number="0")
    orders.add(1)

    series = series_of(registry, "orders")
    assert series == [((), 1), ((("number", "0"),), 2), ((("number", "1"),), 1), (OVERFLOW, 98)]
    assert sum(point for _, point in series) == 102


def test_each_recording_that_overflows_is_counted(registry: Registry) -> None:
    """Also the second one under the same attributes; what found its own series is not."""
    orders = registry.counter("orders")
    for _ in range(5):
        for name in ("a", "b", "c", "d"):
            orders.add(1, name=name)

    assert series_of(registry, "orders")[-1] == (OVERFLOW, 10)
    assert registry.overflowed == 10


def test_an_overflow_is_logged_once_for_each_instrument(registry: Registry, caplog: pytest.LogCaptureFixture) -> None:
    """With the instrument, the limit and what to do about it; never once for every recording."""
    orders, visits = registry.counter("orders"), registry.counter("visits")
    with caplog.at_level(logging.DEBUG):
        for number in range(10):
            orders.add(1, number=number)
            visits.add(1, number=number)

    assert [(record.name, record.levelname) for record in caplog.records] == [("emitter", "WARNING")] * 2
    for record, name in zip(caplog.records, ("orders", "visits"), strict=True):
        assert f"instrument '{name}' has 3 series" in record.getMessage()
        assert "otel.metric.overflow=true" in record.getMessage()
        assert "series_limit=" in record.getMessage()


def test_the_limit_is_each_instruments_own(registry: Registry) -> None:
    """One instrument that takes too many values leaves the others alone."""
    for name in ("orders", "visits"):
        for number in range(2):
            registry.counter(name).add(1, number=number)

    assert registry.overflowed == 0


def test_the_series_without_attributes_is_never_refused_its_place(registry: Registry) -> None:
    """There can only be one, and it is what most dashboards show."""
    sizes = registry.histogram("sizes", boundaries=[])
    for number in range(10):
        sizes.record(1, number=number)
    sizes.record(1)

    assert [attributes for attributes, _ in series_of(registry, "sizes")[-2:]] == [OVERFLOW, ()]
    assert sum(point.count for _, point in series_of(registry, "sizes")) == 11


def test_a_bound_series_may_be_the_overflow_series(registry: Registry) -> None:
    """Binding beyond the limit loses nothing either."""
    orders = registry.counter("orders")
    bound = [orders.bind(number=number) for number in range(6)]
    for each in bound:
        each.add()

    assert series_of(registry, "orders")[-1] == (OVERFLOW, 4)


def test_the_overflow_attribute_given_by_the_user_is_that_same_series(registry: Registry) -> None:
    """Two series with the same attributes would contradict each other at the receiver."""
    orders = registry.counter("orders")
    orders.add(1, {"otel.metric.overflow": True})
    for name in ("a", "b", "c", "b", "c"):
        orders.add(1, name=name)

    series = series_of(registry, "orders")
    assert [attributes for attributes, _ in series].count(OVERFLOW) == 1
    assert dict(series)[OVERFLOW] == 5
    assert registry.overflowed == 4


def test_unclean_attributes_do_not_fill_the_memory(registry: Registry) -> None:
    """However many spellings of the same attributes come along, only so many are remembered; all are counted."""
    orders = registry.counter("orders")
    for number in range(1_000):
        orders.add(1, name="x" * 255 + str(number))

    assert series_of(registry, "orders")[-1] == ((("name", "x" * 255),), 1_000)
    assert len(orders._by_order) <= 4 * 3 + 1


@pytest.mark.parametrize("limit", [0, -1, "2000", None, 2.5])
def test_a_limit_that_is_no_number_of_series_is_refused(limit: object) -> None:
    """At least one series, as a whole number."""
    with pytest.raises(ConfigurationError) as caught:
        Registry(series_limit=limit)

    assert str(caught.value) == f"series_limit is {limit!r}; expected an integer, 1 or more"


def test_orders_do_not_fill_the_memory_either(registry: Registry) -> None:
    """Of 24 orders of the same attributes twelve are remembered; the rest is sorted each time, and counted."""
    orders = registry.counter("orders")
    for keys in itertools.permutations("abcd"):
        orders.add(1, dict.fromkeys(keys, "x"))

    assert [point for _, point in series_of(registry, "orders")] == [0, 24]
    assert len(orders._by_order) == 4 * 3


def test_long_attributes_are_not_remembered_uncut(registry: Registry) -> None:
    """What is cut on the wire must not live on in memory: each spelling would be kept in full."""
    orders = registry.counter("orders")
    for number in range(50):
        orders.add(1, path="x" * 10_000 + str(number))

    assert len(series_of(registry, "orders")) == 2
    assert orders._by_order == {(): orders._find(None, {})}
