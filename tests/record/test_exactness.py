"""Totals are exact whoever records at once: threads, signal handlers, finalisers; with and without a global lock."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import emitter.record
from emitter.record import series
from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint
from tests.record.reading import only_point, series_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

THREADS = 8
ROOM = str(Path(emitter.record.__file__).parent)
HALFWAY = 2**62  # from where on totals change under the lock
WEB = (("channel", "web"),)


class Unusual:
    """A number that is added under the lock: no `int`, and an index."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


@pytest.fixture
def registry() -> Registry:
    """A registry with nothing in it."""
    return Registry()


@pytest.fixture(params=["undivided", "locked"])
def _way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to change a total: by a statement alone, and under the lock, as where statements can be divided."""
    monkeypatch.setattr(series, "UNDIVIDED", series.UNDIVIDED and request.param == "undivided")


@pytest.fixture
def _hurried() -> Iterator[None]:
    """Threads take turns as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def _divided() -> Iterator[None]:
    """Threads take turns at every instruction, as they do where there is no global lock."""

    def at_every_instruction(frame: FrameType, *_: object) -> object:
        if not frame.f_code.co_filename.startswith(ROOM):
            return None
        frame.f_trace_opcodes = True
        time.sleep(0)  # waits for nothing: it lets another thread go on
        return at_every_instruction

    before = threading.gettrace()  # of a coverage measurement, say
    threading.settrace(at_every_instruction)
    yield
    threading.settrace(before)


def in_threads(work: Callable[[int], None]) -> None:
    """Do the same in eight threads at once, and raise what any of them raises."""
    together = threading.Barrier(THREADS, timeout=30)

    def begin(thread: int) -> None:
        together.wait()
        work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(begin, range(THREADS)))


def record_in_threads(registry: Registry, rounds: int) -> None:
    """Change the same series in all ways at once; look at them meanwhile and afterwards."""
    orders, stock, sizes = (
        registry.counter("orders"),
        registry.up_down_counter("stock"),
        registry.histogram("sizes", boundaries=[1, 3]),
    )
    web, some, sized = orders.bind(channel="web"), stock.bind(), sizes.bind(channel="web")
    stock.add(HALFWAY - THREADS * rounds)
    ways: list[Callable[[], None]] = [
        web.add,
        lambda: orders.add(0.5, channel="web"),
        lambda: orders.add(Unusual(1), {"channel": "web"}),
        lambda: some.add(4),
        lambda: stock.add(-1),
        lambda: stock.add(Unusual(-1)),
        lambda: sized.record(1),
        lambda: sizes.record(3.0, channel="web"),
        lambda: sizes.record(Unusual(5), {"channel": "web"}),
    ]

    def work(thread: int) -> None:
        for turn in range(rounds):
            for way in ways:
                way()
            if turn % THREADS == thread:
                for point in registry.snapshot().points:
                    assert_whole(point)

    in_threads(work)

    times = THREADS * rounds
    assert dict(series_of(registry, "orders"))[WEB] == 2.5 * times
    assert only_point(registry, "stock") == HALFWAY + times
    assert only_point(registry, "sizes") == HistogramPoint(3 * times, 9.0 * times, (times, times, times))


def assert_whole(point: object) -> None:
    """That it is not half of a change."""
    if isinstance(point, HistogramPoint):
        low, middle, high = point.bucket_counts
        assert (point.count, point.sum) == (low + middle + high, low + 3 * middle + 5 * high)


@pytest.mark.usefixtures("_hurried", "_way")
def test_threads_that_record_at_once_lose_nothing(registry: Registry) -> None:
    """Short way and long way mixed, in one series, whenever a thread has to stop."""
    record_in_threads(registry, rounds=1_000)


@pytest.mark.usefixtures("_divided")
def test_without_a_global_lock_threads_lose_nothing_either(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change is made under the registry's lock then, so it does not matter where a statement is divided."""
    monkeypatch.setattr(series, "UNDIVIDED", False)

    record_in_threads(registry, rounds=6)


@pytest.mark.usefixtures("_divided")
def test_without_any_lock_the_test_above_would_see_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statements that are taken for undivided, and are divided, lose changes."""
    monkeypatch.setattr(series, "UNDIVIDED", True)

    def until_something_is_lost() -> None:
        for _ in range(20):
            record_in_threads(Registry(), rounds=6)

    with pytest.raises(AssertionError):
        until_something_is_lost()


@pytest.mark.usefixtures("_way")
def test_a_signal_handler_that_records_loses_nothing_and_no_more_does_what_it_interrupts(registry: Registry) -> None:
    """It runs in the middle of whatever the main thread does, on the same series."""
    orders, sizes = registry.counter("orders"), registry.histogram("sizes", boundaries=[1, 3]).bind()
    handled = recorded = 0

    def record(number: int) -> None:
        orders.add(1, channel="web")
        orders.add(Unusual(1), channel=f"channel {number % 500}")
        sizes.record(1)
        sizes.record(Unusual(5))

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1
        record(handled)
        assert_whole(sizes.point)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        while handled < 300 and recorded < 100_000:
            recorded += 1
            # Each time a little later, so that it comes at another place; and never at intervals: it would come
            # while the handler runs.
            signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + recorded % 100))
            record(recorded)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert handled >= 300
    times = handled + recorded
    assert dict(series_of(registry, "orders"))[WEB] == times
    assert sum(point for _, point in series_of(registry, "orders")) == 2 * times
    assert sizes.point == HistogramPoint(2 * times, 6.0 * times, (times, 0, times))


@pytest.mark.usefixtures("_way")
def test_a_finaliser_that_records_loses_nothing_and_no_more_does_what_it_interrupts(registry: Registry) -> None:
    """The garbage collector may run wherever something is made, in the very thread that is recording."""
    orders, sizes = registry.counter("orders"), registry.histogram("sizes", boundaries=[1, 3]).bind()
    finalised = 0

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            nonlocal finalised
            finalised += 1
            record(finalised)

    def record(number: int) -> None:
        orders.add(1, channel="web")
        orders.add(Unusual(1), channel=f"channel {number % 500}")
        sizes.record(1)
        sizes.record(Unusual(5))
        assert_whole(sizes.point)

    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for number in range(3_000):
            Garbage()
            record(number)
    finally:
        gc.set_threshold(*before)
        gc.collect()

    assert finalised == 3_000
    assert dict(series_of(registry, "orders"))[WEB] == 6_000
    assert sum(point for _, point in series_of(registry, "orders")) == 12_000
    assert sizes.point == HistogramPoint(12_000, 36_000.0, (6_000, 0, 6_000))
