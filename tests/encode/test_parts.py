from __future__ import annotations

import dataclasses
from typing import ClassVar

import cramjam
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from emitter.encode.encoder import Encoder
from emitter.encode.otlp import OtlpEncoder
from emitter.encode.parts import Parts
from emitter.encode.remote_write import RemoteWriteEncoder
from emitter.record.registry import Registry
from tests.encode.snapshots import sequences

SERIES = 500


def registry_with(series: int) -> Registry:
    """One counter of the emitter's own kind, and one with so many series."""
    registry = Registry((("service.name", "s"),))
    registry.counter("first").add(1)
    orders = registry.counter("orders")
    for number in range(series):
        orders.add(number, number=str(number))
    return registry


def values(bodies: list[bytes | bytearray]) -> list[tuple[str, str, int]]:
    """Every data point: name, attribute, value."""
    return [
        (metric.name, point.attributes[0].value.string_value if point.attributes else "", point.as_int)
        for body in bodies
        for resource in ExportMetricsServiceRequest.FromString(bytes(body)).resource_metrics
        for metric in resource.scope_metrics[0].metrics
        for point in metric.sum.data_points
    ]


def test_a_report_within_the_limit_is_one_body() -> None:
    """The same as the encoder alone makes."""
    snapshot = registry_with(SERIES).snapshot()
    whole = OtlpEncoder().encode(snapshot)

    assert [*Parts(OtlpEncoder(), len(whole)).encode(snapshot)] == [whole]


def test_a_larger_report_is_divided_into_parts_that_are_complete_in_themselves() -> None:
    """Each within the limit, with its resource; together every series once, in order."""
    snapshot = registry_with(SERIES).snapshot()
    whole = OtlpEncoder().encode(snapshot)
    bodies = [*Parts(OtlpEncoder(), len(whole) // 7).encode(snapshot)]
    resources = [ExportMetricsServiceRequest.FromString(bytes(body)).resource_metrics for body in bodies]

    assert len(bodies) >= 7
    assert max(map(len, bodies)) <= len(whole) // 7
    assert values(bodies) == values([whole])
    assert {str(one.resource) for (one,) in resources} == {str(resources[0][0].resource)}


def test_parts_keep_their_series_until_one_is_added() -> None:
    """So each encoder patches what it has laid out; a new series lays everything out anew."""
    registry = registry_with(SERIES)
    parts = Parts(OtlpEncoder(), 10_000)
    list(parts.encode(registry.snapshot()))
    before = [part.metrics for part in parts._parts]
    layouts = [part.encoder._layout for part in parts._parts]
    registry.counter("orders").add(1, number="7")
    again = [*parts.encode(registry.snapshot())]
    kept = [part.metrics for part in parts._parts]
    kept_layouts = [part.encoder._layout for part in parts._parts]
    registry.counter("late").add(5)
    late = values([*parts.encode(registry.snapshot())])

    assert all(now is then for now, then in zip(kept, before, strict=True))
    assert all(now is then for now, then in zip(kept_layouts, layouts, strict=True))
    assert ("orders", "7", 8) in values(again)
    assert late[-1] == ("late", "", 5)


def test_a_single_series_beyond_the_limit_goes_out_all_the_same() -> None:
    """There is nothing left to divide; the receiver judges."""
    registry = Registry()
    registry.counter("orders")
    registry.gauge("padding").set(1, padding="x" * 255)
    bodies = [*Parts(OtlpEncoder(), 1).encode(registry.snapshot())]

    assert len(bodies) == 2


def test_one_encoder_serves_two_and_neither_notices() -> None:
    """Each part has a copy of its own."""
    encoder = OtlpEncoder()
    one, other = registry_with(40).snapshot(), registry_with(90).snapshot()
    first, second = Parts(encoder, 1_500), Parts(encoder, 1_500)
    bodies = [bytes(body) for body in first.encode(one)]
    list(second.encode(other))

    assert [bytes(body) for body in first.encode(one)] == bodies


@settings(max_examples=60, deadline=None)
@given(sequences(), st.integers(1, 600))
def test_whatever_the_limit_every_point_is_in_one_part(snapshots: list, limit_bytes: int) -> None:
    """With its value, its attributes, its freshness; and parts remembered are the same as parts made anew."""

    class Whole(OtlpEncoder):
        seen: ClassVar[list] = []

        def encode(self, snapshot):
            body = super().encode(snapshot)
            Whole.seen.append((len(body), snapshot))
            return body

    parts = Parts(Whole(), limit_bytes)
    for snapshot in snapshots:
        Whole.seen = []
        bodies = [*parts.encode(snapshot)]
        kept = [seen for size, seen in Whole.seen if size <= limit_bytes or len(seen.points) <= 1]
        # As the parts stand now, whatever was tried on the way.
        described = [part.of(snapshot) for part in parts._parts]

        assert [dataclasses.replace(one, metrics=()) for one in kept] == [
            dataclasses.replace(one, metrics=()) for one in described
        ]
        assert sum((one.points for one in described), ()) == snapshot.points
        assert [(m.name, s) for one in described for m in one.metrics for s in m.series] == [
            (m.name, s) for m in snapshot.metrics for s in m.series
        ]
        begins = [part.begin for part in parts._parts]
        assert (
            tuple(begin + place for begin, one in zip(begins, described, strict=True) for place in one.fresh)
            == snapshot.fresh
        )
        assert [bytes(body) for body in bodies] == [bytes(OtlpEncoder().encode(one)) for one in described]


def test_the_limit_is_of_what_the_receiver_has_to_hold() -> None:
    """A body that the encoder has packed is judged by what is in it."""
    snapshot = registry_with(SERIES).snapshot()
    encoder = RemoteWriteEncoder()
    whole = encoder.encode(snapshot)
    unpacked = len(cramjam.snappy.decompress_raw(whole))
    bodies = [*Parts(encoder, unpacked // 3).encode(snapshot)]

    assert encoder.unpacked_bytes(whole) == unpacked > 3 * len(whole)
    assert len(bodies) >= 3
    assert max(len(bytes(cramjam.snappy.decompress_raw(body))) for body in bodies) <= unpacked // 3


def test_an_encoder_may_use_its_buffer_again() -> None:
    """Copies share it: each body is done with before the next one is asked for."""

    class Frugal(Encoder):
        content_type = "text/plain"

        def __init__(self) -> None:
            self.buffer = bytearray()

        def encode(self, snapshot):
            self.buffer[:] = b"".join(b"%d;" % point for point in snapshot.points)
            return self.buffer

    snapshot = registry_with(100).snapshot()
    bodies = [bytes(body) for body in Parts(Frugal(), 50).encode(snapshot)]

    assert len(bodies) > 3
    assert [int(text) for text in b"".join(bodies).split(b";")[:-1]] == list(snapshot.points)
