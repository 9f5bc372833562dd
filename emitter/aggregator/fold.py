"""Owns the arithmetic of folding: which reports arrived, and totals out of values. No bytes, no database.

Everything here gives the same result in whatever order its input comes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from emitter.aggregator.report import Attribute, Distribution, Kind, Metric, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["MAX_GAPS", "Receipts", "ServiceTotals", "Total", "total_of"]

MAX_GAPS = 64
"""Ranges of missing reports remembered per sandbox: a network reorders within a few, 64 fit on a page."""


@dataclass(frozen=True, slots=True)
class Receipts:
    """Which reports of one sandbox have arrived.

    `received + lost == attempts` always holds. A gap that was forgotten because there were more than
    `MAX_GAPS` stays lost, even if one of its reports arrives after all.

    Attributes:
        highest: The highest number that has arrived; 0 means none.
        lost: How many numbers below it have not.
        gaps: Ranges of missing numbers, both ends included, ascending; the newest `MAX_GAPS` of them.
        unnumbered: How many reports arrived without a number. Nobody can tell a repeated one, or a lost one; of a
            sandbox that numbers its reports they are further parts of a report that was divided.
    """

    highest: int = 0
    lost: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    unnumbered: int = 0

    @property
    def attempts(self) -> int:
        """How many reports the sandbox has tried to deliver, as far as anybody knows."""
        return self.highest or self.unnumbered

    @property
    def received(self) -> int:
        """How many different reports have arrived."""
        return self.attempts - self.lost

    def arrived(self, numbers: Sequence[int]) -> Receipts:
        """Count one report in.

        Args:
            numbers: Its numbers, from 1; several if it was put together on the way; none if it has none.

        Returns:
            What holds afterwards; for a report that has been counted before, the same as before.
        """
        if not numbers:
            return replace(self, unnumbered=self.unnumbered + 1)
        receipts = self
        for number in numbers:
            receipts = receipts._arrived(number)
        return receipts

    def _arrived(self, number: int) -> Receipts:
        if number > self.highest:
            skipped = number - self.highest - 1
            gaps = (*self.gaps, (self.highest + 1, number - 1)) if skipped else self.gaps
            return replace(self, highest=number, lost=self.lost + skipped, gaps=gaps[-MAX_GAPS:])
        for position, (first, last) in enumerate(self.gaps):
            if first <= number <= last:
                rest = tuple(gap for gap in ((first, number - 1), (number + 1, last)) if gap[0] <= gap[1])
                gaps = (*self.gaps[:position], *rest, *self.gaps[position + 1 :])
                return replace(self, lost=self.lost - 1, gaps=gaps[-MAX_GAPS:])
        return self


@dataclass(frozen=True, slots=True)
class Total:
    """One metric with one set of attributes, over all sandboxes of a service.

    Attributes:
        metric: What is counted.
        attributes: Sorted by key.
        time_unix_nano: Of the newest value that went in, in nanoseconds.
        value: The sum; for a gauge the newest value.
    """

    metric: Metric
    attributes: Mapping[str, Attribute]
    time_unix_nano: int
    value: Value


@dataclass(frozen=True, slots=True)
class ServiceTotals:
    """Everything that is known of one service.

    Attributes:
        service: Its name.
        sandboxes: How many have reported.
        reports_received: How many different reports arrived.
        reports_lost: How many more the sandboxes say they have tried.
        totals: Ordered by metric, then attributes.
    """

    service: str
    sandboxes: int
    reports_received: int
    reports_lost: int
    totals: tuple[Total, ...]


def total_of(metric: Metric, attributes: Mapping[str, Attribute], values: Iterable[tuple[int, Value]]) -> Total:
    """Make one total out of the values of several sandboxes.

    Args:
        metric: What all of them count.
        attributes: What all of them are labelled with.
        values: At least one pair of time, in nanoseconds, and value.

    Returns:
        Their total. Integers stay exact; a float among them makes it a float, rounded once.
    """
    pairs = list(values)
    newest = max(time_unix_nano for time_unix_nano, _ in pairs)
    value: Value
    if metric.kind is Kind.GAUGE:
        # At the same time the larger one, so that the order of arrival cannot matter.
        value = max(cast("int | float", value) for time_unix_nano, value in pairs if time_unix_nano == newest)
    elif metric.kind is Kind.HISTOGRAM:
        value = _sum_distributions([cast("Distribution", value) for _, value in pairs])
    else:
        value = _sum_numbers([cast("int | float", value) for _, value in pairs])
    return Total(metric, attributes, newest, value)


def _sum_distributions(values: Sequence[Distribution]) -> Distribution:
    sums = [value.sum for value in values if value.sum is not None]
    return Distribution(
        count=sum(value.count for value in values),
        # A sum without one of its parts would look right and be wrong.
        sum=math.fsum(sums) if len(sums) == len(values) else None,
        bucket_counts=tuple(map(sum, zip(*(value.bucket_counts for value in values), strict=True))),
    )


def _sum_numbers(values: Sequence[int | float]) -> int | float:
    floats = [value for value in values if isinstance(value, float)]
    integers = sum(value for value in values if isinstance(value, int))
    # fsum rounds once, whatever the order; a running sum of floats would depend on it.
    return math.fsum([*floats, integers]) if floats else integers
