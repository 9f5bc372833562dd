from __future__ import annotations

from itertools import pairwise

import pytest

from emitter.errors import ConfigurationError, InstrumentConflictError
from emitter.record.registry import Registry

SECOND = 10**9


class ClockNano:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> ClockNano:
    return ClockNano()


@pytest.fixture
def registry(clock: ClockNano) -> Registry:
    return Registry(clock_ns=clock)


def test_a_series_is_fresh_until_the_receiver_has_heard_of_it(registry: Registry) -> None:
    """By its place among the points, wherever later ones come."""
    orders, sizes = registry.counter("orders"), registry.histogram("sizes")
    sizes.record(1)
    first = registry.snapshot()
    known = registry.reported_series
    orders.add(1, channel="web")
    second = registry.snapshot(introduced=known, known_unix_nano=first.time_unix_nano)
    both = registry.snapshot()

    assert first.fresh == (0, 1)
    assert second.fresh == (1,)  # before the sizes
    assert both.fresh == (0, 1, 2)
    assert registry.snapshot(introduced=registry.reported_series).fresh == ()


def test_what_was_fresh_was_zero_at_a_time_between_what_is_known_and_now(registry: Registry, clock: ClockNano) -> None:
    """At the start, or at the time of the report that the receiver has."""
    registry.counter("orders")
    first = registry.snapshot()
    clock.now += 10 * SECOND
    second = registry.snapshot(introduced=0, known_unix_nano=0)
    third = registry.snapshot(introduced=1, known_unix_nano=second.time_unix_nano)
    clock.now += 3_600 * SECOND
    late = registry.snapshot(introduced=1, known_unix_nano=second.time_unix_nano)

    assert first.zero_time_unix_nano == second.zero_time_unix_nano == first.start_time_unix_nano
    assert third.zero_time_unix_nano == second.time_unix_nano
    assert late.zero_time_unix_nano == second.time_unix_nano
    for snapshot in (first, second, third, late):
        assert snapshot.zero_time_unix_nano < snapshot.time_unix_nano


def test_times_are_a_tick_apart_whatever_the_clock_says(clock: ClockNano) -> None:
    """A format of milliseconds cannot tell two moments of one; the zero comes a tick before the first value too."""
    registry = Registry(tick_nano=1_000_000, clock_ns=clock)
    registry.counter("orders")
    snapshots = [registry.snapshot() for _ in range(5)]
    clock.now -= SECOND
    snapshots.append(registry.snapshot())
    times = [snapshots[0].zero_time_unix_nano, *(snapshot.time_unix_nano for snapshot in snapshots)]

    assert [(later - earlier) for earlier, later in pairwise(times)] == [1_000_000] * 6


def test_snapshots_are_counted(registry: Registry) -> None:
    """From 1, so that a receiver knows which came later."""
    assert [registry.snapshot().sequence for _ in range(3)] == [1, 2, 3]


def test_a_forked_child_begins_anew(registry: Registry) -> None:
    """Its receiver has heard of nothing."""
    registry.counter("orders").add(1)
    registry.snapshot()
    registry.restart()
    snapshot = registry.snapshot(introduced=0)

    assert (snapshot.sequence, snapshot.fresh, registry.reported_series) == (1, (0,), 1)


def test_a_gauge_is_introduced_once_it_is_set(registry: Registry) -> None:
    """Before that it is in no report."""
    level = registry.gauge("level").bind(room="1")
    registry.counter("orders")
    registry.snapshot()
    known = registry.reported_series
    level.set(1)

    assert registry.snapshot(introduced=known).fresh == (0,)


def legal(metric):
    """A format that knows no dots, and no name without a letter."""
    if not any(map(str.isalpha, metric.name)):
        raise ConfigurationError(f"{metric.name!r} has no letter in it")
    return (metric.name.replace(".", "_"), metric.name.replace(".", "_") + "_count")


def test_two_names_that_become_one_are_told_when_the_second_is_made() -> None:
    """With both names, and with what they become."""
    registry = Registry(names=legal)
    registry.counter("orders.web").add(1)

    with pytest.raises(InstrumentConflictError) as caught:
        registry.gauge("orders_web")
    assert str(caught.value) == (
        "the gauge 'orders_web' would be 'orders_web' to the receiver, and so is the counter 'orders.web'; expected a "
        "name that stays different once it was made to fit the encoder's format"
    )
    with pytest.raises(InstrumentConflictError, match="would be 'orders_web_count' to the receiver"):
        registry.gauge("orders_web.count")
    assert registry.counter("orders.web") is registry.counter("orders.web")
    assert [metric.name for metric in registry.snapshot().metrics] == ["orders.web"]


def test_a_name_that_the_format_cannot_carry_is_refused_with_its_rule() -> None:
    """Nothing is made of it."""
    registry = Registry(names=legal)

    with pytest.raises(ConfigurationError, match="'12' has no letter in it"):
        registry.counter("12")
    assert registry.snapshot().metrics == ()


def test_a_refused_name_leaves_the_others_free() -> None:
    """A conflict claims nothing, whichever of its names it was about."""
    registry = Registry(names=legal)
    registry.counter("a.count")  # a_count, a_count_count

    with pytest.raises(InstrumentConflictError):
        registry.counter("a")  # a, a_count
    assert registry.counter("b").name == "b"
    assert registry._named.keys() == {"a_count", "a_count_count", "b", "b_count"}
