"""Owns what the demo measured: the nouns, what follows from them, and their form as JSON. Prints nothing."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .witness import Request

__all__ = ["MEMORY_MB", "PRICES_AS_OF", "Invocation", "Way", "WayResult", "arrived_in_time"]

MEMORY_MB = 512
"""What the functions are configured with."""

PRICES_AS_OF = "2025"
"""When the two prices below were the published ones (x86, US East, first tier, without the free tier)."""

_DOLLARS_PER_GB_SECOND = 0.0000166667
_DOLLARS_PER_MILLION_REQUESTS = 0.20
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Way:
    """One way of emitting.

    Attributes:
        key: Its name in the handler's module, and as a service at the aggregator.
        title: Its name for people.
        means: What it is done with, in a word or two.
        ours: Whether it is `emitter`.
        products: How many products the shop's catalogue has; 0 makes a small report.
    """

    key: str
    title: str
    means: str
    ours: bool
    products: int


@dataclass(frozen=True, slots=True)
class Invocation:
    """One invocation of one way.

    Attributes:
        handler_seconds: Recording and emitting, by the handler's own clock.
        billed_ms: What Lambda would bill, in whole milliseconds.
        missing_bytes: What was missing, once all was frozen, from a request that had arrived in part.
        arrived: Whether the report of this invocation was complete at the witness before its freeze ended.
    """

    handler_seconds: float
    billed_ms: int
    missing_bytes: int
    arrived: bool


@dataclass(frozen=True, slots=True)
class WayResult:
    """What one way of emitting came to.

    Attributes:
        way: Which way.
        invocations: In order; the first is the cold one.
        report_bytes: The last complete report, as it was on the wire, without HTTP's head.
        connections: How many connections it opened.
        truth: What each counter had to be in the end.
        totals: What the aggregator says it is.
        reports_received: How many different reports the aggregator has.
        known_lost: How many more its sandbox had made, as far as the aggregator can know: by the last report
            that it has.
    """

    way: Way
    invocations: tuple[Invocation, ...]
    report_bytes: int
    connections: int
    truth: Mapping[str, int]
    totals: Mapping[str, int]
    reports_received: int
    known_lost: int

    @property
    def warm(self) -> tuple[Invocation, ...]:
        """All invocations but the first, which loads code and opens the connection."""
        return self.invocations[1:]

    @property
    def first_seconds(self) -> float:
        """The handler time of the first invocation."""
        return self.invocations[0].handler_seconds

    @property
    def median_seconds(self) -> float:
        """The handler time in the middle of the warm invocations."""
        return median(each.handler_seconds for each in self.warm)

    @property
    def worst_seconds(self) -> float:
        """The longest handler time of the warm invocations."""
        return max(each.handler_seconds for each in self.warm)

    @property
    def mean_billed_ms(self) -> float:
        """What a warm invocation is billed on average; a bill is a sum, so not the median."""
        return fmean(each.billed_ms for each in self.warm)

    @property
    def dollars_per_million(self) -> float:
        """What a million warm invocations cost."""
        gb_seconds = _MILLION * self.mean_billed_ms / 1000 * MEMORY_MB / 1024
        return gb_seconds * _DOLLARS_PER_GB_SECOND + _DOLLARS_PER_MILLION_REQUESTS

    @property
    def arrived(self) -> int:
        """How many reports arrived before the thaw."""
        return sum(each.arrived for each in self.invocations)

    @property
    def median_missing_bytes(self) -> float:
        """How much of a report stayed behind in the frozen sandbox, if a part of it had arrived."""
        return median(each.missing_bytes for each in self.invocations)

    @property
    def reports_missing(self) -> int:
        """How many reports never came, in time or late."""
        return len(self.invocations) - self.reports_received

    @property
    def exact(self) -> bool:
        """Whether every counter is right in the end."""
        return self.totals == self.truth

    def as_json(self) -> dict[str, Any]:
        """The measurements and what follows from them, for a JSON encoder."""
        return {
            "way": self.way.key,
            "title": self.way.title,
            "report_bytes": self.report_bytes,
            "connections": self.connections,
            "handler_ms": [1000 * each.handler_seconds for each in self.invocations],
            "handler_ms_median": 1000 * self.median_seconds,
            "handler_ms_worst": 1000 * self.worst_seconds,
            "billed_ms": [each.billed_ms for each in self.invocations],
            "billed_ms_mean": self.mean_billed_ms,
            "dollars_per_million": self.dollars_per_million,
            "arrived_before_thaw": [each.arrived for each in self.invocations],
            "missing_bytes_before_thaw": [each.missing_bytes for each in self.invocations],
            "truth": dict(self.truth),
            "totals": dict(self.totals),
            "exact": self.exact,
            "reports_received": self.reports_received,
            "reports_missing": self.reports_missing,
            "known_lost": self.known_lost,
        }


def arrived_in_time(requests: Sequence[Request]) -> set[int]:
    """Which reports (1 is the first) were complete before the thaw after the invocation that made them.

    Which one a report is stands in it: `emitter.flushes` counts them, and there is one to an invocation.
    """
    numbered = ((_number(each), each.freezes) for each in requests if each.freezes is not None)
    return {number for number, freezes in numbered if freezes < number}


def _number(request: Request) -> int:
    message = ExportMetricsServiceRequest.FromString(bytes(request.body))
    return sum(
        point.as_int
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "emitter.flushes"
        for point in metric.sum.data_points
    )
