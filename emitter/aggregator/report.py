"""Owns the nouns that cross between the rooms of the aggregator. Knows no bytes, no SQL and no HTTP."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Attribute", "Decoded", "Distribution", "Kind", "Metric", "Point", "Report", "Value"]

Attribute = str | bool | int | float
"""The value of an attribute; `"1"`, `1`, `1.0` and `True` are four different ones."""


class Kind(str, Enum):
    """What a metric counts, and with it how the values of several sandboxes become one total."""

    COUNTER = "counter"
    UP_DOWN_COUNTER = "up_down_counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """What is counted; two that differ in anything but the description are never added up.

    Attributes:
        name: The name as it was reported, not made legal for any output.
        kind: How values become totals.
        unit: A UCUM unit such as `s` or `By`; empty means none.
        boundaries: The upper bounds of a histogram's buckets, ascending, without infinity; else empty.
        description: For people; of several, any one may be shown.
    """

    name: str
    kind: Kind
    unit: str = ""
    boundaries: tuple[float, ...] = ()
    description: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Distribution:
    """The value of a histogram.

    Attributes:
        count: How many measurements.
        sum: Their sum; `None` if the sandbox does not keep it.
        bucket_counts: Measurements per bucket, one more than boundaries; empty if there are no boundaries.
    """

    count: int
    sum: float | None
    bucket_counts: tuple[int, ...]


Value = int | float | Distribution
"""What one series says: an exact integer, a float, or how values were distributed."""


@dataclass(frozen=True, slots=True)
class Point:
    """One running total of one sandbox at one time.

    Attributes:
        metric: What is counted.
        attributes: Canonical JSON, keys sorted: equal texts are equal sets of typed attributes.
        start_time_unix_nano: Since when it is counted, in nanoseconds; 0 means that nobody said.
        time_unix_nano: When it was counted, in nanoseconds.
        value: The total at that time.
    """

    metric: Metric
    attributes: str
    start_time_unix_nano: int
    time_unix_nano: int
    value: Value


@dataclass(frozen=True, slots=True)
class Report:
    """All that one resource of one request says.

    Attributes:
        service: The name under which totals are added up.
        instance: Who counted; empty means that nobody said.
        start_time_unix_nano: The earliest start among the points; with service and instance, the sandbox.
        numbers: Which attempts of this sandbox these are, counted from 1; empty means that nobody said.
        points: At least one.
    """

    service: str
    instance: str
    start_time_unix_nano: int
    numbers: tuple[int, ...]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One request.

    Attributes:
        reports: What can be folded.
        rejected: How many data points cannot be folded, by reason.
    """

    reports: tuple[Report, ...]
    rejected: Mapping[str, int]
