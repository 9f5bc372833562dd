from __future__ import annotations

import functools
import math
import operator
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.record.instruments import Counter
from emitter.record.registry import DEFAULT_BOUNDARIES, SECONDS_BOUNDARIES, Registry
from emitter.record.snapshot import HistogramPoint
from tests.record.reading import only_point, series_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

THREADS = 8
examples = settings(max_examples=100, deadline=None)


@pytest.fixture
def registry() -> Registry:
    """A registry with nothing in it."""
    return Registry()


@pytest.fixture
def switching() -> Iterator[None]:
    """Let threads take turns at every line: left alone, Python 3.10 to 3.13 only switch at calls and loops."""

    def at_every_line(*_: object) -> object:
        time.sleep(0)  # waits for nothing: it lets another thread go on
        return at_every_line

    before = threading.gettrace()  # of a coverage measurement, say
    threading.settrace(at_every_line)
    yield
    threading.settrace(before)


def added(values: Iterable[float], start: float = 0) -> float:
    """One after the other, as a running total is; from Python 3.12 on, `sum` corrects its rounding errors."""
    return functools.reduce(operator.add, values, start)


def in_threads(work: Callable[[int], None]) -> None:
    """Do the same in eight threads at once, and raise what any of them raises."""
    together = threading.Barrier(THREADS, timeout=10)

    def begin(thread: int) -> None:
        together.wait()
        work(thread)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(begin, range(THREADS)))


def test_eight_threads_lose_no_add(registry: Registry) -> None:
    """8 threads x 100,000 adds give exactly 800,000, through three ways to the same series."""
    orders = registry.counter("orders")
    bound = orders.bind(channel="web")
    ways: list[Callable[[], None]] = [
        bound.add,
        lambda: orders.add(1, channel="web"),
        lambda: orders.add(1, {"channel": "web"}),
    ]

    def work(thread: int) -> None:
        add = ways[thread % len(ways)]
        for _ in range(100_000):
            add()

    in_threads(work)

    assert series_of(registry, "orders") == [((), 0), ((("channel", "web"),), 800_000)]


def test_eight_threads_lose_no_recorded_value(registry: Registry) -> None:
    """Count, sum and buckets stay in step; a snapshot taken meanwhile never sees half a recording."""
    sizes = registry.histogram("sizes", boundaries=[1, 3])
    sizes.record(2)

    def work(thread: int) -> None:
        for turn in range(10_000):
            sizes.record(2)
            if thread == 0 and turn % 100 == 0:
                seen = only_point(registry, "sizes")
                assert (0, seen.count, 0) == seen.bucket_counts
                assert seen.sum == 2.0 * seen.count

    in_threads(work)

    assert only_point(registry, "sizes") == HistogramPoint(80_001, 160_002.0, (0, 80_001, 0))


@pytest.mark.usefixtures("switching")
def test_a_snapshot_never_sees_half_a_recording(registry: Registry) -> None:
    """Count, sum and buckets of a histogram change together, whatever moment a snapshot comes at."""
    sizes = registry.histogram("sizes", boundaries=[1]).bind()
    halves = []

    def work(number: int) -> None:
        for _ in range(40):
            if number % 2:
                sizes.record(1)
            else:
                (point,) = registry.snapshot().points
                halves.append(not point.count == point.sum == sum(point.bucket_counts))

    in_threads(work)

    assert len(halves) == 40 * THREADS / 2
    assert not any(halves)


@pytest.mark.usefixtures("switching")
def test_no_thread_comes_between_the_steps_of_another(registry: Registry) -> None:
    """Each change of a total is one, wherever a thread has to stop."""
    orders, sizes = registry.counter("orders"), registry.histogram("sizes", boundaries=[1, 3]).bind()

    def work(_: int) -> None:
        for _ in range(100):
            orders.add(1)
            sizes.record(2)

    in_threads(work)

    assert only_point(registry, "orders") == THREADS * 100
    assert only_point(registry, "sizes") == HistogramPoint(800, 1_600.0, (0, 800, 0))


@pytest.mark.usefixtures("switching")
def test_eight_threads_make_each_series_once(registry: Registry) -> None:
    """Threads that come upon new attributes at the same time share the series they make."""
    orders = registry.counter("orders")

    def work(thread: int) -> None:
        for number in range(20):
            orders.add(1, {"number": number, "thread": "any"})
        orders.add(1, thread=thread)

    in_threads(work)

    series = series_of(registry, "orders")
    assert len(series) == 1 + 20 + THREADS
    assert all(point == 8 for attributes, point in series if len(attributes) == 2)


def test_a_counter_reports_0_from_the_moment_it_is_made(registry: Registry) -> None:
    """Receivers lose the first value of a series that begins above zero."""
    registry.counter("orders")

    assert series_of(registry, "orders") == [((), 0)]


def test_the_order_of_attributes_never_matters(registry: Registry) -> None:
    """Keywords, a mapping, both, in any order: one series. A keyword wins over the mapping."""
    orders = registry.counter("orders")
    orders.add(1, a="x", b="y")
    orders.add(1, b="y", a="x")
    orders.add(1, {"b": "y", "a": "x"})
    orders.add(1, {"b": "y"}, a="x")
    orders.add(1, {"b": "mapping", "a": "x"}, b="y")

    assert series_of(registry, "orders")[1:] == [((("a", "x"), ("b", "y")), 5)]


def test_equal_values_of_different_types_are_different_series(registry: Registry) -> None:
    """'1', 1, 1.0 and True are equal or look equal in Python, and differ on the wire."""
    orders = registry.counter("orders")
    for _ in range(2):
        for value in ("1", 1, 1.0, True):
            orders.add(1, {"k": value})

    series = series_of(registry, "orders")[1:]
    assert [(repr(attributes), point) for attributes, point in series] == [
        ("(('k', '1'),)", 2),
        ("(('k', 1),)", 2),
        ("(('k', 1.0),)", 2),
        ("(('k', True),)", 2),
    ]


@pytest.mark.parametrize("attributes", [{"a": "x", "b": "y"}, {"b": True, "a": 1}, {"a": -0.0}, {}])
def test_what_was_given_before_is_found_at_once(
    registry: Registry, attributes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order in which it was given, with values of any type, and without a look at what the values are."""
    orders = registry.counter("orders")
    series = orders.bind(attributes)
    monkeypatch.setattr(Counter, "_find_or_make", None)  # nothing is to be made any more

    assert orders.bind(attributes) is orders.bind(**attributes) is series


def test_what_only_looks_like_an_attribute_is_not_remembered(registry: Registry) -> None:
    """An object that is equal to a string today may be equal to another one tomorrow; it counts as what it is now."""

    class Name(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return True

    orders = registry.counter("orders")
    orders.add(1, {"name": Name("a")})
    orders.add(2, {Name("name"): "a"})
    orders.add(4, name="a")

    assert series_of(registry, "orders")[1:] == [((("name", "a"),), 7)]
    assert all(type(part) is str for pairs in orders._by_order for pair in pairs for part in pair)


def test_unclean_attributes_always_reach_the_same_series(registry: Registry) -> None:
    """What is cut or replaced is so each time, and joins what was clean from the start."""
    orders = registry.counter("orders")
    for value in ("a\0", "a\n", "a\ud800", "a\N{REPLACEMENT CHARACTER}", "a\0"):
        orders.add(1, k=value)

    assert series_of(registry, "orders")[1:] == [((("k", "a\N{REPLACEMENT CHARACTER}"),), 5)]


@pytest.mark.parametrize("key", ["self", "amount", "attributes", "value"])
def test_every_python_name_can_be_a_keyword_attribute(registry: Registry, key: str) -> None:
    """The method's own parameters are positional, so they take no name away."""
    registry.counter("orders").add(1, **{key: "x"})

    assert series_of(registry, "orders")[1:] == [(((key, "x"),), 1)]


def test_a_bound_series_is_the_series(registry: Registry) -> None:
    """What is bound is reported at once, and shares its total with the unbound calls."""
    bound = registry.counter("orders").bind({"http.route": "/"}, channel="web")
    assert bound is registry.counter("orders").bind(channel="web", **{"http.route": "/"})
    before = series_of(registry, "orders")[1:]
    bound.add()
    bound.add(2.5)
    registry.counter("orders").add(1, {"http.route": "/", "channel": "web"})

    attributes = (("channel", "web"), ("http.route", "/"))
    assert before == [(attributes, 0)]
    assert series_of(registry, "orders")[1:] == [(attributes, 4.5)]


@examples
@given(st.lists(st.integers(0, 2**40)), st.lists(st.floats(0, 1e100)))
def test_a_counter_is_exact_in_ints_until_a_float_comes(ints: list[int], floats: list[float]) -> None:
    """While only ints were added the total is an int and exact; the first float turns it into a float."""
    registry = Registry()
    orders = registry.counter("orders")
    for number in ints:
        orders.add(number)
    whole = only_point(registry, "orders")
    for number in floats:
        orders.add(number)
    total = only_point(registry, "orders")

    assert type(whole) is int
    assert whole == sum(ints)
    assert type(total) is (float if floats else int)
    assert total == added([float(sum(ints)), *floats] if floats else ints)


def test_an_up_down_counter_goes_both_ways(registry: Registry) -> None:
    """It may fall below zero; it is not reported before it was used."""
    connections = registry.up_down_counter("connections")
    before = series_of(registry, "connections")
    connections.add(3)
    connections.add(-5)
    connections.bind().add(-0.5)

    assert before == []
    assert series_of(registry, "connections") == [((), -2.5)]


def test_a_gauge_is_unreported_until_it_is_set(registry: Registry) -> None:
    """A value nobody saw is not 0; binding is not setting. The last value counts."""
    temperature = registry.gauge("temperature")
    bound = temperature.bind(room="kitchen")
    before = series_of(registry, "temperature")
    bound.set(-0.0)
    first = repr(only_point(registry, "temperature"))
    temperature.set(21, room="kitchen")
    temperature.set(-40.5, room="kitchen")

    assert before == []
    assert first == "-0.0"
    assert series_of(registry, "temperature") == [((("room", "kitchen"),), -40.5)]


def test_a_bound_histogram_is_reported_empty(registry: Registry) -> None:
    """Binding makes the series; no value was recorded yet."""
    registry.histogram("sizes", boundaries=[1]).bind()

    assert only_point(registry, "sizes") == HistogramPoint(0, 0.0, (0, 0))


def test_a_boundary_is_the_last_value_of_its_bucket(registry: Registry) -> None:
    """Upper bounds are inclusive (OpenTelemetry data model)."""
    sizes = registry.histogram("sizes", boundaries=[1, 2.5])
    for value in (0, -0.0, 1, 1.0, math.nextafter(1, 2), 2.5, math.nextafter(2.5, 3), 1e308):
        sizes.record(value)

    assert only_point(registry, "sizes").bucket_counts == (4, 2, 2)


@examples
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), unique=True, max_size=10).map(sorted),
    st.lists(st.floats(0, 1e300) | st.integers(0, 2**63 - 1)),
)
def test_a_histogram_counts_each_value_in_one_bucket(boundaries: list[float], values: list[float]) -> None:
    """Bucket i holds what is above boundary i-1 and not above boundary i; count and sum cover all values."""
    registry = Registry()
    sizes = registry.histogram("sizes", boundaries=boundaries)
    bound = sizes.bind()
    for value in values:
        bound.record(value)
    point = only_point(registry, "sizes")

    lows, highs = [-math.inf, *boundaries], [*boundaries, math.inf]
    expected = tuple(sum(low < value <= high for value in values) for low, high in zip(lows, highs, strict=True))
    assert point == HistogramPoint(len(values), added(values, 0.0), expected)
    assert type(point.sum) is float


def test_the_default_boundaries_are_opentelemetrys(registry: Registry) -> None:
    """Made for milliseconds; for seconds OpenTelemetry advises others, and these are used for the unit `s`."""
    assert registry.histogram("size", unit="By").boundaries == DEFAULT_BOUNDARIES
    assert registry.histogram("payment", unit="s").boundaries == SECONDS_BOUNDARIES
    assert DEFAULT_BOUNDARIES == (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
    assert SECONDS_BOUNDARIES == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)


def test_a_histogram_without_boundaries_has_one_bucket(registry: Registry) -> None:
    """Empty boundaries mean count and sum only."""
    registry.histogram("sizes", boundaries=[]).record(7)

    assert only_point(registry, "sizes") == HistogramPoint(1, 7.0, (1,))


def test_an_instrument_says_what_it_is(registry: Registry) -> None:
    """Kind, name and how many series."""
    assert repr(registry.counter("orders")) == "<counter 'orders' with 1 series>"
    assert repr(registry.up_down_counter("open")) == "<up-down counter 'open' with 0 series>"
