"""Owns what an OTLP metrics request may say. Bytes in, reports out. Knows no HTTP and no database.

Everything here is hostile until it is decoded. A body that is not OTLP at all raises; a single data point
that cannot be folded is counted with its reason and the rest is kept, as OTLP's partial success asks
(https://opentelemetry.io/docs/specs/otlp/#partial-success).
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from google.protobuf import json_format  # type: ignore[import-untyped]  # ships no types
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # as above
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp

from emitter.aggregator.report import Attribute, Decoded, Distribution, Kind, Metric, Point, Report
from emitter.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

__all__ = [
    "ATTEMPTS",
    "MAX_ATTRIBUTES",
    "MAX_BOUNDARIES",
    "MAX_MAGNITUDE",
    "MAX_NAME_CHARACTERS",
    "MAX_PARTS",
    "MAX_TEXT_CHARACTERS",
    "MAX_UNIT_CHARACTERS",
    "decode",
]

ATTEMPTS = "emitter.flushes"
"""The counter of a sandbox's attempts, the one that reports it included: it numbers the reports."""

MAX_PARTS = 200_000
"""Resources, scopes, metrics, points and attributes together. An empty part takes two bytes on the wire:
without this limit 4 MiB of them would hold the worker for seconds."""

MAX_NAME_CHARACTERS = 255
"""OpenTelemetry's own limit for the name of an instrument."""

MAX_UNIT_CHARACTERS = 63
"""OpenTelemetry's own limit for a unit."""

MAX_TEXT_CHARACTERS = 1024
"""For service, instance, attribute keys and values: room for a URL, not for a page."""

MAX_ATTRIBUTES = 128
"""Per data point: the default limit of the OpenTelemetry SDKs."""

MAX_BOUNDARIES = 1_000
"""Per histogram: a hundred times what people use, and still a short row."""

MAX_MAGNITUDE = 1e300
"""Of a float: so the sum over a hundred million sandboxes is still finite."""

_MAX_INT64 = 2**63 - 1  # what SQLite, JSON readers in 64 bits and OTLP's own as_int can hold

_NOT_CUMULATIVE = "not cumulative: only running totals can be folded twice without harm"

_Part = TypeVar("_Part")


class _Refusal(Exception):  # noqa: N818 - it never leaves this module; it is a reason, not an error
    """Why one data point, or one metric, cannot be folded."""


_MAX_OBJECTS = 2 * MAX_PARTS  # in JSON: an attribute is an object in an object
_MAX_VALUES = 5 * MAX_PARTS  # in JSON, by its commas; histograms of 1,000 buckets have the most in 4 MiB
_MAX_DEPTH = 32  # of JSON; an honest request has some 20 levels


def decode(body: bytes, *, as_json: bool = False) -> Decoded:
    """Read one request.

    Args:
        body: An `ExportMetricsServiceRequest`, already unpacked.
        as_json: Whether it is written as JSON and not as protobuf.

    Returns:
        Its reports, and how many data points were left out for which reason.

    Raises:
        PeerError: The body is no such message, or it passes a limit that concerns it as a whole.
    """
    request = _from_json(body) if as_json else _from_protobuf(body)
    budget = _Budget()
    rejected: Counter[str] = Counter()
    reports = []
    for resource in budget.take(request.resource_metrics):
        points = tuple(_points(resource, budget, rejected))
        if points:
            reports.append(_report(budget.take(resource.resource.attributes), points))
    return Decoded(tuple(reports), rejected)


def _from_protobuf(body: bytes) -> ExportMetricsServiceRequest:
    try:
        request: ExportMetricsServiceRequest = ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        message = "expected an OTLP ExportMetricsServiceRequest as protobuf, but the body cannot be parsed as one"
        raise PeerError(message) from error
    return request


def _from_json(body: bytes) -> ExportMetricsServiceRequest:
    # Before parsing, which takes some microseconds for each.
    if body.count(b"{") > _MAX_OBJECTS or body.count(b",") > _MAX_VALUES:
        raise PeerError(f"expected at most {_MAX_OBJECTS} JSON objects and {_MAX_VALUES} values")
    try:
        parsed = json.loads(body.decode())  # RFC 8259, 8.1: UTF-8 and nothing else
        if not isinstance(parsed, dict):
            raise TypeError(f"a {type(parsed).__name__}")
        if parsed and parsed.keys().isdisjoint({"resourceMetrics", "resource_metrics"}):  # some other kind of report
            raise ValueError("no resourceMetrics")
        request = ExportMetricsServiceRequest()
        json_format.ParseDict(parsed, request, ignore_unknown_fields=True, max_recursion_depth=_MAX_DEPTH)
    # The last one is what protobuf makes of half a surrogate pair where it looks for a field.
    except (json_format.ParseError, ValueError, TypeError, RecursionError, ArithmeticError, SystemError) as error:
        message = "expected an OTLP ExportMetricsServiceRequest as JSON, but the body cannot be parsed as one"
        raise PeerError(message) from error
    return request


class _Budget:
    """Counts the parts of one request, before anything walks over them."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_PARTS

    def take(self, parts: Sequence[_Part]) -> Sequence[_Part]:
        self._left -= len(parts)
        if self._left < 0:
            raise PeerError(f"expected at most {MAX_PARTS} resources, metrics, points and attributes together")
        return parts


def _report(attributes: Sequence[KeyValue], points: tuple[Point, ...]) -> Report:
    identity = {attribute.key: _scalar(attribute.value) for attribute in attributes}
    # The default is the specification's: "If the service name is not set, use unknown_service".
    service = _text(identity.get("service.name")) or "unknown_service"
    instance = _text(identity.get("service.instance.id"))
    if len(service) > MAX_TEXT_CHARACTERS or len(instance) > MAX_TEXT_CHARACTERS:
        message = f"expected service.name and service.instance.id of at most {MAX_TEXT_CHARACTERS} characters"
        raise PeerError(message)
    start = min((point.start_time_unix_nano for point in points if point.start_time_unix_nano), default=0)
    return Report(
        service,
        instance,
        start,
        # 0 attempts cannot have made a report: like None, it says nothing.
        numbers=tuple(number for point in points if (number := _number(point))),
        # Gauges of some SDKs carry no start: they belong to the sandbox that they arrived with.
        points=tuple(
            point if point.start_time_unix_nano else replace(point, start_time_unix_nano=start) for point in points
        ),
    )


def _number(point: Point) -> int | None:
    if point.metric.name == ATTEMPTS and point.metric.kind is Kind.COUNTER and isinstance(point.value, int):
        return point.value
    return None


def _points(resource: otlp.ResourceMetrics, budget: _Budget, rejected: Counter[str]) -> Iterator[Point]:
    for scope in budget.take(resource.scope_metrics):
        for metric in budget.take(scope.metrics):
            data_name = metric.WhichOneof("data")
            if data_name is None:
                continue
            points = budget.take(getattr(metric, data_name).data_points)
            try:
                kind = _kind(metric, data_name)
            except _Refusal as refusal:
                rejected[str(refusal)] += len(points)
                continue
            for point in points:
                budget.take(point.attributes)
                if point.flags & otlp.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK:
                    continue  # "no recorded value" marks the end of a series; its total stays what it was
                try:
                    yield _point(metric, kind, point)
                except _Refusal as refusal:
                    rejected[str(refusal)] += 1


def _kind(metric: otlp.Metric, data_name: str) -> Kind:
    if not 0 < len(metric.name) <= MAX_NAME_CHARACTERS:
        raise _Refusal(f"the name of a metric must have 1 to {MAX_NAME_CHARACTERS} characters")
    if len(metric.unit) > MAX_UNIT_CHARACTERS:
        raise _Refusal(f"a unit may have at most {MAX_UNIT_CHARACTERS} characters")
    if data_name == "gauge":
        return Kind.GAUGE
    if data_name == "sum":
        if metric.sum.aggregation_temporality != otlp.AGGREGATION_TEMPORALITY_CUMULATIVE:
            raise _Refusal(_NOT_CUMULATIVE)
        return Kind.COUNTER if metric.sum.is_monotonic else Kind.UP_DOWN_COUNTER
    if data_name == "histogram":
        if metric.histogram.aggregation_temporality != otlp.AGGREGATION_TEMPORALITY_CUMULATIVE:
            raise _Refusal(_NOT_CUMULATIVE)
        return Kind.HISTOGRAM
    raise _Refusal(f"{data_name.replace('_', ' ')}: only sums, gauges and histograms with boundaries are folded")


def _point(metric: otlp.Metric, kind: Kind, point: otlp.NumberDataPoint | otlp.HistogramDataPoint) -> Point:
    if max(point.time_unix_nano, point.start_time_unix_nano) > _MAX_INT64:
        raise _Refusal("a time must fit into a signed 64-bit integer")
    value: int | float | Distribution
    boundaries: tuple[float, ...] = ()
    if isinstance(point, otlp.HistogramDataPoint):
        boundaries, value = _distribution(point)
    else:
        value = _value(kind, point)
    return Point(
        metric=Metric(metric.name, kind, metric.unit, boundaries, metric.description[:MAX_TEXT_CHARACTERS]),
        attributes=_canonical(point.attributes),
        start_time_unix_nano=point.start_time_unix_nano,
        time_unix_nano=point.time_unix_nano,
        value=value,
    )


def _value(kind: Kind, point: otlp.NumberDataPoint) -> int | float:
    which = point.WhichOneof("value")
    if which is None:
        raise _Refusal("a data point without a value")
    value = point.as_int if which == "as_int" else _finite(point.as_double)
    if kind is Kind.COUNTER and value < 0:
        raise _Refusal("a monotonic sum cannot be negative")
    return value


def _distribution(point: otlp.HistogramDataPoint) -> tuple[tuple[float, ...], Distribution]:
    if max(len(point.explicit_bounds), len(point.bucket_counts)) > MAX_BOUNDARIES + 1:
        raise _Refusal(f"a histogram may have at most {MAX_BOUNDARIES} boundaries")
    boundaries = tuple(_finite(boundary) for boundary in point.explicit_bounds)
    bucket_counts = tuple(point.bucket_counts)
    if any(low >= high for low, high in itertools.pairwise(boundaries)):
        raise _Refusal("the boundaries of a histogram must ascend")
    if point.count > _MAX_INT64:
        raise _Refusal("a count must fit into a signed 64-bit integer")
    # No boundaries and no buckets is allowed: a histogram that keeps count and sum only.
    if (bucket_counts or boundaries) and (
        len(bucket_counts) != len(boundaries) + 1 or sum(bucket_counts) != point.count
    ):
        raise _Refusal("a histogram must have one bucket more than boundaries, and count what is in them")
    total = _finite(point.sum) if point.HasField("sum") else None
    # The one bucket of a histogram without boundaries says nothing more: left out, so that all look alike.
    return boundaries, Distribution(point.count, total, bucket_counts if boundaries else ())


def _finite(value: float) -> float:
    if not math.isfinite(value) or abs(value) > MAX_MAGNITUDE:
        raise _Refusal(f"a float must be finite and within +-{MAX_MAGNITUDE:g}")
    return value


def _canonical(attributes: Sequence[KeyValue]) -> str:
    if len(attributes) > MAX_ATTRIBUTES:
        raise _Refusal(f"a data point may have at most {MAX_ATTRIBUTES} attributes")
    typed: dict[str, Attribute] = {}
    for attribute in attributes:
        value = _scalar(attribute.value)
        if value is None:
            raise _Refusal("the value of an attribute must be a string, a boolean, an integer or a float")
        if isinstance(value, float):
            _finite(value)
        if not attribute.key or max(len(attribute.key), len(_text(value))) > MAX_TEXT_CHARACTERS:
            raise _Refusal(f"an attribute needs a key, and has at most {MAX_TEXT_CHARACTERS} characters")
        typed[attribute.key] = value
    return json.dumps(typed, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _scalar(value: AnyValue) -> Attribute | None:
    which = value.WhichOneof("value")
    if which in {"string_value", "bool_value", "int_value", "double_value"}:
        scalar: Attribute = getattr(value, which)
        return scalar
    return None


def _text(value: Attribute | None) -> str:
    return "" if value is None else str(value)
