from __future__ import annotations

import copy
import re
import struct
import sys
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import cramjam
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from emitter.encode import encoder_named, prometheus, remote_write
from emitter.encode.remote_write import RemoteWriteEncoder
from emitter.errors import ConfigurationError
from emitter.record.snapshot import HistogramPoint, Metric, Snapshot
from tests.encode.snapshots import boundaries, numbers, values
from tests.encode.test_prometheus import LABEL_NAME, METRIC_NAME

if TYPE_CHECKING:
    from emitter.record.snapshot import Attributes, AttributeValue, Point

RESOURCES = ["target_info", "labels"]
RESOURCE = (("faas.name", "fn"), ("service.instance.id", "i"), ("service.name", "checkout"))
MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND
NOW = 1_760_000_000 * SECOND

INT64 = descriptor_pb2.FieldDescriptorProto.TYPE_INT64
DOUBLE = descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE
STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING

examples = settings(max_examples=100, deadline=None)


def write_request_class() -> Any:
    """`prometheus.WriteRequest` of the specification ("Protocol"), in the classes of the official runtime."""
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="prometheus", syntax="proto3")
    for name, fields in {
        "Label": [("name", 1, STRING), ("value", 2, STRING)],
        "Sample": [("value", 1, DOUBLE), ("timestamp", 2, INT64)],
        "TimeSeries": [("labels", 1, "Label"), ("samples", 2, "Sample")],
        "WriteRequest": [("timeseries", 1, "TimeSeries")],
    }.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number)
            if isinstance(kind, str):
                added.type, added.type_name = added.TYPE_MESSAGE, f".prometheus.{kind}"
                added.label = added.LABEL_REPEATED
            else:
                added.type, added.label = kind, added.LABEL_OPTIONAL
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


WriteRequest = write_request_class()

Series = tuple[tuple[str, str], ...]
Samples = list[tuple[int, float]]


def read(body: bytes) -> dict[Series, Samples]:
    """What a receiver reads: the samples of each series by its labels, as they came; nothing that it does not know."""
    request = WriteRequest.FromString(bytes(cramjam.snappy.decompress_raw(body)))
    plain = request.SerializeToString()
    request.DiscardUnknownFields()
    assert request.SerializeToString() == plain
    found: dict[Series, Samples] = {}
    for series in request.timeseries:
        labels = tuple((label.name, label.value) for label in series.labels)
        assert labels not in found
        found[labels] = [(sample.timestamp, sample.value) for sample in series.samples]
    return found


def merged(kind: str, points: list[Point]) -> Point:
    """Several points for one series: as `test_merging` shows it, here for few and small numbers."""
    if kind == "gauge" or len(points) == 1:
        return points[-1]
    if kind != "histogram":
        return sum(points)
    counts = tuple(map(sum, zip(*(point.bucket_counts for point in points), strict=True)))
    return HistogramPoint(sum(counts), sum(point.sum for point in points), counts)


def samples_of(metric: Metric, name: str, labels: dict[str, str], point: Point) -> dict[Series, float]:
    """The time series of one point."""

    def series(suffix: str = "", **more: str) -> Series:
        return tuple(sorted({**labels, "__name__": name + suffix, **more}.items()))

    if metric.kind == "histogram":
        bounds = [*map(prometheus.float_text, metric.boundaries), "+Inf"]
        buckets = zip(bounds, accumulate(point.bucket_counts), strict=True)
        return {
            **{series("_bucket", le=bound): float(count) for bound, count in buckets},
            series("_sum"): point.sum,
            series("_count"): float(point.count),
        }
    return {series("_total" if metric.kind == "counter" else ""): float(point)}


def meant(snapshot: Snapshot, resource: str) -> dict[Series, Samples]:
    """What a snapshot means, put together without bytes, layouts or our merging."""
    described = dict(snapshot.resource)
    namespace, service = described.pop("service.namespace", ""), described.pop("service.name")
    common = {"job": f"{namespace}/{service}" if namespace else service}
    common["instance"] = described.pop("service.instance.id")
    others = prometheus.labels(described.items(), {"job", "instance", "le"})
    time_ms = snapshot.time_unix_nano // MILLISECOND
    found: dict[Series, Samples] = {}
    if resource == "labels":
        common |= others
    else:
        found[tuple(sorted({**common, **others, "__name__": "target_info"}.items()))] = [(time_ms, 1.0)]
    position = 0
    for metric in snapshot.metrics:
        name = prometheus.metric_name(metric.name, metric.unit, metric.kind)
        together: dict[Series, list[int]] = {}
        for attributes in metric.series:
            labels = prometheus.labels(attributes, {"job", "instance", "le"} | common.keys())
            together.setdefault(tuple(sorted(labels.items())), []).append(position)
            position += 1
        for labels, positions in together.items():
            point = merged(metric.kind, [snapshot.points[each] for each in positions])
            fresh = metric.kind in {"counter", "histogram"} and set(positions) <= set(snapshot.fresh)
            zero_ms = min(snapshot.zero_time_unix_nano // MILLISECOND, time_ms - 1)
            zero = [(zero_ms, 0.0)] if fresh else []
            for series, value in samples_of(metric, name, {**common, **dict(labels)}, point).items():
                found[series] = [*zero, (time_ms, value)]
    return found


keys = st.text(min_size=1, max_size=6) | st.sampled_from(["a", "a.b", "a_b", "job", "le", "__name__", "exported.job"])
few_values = st.sampled_from([True, "true", 1, "1", "", "x"])
times = st.integers(0, 2**64 - 1) | st.integers(NOW, NOW + 5 * MILLISECOND)


@st.composite
def resources(draw: st.DrawFn) -> Attributes:
    """Whose totals: the two attributes that are always there, and more."""
    more: dict[str, AttributeValue] = draw(st.dictionaries(keys, values | few_values, max_size=3))
    if draw(st.booleans()):
        more["service.namespace"] = draw(st.sampled_from(["shop", ""]))
    more |= {"service.name": draw(st.text(min_size=1, max_size=5)), "service.instance.id": "6f1d"}
    return tuple(sorted(more.items()))


@st.composite
def metrics(draw: st.DrawFn) -> tuple[Metric, ...]:
    """Instruments whose names do not collide, with series some of which Prometheus cannot tell apart."""
    found: list[Metric] = []
    occupied = {"target_info"}
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["counter", "up-down counter", "gauge", "histogram"]))
        unit = draw(st.sampled_from(["", "s", "{order}"]))
        attributes = st.dictionaries(keys, few_values | values, max_size=3).map(
            lambda pairs: tuple(sorted(pairs.items()))
        )
        series = draw(st.lists(attributes, min_size=1, max_size=4, unique_by=repr))
        name = draw(st.text(min_size=1, max_size=8) | st.sampled_from(["orders", "a.b", "2xx"]))
        metric = Metric(name, unit, "", kind, draw(boundaries) if kind == "histogram" else (), tuple(series))
        try:
            names = RemoteWriteEncoder().names(metric)
        except ConfigurationError:
            continue
        if occupied.isdisjoint(names):
            occupied |= {*names}
            found.append(metric)
    return tuple(found)


def draw_points(draw: st.DrawFn, described: tuple[Metric, ...]) -> tuple[Point, ...]:
    """One value for each series; where some are merged small ones, so that their sum is the same in any order."""
    points: list[Point] = []
    for metric in described:
        for _ in metric.series:
            if metric.kind == "histogram":
                buckets = len(metric.boundaries) + 1
                counts = tuple(draw(st.lists(st.integers(0, 2**40), min_size=buckets, max_size=buckets)))
                points.append(HistogramPoint(sum(counts), float(draw(st.integers(0, 2**40))), counts))
            elif len(metric.series) == 1 or metric.kind == "gauge":
                points.append(draw(numbers))
            else:
                points.append(draw(st.integers(-(2**40), 2**40)))
    return tuple(points)


def draw_fresh(draw: st.DrawFn, points: tuple[Point, ...]) -> tuple[int, ...]:
    """Nothing, everything, or some of it."""
    match draw(st.sampled_from(["none", "all", "some"])):
        case "none":
            return ()
        case "all":
            return tuple(range(len(points)))
    return tuple(position for position in range(len(points)) if draw(st.booleans()))


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """Any snapshot that a registry may give to this encoder, and times that it may not."""
    described = draw(metrics())
    points = draw_points(draw, described)
    return Snapshot(draw(resources()), 0, draw(times), described, points, 1, draw_fresh(draw, points), draw(times))


@st.composite
def sequences(draw: st.DrawFn) -> list[Snapshot]:
    """Snapshots as they follow one another: often new values only, sometimes other series, another resource."""
    snapshot = draw(snapshots())
    found = [snapshot]
    for _ in range(draw(st.integers(1, 5))):
        match draw(st.sampled_from(["values", "values", "values", "fresh", "zero", "series", "equal", "resource"])):
            case "fresh":
                snapshot = replace(snapshot, fresh=draw_fresh(draw, snapshot.points))
            case "zero":
                snapshot = replace(snapshot, zero_time_unix_nano=draw(times))
            case "series":
                snapshot = replace(snapshot, metrics=draw(metrics()), fresh=())
            case "equal":
                snapshot = replace(snapshot, metrics=(*snapshot.metrics,))
            case "resource":
                snapshot = replace(snapshot, resource=draw(resources()))
        points = draw_points(draw, snapshot.metrics)
        snapshot = replace(snapshot, points=points, time_unix_nano=draw(times))
        found.append(snapshot)
    return found


def check_against_the_specification(body: bytes) -> None:
    """What it demands ("Labels", "Ordering"), of any request."""
    for series, samples in read(body).items():
        names = [name for name, _ in series]
        assert all(before.encode() < after.encode() for before, after in pairwise(names))
        assert all(text for _, text in series)
        assert all(LABEL_NAME.fullmatch(name) for name in names)
        assert not any(name.startswith("__") for name in names if name != "__name__")
        assert METRIC_NAME.fullmatch(dict(series)["__name__"])
        assert {"job", "instance"} <= {*names}
        assert 1 <= len(samples) <= 2
        assert all(before < after for (before, _), (after, _) in pairwise(samples))


@examples
@given(snapshots(), st.sampled_from(RESOURCES))
def test_a_report_is_read_as_what_was_counted(snapshot: Snapshot, resource: str) -> None:
    """By the official runtime: each series once, all its labels, its value and its time, and nothing else."""
    body = RemoteWriteEncoder(resource=resource).encode(snapshot)

    assert read(body) == meant(snapshot, resource)
    check_against_the_specification(body)


@examples
@given(sequences(), st.sampled_from(RESOURCES))
def test_what_comes_out_depends_on_the_snapshot_alone(sequence: list[Snapshot], resource: str) -> None:
    """A used encoder gives what a fresh one does, and so does a copy of it that encoded other things meanwhile."""
    used = RemoteWriteEncoder(resource=resource)
    for snapshot in sequence:
        copied = copy.copy(used)
        copied.encode(sequence[0])
        body = used.encode(snapshot)

        assert body == RemoteWriteEncoder(resource=resource).encode(snapshot)
        assert copied.encode(snapshot) == body
        assert read(body) == meant(snapshot, resource)


@examples
@given(snapshots())
def test_buckets_are_cumulative_and_end_with_the_count(snapshot: Snapshot) -> None:
    """The bound +Inf comes last, and what is `le` it is everything."""
    histograms: dict[tuple[Any, ...], list[tuple[str, float]]] = {}
    counts: dict[tuple[Any, ...], float] = {}
    for series, samples in read(RemoteWriteEncoder().encode(snapshot)).items():
        labels = dict(series)
        name = labels.pop("__name__")
        if "le" in labels:
            bound = labels.pop("le")
            of = (name.removesuffix("_bucket"), *sorted(labels.items()))
            histograms.setdefault(of, []).append((bound, samples[-1][1]))
        elif name.endswith("_count"):
            counts[(name.removesuffix("_count"), *sorted(labels.items()))] = samples[-1][1]

    for of, buckets in histograms.items():
        limits = [float(bound) for bound, _ in buckets]
        assert limits == sorted(set(limits))
        assert buckets[-1] == ("+Inf", counts[of])
        assert all(before <= after for (_, before), (_, after) in pairwise(buckets))


def snapshot_of(*metrics: Metric, points: tuple[Point, ...], **more: Any) -> Snapshot:
    """A plain snapshot."""
    return replace(Snapshot(RESOURCE, NOW, NOW + SECOND, metrics, points), **more)


def metric(name: str, kind: Any = "counter", *series: Attributes, unit: str = "") -> Metric:
    """A metric; if no series is given, with one that has no attributes."""
    boundaries = (0.5, 1.0) if kind == "histogram" else ()
    return Metric(name, unit, "", kind, boundaries, series or ((),))


def texts(body: bytes) -> dict[str, Samples]:
    """What was read, with the labels in one line."""
    return {
        ",".join(f"{name}={text}" for name, text in series): [
            (time - NOW // MILLISECOND, value) for time, value in found
        ]
        for series, found in read(body).items()
    }


def test_each_kind_has_the_series_that_prometheus_expects() -> None:
    """Said once in full: names, labels, buckets; a zero before what grows, at the time when it was zero."""
    snapshot = snapshot_of(
        metric("orders", "counter", (("channel", "web"),), unit="{order}"),
        metric("open", "up-down counter"),
        metric("temp", "gauge", unit="Cel"),
        metric("payment.duration", "histogram", unit="s"),
        points=(3, -4, 21.5, HistogramPoint(6, 4.25, (1, 2, 3))),
        fresh=(0, 1, 2, 3),
        zero_time_unix_nano=NOW + 5 * MILLISECOND,
    )

    zero = (5, 0.0)
    assert texts(RemoteWriteEncoder().encode(snapshot)) == {
        "__name__=target_info,faas_name=fn,instance=i,job=checkout": [(1000, 1.0)],
        "__name__=orders_total,channel=web,instance=i,job=checkout": [zero, (1000, 3.0)],
        "__name__=open,instance=i,job=checkout": [(1000, -4.0)],
        "__name__=temp_celsius,instance=i,job=checkout": [(1000, 21.5)],
        "__name__=payment_duration_seconds_bucket,instance=i,job=checkout,le=0.5": [zero, (1000, 1.0)],
        "__name__=payment_duration_seconds_bucket,instance=i,job=checkout,le=1.0": [zero, (1000, 3.0)],
        "__name__=payment_duration_seconds_bucket,instance=i,job=checkout,le=+Inf": [zero, (1000, 6.0)],
        "__name__=payment_duration_seconds_sum,instance=i,job=checkout": [zero, (1000, 4.25)],
        "__name__=payment_duration_seconds_count,instance=i,job=checkout": [zero, (1000, 6.0)],
    }


def test_the_resource_can_be_on_every_series_instead() -> None:
    """Then there is no `target_info`, and an attribute of the same name makes room."""
    snapshot = snapshot_of(
        metric("orders", "counter", (("Zone", "a"), ("faas.name", "mine"), ("job", "night"))),
        points=(1,),
        resource=(*RESOURCE, ("service.namespace", "shop")),
    )

    assert texts(RemoteWriteEncoder(resource="labels").encode(snapshot)) == {
        "Zone=a,__name__=orders_total,exported_faas_name=mine,exported_job=night,faas_name=fn,instance=i,"
        "job=shop/checkout": [(1000, 1.0)]
    }


def test_series_that_prometheus_cannot_tell_apart_are_added_up() -> None:
    """Two values at one time for one series would be refused; a zero goes before them if all of them are new."""
    alike = ((("k", True),), (("k", "true"),), (("k", "other"),), (("k", "other"), ("none", "")))
    snapshot = snapshot_of(
        metric("m", "counter", *alike), points=(1, 2, 4, 8), fresh=(0, 1, 2), zero_time_unix_nano=NOW
    )
    found = texts(RemoteWriteEncoder(resource="labels").encode(snapshot))

    assert found == {
        "__name__=m_total,faas_name=fn,instance=i,job=checkout,k=true": [(0, 0.0), (1000, 3.0)],
        "__name__=m_total,faas_name=fn,instance=i,job=checkout,k=other": [(1000, 12.0)],
    }


def test_a_zero_is_always_earlier_than_the_value() -> None:
    """By a millisecond at least, since a second sample at the same time would be refused."""
    for zero_time in (NOW + SECOND - 1, NOW + SECOND, NOW + 2 * SECOND):
        snapshot = snapshot_of(metric("m"), points=(1,), fresh=(0,), zero_time_unix_nano=zero_time)

        assert texts(RemoteWriteEncoder().encode(snapshot))["__name__=m_total,instance=i,job=checkout"] == [
            (999, 0.0),
            (1000, 1.0),
        ]


def test_an_unchanged_set_of_series_keeps_its_layout() -> None:
    """Values and times are patched; only other series, what is fresh or a time of another length lay it out anew."""
    encoder = RemoteWriteEncoder()
    first = snapshot_of(metric("m"), metric("h", "histogram"), points=(1, HistogramPoint(1, 0.5, (1, 0, 0))))
    encoder.encode(first)
    layout = encoder._layout
    later = replace(first, time_unix_nano=NOW + 9 * SECOND, points=(2.5, HistogramPoint(2, 0.75, (1, 1, 0))))
    encoder.encode(later)

    assert encoder._layout is layout
    encoder.encode(replace(later, fresh=(0,)))
    assert encoder._layout is not layout
    assert encoder._layout.described is layout.described  # names and labels are not worked out again
    encoder.encode(replace(later, metrics=(*later.metrics,)))
    assert encoder._layout.described is not layout.described


def test_other_fresh_series_or_another_zero_make_another_request() -> None:
    """Even if nothing else changes: it depends on the snapshot alone."""
    encoder = RemoteWriteEncoder()
    both = metric("m", "counter", (("k", "a"),), (("k", "b"),))
    snapshot = snapshot_of(both, points=(1, 2), fresh=(0,), zero_time_unix_nano=NOW)
    for other in (
        snapshot,
        replace(snapshot, fresh=(1,)),
        replace(snapshot, fresh=(0, 1)),
        replace(snapshot, fresh=(0, 1), zero_time_unix_nano=NOW + 7 * MILLISECOND),
        replace(snapshot, fresh=()),
    ):
        body = encoder.encode(other)

        assert read(body) == meant(other, "target_info")


@pytest.mark.parametrize("time_ms", [0, 1, 127, 128, 2**35 - 1, 2**35, 2**42 - 1, 2**42, 2**63 // MILLISECOND])
def test_any_time_is_written(time_ms: int) -> None:
    """Also one whose number is shorter or longer than those from 1971 to 2109."""
    encoder = RemoteWriteEncoder(resource="labels")
    encoder.encode(snapshot_of(metric("m"), points=(1,)))
    snapshot = snapshot_of(metric("m"), points=(1,), time_unix_nano=time_ms * MILLISECOND, fresh=(0,))
    ((_, samples),) = read(encoder.encode(snapshot)).items()

    assert samples == [(min(0, time_ms - 1), 0.0), (time_ms, 1.0)]


def test_a_snapshot_that_contradicts_itself_spoils_nothing() -> None:
    """Too few points, too many, or one of another kind: an error, and the next report is right nevertheless."""
    good = HistogramPoint(1, 0.5, (1, 0, 0))
    encoder = RemoteWriteEncoder()
    snapshot = snapshot_of(metric("m"), metric("h", "histogram"), metric("g", "gauge"), points=(1, good, 2))
    body = encoder.encode(snapshot)
    short = HistogramPoint(1, 0.5, (1, 0))
    for points in ((1, good), (1, good, 2, 3), (1, 1, 2), (good, good, 2), (1, short, 2)):
        with pytest.raises((AttributeError, ValueError, struct.error)):
            encoder.encode(replace(snapshot, points=points))

    assert encoder.encode(snapshot) == body


def test_a_report_without_series_says_who_is_there() -> None:
    """Or, with the resource on every series, nothing at all; both can be read."""
    snapshot = snapshot_of(points=())

    assert [*texts(RemoteWriteEncoder().encode(snapshot))] == [
        "__name__=target_info,faas_name=fn,instance=i,job=checkout"
    ]
    assert read(RemoteWriteEncoder(resource="labels").encode(snapshot)) == {}


def test_an_empty_text_of_the_resource_is_no_label() -> None:
    """Not even in `job` and `instance`, which are never empty, but could be."""
    snapshot = snapshot_of(points=(), resource=(("a", ""), ("service.instance.id", ""), ("service.name", "")))

    assert [*texts(RemoteWriteEncoder().encode(snapshot))] == ["__name__=target_info"]


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("orders", "counter", ("orders_total",)),
        ("a.b", "gauge", ("a_b",)),
        ("open", "up-down counter", ("open",)),
        ("h", "histogram", ("h_bucket", "h_sum", "h_count", "h")),
        ("2xx", "counter", ("_2xx_total",)),
        ("target.info", "counter", ("target_info_total",)),
    ],
)
def test_a_metric_occupies_all_names_of_its_series(name: str, kind: Any, expected: tuple[str, ...]) -> None:
    """So that another one which would be called alike is found out when it is made."""
    assert RemoteWriteEncoder().names(metric(name, kind)) == expected


@pytest.mark.parametrize("name", ["-", "\u65e5\u672c", "_", "..."])
@pytest.mark.parametrize("unit", ["", "s"])
def test_a_name_of_which_nothing_is_left_is_refused(name: str, unit: str) -> None:
    """The rule is in the message."""
    rule = (
        "expected a letter from a to z, a digit or a colon in it (each run of other characters becomes one underscore"
    )
    with pytest.raises(ConfigurationError, match=re.escape(f"{name!r} has no name in Prometheus; {rule}")):
        RemoteWriteEncoder().names(metric(name, unit=unit))


def test_the_name_of_the_resource_s_series_is_taken() -> None:
    """Unless the resource goes onto every series."""
    for name, kind in (("target.info", "gauge"), ("target_info", "histogram"), ("target", "up-down counter")):
        unit = "info" if name == "target" else ""
        with pytest.raises(ConfigurationError, match=f"^'{name}' would be 'target_info' in Prometheus, the series"):
            RemoteWriteEncoder().names(metric(name, kind, unit=unit))

        assert "target_info" in RemoteWriteEncoder(resource="labels").names(metric(name, kind, unit=unit))


def test_an_unknown_place_for_the_resource_is_refused() -> None:
    """At construction, with what there is."""
    with pytest.raises(ConfigurationError, match=r"^resource is 'none'; expected 'target_info' or 'labels'$"):
        RemoteWriteEncoder(resource="none")  # type: ignore[arg-type]


def test_without_cramjam_the_encoder_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """At construction too, not in the first flush."""
    monkeypatch.setitem(sys.modules, "cramjam", None)  # how Python itself marks what cannot be imported

    with pytest.raises(ConfigurationError, match=re.escape("pip install 'lambda-emitter[remote-write]'")):
        RemoteWriteEncoder()


def test_a_cramjam_that_cannot_be_loaded_is_not_taken_for_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one of a package that was built for another system: what the loader says of it is shown."""

    def load(name: str) -> None:
        raise ImportError("/lib64/libc.so.6: version `GLIBC_2.28' not found")

    monkeypatch.setattr(remote_write, "import_module", load)

    with pytest.raises(
        ConfigurationError, match=r"needs cramjam, and that cannot be imported \(.*GLIBC_2.28' not found"
    ):
        RemoteWriteEncoder()


def test_the_request_has_the_headers_of_the_specification() -> None:
    """The media type, the compression, the version."""
    encoder = encoder_named("remote-write")

    assert isinstance(encoder, RemoteWriteEncoder)
    assert encoder.content_type == "application/x-protobuf"
    assert encoder.headers == {"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
    assert not encoder.deltas
    assert encoder.tick_nano == MILLISECOND
