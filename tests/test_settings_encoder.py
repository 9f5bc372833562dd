from __future__ import annotations

from typing import Any

import pytest

from emitter.encode import ENCODERS, as_encoder
from emitter.encode.json import JsonEncoder
from emitter.encode.otlp import OtlpEncoder
from emitter.encode.otlp_json import OtlpJsonEncoder
from emitter.settings import DEFAULT_REPORT_LIMIT_BYTES
from tests.settled import URL, refusal, resolved

OTEL_URL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


def test_without_anything_set_reports_are_cumulative_otlp() -> None:
    """Compressed where that helps, and 4 MiB at most."""
    settings = resolved()

    assert type(settings.encoder) is OtlpEncoder
    assert (settings.deltas, settings.compress, settings.report_limit_bytes) == (False, True, 4 * 1024 * 1024)
    assert settings.report_limit_bytes == DEFAULT_REPORT_LIMIT_BYTES


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_asked_for_by_name(name: str) -> None:
    """As an argument, or in the environment; the argument wins."""
    kind = ENCODERS[name][1]

    assert type(resolved(encoder=name).encoder).__name__ == kind
    assert type(resolved({"EMITTER_ENDPOINT": URL, "EMITTER_ENCODER": name}).encoder).__name__ == kind
    assert type(resolved({"EMITTER_ENDPOINT": URL, "EMITTER_ENCODER": "smoke"}, encoder=name).encoder).__name__ == kind


def test_an_encoder_of_ones_own_is_taken_as_it_is() -> None:
    """The same object."""
    encoder = as_encoder("text/plain")(lambda snapshot: b"")

    assert resolved(encoder=encoder).encoder is encoder


def test_opentelemetrys_protocol_decides_between_its_two_formats() -> None:
    """For an endpoint of OpenTelemetry's; what is said of the encoder itself wins."""
    as_json = OTEL_URL | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}

    assert type(resolved(as_json).encoder) is OtlpJsonEncoder
    assert type(resolved(as_json | {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"}).encoder) is OtlpEncoder
    assert type(resolved(as_json | {"EMITTER_ENCODER": "json"}).encoder) is JsonEncoder
    assert type(resolved(as_json, encoder="json").encoder) is JsonEncoder
    assert type(resolved(as_json | {"EMITTER_ENDPOINT": URL}).encoder) is OtlpEncoder
    assert type(resolved(as_json, endpoint=URL).encoder) is OtlpEncoder


@pytest.mark.parametrize(
    ("environment", "arguments", "text"),
    [
        (None, {"encoder": "smoke"}, "encoder is 'smoke'; expected one of influx, json, otlp, otlp-json, remote-write"),
        (
            {"EMITTER_ENDPOINT": URL, "EMITTER_ENCODER": "smoke"},
            {},
            "EMITTER_ENCODER is 'smoke'; expected one of influx",
        ),
        (None, {"encoder": 7}, "encoder is a int; expected a name, or an emitter.encode.Encoder: as_encoder makes"),
        (None, {"encoder": lambda snapshot: b""}, "encoder is a function; expected a name, or"),
        (None, {"encoder": OtlpEncoder}, "encoder is the class OtlpEncoder; expected a name, or"),
        (None, {"temporality": "deltas"}, "temporality is 'deltas'; expected 'cumulative' or 'delta'"),
        (
            None,
            {"temporality": "delta", "encoder": "remote-write"},
            "temporality is 'delta', which RemoteWriteEncoder cannot carry; expected 'cumulative', or another encoder",
        ),
        (None, {"compress": "gzip"}, "compress is 'gzip'; expected True or False"),
        (None, {"report_limit_bytes": 1023}, "report_limit_bytes is 1023; expected an integer, 1024 or more"),
        (None, {"report_limit_bytes": 4e6}, "report_limit_bytes is 4000000.0; expected an integer"),
        (None, {"report_limit_bytes": True}, "report_limit_bytes is True; expected an integer"),
    ],
)
def test_a_mistake_is_told_with_what_was_expected(environment: Any, arguments: dict[str, Any], text: str) -> None:
    """And where it came from."""
    assert refusal(environment, **arguments).startswith(text)


@pytest.mark.parametrize("name", sorted(ENCODERS.keys() - {"remote-write"}))
def test_deltas_go_with_every_format_that_can_say_so(name: str) -> None:
    """Prometheus has running totals alone."""
    assert resolved(encoder=name, temporality="delta").deltas
