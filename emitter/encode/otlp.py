"""Owns the OTLP/HTTP protobuf request. Pure: a snapshot goes in, bytes come out.

Source: opentelemetry-proto, `collector/metrics/v1/metrics_service.proto`, `metrics/v1/metrics.proto`,
`common/v1/common.proto`; OTLP specification 1.x.

The numbers of a data point have a fixed width, so for an unchanged set of series a report keeps its length, and
only times and values change. Each data point is laid out with all that stays first and all that changes at its
end, in one run of bytes:

    number point     attributes              |  tag start  tag time  tag  |  value
    histogram point  attributes  boundaries  |  tag start  tag time  tag  |  count  tag sum  tag+length bucket counts
                                             |  the stamp                 |
                                             ^ written anew for each report, with one `pack_into`

The stamp is made once for a report, not once for a point. The order of fields is free (protobuf.dev, "Field Order"),
and the tag of a value is written along with it, so a total may turn from integer to floating point without a new
layout.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from emitter.encode import protobuf
from emitter.encode.encoder import Encoder

if TYPE_CHECKING:
    from emitter.record.snapshot import Attributes, AttributeValue, HistogramPoint, Metric, Snapshot

__all__ = ["OtlpEncoder"]

_DELTA, _CUMULATIVE = 1, 2  # AggregationTemporality.AGGREGATION_TEMPORALITY_*
_DELTA_KINDS = {"counter", "histogram"}
_FIXED64_BYTES = 8

# NumberDataPoint: as_double = 4, as_int = 6 (`sfixed64`). HistogramDataPoint: count = 4, sum = 5, bucket_counts = 6.
_START = protobuf.tag(2, protobuf.I64)[0]  # start_time_unix_nano, in both
_TIME = protobuf.tag(3, protobuf.I64)[0]  # time_unix_nano, in both
_AS_DOUBLE = protobuf.tag(4, protobuf.I64)[0]
_AS_INT = protobuf.tag(6, protobuf.I64)[0]
_COUNT = protobuf.tag(4, protobuf.I64)[0]
_SUM = protobuf.tag(5, protobuf.I64)[0]

_STAMP = Struct("<BQBQB")  # tag and start, tag and time, tag of what follows
_STAMPED = f"<{_STAMP.size}s"
_NUMBER_HOLE = Struct(_STAMPED + "q")
_PACK_INT = _NUMBER_HOLE.pack_into
_PACK_DOUBLE = Struct(_STAMPED + "d").pack_into
_PACK_START = Struct("<BQ").pack_into  # the beginning of a stamp


class OtlpEncoder(Encoder):
    """Encodes snapshots as `ExportMetricsServiceRequest`, and remembers the layout of the last one.

    The memory only saves time: what comes out depends on the snapshot alone. Of a snapshot of deltas, up-down counters
    stay cumulative: they hold all that was added since the sandbox began.
    """

    content_type = "application/x-protobuf"

    def __init__(self) -> None:
        self._layout: _Layout | None = None

    def encode(self, snapshot: Snapshot) -> bytearray:
        """Encode one report.

        Returns:
            The body of the request. The buffer belongs to the encoder and is good until the next call: copy what
            is to last.
        """
        layout = self._layout
        if layout is None or not layout.fits(snapshot):
            layout = self._layout = _lay_out(snapshot)
        buffer = layout.buffer
        since, time = snapshot.delta_since_unix_nano, snapshot.time_unix_nano
        start = snapshot.start_time_unix_nano if since is None else since
        int_stamp = _STAMP.pack(_START, start, _TIME, time, _AS_INT)
        double_stamp = _STAMP.pack(_START, start, _TIME, time, _AS_DOUBLE)
        histogram_stamp = _STAMP.pack(_START, start, _TIME, time, _COUNT)
        for offset, point in zip(layout.offsets, snapshot.points, strict=True):
            if point.__class__ is int:
                _PACK_INT(buffer, offset, int_stamp, point)
            elif point.__class__ is float:
                _PACK_DOUBLE(buffer, offset, double_stamp, point)
            else:
                _pack_histogram(buffer, offset, histogram_stamp, point)  # type: ignore[arg-type]
        for offset in layout.cumulative:
            _PACK_START(buffer, offset, _START, snapshot.start_time_unix_nano)
        return buffer


class _Layout(NamedTuple):
    """A report with holes.

    Attributes:
        resource: That of the snapshot it was made for.
        metrics: The same.
        delta: Whether counters and histograms hold deltas.
        buffer: The report.
        offsets: Where the changing bytes of each point begin.
        cumulative: Those of the points that start with the sandbox while others hold deltas.
    """

    resource: Attributes
    metrics: tuple[Metric, ...]
    delta: bool
    buffer: bytearray
    offsets: list[int]
    cumulative: list[int]

    def fits(self, snapshot: Snapshot) -> bool:
        return (
            self.metrics is snapshot.metrics
            and self.resource is snapshot.resource
            and self.delta == (snapshot.delta_since_unix_nano is not None)
        )


def _lay_out(snapshot: Snapshot) -> _Layout:
    # From the inside out, because each message begins with its length. A piece may end with a hole.
    delta = snapshot.delta_since_unix_nano is not None
    pieces = [(protobuf.message(1, protobuf.text(1, "emitter")), 0)]  # ScopeMetrics.scope, InstrumentationScope.name
    for metric in snapshot.metrics:
        points = [_data_point(metric, attributes) for attributes in metric.series]
        pieces.append((_metric_head(metric, sum(len(content) for content, _ in points), delta=delta), 0))
        pieces += points
    scope_metrics = protobuf.message_head(2, sum(len(content) for content, _ in pieces))
    resource = protobuf.message(1, _attributes(1, snapshot.resource))
    resource_metrics = protobuf.message_head(
        1, len(resource) + len(scope_metrics) + sum(len(content) for content, _ in pieces)
    )
    buffer = bytearray(resource_metrics + resource + scope_metrics)
    offsets = []
    for content, hole_bytes in pieces:
        buffer += content
        if hole_bytes:
            offsets.append(len(buffer) - hole_bytes)
    cumulative = []
    if delta:
        described = (metric for metric in snapshot.metrics for _ in metric.series)
        cumulative = [
            offset for offset, metric in zip(offsets, described, strict=True) if metric.kind not in _DELTA_KINDS
        ]
    return _Layout(snapshot.resource, snapshot.metrics, delta, buffer, offsets, cumulative)


def _metric_head(metric: Metric, points_bytes: int, *, delta: bool) -> bytes:
    """A `Metric` up to where its data points follow, which come last in it."""
    # aggregation_temporality, in both that have one
    temporality = protobuf.varint(2, _DELTA if delta and metric.kind in _DELTA_KINDS else _CUMULATIVE)
    if metric.kind == "gauge":
        field, properties = 5, b""  # Metric.gauge
    elif metric.kind == "histogram":
        field, properties = 9, temporality  # Metric.histogram
    else:
        field, properties = 7, temporality  # Metric.sum
        if metric.kind == "counter":
            properties += protobuf.varint(3, True)  # is_monotonic
    data = protobuf.message_head(field, len(properties) + points_bytes) + properties
    named = protobuf.text(1, metric.name) + protobuf.text(2, metric.description) + protobuf.text(3, metric.unit)
    return protobuf.message_head(2, len(named) + len(data) + points_bytes) + named + data  # ScopeMetrics.metrics


def _data_point(metric: Metric, attributes: Attributes) -> tuple[bytes, int]:
    """One data point as field 1 of its metric, and how many bytes at its end are the hole."""
    if metric.kind == "histogram":
        constant = _attributes(9, attributes) + protobuf.doubles(7, metric.boundaries)  # explicit_bounds
        hole_bytes = _histogram_hole(len(metric.boundaries) + 1)[0].size
    else:
        constant = _attributes(7, attributes)
        hole_bytes = _NUMBER_HOLE.size
    return protobuf.message(1, constant + bytes(hole_bytes)), hole_bytes


@lru_cache(maxsize=64)
def _histogram_hole(buckets: int) -> tuple[Struct, bytes]:
    """Stamp, count, tag and sum, bucket counts with what stands before them; and what that is."""
    head = protobuf.message_head(6, buckets * _FIXED64_BYTES)  # bucket_counts
    return Struct(f"{_STAMPED}QBd{len(head)}s{buckets}Q"), head


def _pack_histogram(buffer: bytearray, offset: int, stamp: bytes, point: HistogramPoint) -> None:
    hole, head = _histogram_hole(len(point.bucket_counts))
    hole.pack_into(buffer, offset, stamp, point.count, _SUM, point.sum, head, *point.bucket_counts)


def _attributes(field: int, attributes: Attributes) -> bytes:
    """Attributes as repeated `KeyValue`: key = 1, value = 2."""
    return b"".join(
        protobuf.message(field, protobuf.text(1, key) + protobuf.message(2, _any_value(value)))
        for key, value in attributes
    )


def _any_value(value: AttributeValue) -> bytes:
    """The content of an `AnyValue`: string = 1, bool = 2, int = 3, double = 4."""
    # Also an empty string is written out: a `oneof` without a member on the wire has no value at all.
    if isinstance(value, str):
        return protobuf.message(1, value.encode())
    if isinstance(value, bool):
        return protobuf.varint(2, value)
    if isinstance(value, int):
        return protobuf.varint(3, value)
    return protobuf.double(4, value)
