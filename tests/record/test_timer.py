from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING

import pytest

from emitter.errors import RecordingError, UsageError
from emitter.record.registry import Registry
from tests.record.reading import only_point, series_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from emitter.record.instruments import Histogram


@pytest.fixture
def registry() -> Registry:
    """A registry with nothing in it."""
    return Registry()


@pytest.fixture
def latency(registry: Registry) -> Histogram:
    """A histogram of seconds."""
    return registry.histogram("latency", unit="s")


def busy() -> float:
    """Take a moment of which it is known how long it was at least."""
    started = time.perf_counter()
    while (taken := time.perf_counter() - started) < 0.001:
        pass
    return taken


def test_a_timed_block_is_recorded_in_seconds(registry: Registry, latency: Histogram) -> None:
    """One value, as long as the block took, under the attributes that were given."""
    started = time.perf_counter()
    with latency.time({"http.route": "/"}, provider="acme"):
        least = busy()
    most = time.perf_counter() - started

    ((attributes, point),) = series_of(registry, "latency")
    assert attributes == (("http.route", "/"), ("provider", "acme"))
    assert point.count == 1
    assert least <= point.sum <= most


def test_a_timed_function_is_recorded_at_each_call(registry: Registry, latency: Histogram) -> None:
    """Arguments and result go through; the clock of one call is not that of another, nested ones included."""

    @latency.time()
    def fold(depth: int, *, base: int) -> int:
        busy()
        return base if depth == 0 else 1 + fold(depth - 1, base=base)

    result = fold(2, base=40)

    point = only_point(registry, "latency")
    assert result == 42
    assert point.count == 3
    assert point.sum >= 0.006  # 1 + 2 + 3 times a millisecond


async def test_a_timed_async_function_is_recorded_until_its_result(registry: Registry, latency: Histogram) -> None:
    """Waiting is part of it, and calls under way at the same time do not disturb one another."""
    entered, go_on = asyncio.Event(), asyncio.Event()

    @latency.time()
    async def wait(result: int) -> int:
        entered.set()
        await go_on.wait()
        return result

    tasks = [asyncio.create_task(wait(1)), asyncio.create_task(wait(2))]
    await asyncio.wait_for(entered.wait(), 10)
    before = only_point(registry, "latency").count
    busy()
    go_on.set()
    results = await asyncio.gather(*tasks)

    assert inspect.iscoroutinefunction(wait)
    assert results == [1, 2]
    assert before == 0
    assert only_point(registry, "latency").count == 2
    assert only_point(registry, "latency").sum >= 0.001


@pytest.mark.parametrize("error", [LookupError("x"), KeyboardInterrupt(), SystemExit(1)])
async def test_what_raises_is_recorded_too_and_comes_out_unchanged(
    registry: Registry, latency: Histogram, error: BaseException
) -> None:
    """Failures take time as well. Block, function, async function."""

    @latency.time()
    def fail() -> None:
        raise error

    @latency.time()
    async def fail_async() -> None:
        raise error

    with pytest.raises(type(error)) as block, latency.time():
        raise error
    with pytest.raises(type(error)) as function:
        fail()
    with pytest.raises(type(error)) as awaited:
        await fail_async()

    assert block.value is function.value is awaited.value is error
    assert only_point(registry, "latency").count == 3


async def test_a_cancelled_function_is_recorded_and_stays_cancelled(registry: Registry, latency: Histogram) -> None:
    """Cancellation is never swallowed."""
    entered = asyncio.Event()

    @latency.time()
    async def wait() -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.wait_for(entered.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert only_point(registry, "latency").count == 1


def test_a_timed_function_keeps_name_docstring_and_signature(latency: Histogram) -> None:
    """So that documentation, introspection and dispatch see the function that was written."""

    def handler(event: dict, context: object = None) -> tuple:
        """Handle."""
        return event, context

    async def handler_async(event: dict) -> dict:
        """Handle, waiting."""
        return event

    for function in (handler, handler_async):
        timed = latency.time()(function)

        assert timed is not function
        assert timed.__name__ == function.__name__
        assert timed.__doc__ == function.__doc__
        assert timed.__module__ == __name__
        assert inspect.signature(timed) == inspect.signature(function)


def test_a_timed_method_still_gets_its_object(registry: Registry, latency: Histogram) -> None:
    """The decorator works inside a class."""

    class Service:
        @latency.time()
        def me(self) -> Service:
            return self

    service = Service()

    assert service.me() is service
    assert only_point(registry, "latency").count == 1


async def test_a_callable_object_is_timed_until_its_result(registry: Registry, latency: Histogram) -> None:
    """A call of one that is async gives a coroutine too."""

    class Service:
        async def __call__(self) -> int:
            busy()
            return 7

    timed = latency.time()(Service())

    assert await timed() == 7
    assert only_point(registry, "latency").count == 1
    assert only_point(registry, "latency").sum >= 0.001


async def test_a_class_is_timed_like_a_function(latency: Histogram) -> None:
    """Calling it makes an object at once, whatever that is for."""

    class Service:
        async def __call__(self) -> int:
            return 7

    assert isinstance(latency.time()(Service)(), Service)


async def one_by_one() -> AsyncIterator[int]:
    yield 1


def at_once() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize("function", [at_once, one_by_one])
def test_a_generator_function_cannot_be_timed(latency: Histogram, function: Callable[[], object]) -> None:
    """Its calls return before any of it has run: each would be recorded as some microseconds."""
    with pytest.raises(UsageError, match=rf"generator function <function {function.__name__} .*expected `with hist"):
        latency.time()(function)


def test_a_timer_can_be_used_again(registry: Registry, latency: Histogram) -> None:
    """One after the other; each use is one value."""
    timer = latency.bind().time()
    for _ in range(3):
        with timer as entered:
            assert entered is timer

    assert only_point(registry, "latency").count == 3


@pytest.mark.parametrize("unit", ["ms", "By", "S", "{request}"])
def test_only_seconds_can_be_timed(registry: Registry, unit: str) -> None:
    """Seconds in a histogram of milliseconds would be wrong by 1,000 and go unnoticed. No series is made."""
    latency = registry.histogram("latency", unit=unit)
    with pytest.raises(RecordingError) as caught:
        latency.time(provider="acme")

    assert str(caught.value) == (
        f"histogram 'latency' has the unit {unit!r} and time() records seconds; expected a histogram made with unit='s'"
    )
    assert series_of(registry, "latency") == []


def test_a_histogram_without_a_unit_can_be_timed(registry: Registry) -> None:
    """Nothing says that it is not in seconds."""
    with registry.histogram("latency").time():
        pass

    assert only_point(registry, "latency").count == 1
