from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.encode.merging import merge
from emitter.record.snapshot import HistogramPoint, Metric
from tests.encode.snapshots import INT64_MAX, INT64_MIN, draw_points, metrics

if TYPE_CHECKING:
    from emitter.record.snapshot import Kind, Point

LARGEST = sys.float_info.max

Case = tuple[tuple[Metric, ...], list[str], tuple["Point", ...], tuple[int, ...]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Metrics, what a format tells their series by, their points, and which of those are fresh."""
    described = tuple(draw(st.lists(metrics(), max_size=4)))
    points = draw_points(draw, described)
    keys = [draw(st.sampled_from("abc")) for _ in points]
    fresh = tuple(position for position in range(len(points)) if draw(st.booleans()))
    return described, keys, points, fresh


def groups_of(described: tuple[Metric, ...], keys: list[str]) -> list[tuple[Kind, list[int]]]:
    """The positions that belong together, found the slow way: by metric and key, in the order of the first."""
    found: dict[tuple[int, str], tuple[Kind, list[int]]] = {}
    owners = [(which, metric) for which, metric in enumerate(described) for _ in metric.series]
    for position, ((which, metric), key) in enumerate(zip(owners, keys, strict=True)):
        found.setdefault((which, key), (metric.kind, []))[1].append(position)
    return list(found.values())


def is_the_sum(total: float, numbers: list[float]) -> bool:
    """As near as floats can be, and within the bounds that a point has."""
    exact = sum(map(Fraction, numbers))
    if all(type(number) is int for number in numbers) and INT64_MIN <= exact <= INT64_MAX:
        return type(total) is int and total == exact
    largest = max(map(abs, numbers), default=0)
    bounded = max(-Fraction(LARGEST), min(exact, Fraction(LARGEST)))
    # Four numbers at most: what is lost on the way is a few last places of the largest.
    near = abs(Fraction(total) - bounded) <= 4 * Fraction(math.ulp(largest))
    return type(total) is float and (near or abs(total) == LARGEST)


@settings(max_examples=300, deadline=None)
@given(cases())
def test_series_that_a_format_cannot_tell_apart_become_one(case: Case) -> None:
    """Of counters, up-down counters and histograms the sum; of gauges the last; the others stay as they are."""
    described, keys, points, fresh = case
    groups = groups_of(described, keys)

    merging = merge(described, keys)

    assert merging.kept == tuple(positions[0] for _, positions in groups)
    values = merging.values(points)
    assert len(values) == len(groups)
    for value, (kind, positions) in zip(values, groups, strict=True):
        together = [points[position] for position in positions]
        if len(together) == 1 or kind == "gauge":
            assert value is together[-1]
        elif kind == "histogram":
            assert value.count == sum(point.count for point in together)
            assert is_the_sum(value.sum, [point.sum for point in together])
            assert [*value.bucket_counts] == [
                sum(point.bucket_counts[bucket] for point in together) for bucket in range(len(value.bucket_counts))
            ]
        else:
            assert is_the_sum(value, together)
    assert merging.fresh(fresh) == tuple(
        place for place, (_, positions) in enumerate(groups) if set(positions) <= set(fresh)
    )


def test_nothing_is_copied_where_nothing_is_merged() -> None:
    """The usual case costs nothing: the points come back as they went in."""
    described = (Metric("m", "", "", "counter", (), ((), (("a", 1),))), Metric("n", "", "", "gauge", (), ((),)))
    points = (1, 2.5, 3)
    merging = merge(described, ["x", "y", "x"])

    assert merging.values(points) is points
    assert merging.fresh((0, 2)) == (0, 2)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ((INT64_MAX, INT64_MAX), float(2**64 - 2)),
        ((INT64_MIN, -1), float(INT64_MIN - 1)),
        ((INT64_MAX - 1, 1), INT64_MAX),
        ((LARGEST, LARGEST), LARGEST),
        ((-LARGEST, -LARGEST), -LARGEST),
        ((1, 0.5), 1.5),
    ],
)
def test_a_merged_number_is_what_a_point_may_be(points: tuple[float, float], expected: float) -> None:
    """An int that fits in 64 bits, else a finite float: encoders count on it."""
    described = (Metric("m", "", "", "up-down counter", (), ((("a", 1),), (("a", "1"),))),)
    (value,) = merge(described, ["1", "1"]).values(points)

    assert value == expected
    assert type(value) is type(expected)


def test_merged_histograms_stay_finite() -> None:
    """Their sums may be large as well."""
    described = (Metric("m", "", "", "histogram", (), ((("a", 1),), (("a", "1"),))),)
    (value,) = merge(described, ["1", "1"]).values((HistogramPoint(1, LARGEST, (1,)), HistogramPoint(2, LARGEST, (2,))))

    assert value == HistogramPoint(3, LARGEST, (3,))
