"""Owns what a histogram still tells of the values in it: between which bounds all of them are. Pure arithmetic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emitter.record.snapshot import HistogramPoint

__all__ = ["bounds_of"]


def bounds_of(point: HistogramPoint, boundaries: tuple[float, ...]) -> tuple[float, float]:
    """The narrowest interval in which all values are for sure.

    A value is in its bucket, and it is what the sum leaves when all others are as large, or as small, as they can be.
    So a single value is known exactly.

    Args:
        point: At least one value.
        boundaries: Upper bounds of the buckets.
    """
    lows = [0.0, *(max(0.0, boundary) for boundary in boundaries)]  # no value is below zero
    highs = [*boundaries, math.inf]
    buckets = [each for each in zip(lows, highs, point.bucket_counts, strict=True) if each[2]]
    bounds = []
    for i, (low, high, count) in enumerate(buckets):
        others = [*buckets[:i], *buckets[i + 1 :], *([(low, high, count - 1)] if count > 1 else [])]
        least = math.fsum(other_low * times for other_low, _, times in others)
        most = math.fsum(other_high * times for _, other_high, times in others)
        bounds.append((max(low, point.sum - most), min(high, point.sum - least)))
    return min(low for low, _ in bounds), max(high for _, high in bounds)
