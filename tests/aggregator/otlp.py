"""Requests for the tests, built by the official protobuf classes and by nothing of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

START = 1_700_000_000_000_000_000
CUMULATIVE = AGGREGATION_TEMPORALITY_CUMULATIVE


def attributes_of(attributes: Mapping[str, Any]) -> list[KeyValue]:
    """Attributes with the types that their Python values have."""
    names = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
    return [KeyValue(key=key, value=AnyValue(**{names[type(value)]: value})) for key, value in attributes.items()]


def number_point(value: float, time: int = 1, start: int = START, **attributes: Any) -> NumberDataPoint:
    """A running total, `time` nanoseconds after the usual start."""
    kind = {"as_int": value} if isinstance(value, int) else {"as_double": value}
    return NumberDataPoint(
        start_time_unix_nano=start,
        time_unix_nano=START + time,
        attributes=attributes_of(attributes),
        **kind,
    )


def total(name: str, *points: NumberDataPoint, unit: str = "", temporality: Any = CUMULATIVE) -> Metric:
    """A counter."""
    data = Sum(data_points=points, is_monotonic=True, aggregation_temporality=temporality)
    return Metric(name=name, unit=unit, sum=data)


def up_down(name: str, *points: NumberDataPoint) -> Metric:
    """An up-down counter."""
    return Metric(name=name, sum=Sum(data_points=points, aggregation_temporality=CUMULATIVE))


def gauge(name: str, *points: NumberDataPoint, unit: str = "") -> Metric:
    """A gauge."""
    return Metric(name=name, unit=unit, gauge=Gauge(data_points=points))


def histogram(name: str, *points: HistogramDataPoint, temporality: Any = CUMULATIVE) -> Metric:
    """A histogram."""
    data = Histogram(data_points=points, aggregation_temporality=temporality)
    return Metric(name=name, histogram=data)


def histogram_point(
    bounds: Sequence[float], counts: Sequence[int], total_value: float | None = 0.0, time: int = 1, **more: Any
) -> HistogramDataPoint:
    """The state of a histogram; `count` is what is in the buckets unless `more` says otherwise."""
    fields = {"count": sum(counts), "sum": total_value, "start_time_unix_nano": START, **more}
    return HistogramDataPoint(explicit_bounds=bounds, bucket_counts=counts, time_unix_nano=START + time, **fields)


def attempts(number: int, start: int = START) -> Metric:
    """What numbers the reports of our emitter."""
    return total("emitter.flushes", number_point(number, time=number, start=start))


def resource(*metrics: Metric, service: Any = "checkout", instance: Any = "a") -> ResourceMetrics:
    """What one sandbox reports."""
    identity = {"service.name": service, "service.instance.id": instance}
    known = {key: value for key, value in identity.items() if value is not None}
    return ResourceMetrics(
        resource=Resource(attributes=attributes_of(known)), scope_metrics=[ScopeMetrics(metrics=metrics)]
    )


def request(*resources: ResourceMetrics) -> bytes:
    """A whole request."""
    return ExportMetricsServiceRequest(resource_metrics=resources).SerializeToString()


def one(*metrics: Metric, **identity: Any) -> bytes:
    """A request of one sandbox."""
    return request(resource(*metrics, **identity))
