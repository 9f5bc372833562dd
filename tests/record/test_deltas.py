from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.record.deltas import Deltas
from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint


def values(snapshot) -> dict:
    """By name and attributes."""
    points = iter(snapshot.points)
    return {(metric.name, attributes): next(points) for metric in snapshot.metrics for attributes in metric.series}


def test_the_first_deltas_are_everything_since_the_start() -> None:
    """There is nothing to take off yet."""
    registry = Registry()
    registry.counter("orders").add(3)
    snapshot = Deltas().of(registry.snapshot())

    assert values(snapshot) == {("orders", ()): 3}
    assert snapshot.delta_since_unix_nano == snapshot.start_time_unix_nano


def test_what_was_settled_is_not_told_again() -> None:
    """And what was not settled is: nothing of it has left."""
    registry, deltas = Registry(), Deltas()
    orders = registry.counter("orders")
    orders.add(3)
    first = deltas.of(registry.snapshot())
    deltas.settle()
    orders.add(2)
    second = deltas.of(registry.snapshot())
    orders.add(1)
    third = deltas.of(registry.snapshot())
    deltas.settle()
    fourth = deltas.of(registry.snapshot())

    assert [values(each)["orders", ()] for each in (first, second, third, fourth)] == [3, 2, 3, 0]
    assert second.delta_since_unix_nano == third.delta_since_unix_nano == first.time_unix_nano
    assert fourth.delta_since_unix_nano == third.time_unix_nano


def test_only_what_grows_is_told_as_a_delta() -> None:
    """The value of a gauge or of an up-down counter says nothing without what it was before."""
    registry, deltas = Registry(), Deltas()
    for amount in (4, 5):
        registry.counter("orders").add(amount)
        registry.up_down_counter("open").add(amount)
        registry.gauge("level").set(amount)
        registry.histogram("sizes", boundaries=[4]).record(amount)
        snapshot = deltas.of(registry.snapshot())
        deltas.settle()

    assert values(snapshot) == {
        ("orders", ()): 5,
        ("open", ()): 9,
        ("level", ()): 5,
        ("sizes", ()): HistogramPoint(1, 5.0, (0, 1)),
    }


def test_a_series_that_comes_later_begins_at_zero_wherever_it_stands() -> None:
    """Series are told apart by their attributes and those's types, not by their place."""
    registry, deltas = Registry(), Deltas()
    orders = registry.counter("orders")
    orders.add(1, flag=True)
    registry.counter("errors").add(7)
    deltas.of(registry.snapshot())
    deltas.settle()
    orders.add(2, flag=1)
    orders.add(4, flag=True)
    snapshot = deltas.of(registry.snapshot())

    assert snapshot.points == (0, 4, 2, 0)  # orders: all together, True, 1; errors


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.booleans()), max_size=30))
def test_settled_deltas_add_up_to_the_totals(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever was settled, whenever a series was added."""
    registry, deltas = Registry(), Deltas()
    counted: dict = {}
    for which, amount, settled in steps:
        registry.counter("orders").add(amount, which=which)
        snapshot = deltas.of(registry.snapshot())
        if settled:
            deltas.settle()
            for key, value in values(snapshot).items():
                counted[key] = counted.get(key, 0) + value
    for key, value in values(deltas.of(registry.snapshot())).items():
        counted[key] = counted.get(key, 0) + value

    assert counted == values(registry.snapshot())
