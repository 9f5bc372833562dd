from __future__ import annotations

import dataclasses
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint, Metric

if TYPE_CHECKING:
    from collections.abc import Callable

    from emitter.record.snapshot import Snapshot


@pytest.fixture
def registry() -> Registry:
    """A registry with nothing in it."""
    return Registry()


def test_a_snapshot_lists_metrics_and_points_in_step(registry: Registry) -> None:
    """Instruments in the order in which they were made, series likewise, one point for each series."""
    registry.counter("orders", unit="{order}", description="Orders.").add(2, channel="web")
    registry.gauge("unset")
    registry.histogram("sizes", unit="By", boundaries=[1]).record(0.5)
    registry.up_down_counter("open").add(-1)
    registry.gauge("temperature").set(20.5, room="kitchen")
    snapshot = registry.snapshot()

    assert snapshot.metrics == (
        Metric("orders", "{order}", "Orders.", "counter", (), ((), (("channel", "web"),))),
        Metric("sizes", "By", "", "histogram", (1.0,), ((),)),
        Metric("open", "", "", "up-down counter", (), ((),)),
        Metric("temperature", "", "", "gauge", (), ((("room", "kitchen"),),)),
    )
    assert snapshot.points == (0, 2, HistogramPoint(1, 0.5, (1, 0)), -1, 20.5)


def test_a_snapshot_does_not_change_afterwards(registry: Registry) -> None:
    """It is what was true at its moment: later recordings leave it alone, and its fields cannot be set."""
    orders, sizes = registry.counter("orders"), registry.histogram("sizes", boundaries=[1]).bind()
    snapshot = registry.snapshot()
    before = (snapshot.metrics, snapshot.points, hash(snapshot))
    orders.add(1)
    orders.add(1, channel="web")
    sizes.record(1)

    assert (snapshot.metrics, snapshot.points, hash(snapshot)) == before
    for frozen in (snapshot, snapshot.metrics[0], snapshot.points[1]):
        field = dataclasses.fields(frozen)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(frozen, field, None)


def test_metrics_are_the_same_object_until_a_series_is_added(registry: Registry) -> None:
    """Encoders lay a report out once, and know by identity that it still fits."""
    orders, sizes = registry.counter("orders"), registry.histogram("sizes")
    sizes.record(1, kind="a")
    first = registry.snapshot()
    orders.add(5)
    orders.add(2.5)
    sizes.record(7, kind="a")
    registry.counter("orders")
    registry.histogram("unused")
    registry.gauge("unset")

    assert registry.snapshot().metrics is first.metrics


@pytest.mark.parametrize(
    "widen",
    [
        lambda registry: registry.counter("orders").add(1, channel="web"),
        lambda registry: registry.counter("visits"),
        lambda registry: registry.counter("emitter.own", own=True),
        lambda registry: registry.histogram("sizes").bind(),
        lambda registry: registry.up_down_counter("open").bind(),
        lambda registry: registry.gauge("temperature").set(1),
    ],
)
def test_metrics_are_another_object_once_a_series_was_added(
    registry: Registry, widen: Callable[[Registry], object]
) -> None:
    """And hold the new series beside all the old ones; the next snapshot has the same object again."""
    registry.counter("orders")
    first = registry.snapshot()
    widen(registry)
    second = registry.snapshot()

    assert second.metrics is not first.metrics
    assert len(second.points) == len(first.points) + 1
    assert registry.snapshot().metrics is second.metrics


def test_time_always_increases_even_if_the_clock_is_set_back() -> None:
    """A receiver takes a report with an earlier time for an old one."""
    clock = iter([1_000, 1_000, 5_000, 5_000, 10, 4_999, 5_003, 9_000]).__next__
    registry = Registry(clock_ns=clock)
    snapshots = [registry.snapshot() for _ in range(7)]

    assert [snapshot.time_unix_nano for snapshot in snapshots] == [1_001, 5_000, 5_001, 5_002, 5_003, 5_004, 9_000]
    assert {snapshot.start_time_unix_nano for snapshot in snapshots} == {1_000}


def test_the_start_is_when_the_registry_was_made(registry: Registry) -> None:
    """By the wall clock, in nanoseconds since 1970."""
    before, registry, after = time.time_ns(), Registry(), time.time_ns()

    assert before <= registry.snapshot().start_time_unix_nano <= after


def test_changed_means_recorded_since_the_last_snapshot(registry: Registry) -> None:
    """Every recording counts, also of 0 and of the same value again; so does a series that reports 0 from now on."""
    temperature = registry.gauge("temperature")
    untouched = registry.changed
    orders = registry.counter("orders")
    open_, sizes = registry.up_down_counter("open").bind(), registry.histogram("sizes").bind()

    assert not untouched
    assert registry.changed
    registry.snapshot()
    for _ in range(2):
        for record in (
            lambda: orders.add(0),
            lambda: temperature.set(20),
            lambda: open_.add(-1),
            lambda: sizes.record(0),
        ):
            record()
            changed = registry.changed
            registry.snapshot()

            assert changed
            assert not registry.changed


def test_what_the_emitter_counts_of_itself_is_no_change(registry: Registry) -> None:
    """Else every report would give reason for the next."""
    own = registry.counter("emitter.flushes", own=True)
    bound = own.bind()
    registry.snapshot()
    own.add(1)
    bound.add(1)

    assert not registry.changed
    assert registry.snapshot().points == (2,)


def identity(snapshot: Snapshot) -> object:
    """The instance id that goes out."""
    return dict(snapshot.resource)["service.instance.id"]


def test_each_registry_is_an_instance_of_its_own() -> None:
    """A fresh random UUID, on which nobody else's totals can be folded."""
    registries = [Registry() for _ in range(10)]

    identities = {identity(registry.snapshot()) for registry in registries}
    assert identities == {registry.instance_id for registry in registries}
    assert len(identities) == 10
    assert {uuid.UUID(each).version for each in identities} == {4}


def test_the_instance_id_wins_over_one_in_the_resource() -> None:
    """An id from the environment would be shared by every sandbox of the function. The rest is kept, in order."""
    registry = Registry((("a", 1), ("service.instance.id", "shared"), ("service.name", "checkout")))

    assert registry.snapshot().resource == (
        ("a", 1),
        ("service.instance.id", registry.instance_id),
        ("service.name", "checkout"),
    )
    assert registry.snapshot().resource is registry.snapshot().resource
