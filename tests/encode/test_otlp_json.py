from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from emitter.aggregator.decode import decode
from emitter.encode import encoder_named
from emitter.encode.otlp import OtlpEncoder
from emitter.encode.otlp_json import OtlpJsonEncoder
from emitter.record.registry import Registry
from emitter.record.snapshot import HistogramPoint, Metric, Snapshot
from tests.encode.snapshots import sequences, snapshots
from tests.encode.test_otlp import canonical, decoded, official

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

SCALARS = {
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
    FieldDescriptor.CPPTYPE_ENUM: int,
    FieldDescriptor.CPPTYPE_INT64: str,
    FieldDescriptor.CPPTYPE_STRING: str,
    FieldDescriptor.CPPTYPE_UINT64: str,
}
"""How proto3 values stand in OTLP's JSON: enums as integers, 64-bit integers as strings."""


def parsed(body: bytes) -> ExportMetricsServiceRequest:
    """What a receiver reads."""
    return json_format.Parse(body, ExportMetricsServiceRequest())


def check_mapping(value: Any, message: Descriptor) -> None:
    """That a JSON object uses a message's own names, and for each field the one form that OTLP asks for.

    `json_format.Parse` alone would not notice: it also takes names of the .proto file, enums by name, numbers for
    64-bit integers.
    """
    fields = {field.json_name: field for field in message.fields}
    assert isinstance(value, dict)
    for key, content in value.items():
        field = fields[key]
        assert field.is_repeated is isinstance(content, list)
        for each in content if field.is_repeated else [content]:
            if field.message_type is not None:
                check_mapping(each, field.message_type)
            else:
                assert type(each) is SCALARS[field.cpp_type], key
                if field.cpp_type in {FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64}:
                    assert re.fullmatch(r"-?(0|[1-9][0-9]*)", each)


@settings(max_examples=150, deadline=None)
@given(snapshots(deltas=None))
def test_a_report_says_in_json_what_it_says_in_protobuf(snapshot: Snapshot) -> None:
    """Names, units, attributes, numbers, boundaries, deltas, to the bit: the message is the one the snapshot means."""
    read = parsed(OtlpJsonEncoder().encode(snapshot))

    assert canonical(read) == canonical(official(snapshot))
    assert canonical(read) == canonical(decoded(OtlpEncoder().encode(snapshot)))


@settings(max_examples=100, deadline=None)
@given(snapshots(deltas=None))
def test_each_field_has_the_form_that_otlp_asks_for(snapshot: Snapshot) -> None:
    """Receivers are stricter than the official parser."""
    read = json.loads(OtlpJsonEncoder().encode(snapshot))

    check_mapping(read, ExportMetricsServiceRequest.DESCRIPTOR)


@settings(max_examples=100, deadline=None)
@given(sequences(deltas=None) | sequences(deltas=True))
def test_what_comes_out_depends_on_the_snapshot_alone(sequence: list[Snapshot]) -> None:
    """A used encoder gives the same bytes as a fresh one, whatever it encoded before, and those are right."""
    used = OtlpJsonEncoder()
    for snapshot in sequence:
        body = used.encode(snapshot)

        assert body == OtlpJsonEncoder().encode(snapshot)
        assert canonical(parsed(body)) == canonical(official(snapshot))


def test_a_report_looks_as_in_the_specification() -> None:
    """One of each kind, letter by letter; a quotation mark, a line separator and an emoji in the texts."""
    snapshot = Snapshot(
        (("service.name", 'check"out'),),
        1_000,
        2_000,
        (
            Metric(
                "orders", "{order}", "Orders\u2028accepted.", "counter", (), ((("web", True),), (("n", 2**53 + 1),))
            ),
            Metric("open", "", "", "up-down counter", (), ((),)),
            Metric("heat", "Cel", "", "gauge", (), ((("ratio", 1.0), ("room", "\N{FIRE}")),)),
            Metric("sizes", "By", "", "histogram", (0.5, 1.0), ((),)),
        ),
        (2**63 - 1, -0.0, -3, 21.5, HistogramPoint(3, 4.5, (1, 0, 2))),
        delta_since_unix_nano=1_500,
    )
    added, total = (
        f'"startTimeUnixNano":"{start}","timeUnixNano":"2000"' for start in (1_500, 1_000)
    )  # since when: of deltas, of what stays a total

    assert OtlpJsonEncoder().encode(snapshot).decode() == (
        '{"resourceMetrics":[{"resource":{"attributes":['
        '{"key":"service.name","value":{"stringValue":"check\\"out"}}]},'
        '"scopeMetrics":[{"scope":{"name":"emitter"},"metrics":['
        '{"name":"orders","description":"Orders\\u2028accepted.","unit":"{order}","sum":{"dataPoints":['
        f'{{"attributes":[{{"key":"web","value":{{"boolValue":true}}}}],{added},"asInt":"9223372036854775807"}},'
        f'{{"attributes":[{{"key":"n","value":{{"intValue":"9007199254740993"}}}}],{added},"asDouble":-0.0}}],'
        '"aggregationTemporality":1,"isMonotonic":true}},'
        '{"name":"open","description":"","unit":"","sum":{"dataPoints":['
        f'{{"attributes":[],{total},"asInt":"-3"}}],"aggregationTemporality":2,"isMonotonic":false}}}},'
        '{"name":"heat","description":"","unit":"Cel","gauge":{"dataPoints":['
        '{"attributes":[{"key":"ratio","value":{"doubleValue":1.0}},'
        f'{{"key":"room","value":{{"stringValue":"\\ud83d\\udd25"}}}}],{total},"asDouble":21.5}}]}}}},'
        '{"name":"sizes","description":"","unit":"By","histogram":{"dataPoints":['
        f'{{"attributes":[],"explicitBounds":[0.5,1.0],{added},"count":"3","sum":4.5,"bucketCounts":["1","0","2"]}}],'
        '"aggregationTemporality":1}}]}]}]}'
    )


def test_what_did_not_change_is_not_written_again() -> None:
    """Of a report, only the values of series that were recorded to, and the times, are new text."""
    registry, encoder = Registry(), OtlpJsonEncoder()
    orders = registry.counter("orders")
    for channel in ("web", "app", "shop"):
        orders.add(0.25, channel=channel)
    encoder.encode(registry.snapshot())
    before = encoder._layout.pieces
    orders.add(0.25, channel="app")
    encoder.encode(registry.snapshot())

    after = encoder._layout.pieces
    new = [place for place, (one, other) in enumerate(zip(before, after, strict=True)) if one is not other]
    assert [after[place] for place in new if place % 4 != 1] == ['"asDouble":0.5']


def test_copies_of_an_encoder_do_not_disturb_one_another() -> None:
    """Each part of a large report is encoded by a copy, while the whole keeps its layout."""
    registry, encoder = Registry(), OtlpJsonEncoder()
    registry.counter("orders").add(1, channel="web")
    registry.gauge("temperature").set(0.5)
    snapshot = registry.snapshot()
    whole = encoder.encode(snapshot)
    parts = [
        replace(snapshot, metrics=snapshot.metrics[:1], points=snapshot.points[:2]),
        replace(snapshot, metrics=snapshot.metrics[1:], points=snapshot.points[2:]),
    ]
    bodies = [copy.copy(encoder).encode(part) for part in parts]
    copy.copy(encoder).encode(replace(snapshot, points=(5, 6, 7)))  # shares the layout

    assert [parsed(body) for body in bodies] == [official(part) for part in parts]
    assert encoder.encode(snapshot) == whole


def test_a_snapshot_that_contradicts_itself_spoils_nothing() -> None:
    """Too few points, or one of another kind: an error, and the next report is right nevertheless."""
    registry, encoder = Registry(), OtlpJsonEncoder()
    registry.counter("orders").add(1, channel="web")
    registry.histogram("sizes", boundaries=[1]).record(1)
    snapshot = registry.snapshot()
    encoder.encode(snapshot)
    for points in (snapshot.points[:-1], (*snapshot.points, 1), (7, None, snapshot.points[2])):
        with pytest.raises((ValueError, AttributeError)):
            encoder.encode(replace(snapshot, points=points))

    assert parsed(encoder.encode(snapshot)) == official(snapshot)


def test_a_report_without_series_is_a_report() -> None:
    """It says who is there."""
    snapshot = Registry().snapshot()

    assert parsed(OtlpJsonEncoder().encode(snapshot)) == official(snapshot)


def test_our_aggregator_folds_what_it_says() -> None:
    """The same reports come out of its decoder as of the protobuf form, and nothing is rejected."""
    registry = Registry((("service.name", "checkout"),))
    registry.counter("orders").add(3, channel="web")
    registry.histogram("sizes", boundaries=[1, 2]).record(1.5)
    snapshot = registry.snapshot()
    folded = decode(OtlpJsonEncoder().encode(snapshot), as_json=True)

    assert folded == decode(bytes(OtlpEncoder().encode(snapshot)))
    assert not folded.rejected
    assert [point.value for point in folded.reports[0].points][:2] == [0, 3]


def test_the_encoder_can_be_asked_for_by_name() -> None:
    """With the media type of OTLP/HTTP; each one made is new."""
    made = encoder_named("otlp-json")

    assert type(made) is OtlpJsonEncoder
    assert made is not encoder_named("otlp-json")
    assert made.content_type == "application/json"
