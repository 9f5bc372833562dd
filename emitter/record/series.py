"""Owns what a running total is: the series, what tells them apart, and what those of one registry share.

Changes nothing by itself; the rules for changing a total are the instruments'.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from emitter.record.snapshot import Attributes

__all__ = ["OVERFLOW_ATTRIBUTES", "OVERFLOW_KEY", "Common", "HistogramSeries", "NumberSeries", "key_of"]

OVERFLOW_ATTRIBUTES: Attributes = (("otel.metric.overflow", True),)
"""Where recordings go once an instrument has all the series it may have (OpenTelemetry metrics SDK,
"Overflow attribute")."""


def key_of(attributes: Attributes) -> tuple[object, ...]:
    """What tells series apart: attributes *and types*, for 1, 1.0 and True are equal in Python, not on the wire."""
    return tuple((key, value.__class__, value) for key, value in attributes)


OVERFLOW_KEY = key_of(OVERFLOW_ATTRIBUTES)
"""Under which an instrument keeps its overflow series."""


class Common:
    """What the instruments of a registry share.

    Attributes:
        lock: Held for each change of a total and for a snapshot.
        own: Whether these are the instruments in which the emitter counts itself.
        series_limit: How many series one instrument may have; the overflow series comes on top.
        changed: Whether anything was recorded since the registry last cleared it.
        widened: Whether a series was added since the registry last cleared it.
        overflowed: How often a recording, or a binding, was given an overflow series.
    """

    __slots__ = ("changed", "lock", "overflowed", "own", "series_limit", "widened")

    def __init__(self, lock: AbstractContextManager[object], series_limit: int, *, own: bool = False) -> None:
        self.lock = lock
        self.own = own
        self.series_limit = series_limit
        self.changed = False
        self.widened = False
        self.overflowed = 0


class NumberSeries:
    """One running total (or the last value of a gauge; `None` until there is one)."""

    __slots__ = ("attributes", "first", "point")

    def __init__(self, attributes: Attributes, first: float | None) -> None:
        self.attributes = attributes
        self.first = first
        self.point = first

    def restart(self) -> None:
        """Begin anew, in the same place: whoever has bound the series keeps it."""
        self.point = self.first


class HistogramSeries:
    """The running totals of one histogram series."""

    __slots__ = ("attributes", "bucket_counts", "sum")

    def __init__(self, attributes: Attributes, buckets: int) -> None:
        self.attributes = attributes
        self.bucket_counts = [0] * buckets
        self.restart()

    def restart(self) -> None:
        """Begin anew, in the same place."""
        self.bucket_counts = [0] * len(self.bucket_counts)
        self.sum = 0.0
