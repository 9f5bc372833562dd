"""What cannot be counted is refused in words, and leaves everything as it was."""

from __future__ import annotations

import contextlib
import math
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from emitter.errors import RecordingError
from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint
from tests.record.reading import only_point, series_of

if TYPE_CHECKING:
    from collections.abc import Callable

    Verb = Callable[..., None]

VERBS = {"counter": "add", "up_down_counter": "add", "gauge": "set", "histogram": "record"}
KINDS = {"up_down_counter": "up-down counter"}

NO_NUMBERS = [
    (math.nan, "nan"),
    (math.inf, "inf"),
    (-math.inf, "-inf"),
    (True, "True"),
    (False, "False"),
    (None, "a NoneType"),
    ("secret", "a str"),
    (b"secret", "a bytes"),
    (Decimal(1), "a Decimal"),
    (Fraction(1, 2), "a Fraction"),
    (1j, "a complex"),
    ([1], "a list"),
    (2**63, "9223372036854775808"),
    (-(2**63) - 1, "-9223372036854775809"),
    pytest.param(10**5000, "an integer of 16610 bits", id="10**5000"),
]


class NumpyLike:
    """What an integer of another library looks like: no `int`, and an index."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __index__(self) -> int:
        return self._number


@pytest.fixture
def registry() -> Registry:
    """A registry with nothing in it."""
    return Registry()


def untouched_by(registry: Registry, refused: Callable[[], object]) -> str:
    """The text of the refusal, once it is clear that nothing at all was changed by it."""
    before, overflowed = registry.snapshot(), registry.overflowed
    with pytest.raises(RecordingError) as caught:
        refused()
    changed, after = registry.changed, registry.snapshot()

    assert not changed
    assert after.metrics is before.metrics
    assert after.points == before.points
    assert registry.overflowed == overflowed
    return str(caught.value)


def instrument_of(registry: Registry, maker: str) -> tuple[Verb, Verb]:
    """How to record into an instrument of this kind that holds something already: unbound, and bound."""
    instrument = getattr(registry, maker)("orders")
    getattr(instrument, VERBS[maker])(5, channel="web")
    bound = instrument.bind(channel="web")
    return getattr(instrument, VERBS[maker]), getattr(bound, VERBS[maker])


@pytest.mark.parametrize("maker", VERBS)
@pytest.mark.parametrize(("amount", "shown"), NO_NUMBERS)
def test_what_is_no_number_of_64_bits_is_refused(registry: Registry, maker: str, amount: object, shown: str) -> None:
    """By every instrument, bound or not; new attributes make no series. What is no number may be secret."""
    unbound, bound = instrument_of(registry, maker)

    text = untouched_by(registry, lambda: unbound(amount, channel="new"))
    assert text == untouched_by(registry, lambda: bound(amount))
    assert text == (
        f"{KINDS.get(maker, maker)} 'orders' was asked to {VERBS[maker]} {shown}; "
        "expected a finite float or an integer of 64 bits"
    )


@pytest.mark.parametrize("maker", VERBS)
def test_an_index_is_an_integer(registry: Registry, maker: str) -> None:
    """Integers of other libraries count as what they are, with the same limits."""
    unbound, _ = instrument_of(registry, maker)
    unbound(NumpyLike(7), channel="phone")

    point = series_of(registry, "orders")[-1][1]
    number = point.sum if isinstance(point, HistogramPoint) else point
    assert number == 7
    assert "NumpyLike" in untouched_by(registry, lambda: unbound(NumpyLike(2**63)))


@pytest.mark.parametrize("amount", [-1, -0.5, -5e-324, -(2**63), NumpyLike(-1)])
@pytest.mark.parametrize(
    ("maker", "expected"),
    [("counter", "zero or more (an up-down counter may go down)"), ("histogram", "zero or more")],
)
def test_what_only_grows_takes_nothing_negative(registry: Registry, maker: str, expected: str, amount: object) -> None:
    """A total that shrinks looks like a restart to every receiver."""
    unbound, bound = instrument_of(registry, maker)
    shown = -1 if isinstance(amount, NumpyLike) else amount

    text = untouched_by(registry, lambda: unbound(amount, channel="new"))
    assert text == untouched_by(registry, lambda: bound(amount))
    assert text == f"{maker} 'orders' was asked to {VERBS[maker]} {shown}; expected {expected}"


def test_a_total_stays_within_64_bits(registry: Registry) -> None:
    """The last integer fits, one more does not, in either direction."""
    orders, stock = registry.counter("orders"), registry.up_down_counter("stock")
    orders.add(2**63 - 1)
    orders.add(0)
    stock.add(-(2**63))

    assert untouched_by(registry, orders.add) == (
        "counter 'orders' was asked to add 1; expected a total that fits in 64 bits (it stands at 9223372036854775807)"
    )
    assert untouched_by(registry, lambda: stock.add(-1)) == (
        "up-down counter 'stock' was asked to add -1; expected a total that fits in 64 bits "
        "(it stands at -9223372036854775808)"
    )
    orders.add(1.0)
    assert only_point(registry, "orders") == 2.0**63


near_a_limit = st.builds(
    lambda sign, power, beside: max(-(2**63), min(sign * 2**power + beside, 2**63 - 1)),
    st.sampled_from([-1, 1]),
    st.integers(60, 63),
    st.integers(-2, 2),
)


@given(st.lists(near_a_limit, max_size=8))
@example([2**62, 2**62])
@example([-(2**62) - 1, -(2**62) - 1])
def test_what_fits_is_added_and_what_does_not_is_refused(amounts: list[int]) -> None:
    """To the last integer, wherever the total stands and whichever way it is changed."""
    registry = Registry()
    stock = registry.up_down_counter("stock")
    stock.add(0)
    total = 0
    for amount in amounts:
        fits = -(2**63) <= total + amount <= 2**63 - 1
        with contextlib.nullcontext() if fits else pytest.raises(RecordingError):
            stock.add(amount)
        total += amount if fits else 0

        assert only_point(registry, "stock") == total


@pytest.mark.parametrize("maker", ["counter", "up_down_counter"])
def test_a_total_stays_finite(registry: Registry, maker: str) -> None:
    """Infinity would swallow everything that comes after."""
    total = getattr(registry, maker)("total")
    total.add(1.7e308)

    assert "expected a total that fits in 64 bits (it stands at 1.7e+308)" in untouched_by(
        registry, lambda: total.add(1e308)
    )
    assert only_point(registry, "total") == 1.7e308


def test_the_sum_of_a_histogram_stays_finite(registry: Registry) -> None:
    """Neither count nor buckets move when the sum cannot."""
    sizes = registry.histogram("sizes", boundaries=[1])
    sizes.record(1.7e308)

    assert untouched_by(registry, lambda: sizes.record(1e308)) == (
        "histogram 'sizes' was asked to record 1e+308; expected a finite sum (it stands at 1.7e+308)"
    )
    assert only_point(registry, "sizes") == HistogramPoint(1, 1.7e308, (0, 1))


@pytest.mark.parametrize(
    ("attributes", "part"),
    [
        ({"k": None}, "attribute 'k' is a NoneType"),
        ({"k": math.nan}, "attribute 'k' is nan"),
        ({"k": 2**63}, "attribute 'k' is 9223372036854775808"),
        ({"fine": "x", "k": ["unhashable"]}, "attribute 'k' is a list"),
        ({"k": memoryview(bytearray(1))}, "attribute 'k' is a memoryview"),  # its hash raises a ValueError
        ({"": "x"}, "attribute key '' was refused"),
        ({1: "x"}, "attribute key 1 was refused"),
        ({None: "x"}, "attribute key None was refused"),
        ([("k", "x")], "the attributes of 'orders' are a list; expected a mapping"),
        ("channel", "the attributes of 'orders' are a str; expected a mapping"),
        (5, "the attributes of 'orders' are a int; expected a mapping"),
        (0, "the attributes of 'orders' are a int; expected a mapping"),
        ((), "the attributes of 'orders' are a tuple; expected a mapping"),
    ],
)
@pytest.mark.parametrize("maker", VERBS)
def test_what_is_no_attribute_is_refused(registry: Registry, maker: str, attributes: object, part: str) -> None:
    """By recording and by binding, whatever else is right; no series is made."""
    unbound, _ = instrument_of(registry, maker)
    instrument = getattr(registry, maker)("orders")

    text = untouched_by(registry, lambda: unbound(1, attributes, channel="new"))
    assert text == untouched_by(registry, lambda: instrument.bind(attributes, channel="new"))
    assert text.startswith(part)
    assert "; expected a " in text


def test_a_refusal_leaves_no_trace_in_later_recordings(registry: Registry) -> None:
    """What was recorded before and after counts; what was refused does not."""
    orders = registry.counter("orders")
    for amount in (1, -1, 2, math.nan, 3, "4"):
        with contextlib.suppress(RecordingError):
            orders.add(amount)

    assert only_point(registry, "orders") == 6
