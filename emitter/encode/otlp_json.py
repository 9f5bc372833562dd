"""Owns the OTLP/HTTP JSON request. Pure: a snapshot goes in, bytes come out.

The same message as that of `emitter.encode.otlp`, for receivers that read no protobuf. Source: OTLP specification 1.x,
"JSON Protobuf Encoding", on top of protobuf.dev, "ProtoJSON Format": keys in lowerCamelCase, enums as integers, 64-bit
integers as decimal strings, doubles as numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from emitter.encode.encoder import Encoder
from emitter.encode.json_text import HOLE, changed, opened, pieces, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from emitter.record.snapshot import Attributes, AttributeValue, Metric, Point, Snapshot

__all__ = ["OtlpJsonEncoder"]

# AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA and _CUMULATIVE
_DELTA, _CUMULATIVE = 1, 2

# The pieces of each data point: constant, times, constant, value.
_TIMES, _VALUE, _STEP = 1, 3, 4


class OtlpJsonEncoder(Encoder):
    """Encodes snapshots as `ExportMetricsServiceRequest` in JSON, and remembers the layout of the last one.

    The memory only saves time: what comes out depends on the snapshot alone.
    """

    content_type = "application/json"

    def __init__(self) -> None:
        self._layout: _Layout | None = None

    def encode(self, snapshot: Snapshot) -> bytes:
        """Encode one report.

        Raises:
            ValueError: There are more points than series, or fewer.
        """
        layout = self._layout
        if layout is None or not layout.fits(snapshot):
            layout = _lay_out(snapshot)
        points, filled = snapshot.points, layout.pieces.copy()
        for position in changed(points, layout.points):
            filled[_VALUE + _STEP * position] = _value(points[position])
        filled[_TIMES::_STEP] = _times(snapshot, layout.growing)
        self._layout = layout._replace(pieces=filled, points=points)
        return "".join(filled).encode()


class _Layout(NamedTuple):
    """A report in pieces, and the points that it was filled with. Never changed: copies of the encoder share it."""

    resource: Attributes
    metrics: tuple[Metric, ...]
    delta: bool
    growing: tuple[bool, ...]  # for each point whether deltas of it are reported, if they are at all
    pieces: list[str]
    points: Sequence[Point | None]

    def fits(self, snapshot: Snapshot) -> bool:
        return (
            self.metrics is snapshot.metrics
            and self.resource is snapshot.resource
            and self.delta is (snapshot.delta_since_unix_nano is not None)
        )


def _lay_out(snapshot: Snapshot) -> _Layout:
    delta = snapshot.delta_since_unix_nano is not None
    growing = tuple(metric.kind in {"counter", "histogram"} for metric in snapshot.metrics for _ in metric.series)
    resource = text({"attributes": _key_values(snapshot.resource)})
    metrics = ",".join(_metric(metric, delta=delta) for metric in snapshot.metrics)
    request = (
        f'{{"resourceMetrics":[{{"resource":{resource},'
        f'"scopeMetrics":[{{"scope":{{"name":"emitter"}},"metrics":[{metrics}]}}]}}]}}'
    )
    return _Layout(snapshot.resource, snapshot.metrics, delta, growing, pieces(request), (None,) * len(growing))


def _metric(metric: Metric, *, delta: bool) -> str:
    temporality = f',"aggregationTemporality":{_DELTA if delta else _CUMULATIVE}'
    match metric.kind:
        case "gauge":
            data, properties = "gauge", ""
        case "histogram":
            data, properties = "histogram", temporality
        case "counter":
            data, properties = "sum", f'{temporality},"isMonotonic":true'
        case _:  # an up-down counter: its value is reported also among deltas, see `Snapshot.delta_since_unix_nano`
            data, properties = "sum", f',"aggregationTemporality":{_CUMULATIVE},"isMonotonic":false'
    named = opened({"name": metric.name, "description": metric.description, "unit": metric.unit})
    points = ",".join(_data_point(metric, attributes) for attributes in metric.series)
    return f'{named},"{data}":{{"dataPoints":[{points}]{properties}}}}}'


def _data_point(metric: Metric, attributes: Attributes) -> str:
    constant: dict[str, object] = {"attributes": _key_values(attributes)}
    if metric.kind == "histogram":
        constant["explicitBounds"] = metric.boundaries
    return f'{opened(constant)},"startTimeUnixNano":"{HOLE}",{HOLE}}}'


def _times(snapshot: Snapshot, growing: Sequence[bool]) -> list[str]:
    """What fills the first hole of each data point: its start, and the time of the report."""
    then = f'","timeUnixNano":"{snapshot.time_unix_nano}'
    total = f"{snapshot.start_time_unix_nano}{then}"
    if snapshot.delta_since_unix_nano is None:
        return [total] * len(growing)
    added = f"{snapshot.delta_since_unix_nano}{then}"
    return [added if grows else total for grows in growing]


def _value(point: Point) -> str:
    """What fills the second hole of a data point."""
    if point.__class__ is int:
        return f'"asInt":"{point}"'
    if point.__class__ is float:
        return f'"asDouble":{point!r}'
    bucket_counts = '","'.join(map(str, point.bucket_counts))  # type: ignore[union-attr]
    return f'"count":"{point.count}","sum":{point.sum!r},"bucketCounts":["{bucket_counts}"]'  # type: ignore[union-attr]


def _key_values(attributes: Attributes) -> list[dict[str, object]]:
    """Attributes as a list of `KeyValue`."""
    return [{"key": key, "value": _any_value(value)} for key, value in attributes]


def _any_value(value: AttributeValue) -> dict[str, object]:
    """An `AnyValue`."""
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value}
