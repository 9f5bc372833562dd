"""Owns what was added since an earlier snapshot. Knows no report and no receiver."""

from __future__ import annotations

from dataclasses import replace
from operator import sub
from typing import TYPE_CHECKING

from emitter.record.series import key_of
from emitter.record.snapshot import HistogramPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from emitter.record.snapshot import Metric, Point, Snapshot

__all__ = ["Deltas"]


class Deltas:
    """Turns running totals into what was added since the last ones that were settled.

    Counters and histograms only: the value of an up-down counter or of a gauge says nothing without what it was before.
    """

    def __init__(self) -> None:
        self._settled: Snapshot | None = None
        self._latest: Snapshot | None = None

    def of(self, snapshot: Snapshot) -> Snapshot:
        """The same snapshot with deltas; of everything, if nothing was settled yet."""
        self._latest, settled = snapshot, self._settled
        if settled is None:
            return replace(snapshot, delta_since_unix_nano=snapshot.start_time_unix_nano)
        points = tuple(
            _difference(point, before) if before is not None and added else point
            for point, before, added in zip(
                snapshot.points, _aligned(settled, snapshot.metrics), _added_up(snapshot.metrics), strict=True
            )
        )
        return replace(snapshot, points=points, delta_since_unix_nano=settled.time_unix_nano)

    def settle(self) -> None:
        """What was made last may have got somewhere: nothing in it may go out again."""
        self._settled = self._latest


def _aligned(settled: Snapshot, metrics: tuple[Metric, ...]) -> Iterable[Point | None]:
    """The earlier points in the order of these metrics; `None` for series that are new."""
    if settled.metrics is metrics:
        return settled.points
    earlier = dict(zip(_keys(settled.metrics), settled.points, strict=True))
    return map(earlier.get, _keys(metrics))


def _keys(metrics: tuple[Metric, ...]) -> Iterator[tuple[str, tuple[object, ...]]]:
    return ((metric.name, key_of(attributes)) for metric in metrics for attributes in metric.series)


def _added_up(metrics: tuple[Metric, ...]) -> Iterator[bool]:
    return (metric.kind in {"counter", "histogram"} for metric in metrics for _ in metric.series)


def _difference(point: Point, before: Point) -> Point:
    if isinstance(point, HistogramPoint) and isinstance(before, HistogramPoint):
        counts = tuple(map(sub, point.bucket_counts, before.bucket_counts))
        return HistogramPoint(point.count - before.count, point.sum - before.sum, counts)
    return point - before  # type: ignore[operator]  # the same series: numbers both
