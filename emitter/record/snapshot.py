"""Owns the frozen nouns that cross from what is counted to the encoders. Knows neither side of the border.

A snapshot has two halves. `metrics` describes the series and stays the *same object* for as long as no series
is added; `points` holds their values, one for each series, in the order in which `metrics` lists them. An
encoder can therefore lay a report out once and afterwards change only times and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["AttributeValue", "Attributes", "HistogramPoint", "Kind", "Metric", "Point", "Snapshot"]

AttributeValue = str | bool | int | float
"""What the value of an attribute may be: an int of 64 bits with a sign, a finite float."""

Attributes = tuple[tuple[str, AttributeValue], ...]
"""Pairs of key and value, sorted by key, each key once."""

Kind = Literal["counter", "up-down counter", "gauge", "histogram"]
"""What sort of instrument a metric comes from."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One instrument and the attributes of all its series.

    Attributes:
        name: As given by the user.
        unit: A UCUM code such as `s`, `By` or `{order}`; empty for none.
        description: One sentence for people; empty for none.
        kind: What sort of instrument.
        boundaries: Upper bounds of a histogram's buckets, ascending, the last bucket (to infinity) left out.
            Empty for the other kinds.
        series: One entry for each series, in the order in which they were made.
    """

    name: str
    unit: str
    description: str
    kind: Kind
    boundaries: tuple[float, ...]
    series: tuple[Attributes, ...]


@dataclass(frozen=True, slots=True)
class HistogramPoint:
    """The running totals of one histogram series.

    Attributes:
        count: How many values were recorded.
        sum: What they add up to, in the histogram's unit.
        bucket_counts: How many fell into each bucket; one longer than `Metric.boundaries`.
    """

    count: int
    sum: float
    bucket_counts: tuple[int, ...]


Point = int | float | HistogramPoint
"""The running total of one series: an int while only ints were recorded, else a float. Always finite, and an
int always fits in 64 bits with a sign: the instruments refuse anything else."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All totals of one sandbox at one moment.

    Attributes:
        resource: What the totals belong to: service, instance, function; `service.name` and `service.instance.id`
            are always among it.
        start_time_unix_nano: When the totals were zero, in nanoseconds since 1970.
        time_unix_nano: The moment of the snapshot, in nanoseconds since 1970; later than that of any snapshot
            before it, even if the clock was set back.
        metrics: What is counted; the identical object in each snapshot until a series is added.
        points: One value for each series, in the order of `metrics` and of the `series` within them.
        sequence: Which report of the sandbox this is, counted from 1; the parts of one report share it.
        fresh: Which points are of series that no receiver has heard of yet: their positions in `points`, ascending.
            Nearly always empty. Where a format has no start times, a zero goes before these.
        zero_time_unix_nano: The time before `time_unix_nano` at which a receiver is to see a zero for all that is
            `fresh`.
        delta_since_unix_nano: `None`: everything is cumulative. Else counters and histograms hold what was added since
            this moment (nanoseconds since 1970), and the other kinds what they always hold.
    """

    resource: Attributes
    start_time_unix_nano: int
    time_unix_nano: int
    metrics: tuple[Metric, ...]
    points: tuple[Point, ...]
    sequence: int = 1
    fresh: tuple[int, ...] = ()
    zero_time_unix_nano: int = 0
    delta_since_unix_nano: int | None = None
