from __future__ import annotations

import asyncio
import logging
import math
import selectors
from typing import TYPE_CHECKING

import pytest

from emitter import ConfigurationError, ConnectError, Emitter, UsageError
from emitter.periodic import Periodic
from tests.flushing import next_totals
from tests.scripted_peer import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


class Time:
    """Passes only while a loop has nothing else to do."""

    def __init__(self) -> None:
        self.now = 0.0


class Selector(selectors.DefaultSelector):
    """Waits for nothing: says that the time is over."""

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As the base class."""
        events = super().select(0 if timeout is not None else PATIENCE)
        if not events:
            assert timeout is not None, "nothing will ever happen"
            self._time.now += max(0.0, timeout)
        return events


class Loop(asyncio.SelectorEventLoop):
    """A loop on such a time."""

    def __init__(self) -> None:
        self.passing = Time()
        super().__init__(Selector(self.passing))

    def time(self) -> float:
        """Seconds since it was made."""
        return self.passing.now


@pytest.fixture
def run() -> Iterator[Callable[[Coroutine], object]]:
    """Runs a coroutine in a loop whose time passes at once, and looks for what is left behind."""
    loop = Loop()

    def run(coroutine: Coroutine) -> object:
        try:
            return loop.run_until_complete(coroutine)
        finally:
            assert asyncio.all_tasks(loop) == set()

    yield run
    loop.close()


class Emitting:
    """Notes what is asked of it, and when.

    Args:
        seconds: How long each flush takes.
        errors: What the flushes raise, one after the other; `None`: nothing.
    """

    def __init__(self, seconds: float = 0.0, *errors: BaseException | None) -> None:
        self._seconds = seconds
        self._errors = list(errors)
        self.said: list[tuple[str, float]] = []

    def _say(self, what: str) -> None:
        self.said.append((what, round(asyncio.get_running_loop().time(), 6)))

    async def flush(self) -> None:
        self._say("flush")
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self._say("cut")
            raise
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error
        self._say("flushed")

    async def close(self) -> None:
        self._say("close")
        try:
            await asyncio.sleep(self._seconds)
        except asyncio.CancelledError:
            self._say("cut")
            raise
        self._say("closed")

    def moments(self, what: str) -> list[float]:
        return [moment for said, moment in self.said if said == what]

    @property
    def words(self) -> list[str]:
        return [said for said, _ in self.said]


def test_it_flushes_on_a_fixed_schedule_and_once_more_at_the_end(run) -> None:
    """From the beginning of the block on, not from the end of each flush."""
    emitting = Emitting(3.0)

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(45)

    run(work())

    assert emitting.moments("flush") == [10, 20, 30, 40]
    assert emitting.said[-2:] == [("close", 45), ("closed", 48)]


def test_a_slow_flush_does_not_pile_up(run) -> None:
    """Whatever the schedule says while one is under way is left out."""
    emitting = Emitting(25.0)

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(101)

    run(work())

    assert emitting.moments("flush") == [10, 40, 70, 100]
    assert emitting.words[-4:] == ["flush", "flushed", "close", "closed"]


def test_what_a_blocked_loop_has_missed_is_not_made_up_for(run) -> None:
    """One flush as soon as the loop runs again, and then back in the schedule."""
    emitting = Emitting()

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(15)
            asyncio.get_running_loop().passing.now += 32  # it is 47 now
            await asyncio.sleep(18)

    run(work())

    assert emitting.moments("flush") == [10, 47, 50, 60]


def test_what_is_raised_in_the_block_comes_out_unchanged(run) -> None:
    """The very exception, after the last report."""
    emitting = Emitting()
    error = RuntimeError("the queue is gone")

    async def work() -> None:
        async with Periodic(emitting, 10):
            raise error

    with pytest.raises(RuntimeError) as caught:
        run(work())

    assert caught.value is error
    assert emitting.words == ["close", "closed"]


def test_a_cancelled_block_waits_for_the_flush_under_way_and_for_the_last_report(run) -> None:
    """Nothing is cut short by one cancellation, and it comes out at the end."""
    emitting = Emitting(6.0)

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(math.inf)

    async def cancel() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(12)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(cancel())

    assert emitting.said == [("flush", 10), ("flushed", 16), ("close", 16), ("closed", 22)]


def test_a_cancellation_while_the_end_waits_for_a_flush_cuts_that_one_short(run) -> None:
    """Whoever cancels the end is in a hurry; the last report still goes out."""
    emitting = Emitting(6.0)

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(12)

    async def cancel() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(14)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(cancel())

    assert emitting.said == [("flush", 10), ("cut", 14), ("close", 14), ("closed", 20)]


def test_a_cancellation_of_the_last_report_cuts_it_short(run) -> None:
    """Cancellation is never swallowed, and the object can be used again."""
    emitting = Emitting(6.0)
    periodic = Periodic(emitting, 10)

    async def work() -> None:
        async with periodic:
            await asyncio.sleep(2)

    async def cancel() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(4)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(cancel())
    run(work())

    assert emitting.said == [("close", 2), ("cut", 4), ("close", 6), ("closed", 12)]


def test_whoever_cancels_all_tasks_gets_the_last_report_all_the_same(run) -> None:
    """As many programs do at their end; a flush under way is a task of its own, and not the block."""
    emitting = Emitting(6.0)

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(math.inf)

    async def cancel() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(12)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        run(cancel())

    assert emitting.said == [("flush", 10), ("cut", 12), ("close", 12), ("closed", 18)]


def test_a_flush_that_raises_is_logged_and_the_next_one_is_made(run, caplog) -> None:
    """With its traceback: the network raises nothing, so it is a mistake somewhere."""
    emitting = Emitting(0.0, ZeroDivisionError("in an encoder"))

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(25)

    run(work())
    (record,) = caplog.records

    assert (record.name, record.levelno) == ("emitter", logging.ERROR)
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert emitting.moments("flush") == [10, 20]
    assert emitting.words[-1] == "closed"


def test_a_last_report_that_raises_is_logged_too(run, caplog, monkeypatch) -> None:
    """And does not come out in place of what ended the block."""
    emitting = Emitting()

    async def close() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(emitting, "close", close)

    async def work() -> None:
        async with Periodic(emitting, 10):
            raise KeyError("x")

    with pytest.raises(KeyError):
        run(work())

    assert [type(record.exc_info[1]) for record in caplog.records] == [ZeroDivisionError]


REFUSED = ConnectError("metrics.example.com", 443, "Connection refused")


def test_the_first_error_of_a_strict_emitter_comes_out_at_the_end(run) -> None:
    """It is there to be seen, and a test that waits for the end sees it; later flushes are made all the same."""
    emitting = Emitting(0.0, REFUSED, ConnectError("metrics.example.com", 443, "another"))

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(35)

    with pytest.raises(ConnectError) as caught:
        run(work())

    assert caught.value is REFUSED
    assert emitting.moments("flush") == [10, 20, 30]
    assert emitting.words[-1] == "closed"


def test_the_error_of_a_strict_emitter_does_not_hide_what_ended_the_block(run, caplog) -> None:
    """It is logged instead."""
    emitting = Emitting(0.0, REFUSED)

    async def work() -> None:
        async with Periodic(emitting, 10):
            await asyncio.sleep(15)
            raise KeyError("x")

    with pytest.raises(KeyError):
        run(work())

    assert [record.getMessage() for record in caplog.records] == [f"a flush of every() failed: {REFUSED}"]


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan, True, "10", None])
def test_what_is_no_positive_number_of_seconds_is_refused(seconds) -> None:
    """At once, and not in the background."""
    with pytest.raises(ConfigurationError, match=r"seconds is .*; expected a number greater than zero"):
        Emitter("http://metrics.example.com/").every(seconds)


def test_one_object_is_entered_once_at_a_time(run) -> None:
    """The error says what to do; the block that runs is not disturbed."""
    emitting = Emitting()
    periodic = Periodic(emitting, 10)

    async def work() -> None:
        async with periodic:
            with pytest.raises(UsageError, match=r"call every\(\) again"):
                await periodic.__aenter__()
            await asyncio.sleep(15)

    run(work())
    run(work())

    assert emitting.words == ["flush", "flushed", "close", "closed"] * 2


async def test_an_emitter_reports_at_intervals_and_is_closed_in_order(peer) -> None:
    """A real one on a real socket: the last report has everything, and is acknowledged before the end."""
    metrics = Emitter(peer.endpoint, service="checkout", timeout=5.0)
    orders = metrics.counter("orders")
    async with metrics.every(0.001):
        orders.add()
        other_end = await asyncio.to_thread(peer.accept)
        seen = [await asyncio.to_thread(next_totals, other_end)]
        other_end.answer()
        orders.add()
        seen.append(await asyncio.to_thread(next_totals, other_end))
        other_end.answer()
        orders.add()
        ending = asyncio.ensure_future(asyncio.to_thread(read_to_the_end, other_end))
    seen += await asyncio.wait_for(ending, PATIENCE)

    assert [each["orders"] for each in seen][-1] == 3
    assert metrics.stats.failed == {}


def read_to_the_end(other_end) -> list[dict[str, int]]:
    """All further reports, each of them answered."""
    seen = []
    while True:
        try:
            seen.append(next_totals(other_end))
        except (AssertionError, ConnectionError):  # h11 says that the connection was closed
            return seen
        other_end.answer()
