from __future__ import annotations

import json

import pytest
from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from emitter.aggregator import decode as decoding
from emitter.aggregator.decode import decode
from emitter.errors import PeerError
from tests.aggregator.otlp import attempts, histogram, histogram_point, number_point, one, total


def as_json(body: bytes) -> bytes:
    """The same request as JSON, written by the official library."""
    return MessageToJson(ExportMetricsServiceRequest.FromString(body), use_integers_for_enums=True).encode()


def test_json_says_the_same_as_protobuf() -> None:
    """Integers of 64 bits, floats, histograms, attributes of all types."""
    body = one(
        attempts(7),
        total("orders", number_point(2**62, paid=True), number_point(0.5, paid="true"), number_point(1, paid=1)),
        histogram("sizes", histogram_point((1.0, 2.5), (3, 0, 4))),
    )

    assert decode(as_json(body), as_json=True) == decode(body)


def test_what_a_later_version_of_the_protocol_adds_is_ignored() -> None:
    """As protobuf does with fields that it does not know."""
    body = one(total("orders", number_point(1)))
    told = json.loads(as_json(body))
    told["resourceMetrics"][0]["novelty"] = {"a": [1]}

    assert decode(json.dumps(told).encode(), as_json=True) == decode(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b'{"version": 1, "totals": []}',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"resourceMetrics": [1]}',
        b'{"resourceMetrics": NaN}',
        b'{"resourceMetrics": ["\\ud800"]}',
        '{"resourceMetrics": []}'.encode("utf-16"),
        b'{"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"sum":{"aggregationTemporality":1e400}}]}]}]}',
    ],
)
def test_what_is_no_request_is_refused_as_a_whole(body: bytes) -> None:
    """With what was expected."""
    with pytest.raises(PeerError, match="expected an OTLP ExportMetricsServiceRequest as JSON"):
        decode(body, as_json=True)


def test_a_deep_request_is_refused() -> None:
    """Values may nest, and nobody honest nests them often."""
    value = '{"arrayValue": {"values": [' * 40 + '{"boolValue": true}' + "]}}" * 40
    body = '{"resourceMetrics": [{"resource": {"attributes": [{"key": "k", "value": ' + value + "}]}}]}"

    with pytest.raises(PeerError, match="as JSON, but the body cannot be parsed"):
        decode(body.encode(), as_json=True)


def test_objects_are_counted_before_anything_parses_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one takes three bytes on the wire, and microseconds to read."""
    monkeypatch.setattr(decoding, "_MAX_OBJECTS", 10)
    monkeypatch.setattr(decoding, "_MAX_VALUES", 20)

    for body in (b'{"resourceMetrics": [' + b"{}," * 10 + b"{}]}", b'{"x": [' + b"1," * 21 + b"1]}"):
        with pytest.raises(PeerError, match="expected at most 10 JSON objects and 20 values"):
            decode(body, as_json=True)
