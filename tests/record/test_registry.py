from __future__ import annotations

import math
import threading

import pytest

from emitter.errors import ConfigurationError, InstrumentConflictError
from emitter.record.instruments import Counter
from emitter.record.registry import LIMIT_BOUNDARIES, Registry
from tests.record.reading import only_point, series_of

MAKERS = ["counter", "up_down_counter", "gauge", "histogram"]


@pytest.fixture
def registry() -> Registry:
    """A registry with nothing in it."""
    return Registry()


@pytest.mark.parametrize("maker", MAKERS)
def test_the_same_name_gives_the_same_instrument(registry: Registry, maker: str) -> None:
    """Asked for again in the same words it is the same object; the first description stays."""
    first = getattr(registry, maker)("orders", unit="{order}", description="First.")
    second = getattr(registry, maker)("orders", unit="{order}", description="Second.")

    assert second is first
    assert (first.name, first.unit, first.description) == ("orders", "{order}", "First.")


@pytest.mark.parametrize("first", MAKERS)
@pytest.mark.parametrize("second", MAKERS)
def test_a_name_belongs_to_one_kind(registry: Registry, first: str, second: str) -> None:
    """Another kind under that name is refused, and the first goes on."""
    if first == second:
        return
    made = getattr(registry, first)("orders")
    before = registry.snapshot()
    with pytest.raises(InstrumentConflictError) as caught:
        getattr(registry, second)("orders")

    kinds = {"up_down_counter": "up-down counter"}
    was, now = kinds.get(first, first), kinds.get(second, second)
    assert str(caught.value) == (
        f"'orders' was made as a {was} with the kind {was!r}, and is asked for with the kind {now!r}; "
        "expected the same kind again, or another name"
    )
    assert getattr(registry, first)("orders") is made
    assert registry.snapshot().metrics is before.metrics


@pytest.mark.parametrize("maker", MAKERS)
def test_a_name_has_one_unit(registry: Registry, maker: str) -> None:
    """Seconds and bytes under one name cannot be added up; whoever does not say it again gets what there is."""
    made = getattr(registry, maker)("orders", unit="{order}")

    assert getattr(registry, maker)("orders") is made
    with pytest.raises(InstrumentConflictError, match=r"with the unit '\{order\}', and is asked for with the unit 's'"):
        getattr(registry, maker)("orders", unit="s")


def test_what_the_emitter_counts_of_itself_is_not_for_others(registry: Registry) -> None:
    """A user's addition would make the receiver see reports that never were."""
    registry.counter("emitter.flushes", own=True)
    with pytest.raises(InstrumentConflictError, match=r"'emitter.flushes' is what the emitter counts of itself"):
        registry.counter("emitter.flushes")


def test_a_name_has_one_set_of_boundaries(registry: Registry) -> None:
    """Equal boundaries are the same, however they are written, and need not be said again."""
    first = registry.histogram("sizes", boundaries=[1, 2])

    assert registry.histogram("sizes", boundaries=(1.0, 2.0)) is first
    assert registry.histogram("sizes") is first
    with pytest.raises(InstrumentConflictError, match=r"with the boundaries \(1\.0, 2\.0\), and is asked for"):
        registry.histogram("sizes", boundaries=[1, 2, 3])


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": ""}, "an instrument's name is empty; expected something like 'orders'"),
        ({"name": None}, "the name is a NoneType; expected a string"),
        ({"name": b"orders"}, "the name is a bytes; expected a string"),
        ({"name": "or\nders"}, "the name is 'or\\nders'; expected at most 255 characters, none of them a control"),
        ({"name": "\ud800"}, "the name is '\\ud800'; expected at most 255 characters, none of them a control"),
        ({"name": "x" * 256}, f"the name is '{'x' * 80}'; expected at most 255 characters, none"),
        ({"name": "orders", "unit": None}, "the unit of 'orders' is a NoneType; expected a string"),
        ({"name": "orders", "unit": "\x7f"}, "the unit of 'orders' is '\\x7f'; expected at most 255 characters"),
        ({"name": "orders", "unit": "x" * 256}, f"the unit of 'orders' is '{'x' * 80}'; expected at most 255"),
        ({"name": "orders", "description": None}, "the description of 'orders' is a NoneType; expected a string"),
        ({"name": "orders", "description": 5}, "the description of 'orders' is a int; expected a string"),
        ({"name": "orders", "description": "a\0"}, "the description of 'orders' is 'a\\x00'; expected at most 1024"),
        ({"name": "orders", "description": "x" * 1025}, f"the description of 'orders' is '{'x' * 80}'; expected at"),
    ],
)
def test_what_cannot_be_reported_of_an_instrument_is_refused(
    registry: Registry, maker: str, arguments: dict, text: str
) -> None:
    """Name, unit and description: strings, not too long, nothing unseen; and no instrument is made."""
    with pytest.raises(ConfigurationError) as caught:
        getattr(registry, maker)(**arguments)

    assert str(caught.value).startswith(text)
    assert registry.snapshot().metrics == ()


def test_the_longest_texts_fit(registry: Registry) -> None:
    """255, 255 and 1,024 characters."""
    orders = registry.counter("n" * 255, unit="u" * 255, description="d" * 1024)

    assert (orders.name, orders.unit, orders.description) == ("n" * 255, "u" * 255, "d" * 1024)


def test_a_description_may_be_written_over_several_lines(registry: Registry) -> None:
    """White space is one space each, so a docstring will do."""
    orders = registry.counter("orders", description="\n    Orders that\n\twere  accepted.\n")

    assert orders.description == "Orders that were accepted."


@pytest.mark.parametrize(
    "boundaries",
    [
        [1, 1],
        [2, 1],
        [0.0, -0.0],
        [math.nan],
        [1, math.inf],
        [-math.inf, 1],
        ["1"],
        "12",
        [None],
        [True],
        [1j],
        [2**53, 2**53 + 1],
        range(LIMIT_BOUNDARIES + 1),
        5,
        pytest.param([10**400], id="10**400"),
        pytest.param([10**5000], id="10**5000"),
    ],
)
def test_boundaries_that_make_no_buckets_are_refused(registry: Registry, boundaries: object) -> None:
    """Finite numbers, each greater than the one before it on the wire, and not too many."""
    with pytest.raises(ConfigurationError) as caught:
        registry.histogram("sizes", boundaries=boundaries)

    assert str(caught.value).startswith("the boundaries of 'sizes' are ")
    assert str(caught.value).endswith("; expected at most 1000 finite numbers, each greater than the one before it")
    assert len(str(caught.value)) < 1_000


def test_boundaries_may_come_from_anything_that_can_be_gone_through(registry: Registry) -> None:
    """Once is enough; they are kept as floats."""
    sizes = registry.histogram("sizes", boundaries=(10**exponent for exponent in range(3)))

    assert sizes.boundaries == (1.0, 10.0, 100.0)
    assert {type(boundary) for boundary in sizes.boundaries} == {float}
    assert len(registry.histogram("many", boundaries=range(LIMIT_BOUNDARIES)).boundaries) == LIMIT_BOUNDARIES


def test_a_snapshot_during_the_making_of_a_counter_does_not_hide_it(registry: Registry) -> None:
    """A flush in another thread may look at the registry at any moment; the counter is in the next report."""

    class MadeDuringASnapshot(Counter):
        __slots__ = ()

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            registry.snapshot()

    orders = registry._instrument(MadeDuringASnapshot, "orders", "", "")
    orders.add(5)

    assert only_point(registry, "orders") == 5


def test_two_threads_that_make_the_same_instrument_share_it(registry: Registry) -> None:
    """The slower one gets what the faster one made."""

    class MadeTooLate(Counter):
        __slots__ = ()

        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments)
            registry.counter("orders").add(2)

    orders = registry._instrument(MadeTooLate, "orders", "", "")
    orders.add(3)

    assert type(orders) is Counter
    assert series_of(registry, "orders") == [((), 5)]


def test_a_finaliser_may_record_while_a_snapshot_is_taken():
    """A garbage collection can run at any time, in the very thread that holds the lock."""
    registry = Registry()
    open_files = registry.up_down_counter("open_files")
    open_files.add(1)

    class File:
        def __del__(self) -> None:
            open_files.add(-1)

    files = [File()]
    registry.counter("closes").bind()
    clock_ns = registry._clock_ns
    registry._clock_ns = lambda: files.clear() or clock_ns()  # stands for the collection: it runs under the lock

    points: list[float] = []
    thread = threading.Thread(target=lambda: points.extend(registry.snapshot().points), daemon=True)
    thread.start()
    thread.join(10.0)

    assert points[:1] == [0]
