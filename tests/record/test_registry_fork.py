from __future__ import annotations

import threading

import pytest

from emitter.errors import InstrumentConflictError, RecordingError
from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint


class Now:
    """Nanoseconds since 1970 that pass only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def now() -> Now:
    """A clock that stands still."""
    return Now()


@pytest.fixture
def registry(now: Now) -> Registry:
    """A registry that gives each instrument two series."""
    return Registry((("service.name", "s"),), series_limit=2, clock_ns=now)


def points(registry: Registry) -> dict[str, list[object]]:
    snapshot = registry.snapshot()
    values = iter(snapshot.points)
    return {metric.name: [next(values) for _ in metric.series] for metric in snapshot.metrics}


def test_a_child_has_a_new_identity_and_a_new_start(registry, now):
    """What is given stays, and the clock of the reports begins with the sandbox."""
    before = registry.snapshot()
    now.now = 2_000
    registry.restart()
    after = registry.snapshot()

    assert dict(after.resource)["service.name"] == "s"
    assert dict(after.resource)["service.instance.id"] == registry.instance_id
    assert dict(before.resource)["service.instance.id"] != registry.instance_id
    assert (before.start_time_unix_nano, after.start_time_unix_nano) == (1_000, 2_000)
    assert after.time_unix_nano > 2_000


def test_a_child_begins_before_its_first_report_though_its_parent_was_ahead_of_the_clock(registry, now):
    """The parent's reports may be later than the clock, which was set back; the child has nothing to do with that."""
    now.now = 5_000
    registry.snapshot()
    now.now = 3_000
    registry.restart()

    assert registry.snapshot().time_unix_nano == 3_001


def test_totals_begin_at_zero_and_whoever_has_bound_a_series_keeps_it(registry):
    """A gauge is unset again, and is reported from the next time on that it is set."""
    counter = registry.counter("counter")
    bound = counter.bind(a="x")
    up_down = registry.up_down_counter("up_down").bind()
    gauge = registry.gauge("gauge").bind()
    histogram = registry.histogram("histogram", boundaries=[10])
    sizes = histogram.bind()
    own = registry.counter("own", own=True).bind()
    for record in (bound.add, up_down.add, gauge.set, sizes.record, own.add):
        record(5)
    registry.snapshot()
    registry.restart()
    first = points(registry)
    for record in (bound.add, up_down.add, gauge.set, sizes.record, own.add):
        record(2)
    counter.add(3, a="x")
    histogram.record(11)
    second = points(registry)

    assert first == {
        "counter": [0, 0],
        "up_down": [0],
        "histogram": [HistogramPoint(0, 0.0, (0, 0))],
        "own": [0],
    }
    assert second == {
        "counter": [0, 5],
        "up_down": [2],
        "gauge": [2],
        "histogram": [HistogramPoint(2, 13.0, (1, 1))],
        "own": [2],
    }


def test_what_was_refused_and_what_overflowed_is_forgotten(registry):
    """The series that there are still count against the limit: they are reported, at zero."""
    counter = registry.counter("counter")
    for name in "abc":
        counter.add(1, name=name)
    before = registry.overflowed
    registry.restart()
    forgotten = registry.overflowed
    counter.add(1, name="d")

    assert (before, forgotten, registry.overflowed) == (2, 0, 1)
    assert points(registry) == {"counter": [0, 0, 1]}


def test_a_total_near_its_limit_has_room_again(registry):
    """What was refused in the parent is not refused in the child."""
    counter = registry.counter("counter")
    counter.add(2**63 - 1)
    with pytest.raises(RecordingError):
        counter.add(1)
    registry.restart()
    counter.add(1)

    assert points(registry) == {"counter": [1]}


def test_instruments_stay_what_they_are(registry):
    """The same name gives the same one, and another kind is refused."""
    counter = registry.counter("counter")
    registry.restart()

    assert registry.counter("counter") is counter
    with pytest.raises(InstrumentConflictError):
        registry.gauge("counter")


def test_a_lock_that_somebody_held_at_the_fork_is_held_no_more(registry):
    """Not even by the thread that forked, in a signal handler say; and it lets go of what it held without harm."""
    counter = registry.counter("counter")
    own = registry.counter("own", own=True)
    recorded = threading.Event()

    def record() -> None:
        counter.add(1)
        own.add(1)
        registry.snapshot()
        registry.gauge("made")
        recorded.set()

    with registry._lock:
        registry.restart()
        threading.Thread(target=record, daemon=True).start()
        came_through = recorded.wait(10)

    assert came_through
    assert points(registry) == {"counter": [1], "own": [1]}


def test_both_kinds_of_instruments_still_change_under_one_lock(registry):
    """Or a snapshot could see half a change."""
    registry.restart()

    assert registry._common.lock is registry._own_common.lock is registry._lock


@pytest.mark.parametrize("before", [True, False], ids=["reported", "never reported"])
def test_a_child_has_something_to_report_from_the_start(registry, before):
    """That it is there, with its counters at zero; as its parent had."""
    registry.counter("counter")
    if before:
        registry.snapshot()
    registry.restart()

    assert registry.changed
    assert points(registry) == {"counter": [0]}
    assert not registry.changed
