from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as some

from emitter.record.registry import Registry
from emitter.testing.bounds import bounds_of

VALUES = some.floats(min_value=0, max_value=1e6)
BOUNDARIES = some.lists(some.integers(-3, 30), unique=True, max_size=8).map(sorted)


def bounds(values, boundaries):
    """What a real histogram still tells of its values."""
    histogram = Registry().histogram("size", boundaries=boundaries)
    for value in values:
        histogram.record(value)
    return bounds_of(histogram.bind().point, histogram.boundaries)


@given(some.lists(VALUES, min_size=1, max_size=20), BOUNDARIES)
def test_every_value_is_within_the_bounds(values, boundaries):
    """Whatever was recorded; but for what a sum of floats loses."""
    low, high = bounds(values, boundaries)

    slack = 1e-9 * math.fsum(values) + 1e-9
    assert low - slack <= min(values)
    assert max(values) <= high + slack


@given(VALUES, BOUNDARIES)
def test_a_single_value_is_known_exactly(value, boundaries):
    """It is the sum."""
    assert bounds([value], boundaries) == (value, value)


@given(some.lists(some.integers(1, 10), min_size=2, max_size=20))
def test_values_between_two_boundaries_are_known_to_be_there(values):
    """Which is why one gives them to a histogram."""
    low, high = bounds([each - 0.5 for each in values], [0, 10])

    assert low >= 0
    assert high <= 10


def test_the_sum_bounds_what_the_buckets_leave_open():
    """Two values above the last boundary: neither is larger than what the other leaves."""
    assert bounds([12, 14], [10]) == (10, 16)
    assert bounds([1, 14], [10]) == (0.0, 15.0)
    assert bounds([1, 2], []) == (0.0, 3.0)


def test_boundaries_below_zero_do_not_confuse_it():
    """Several buckets then begin at zero, for no value is below it."""
    assert bounds([0, 4], [-5, 0, 5]) == (0.0, 4.0)
