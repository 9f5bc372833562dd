"""Owns what happens to series that a format cannot tell apart: they become one. Knows no format.

`True` and `"true"` are two attributes to us and one label to Prometheus. Two values for one series would be refused,
or the one would silently overwrite the other; so they are combined: of counters, up-down counters and histograms the
sum is reported, of gauges the series that was made last.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NamedTuple

from emitter.record.snapshot import HistogramPoint

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from emitter.record.snapshot import Kind, Metric, Point

__all__ = ["Merging", "merge"]

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_LARGEST = sys.float_info.max


class Merging(NamedTuple):
    """Which points of a snapshot become one.

    Attributes:
        kept: Of each series that is reported, the position in `Snapshot.points` of the first that goes into it.
        more: Of those that several go into: where in `kept`, the kind, and the positions of all of them.
    """

    kept: tuple[int, ...]
    more: tuple[tuple[int, Kind, tuple[int, ...]], ...]

    def values(self, points: Sequence[Point]) -> Sequence[Point]:
        """One value for each of `kept`; the points themselves if nothing was merged."""
        if not self.more:
            return points
        values = [points[position] for position in self.kept]
        for place, kind, positions in self.more:
            values[place] = _combined(kind, [points[position] for position in positions])
        return values

    def fresh(self, fresh: Sequence[int]) -> tuple[int, ...]:
        """Where in `kept` everything that goes into a series is fresh; `fresh` is that of the snapshot."""
        if not self.more:
            return tuple(fresh)
        every = set(fresh)
        stale = {place for place, _, positions in self.more if not every.issuperset(positions)}
        return tuple(place for place, position in enumerate(self.kept) if position in every and place not in stale)


def merge(metrics: Sequence[Metric], keys: Sequence[Hashable]) -> Merging:
    """Find the series that a format cannot tell apart.

    Args:
        metrics: Those of a snapshot.
        keys: For each series, in the order of the points, what the format tells it by within its metric.
    """
    kept: list[int] = []
    more = []
    position = 0
    for metric in metrics:
        places: dict[Hashable, int] = {}
        positions: dict[int, list[int]] = {}
        for _ in metric.series:
            place = places.setdefault(keys[position], len(kept))
            if place == len(kept):
                kept.append(position)
            else:
                positions.setdefault(place, [kept[place]]).append(position)
            position += 1
        more += [(place, metric.kind, tuple(each)) for place, each in positions.items()]
    return Merging(tuple(kept), tuple(more))


def _combined(kind: Kind, points: Sequence[Point]) -> Point:
    if kind == "gauge":
        return points[-1]
    if kind != "histogram":
        return _sum(points)  # type: ignore[arg-type]  # numbers all
    histograms: Sequence[HistogramPoint] = points  # type: ignore[assignment]
    return HistogramPoint(
        sum(point.count for point in histograms),
        float(_sum([point.sum for point in histograms])),
        tuple(map(sum, zip(*(point.bucket_counts for point in histograms), strict=True))),
    )


def _sum(numbers: Sequence[float]) -> float:
    """What they add up to, as `Point` promises it: an int of 64 bits, or a finite float."""
    total = sum(numbers)
    if total.__class__ is int and _INT64_MIN <= total <= _INT64_MAX:
        return total
    return max(-_LARGEST, min(float(total), _LARGEST))
