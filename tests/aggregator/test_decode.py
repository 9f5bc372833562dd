from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_DELTA,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Metric,
    NumberDataPoint,
    Summary,
    SummaryDataPoint,
)

from emitter.aggregator import decode as module
from emitter.aggregator.decode import decode
from emitter.aggregator.report import Distribution, Kind
from emitter.errors import PeerError

from .otlp import (
    CUMULATIVE,
    START,
    attempts,
    gauge,
    histogram,
    histogram_point,
    number_point,
    one,
    request,
    resource,
    total,
    up_down,
)

DELTA = AGGREGATION_TEMPORALITY_DELTA


def test_every_kind_keeps_its_value_and_its_type() -> None:
    """Integers stay integers, floats stay floats, a histogram keeps count, sum and buckets."""
    body = one(
        total("c", number_point(2**63 - 1)),
        total("f", number_point(1.0)),
        up_down("u", number_point(-3)),
        gauge("g", number_point(0.25)),
        histogram("h", histogram_point([1.0, 2.0], [1, 0, 2], 7.5)),
    )

    points = decode(body).reports[0].points

    assert [(point.metric.name, point.metric.kind, repr(point.value)) for point in points] == [
        ("c", Kind.COUNTER, "9223372036854775807"),
        ("f", Kind.COUNTER, "1.0"),
        ("u", Kind.UP_DOWN_COUNTER, "-3"),
        ("g", Kind.GAUGE, "0.25"),
        ("h", Kind.HISTOGRAM, repr(Distribution(3, 7.5, (1, 0, 2)))),
    ]
    assert points[-1].metric.boundaries == (1.0, 2.0)


def test_attributes_that_look_alike_are_different_and_their_order_is_not() -> None:
    """The text 1, the integer 1, the float 1.0 and true are four values; keys have no order."""
    values: list[Any] = ["1", 1, 1.0, True]
    body = one(
        total("c", *(number_point(1, k=value) for value in values)),
        total("d", number_point(1, a=1, b=2), number_point(1, b=2, a=1)),
    )

    *typed, first, second = [point.attributes for point in decode(body).reports[0].points]

    assert len(set(typed)) == 4
    assert first == second


def test_a_point_without_a_start_belongs_to_the_earliest_one_of_its_resource() -> None:
    """Gauges of some SDKs carry no start; without any start in the resource it stays 0."""
    body = request(
        resource(
            total("late", number_point(1, start=START + 5)),
            gauge("g", number_point(1, start=0)),
            total("early", number_point(1, start=START)),
        ),
        resource(gauge("g", number_point(1, start=0)), instance="b"),
    )

    first, second = decode(body).reports

    assert first.start_time_unix_nano == START
    assert [point.start_time_unix_nano for point in first.points] == [START + 5, START, START]
    assert second.start_time_unix_nano == second.points[0].start_time_unix_nano == 0


def test_the_counter_of_attempts_numbers_the_report() -> None:
    """The number is an integer of a counter of that name, 1 or more; anything else says nothing."""
    bodies = [
        one(attempts(7)),
        one(attempts(0)),
        one(gauge("emitter.flushes", number_point(7))),
        one(total("emitter.flushes", number_point(7.0))),
    ]

    numbers = [decode(body).reports[0].numbers for body in bodies]

    assert numbers == [(7,), (), (), ()]


@pytest.mark.parametrize(
    ("service", "instance", "expected"),
    [
        ("checkout", "a", ("checkout", "a")),
        (None, None, ("unknown_service", "")),
        ("", 17, ("unknown_service", "17")),
    ],
)
def test_the_resource_says_who_reports(service: Any, instance: Any, expected: tuple[str, str]) -> None:
    """Without a name the specification's own default stands in."""
    report = decode(one(attempts(1), service=service, instance=instance)).reports[0]

    assert (report.service, report.instance) == expected


def point_with(value: AnyValue, key: str = "k") -> NumberDataPoint:
    """A data point with one attribute of any value."""
    point = number_point(1)
    point.attributes.append(KeyValue(key=key, value=value))
    return point


REFUSED = {
    "not cumulative": [
        total("d", number_point(1), temporality=DELTA),
        total("d", number_point(1), temporality=0),
        histogram("d", histogram_point([], []), temporality=DELTA),
    ],
    "exponential histogram: only": [
        Metric(
            name="e",
            exponential_histogram=ExponentialHistogram(
                data_points=[ExponentialHistogramDataPoint()], aggregation_temporality=CUMULATIVE
            ),
        )
    ],
    "summary: only": [Metric(name="s", summary=Summary(data_points=[SummaryDataPoint()]))],
    "name of a metric": [total("", number_point(1)), total("n" * 256, number_point(1))],
    "a unit": [total("u", number_point(1), unit="u" * 64)],
    "a time must fit": [total("t", number_point(1, time=2**63)), total("t", number_point(1, start=2**63))],
    "without a value": [total("v", NumberDataPoint(start_time_unix_nano=START))],
    "cannot be negative": [total("v", number_point(-1))],
    "must be finite": [
        gauge("v", number_point(float("nan"))),
        gauge("v", number_point(float("-inf"))),
        gauge("v", number_point(1.1e300)),
        total("v", number_point(1, k=float("inf"))),
        histogram("v", histogram_point([1.0], [0, 0], float("nan"))),
        histogram("v", histogram_point([float("inf")], [0, 0])),
    ],
    "at most 1000 boundaries": [
        histogram("b", histogram_point(range(1001), [0] * 1002)),
        histogram("b", histogram_point([], [0] * 1002)),
    ],
    "must ascend": [histogram("b", histogram_point([1.0, 1.0], [0, 0, 0]))],
    "a count must fit": [histogram("b", histogram_point([], [], count=2**63))],
    "one bucket more": [
        histogram("b", histogram_point([1.0], [])),
        histogram("b", histogram_point([1.0], [1])),
        histogram("b", histogram_point([1.0], [1, 1], count=3)),
    ],
    "at most 128 attributes": [total("a", number_point(1, **{f"k{n}": n for n in range(129)}))],
    "value of an attribute": [
        total("a", point_with(AnyValue())),
        total("a", point_with(AnyValue(bytes_value=b"x"))),
        total("a", point_with(AnyValue(array_value=ArrayValue()))),
    ],
    "an attribute needs a key": [
        total("a", point_with(AnyValue(int_value=1), key="")),
        total("a", point_with(AnyValue(int_value=1), key="k" * 1025)),
        total("a", number_point(1, k="v" * 1025)),
    ],
}


@pytest.mark.parametrize(
    ("reason", "metric"), [(reason, metric) for reason, metrics in REFUSED.items() for metric in metrics]
)
def test_what_cannot_be_folded_is_counted_with_its_reason_and_the_rest_is_kept(reason: str, metric: Metric) -> None:
    """One bad data point costs its neighbours nothing."""
    decoded = decode(one(total("before", number_point(1)), metric, total("after", number_point(1))))

    assert [point.metric.name for point in decoded.reports[0].points] == ["before", "after"]
    assert list(decoded.rejected.values()) == [1]
    assert reason in next(iter(decoded.rejected))


def test_the_limits_themselves_are_allowed() -> None:
    """A limit is the last value that passes."""
    body = one(
        total("n" * 255, number_point(1, **{"k" * 1024: "v" * 1024}), unit="u" * 63),
        total("a", number_point(1, **{f"k{n}": n for n in range(128)})),
        gauge("g", number_point(-1e300), number_point(2**63 - 1, start=2**63 - 1)),
        histogram("h", histogram_point(range(1000), [0] * 1001)),
    )

    decoded = decode(body)

    assert decoded.rejected == {}
    assert len(decoded.reports[0].points) == 5


def test_a_point_that_says_it_has_no_value_is_skipped_in_silence() -> None:
    """The flag marks the end of a series and is no mistake."""
    point = NumberDataPoint(start_time_unix_nano=START, time_unix_nano=START, flags=1)

    decoded = decode(one(gauge("g", point), Metric(name="nothing at all")))

    assert (decoded.reports, decoded.rejected) == ((), {})


def test_a_histogram_without_boundaries_is_the_same_with_and_without_its_one_bucket() -> None:
    """Both are allowed, so both must fold into one total."""
    body = one(histogram("h", histogram_point([], [3]), histogram_point([], [], count=3)))

    with_bucket, without = (point.value for point in decode(body).reports[0].points)

    assert with_bucket == without == Distribution(3, 0.0, ())


def test_a_sum_that_is_not_kept_is_not_zero() -> None:
    """OTLP's sum is optional: absent is not 0."""
    body = one(histogram("h", histogram_point([], [], None), histogram_point([], [], 0.0)))

    absent, zero = (point.value for point in decode(body).reports[0].points)

    assert isinstance(absent, Distribution)
    assert isinstance(zero, Distribution)
    assert (absent.sum, zero.sum) == (None, 0.0)


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x05abc", b'{"resourceMetrics": []}', one(attempts(1))[:-1]])
def test_what_is_no_request_is_refused_as_a_whole(body: bytes) -> None:
    """Broken protobuf raises and says what was expected."""
    with pytest.raises(PeerError, match="expected an OTLP ExportMetricsServiceRequest as protobuf"):
        decode(body)


def test_text_that_is_not_utf_8_is_refused_as_a_whole() -> None:
    """Protobuf strings are UTF-8; a lone surrogate or a stray byte is broken protobuf."""
    body = one(total("name-here", number_point(1))).replace(b"name-here", b"name-\xff\xffre")

    with pytest.raises(PeerError, match="cannot be parsed"):
        decode(body)


@pytest.mark.parametrize("identity", [{"service": "s" * 1025}, {"instance": "i" * 1025}])
def test_an_endless_name_of_a_service_is_refused_as_a_whole(identity: dict[str, str]) -> None:
    """Cutting it would make two sandboxes one."""
    with pytest.raises(PeerError, match=r"at most 1024 characters"):
        decode(one(attempts(1), **identity))


def test_empty_parts_are_counted_before_anything_walks_over_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two bytes make one empty resource, so their number is limited, not only their bytes."""
    with pytest.raises(PeerError, match="expected at most 200000 resources, metrics"):
        decode(b"\x0a\x00" * 200_001)

    monkeypatch.setattr(module, "MAX_PARTS", 7)
    body = one(total("c", number_point(1, a=1)))
    assert decode(body).reports  # 1 resource, 1 scope, 1 metric, 1 point, 1 + 2 attributes
    monkeypatch.setattr(module, "MAX_PARTS", 6)
    with pytest.raises(PeerError, match="expected at most 6"):
        decode(body)


VALID = request(
    resource(attempts(3), total("c", number_point(1, a="x", b=2.5))),
    resource(histogram("h", histogram_point([1.0, 2.0], [1, 0, 2], 7.5)), gauge("g", number_point(1.5))),
)


@given(
    st.binary()
    | st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), max_size=8).map(
        lambda edits: bytes(dict(edits).get(place, byte) for place, byte in enumerate(VALID))
    )
)
def test_any_bytes_are_decoded_or_refused_and_nothing_else(body: bytes) -> None:
    """Random bytes and damaged requests end in a result or in a PeerError."""
    try:
        decoded = decode(body)
    except PeerError:
        return

    assert all(report.points for report in decoded.reports)
