"""Owns what each unit of Powertools becomes: an instrument and its unit. Knows neither values nor emitters.

OpenTelemetry and Prometheus ask for base units, so that all sizes can be compared and no dashboard has to know who
counts in milliseconds: seconds, bytes ("even where bits appear more common", https://prometheus.io/docs/practices/naming/)
and ratios from 0 to 1 instead of percents. Units are UCUM codes. A kilobyte has 1,000 bytes, as its prefix says.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

__all__ = ["MEASURES", "RATIO_BOUNDARIES", "SIZE_BOUNDARIES", "Measure"]

SIZE_BOUNDARIES = tuple(float(4**power) for power in range(4, 16))
"""256 bytes to 1 GiB, each four times the one before: OpenTelemetry's default ends at 10,000, which is no size."""

RATIO_BOUNDARIES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
"""Tenths, and finer at both ends, which is where percents are watched: errors near 0, availability near 1."""


class Measure(NamedTuple):
    """What a unit becomes.

    Attributes:
        kind: `counter` for what adds up, `histogram` for what is measured.
        unit: The base unit, a UCUM code; empty for none.
        times: What a value is multiplied by to be in that unit.
        divided_by: What it is then divided by. (Two whole numbers, because 0.001 is none exactly.)
        boundaries: Of the histogram; `None`: the emitter's default for that unit.
    """

    kind: Literal["counter", "histogram"]
    unit: str
    times: int = 1
    divided_by: int = 1
    boundaries: tuple[float, ...] | None = None

    def converted(self, value: float) -> float:
        """A value in the base unit, infinite if no float holds it.

        What is counted stays as it is: a whole number, if it was one.
        """
        if self.kind == "counter":
            return value
        try:
            return value * self.times / self.divided_by
        except OverflowError:  # whole numbers have no end in Python; of floats the same makes an infinity
            return math.inf if value > 0 else -math.inf


def _size(unit: str, times: int, divided_by: int = 1) -> Measure:
    return Measure("histogram", unit, times, divided_by, SIZE_BOUNDARIES)


MEASURES = {
    "Count": Measure("counter", "{count}"),
    "Seconds": Measure("histogram", "s"),
    "Milliseconds": Measure("histogram", "s", divided_by=1_000),
    "Microseconds": Measure("histogram", "s", divided_by=1_000_000),
    "Bytes": _size("By", 1),
    "Kilobytes": _size("By", 10**3),
    "Megabytes": _size("By", 10**6),
    "Gigabytes": _size("By", 10**9),
    "Terabytes": _size("By", 10**12),
    "Bits": _size("By", 1, 8),
    "Kilobits": _size("By", 10**3, 8),
    "Megabits": _size("By", 10**6, 8),
    "Gigabits": _size("By", 10**9, 8),
    "Terabits": _size("By", 10**12, 8),
    "Bytes/Second": _size("By/s", 1),
    "Kilobytes/Second": _size("By/s", 10**3),
    "Megabytes/Second": _size("By/s", 10**6),
    "Gigabytes/Second": _size("By/s", 10**9),
    "Terabytes/Second": _size("By/s", 10**12),
    "Bits/Second": _size("By/s", 1, 8),
    "Kilobits/Second": _size("By/s", 10**3, 8),
    "Megabits/Second": _size("By/s", 10**6, 8),
    "Gigabits/Second": _size("By/s", 10**9, 8),
    "Terabits/Second": _size("By/s", 10**12, 8),
    "Count/Second": Measure("histogram", "{count}/s"),
    "Percent": Measure("histogram", "1", divided_by=100, boundaries=RATIO_BOUNDARIES),
    "None": Measure("histogram", ""),
}
"""By the unit's text (the value of a `MetricUnit`). Of `None` nobody says whether it adds up, so it is not added up."""
