"""What the tests of this room share: reading a registry's totals back out of its snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emitter.record.registry import Registry
    from emitter.record.snapshot import Attributes, Point


def series_of(registry: Registry, name: str) -> list[tuple[Attributes, Point]]:
    """Attributes and value of every reported series of one instrument, in the order of the snapshot."""
    snapshot = registry.snapshot()
    points = iter(snapshot.points)
    found = [
        (metric.name, attributes, point)
        for metric in snapshot.metrics
        for attributes, point in zip(metric.series, points, strict=False)
    ]
    assert next(points, None) is None  # one point for each series, no more
    return [(attributes, point) for metric_name, attributes, point in found if metric_name == name]


def only_point(registry: Registry, name: str) -> Point:
    """The value of an instrument's only series."""
    ((_, point),) = series_of(registry, name)
    return point
