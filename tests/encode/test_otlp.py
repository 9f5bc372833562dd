from __future__ import annotations

import copy
import functools
import itertools
import operator
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1 import metrics_pb2 as otlp
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from emitter.encode import encoder_named
from emitter.encode.otlp import OtlpEncoder
from emitter.record.registry import Registry
from tests.encode.snapshots import doubles, int64s, sequences, snapshots

if TYPE_CHECKING:
    from emitter.record.snapshot import Attributes, AttributeValue, Metric, Point, Snapshot

CUMULATIVE, DELTA = otlp.AGGREGATION_TEMPORALITY_CUMULATIVE, otlp.AGGREGATION_TEMPORALITY_DELTA
clean_texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=5)
examples = settings(max_examples=150, deadline=None)


def any_value(value: AttributeValue) -> AnyValue:
    """A value in the only official field for its type."""
    field = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}[type(value)]
    return AnyValue(**{field: value})


def key_values(attributes: Attributes) -> list[KeyValue]:
    """Attributes in the official classes."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes]


def data_point(
    snapshot: Snapshot, metric: Metric, attributes: Attributes, point: Point
) -> otlp.NumberDataPoint | otlp.HistogramDataPoint:
    """One data point in the official classes."""
    since = snapshot.delta_since_unix_nano
    of_delta = since is not None and metric.kind in {"counter", "histogram"}
    common = {
        "attributes": key_values(attributes),
        "start_time_unix_nano": since if of_delta else snapshot.start_time_unix_nano,
        "time_unix_nano": snapshot.time_unix_nano,
    }
    if metric.kind == "histogram":
        return otlp.HistogramDataPoint(
            **common,
            count=point.count,
            sum=point.sum,
            bucket_counts=point.bucket_counts,
            explicit_bounds=metric.boundaries,
        )
    return otlp.NumberDataPoint(**common, **{"as_int" if type(point) is int else "as_double": point})


def official(snapshot: Snapshot) -> ExportMetricsServiceRequest:
    """The message that a snapshot means, built with the official classes and with nothing of ours."""
    points = iter(snapshot.points)
    temporality = CUMULATIVE if snapshot.delta_since_unix_nano is None else DELTA
    described = []
    for metric in snapshot.metrics:
        data = [data_point(snapshot, metric, attributes, next(points)) for attributes in metric.series]
        named = {"name": metric.name, "unit": metric.unit, "description": metric.description}
        match metric.kind:
            case "counter":
                total = otlp.Sum(data_points=data, aggregation_temporality=temporality, is_monotonic=True)
                described.append(otlp.Metric(**named, sum=total))
            case "up-down counter":  # cumulative always
                total = otlp.Sum(data_points=data, aggregation_temporality=CUMULATIVE, is_monotonic=False)
                described.append(otlp.Metric(**named, sum=total))
            case "gauge":
                described.append(otlp.Metric(**named, gauge=otlp.Gauge(data_points=data)))
            case "histogram":
                histogram = otlp.Histogram(data_points=data, aggregation_temporality=temporality)
                described.append(otlp.Metric(**named, histogram=histogram))
    scope = otlp.ScopeMetrics(scope=InstrumentationScope(name="emitter"), metrics=described)
    resource = Resource(attributes=key_values(snapshot.resource))
    return ExportMetricsServiceRequest(
        resource_metrics=[otlp.ResourceMetrics(resource=resource, scope_metrics=[scope])]
    )


def canonical(message: ExportMetricsServiceRequest) -> bytes:
    """A message in the official order of fields. Other than `==` it tells 0.0 from -0.0, and shows unknown fields."""
    return message.SerializeToString(deterministic=True)


def decoded(body: bytes | bytearray) -> ExportMetricsServiceRequest:
    """What a receiver reads."""
    return ExportMetricsServiceRequest.FromString(bytes(body))


@examples
@given(snapshots(deltas=None))
def test_a_report_is_read_by_the_official_classes_as_what_was_counted(snapshot: Snapshot) -> None:
    """Names, units, attributes, numbers, boundaries, deltas, to the bit: the message is the one the snapshot means."""
    read = decoded(OtlpEncoder().encode(snapshot))

    assert read == official(snapshot)
    assert canonical(read) == canonical(official(snapshot))


@settings(max_examples=100, deadline=None)
@given(sequences(deltas=None) | sequences(deltas=True))
def test_what_comes_out_depends_on_the_snapshot_alone(sequence: list[Snapshot]) -> None:
    """A used encoder gives the same bytes as a fresh one, whatever it encoded before, and those are right."""
    used = OtlpEncoder()
    for snapshot in sequence:
        body = bytes(used.encode(snapshot))

        assert body == bytes(OtlpEncoder().encode(snapshot))
        assert canonical(decoded(body)) == canonical(official(snapshot))


def read_numbers(data: otlp.Sum | otlp.Gauge) -> dict[str, float]:
    """The value of each data point of a sum or a gauge, by its only attribute."""
    found = {}
    for point in data.data_points:
        name = ",".join(f"{each.key}={each.value.string_value}" for each in point.attributes)
        assert name not in found
        found[name] = getattr(point, point.WhichOneof("value"))
    return found


@examples
@given(
    st.lists(st.tuples(st.integers(0, 2**40) | st.floats(0, 1e100), clean_texts), max_size=20),
    st.lists(st.tuples(int64s | doubles, clean_texts), min_size=1, max_size=20),
    st.lists(st.floats(0, 1e100), min_size=1, max_size=20),
)
def test_what_was_recorded_comes_back(orders: list, temperatures: list, sizes: list[float]) -> None:
    """From the instruments to the official classes: sums by attributes, last values, buckets, who and since when."""
    registry = Registry((("service.name", "checkout"),), clock_ns=itertools.count(1_000).__next__)
    totals: dict[str, float] = {"": 0}  # the series without attributes
    for amount, channel in orders:
        registry.counter("orders", unit="{order}", description="Orders.").add(amount, {"c": channel})
        totals[f"c={channel}"] = totals.get(f"c={channel}", 0) + amount
    for value, room in temperatures:
        registry.gauge("temperature").set(value, {"c": room})
    for size in sizes:
        registry.histogram("sizes", boundaries=[1, 1e50]).record(size)
    registry.counter("orders", unit="{order}", description="Orders.")

    (resource_metrics,) = decoded(OtlpEncoder().encode(registry.snapshot())).resource_metrics
    read = {metric.name: metric for metric in resource_metrics.scope_metrics[0].metrics}
    assert key_values((("service.instance.id", registry.instance_id), ("service.name", "checkout"))) == list(
        resource_metrics.resource.attributes
    )
    assert (read["orders"].unit, read["orders"].description) == ("{order}", "Orders.")
    assert read["orders"].sum.is_monotonic
    assert read["orders"].sum.aggregation_temporality == CUMULATIVE
    assert read_numbers(read["orders"].sum) == totals
    assert read_numbers(read["temperature"].gauge) == {f"c={room}": value for value, room in temperatures}
    (point,) = read["sizes"].histogram.data_points
    assert (point.count, point.sum, list(point.explicit_bounds)) == (
        len(sizes),
        functools.reduce(operator.add, sizes, 0.0),
        [1, 1e50],
    )
    assert list(point.bucket_counts) == [
        sum(size <= 1 for size in sizes),
        sum(1 < size <= 1e50 for size in sizes),
        sum(size > 1e50 for size in sizes),
    ]
    assert (point.start_time_unix_nano, point.time_unix_nano) == (1_000, 1_001)


def test_an_unchanged_set_of_series_is_patched_in_place() -> None:
    """The same buffer of the same length, written to only where times and values stand."""
    registry, encoder = Registry(), OtlpEncoder()
    orders, sizes = registry.counter("orders"), registry.histogram("sizes", boundaries=[1, 2])
    sizes.record(1.5, kind="a")
    first = encoder.encode(registry.snapshot())
    before = bytes(first)
    orders.add(2**63 - 1)
    sizes.record(7, kind="a")
    second = encoder.encode(registry.snapshot())
    orders.add(0.5)  # an int turns into a float
    third = encoder.encode(registry.snapshot())

    assert first is second is third
    assert len(third) == len(before)
    assert bytes(third) != before


def test_a_new_series_makes_a_new_layout() -> None:
    """And the one after that is patched in place again."""
    registry, encoder = Registry(), OtlpEncoder()
    orders = registry.counter("orders")
    first = encoder.encode(registry.snapshot())
    orders.add(1, channel="web")
    second = encoder.encode(registry.snapshot())
    orders.add(1, channel="web")
    third = encoder.encode(registry.snapshot())

    assert second is not first
    assert len(second) > len(first)
    assert third is second


def test_another_resource_makes_a_new_layout() -> None:
    """It stands in what is otherwise left alone."""
    registry, encoder = Registry(), OtlpEncoder()
    registry.counter("orders")
    snapshot = registry.snapshot()
    renamed = replace(snapshot, resource=(("service.name", "other"),))
    first = encoder.encode(snapshot)
    second = encoder.encode(renamed)

    assert second is not first
    assert decoded(second) == official(renamed)


def test_another_start_is_patched_in_place() -> None:
    """It stands with the times, since under delta each report starts where the one before it ended."""
    registry, encoder = Registry(), OtlpEncoder()
    registry.counter("orders")
    snapshot = registry.snapshot()
    restarted = replace(snapshot, start_time_unix_nano=5)
    first = encoder.encode(snapshot)
    second = encoder.encode(restarted)

    assert second is first
    assert decoded(second) == official(restarted)


def test_deltas_start_where_the_report_before_them_ended() -> None:
    """Counters and histograms say since when; an up-down counter and a gauge stay as they are, and all are patched."""
    registry, encoder = Registry(clock_ns=itertools.count(1_000).__next__), OtlpEncoder()
    registry.counter("orders").add(3)
    registry.up_down_counter("open").add(2)
    registry.gauge("temperature").set(0.5)
    registry.histogram("sizes", boundaries=[1]).record(4)
    snapshot = registry.snapshot()
    first = encoder.encode(replace(snapshot, delta_since_unix_nano=1_000))
    second = encoder.encode(replace(snapshot, time_unix_nano=1_007, delta_since_unix_nano=1_001))

    orders, still_open, temperature, sizes = decoded(second).resource_metrics[0].scope_metrics[0].metrics
    read = [orders.sum, still_open.sum, temperature.gauge, sizes.histogram]
    assert second is first
    assert [each.data_points[0].start_time_unix_nano for each in read] == [1_001, 1_000, 1_000, 1_001]
    assert {each.data_points[0].time_unix_nano for each in read} == {1_007}
    assert (orders.sum.aggregation_temporality, sizes.histogram.aggregation_temporality) == (DELTA, DELTA)
    assert still_open.sum.aggregation_temporality == CUMULATIVE


def test_another_temporality_makes_a_new_layout() -> None:
    """It stands at the head of each metric. And back again."""
    registry, encoder = Registry(), OtlpEncoder()
    registry.counter("orders")
    cumulative = registry.snapshot()
    deltas = replace(cumulative, delta_since_unix_nano=7)
    for snapshot in (cumulative, deltas, cumulative):
        assert decoded(encoder.encode(snapshot)) == official(snapshot)


def test_copies_of_an_encoder_do_not_disturb_one_another() -> None:
    """Each part of a large report is encoded by a copy, while the whole keeps its layout."""
    registry, encoder = Registry(), OtlpEncoder()
    registry.counter("orders").add(1, channel="web")
    registry.gauge("temperature").set(0.5)
    snapshot = registry.snapshot()
    whole = encoder.encode(snapshot)
    before = bytes(whole)
    parts = [
        replace(snapshot, metrics=snapshot.metrics[:1], points=snapshot.points[:2]),
        replace(snapshot, metrics=snapshot.metrics[1:], points=snapshot.points[2:]),
    ]
    bodies = [copy.copy(encoder).encode(part) for part in parts]

    assert [decoded(body) for body in bodies] == [official(part) for part in parts]
    assert whole == before
    assert encoder.encode(snapshot) is whole


def test_a_snapshot_that_contradicts_itself_spoils_nothing() -> None:
    """Too few points, or one of another kind: an error, and the next report is right nevertheless."""
    registry, encoder = Registry(), OtlpEncoder()
    registry.counter("orders").add(1, channel="web")
    registry.histogram("sizes", boundaries=[1]).record(1)
    snapshot = registry.snapshot()
    encoder.encode(snapshot)
    for points in (snapshot.points[:-1], (*snapshot.points, 1), (snapshot.points[0], 2**64, snapshot.points[2])):
        with pytest.raises((ValueError, struct.error)):
            encoder.encode(replace(snapshot, points=points))

    assert decoded(encoder.encode(snapshot)) == official(snapshot)


def test_a_report_without_series_is_a_report() -> None:
    """It says who is there."""
    snapshot = Registry().snapshot()

    assert decoded(OtlpEncoder().encode(snapshot)) == official(snapshot)


def test_the_encoder_can_be_asked_for_by_name() -> None:
    """With the media type of OTLP/HTTP; each one made is new."""
    made = encoder_named("otlp")

    assert type(made) is OtlpEncoder
    assert made is not encoder_named("otlp")
    assert made.content_type == "application/x-protobuf"
