"""`emitter.encode.influx`, read by a parser that is not ours."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.utils import floatToGoString

from emitter.encode import encoder_named
from emitter.encode.influx import InfluxEncoder
from emitter.errors import ConfigurationError
from emitter.record.registry import DEFAULT_BOUNDARIES, Registry
from emitter.record.snapshot import HistogramPoint, Metric, Snapshot
from tests.encode.line_protocol import Line, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from emitter.record.snapshot import Attributes, AttributeValue, Kind, Point

INSTANCE = "0e9f0d76-8b3c-4f7a-9a06-2f6a3c5b9c11"
SERVICE = (("service.instance.id", INSTANCE), ("service.name", "checkout"))
RESOURCE: Attributes = (("cloud.region", "eu-west-1"), ("faas.max_memory", 134_217_728), *SERVICE)
START, ZERO, NOW = 1_795_251_000_000_000_000, 1_795_251_123_000_000_000, 1_795_251_123_567_682_928

RESERVED = ["time", "_field", "_measurement", "_start", "_stop", "_time", "_value", "__name__"]
TYPES = {"total": float, "value": float, "sum": float, "count": int, "bucket": int}


def encoded(kind: Kind, *points: Point, series: tuple[Attributes, ...] = ((),), name: str = "x") -> list[Line]:
    """What a report of one instrument, its resource's tags left out, is read as."""
    boundaries = (0.5, 1.0)[: len(points[0].bucket_counts) - 1] if isinstance(points[0], HistogramPoint) else ()
    metric = Metric(name, "", "", kind, boundaries, series)
    lines = read(InfluxEncoder().encode(Snapshot(RESOURCE, START, NOW, (metric,), points)))
    return [line._replace(tags=dict(line.tags.items() - set(SERVICE))) for line in lines]


def tags_of(*each: tuple[str, AttributeValue], kind: Kind = "counter") -> dict[str, str]:
    """What the tags of a series with these attributes are read as."""
    point = HistogramPoint(1, 1.0, (1,)) if kind == "histogram" else 1
    return encoded(kind, point, series=(tuple(sorted(each)),))[0].tags


# --- any report at all

examples = settings(max_examples=150, deadline=None)
awkward = ' ,="#%/{}0_\N{NO-BREAK SPACE}\u2028'
any_character = st.sampled_from(awkward + "\\") | st.characters(exclude_categories=("Cc", "Cs"))
no_backslash = st.sampled_from(awkward) | st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\\")
names = st.text(any_character, min_size=1, max_size=6)
keys = names | st.sampled_from([*RESERVED, "le", "time_", "service.name"])
harmless = st.text(no_backslash, min_size=1, max_size=6)
harmless_names = harmless.filter(lambda name: not name.startswith("#"))
harmless_keys = harmless.filter(lambda key: key not in {*RESERVED, "le"})
# Four of them never add up to infinity. What is less than a normal float has a test of its own: the parser takes the C
# library's remark that digits were lost for a failure.
floats = st.floats(-1e300, 1e300, allow_subnormal=False)
numbers = st.integers(-(2**63), 2**63 - 1) | floats
times = st.integers(0, 2**62)


@st.composite
def metrics(draw: st.DrawFn, names: st.SearchStrategy[str], keys: st.SearchStrategy[str]) -> Metric:
    """One instrument of any kind; what is true for its keys is true for the texts of its attributes."""
    kind = draw(st.sampled_from(["counter", "up-down counter", "gauge", "histogram"]))
    bounds = draw(st.lists(st.floats(-1e9, 1e9), max_size=4, unique=True)) if kind == "histogram" else []
    values = keys | st.booleans() | numbers | st.sampled_from(["true", "1", ""])
    series = st.dictionaries(keys, values, max_size=4).map(lambda pairs: tuple(sorted(pairs.items())))
    every = draw(st.lists(series, min_size=1, max_size=4, unique=True))
    return Metric(draw(names), "s", "", kind, tuple(sorted(bounds)), tuple(every))


def points(draw: st.DrawFn, described: Iterable[Metric]) -> tuple[Point, ...]:
    """One value for each series."""
    found: list[Point] = []
    for metric in described:
        size = len(metric.boundaries) + 1
        counts = st.lists(st.integers(0, 2**58), min_size=size, max_size=size).map(tuple)
        for _ in metric.series:
            if metric.kind == "histogram":
                buckets = draw(counts)
                found.append(HistogramPoint(sum(buckets), draw(floats), buckets))
            else:
                found.append(draw(numbers))
    return tuple(found)


@st.composite
def sequences(
    draw: st.DrawFn, names: st.SearchStrategy[str] = names, keys: st.SearchStrategy[str] = keys, longest: int = 6
) -> list[Snapshot]:
    """Snapshots as they follow one another: new values and new series, and equal objects that are not identical."""
    described: tuple[Metric, ...] = ()
    values: tuple[Point, ...] = ()
    resource = RESOURCE
    found = []
    for _ in range(draw(st.integers(1, longest))):
        match draw(st.sampled_from(["series", "series", "values", "values", "none", "equal", "resource"])):
            case "series":
                more = draw(st.lists(metrics(names, keys), max_size=3))
                # By measurement: no two instruments of an emitter may have the same one.
                described = tuple({InfluxEncoder().names(each): each for each in (*described, *more)}.values())
                values = points(draw, described)
            case "values":
                values = points(draw, described)
            case "equal":
                described = (*described,)
            case "resource":
                resource = (("cloud.region", draw(st.text(no_backslash))), *RESOURCE[1:])
        fresh = draw(st.sets(st.integers(0, len(values) - 1))) if values else set()
        zero, now = sorted(draw(st.lists(times, min_size=2, max_size=2, unique=True)))
        found.append(Snapshot(resource, START, now, described, values, 1, tuple(sorted(fresh)), zero))
    return found


def text(value: AttributeValue) -> str:
    """The value of an attribute as a tag has it."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def meant(snapshot: Snapshot) -> dict[tuple[str, frozenset[tuple[str, str]]], dict[str, float]]:
    """What a snapshot without awkward keys and names means: the fields of each measurement and set of tags."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], dict[str, float]] = {}
    values = iter(snapshot.points)
    for metric in snapshot.metrics:
        for series in metric.series:
            tags = {(key, text(value)) for key, value in series if text(value)}.union(SERVICE)
            for further, fields in lines_of(metric, next(values)):
                sums = found.setdefault((metric.name, frozenset(tags | further)), {})
                for field, number in fields.items():
                    sums[field] = number if metric.kind == "gauge" else sums.get(field, 0) + number
    return {series: {field: TYPES[field](number) for field, number in sums.items()} for series, sums in found.items()}


def lines_of(metric: Metric, point: Point) -> Iterator[tuple[set[tuple[str, str]], dict[str, float]]]:
    """Of each line that a point becomes: the tags that the others have not, and its fields."""
    if isinstance(point, HistogramPoint):
        yield set(), {"count": point.count, "sum": point.sum}
        bounds = [*map(floatToGoString, metric.boundaries), "+Inf"]
        for bound, number in zip(bounds, accumulate(point.bucket_counts), strict=True):
            yield {("le", bound)}, {"bucket": number}
    else:
        yield set(), {"total" if metric.kind == "counter" else "value": point}


@examples
@given(sequences(harmless_names, harmless_keys, longest=2))
def test_a_report_is_read_by_another_parser_as_what_was_counted(sequence: list[Snapshot]) -> None:
    """Any names, keys, texts and numbers that need no replacement, however many of them need an escape."""
    snapshot = sequence[-1]
    lines = [line for line in read(InfluxEncoder().encode(snapshot)) if line.time == snapshot.time_unix_nano]
    found = {(line.measurement, frozenset(line.tags.items())): line.fields for line in lines}

    assert found == meant(snapshot)
    assert len(found) == len(lines), "a series is there twice"


@examples
@given(sequences())
def test_whatever_is_reported_is_well_formed(sequence: list[Snapshot]) -> None:
    """Backslashes and reserved keys too: lines that can be read, sorted tags, finite numbers, fields of one type."""
    for snapshot in sequence:
        body = InfluxEncoder().encode(snapshot)
        lines = read(body)

        assert {line.time for line in lines} <= {snapshot.zero_time_unix_nano, snapshot.time_unix_nano}
        assert all(TYPES[field] is type(number) for line in lines for field, number in line.fields.items())
        assert all(key and value for line in lines for key, value in line.tags.items())
        assert not {key for line in lines for key in line.tags}.intersection(RESERVED)
        assert all(line.tags.items() >= set(SERVICE) for line in lines)
        for raw in body.split(b"\n")[:-1]:
            key_of_series = re.match(rb"(?:[^ \\]|\\.)+", raw)[0]
            keys = re.findall(rb"(?<!\\),((?:[^=\\]|\\.)+)=", key_of_series)

            assert keys == sorted(keys)
            assert len(keys) >= len(SERVICE)
            assert re.search(rb"\\[^,= ]", raw) is None, "a backslash that is no escape"


@examples
@given(sequences(), st.sampled_from(["service", "all"]))
def test_what_comes_out_depends_on_the_snapshot_alone(sequence: list[Snapshot], resource: str) -> None:
    """A used encoder, and a copy of it, give the same bytes as a fresh one, whatever they encoded before."""
    used = InfluxEncoder(resource=resource)
    for snapshot in sequence:
        expected = InfluxEncoder(resource=resource).encode(snapshot)

        assert copy.copy(used).encode(snapshot) == expected
        assert used.encode(snapshot) == expected


def test_a_report_is_laid_out_once() -> None:
    """New values, and a copy for the parts of another report, leave the layout; new series replace it."""
    encoder = InfluxEncoder()
    one = (Metric("x", "", "", "counter", (), ((),)),)
    two = (*one, Metric("y", "", "", "gauge", (), ((),)))
    encoder.encode(Snapshot(RESOURCE, START, NOW, one, (1,)))
    layout = encoder._layout
    copy.copy(encoder).encode(Snapshot(RESOURCE, START, NOW, two, (1, 2)))
    encoder.encode(Snapshot(RESOURCE, START, NOW + 1, one, (2.5,)))

    assert encoder._layout is layout
    encoder.encode(Snapshot(RESOURCE, START, NOW, two, (1, 2)))
    assert encoder._layout is not layout


def test_a_new_instance_is_heeded() -> None:
    """A forked child has the metrics of its parent, and an identity of its own."""
    encoder = InfluxEncoder()
    snapshot = Snapshot(RESOURCE, START, NOW, (Metric("x", "", "", "counter", (), ((),)),), (1,))
    encoder.encode(snapshot)
    (line,) = read(encoder.encode(replace(snapshot, resource=(("service.instance.id", "child"), *SERVICE[1:]))))

    assert line.tags == {"service.instance.id": "child", "service.name": "checkout"}


@examples
@given(sequences())
def test_zeros_go_before_what_is_fresh_and_grows(sequence: list[Snapshot]) -> None:
    """Exactly the lines whose series are all fresh, of counters and histograms; everything else is unchanged."""
    for snapshot in sequence:
        plain = InfluxEncoder().encode(replace(snapshot, fresh=()))
        body = InfluxEncoder().encode(snapshot)
        zeros = read(body.removesuffix(plain))
        everything = replace(snapshot, fresh=tuple(range(len(snapshot.points))))
        growing = [blanked(line) for line in read(plain) if "value" not in line.fields]

        assert body.endswith(plain)
        assert all(line.time == snapshot.zero_time_unix_nano for line in zeros)
        assert all(blanked(line)._replace(time=line.time) == line for line in zeros), "not zero"
        assert all(blanked(line) in growing for line in zeros)
        assert [*map(blanked, read(InfluxEncoder().encode(everything).removesuffix(plain)))] == growing


def blanked(line: Line) -> Line:
    """A line with nothing but zeros in it."""
    return line._replace(fields=dict.fromkeys(line.fields, 0), time=0)


# --- each kind


@pytest.mark.parametrize(("kind", "field"), [("counter", "total"), ("up-down counter", "value"), ("gauge", "value")])
@pytest.mark.parametrize("number", [0, 3, -7, 2.5, 2**63 - 1, -(2**63), 1e22, -0.0, 1.7976931348623157e308])
def test_a_number_is_one_float(kind: Kind, field: str, number: float) -> None:
    """Also if it is an int: the type of a field must never change."""
    (line,) = encoded(kind, number)

    assert line == ("x", {}, {field: float(number)}, NOW)
    assert str(line.fields[field]) == str(float(number))


@pytest.mark.parametrize(
    ("number", "spelled"),
    [(2**63 - 1, b"9223372036854775807"), (0.1 + 0.2, b"0.30000000000000004"), (5e-324, b"5e-324")],
)
def test_a_number_is_written_with_every_digit(number: float, spelled: bytes) -> None:
    """How many of them a receiver keeps is its own affair."""
    metric = Metric("x", "", "", "gauge", (), ((),))
    body = InfluxEncoder().encode(Snapshot(SERVICE, START, NOW, (metric,), (number,)))

    assert body == b"x,service.instance.id=%b,service.name=checkout value=%b %d\n" % (INSTANCE.encode(), spelled, NOW)


def test_a_histogram_is_its_count_and_sum_and_a_line_for_each_bucket() -> None:
    """The buckets are cumulative, their bounds a tag, as Prometheus has them."""
    assert encoded("histogram", HistogramPoint(6, 4, (1, 2, 3)), series=((("z", "1"), ("a", "2")),)) == [
        ("x", {"a": "2", "z": "1"}, {"count": 6, "sum": 4.0}, NOW),
        ("x", {"a": "2", "le": "0.5", "z": "1"}, {"bucket": 1}, NOW),
        ("x", {"a": "2", "le": "1.0", "z": "1"}, {"bucket": 3}, NOW),
        ("x", {"a": "2", "le": "+Inf", "z": "1"}, {"bucket": 6}, NOW),
    ]


def test_bounds_are_spelled_as_prometheus_spells_them() -> None:
    """The spelling is part of a series' identity, and ours must be that of everybody else."""
    bounds = (*DEFAULT_BOUNDARIES, 1e6, 12_345_678.5)
    metric = Metric("x", "", "", "histogram", bounds, ((),))
    point = HistogramPoint(0, 0.0, (0,) * (len(bounds) + 1))
    _, *buckets = read(InfluxEncoder().encode(Snapshot(RESOURCE, START, NOW, (metric,), (point,))))

    assert [line.tags["le"] for line in buckets] == [*map(floatToGoString, bounds), "+Inf"]


def test_what_was_recorded_arrives() -> None:
    """From the instruments to the lines, and a total that turns from int to float."""
    registry = Registry((("service.name", "checkout"),))
    encoder = InfluxEncoder()
    orders = registry.counter("orders")
    orders.add(2, channel="web")
    first = read(encoder.encode(replace(registry.snapshot(), fresh=())))
    orders.add(0.5, channel="web")
    registry.gauge("load").set(0.25)
    second = read(encoder.encode(replace(registry.snapshot(), fresh=())))

    assert [line.fields for line in first] == [{"total": 0.0}, {"total": 2.0}]
    assert [line.fields for line in second] == [{"total": 0.0}, {"total": 2.5}, {"value": 0.25}]
    assert second[1].tags == {"channel": "web", "service.instance.id": registry.instance_id, "service.name": "checkout"}


def test_it_is_known_by_name() -> None:
    """As `encoder="influx"`."""
    encoder = encoder_named("influx")

    assert isinstance(encoder, InfluxEncoder)
    assert encoder.content_type == "text/plain; charset=utf-8"
    assert InfluxEncoder().encode(Snapshot(RESOURCE, START, NOW, (), ())) == b""


# --- zeros


@pytest.mark.parametrize(("kind", "zeros"), [("counter", 1), ("up-down counter", 0), ("gauge", 0)])
def test_only_what_grows_from_zero_gets_a_zero(kind: Kind, zeros: int) -> None:
    """A gauge was not 0 before it was set."""
    metric = Metric("x", "", "", kind, (), ((),))
    *before, line = read(InfluxEncoder().encode(Snapshot(RESOURCE, START, NOW, (metric,), (7,), 1, (0,), ZERO)))

    assert list(line.fields.values()) == [7.0]
    assert [(zero.fields, zero.time) for zero in before] == [({"total": 0.0}, ZERO)] * zeros


def test_each_field_of_a_new_histogram_gets_a_zero() -> None:
    """Count, sum and every bucket, of the same types as later on."""
    metric = Metric("x", "", "", "histogram", (0.5,), ((), (("a", "b"),)))
    values = HistogramPoint(3, 4.5, (1, 2)), HistogramPoint(1, 0.5, (1, 0))
    lines = read(InfluxEncoder().encode(Snapshot(RESOURCE, START, NOW, (metric,), values, 1, (1,), ZERO)))
    zeros = [line for line in lines if line.time == ZERO]

    assert [line.fields for line in zeros] == [{"count": 0, "sum": 0.0}, {"bucket": 0}, {"bucket": 0}]
    assert [line.tags for line in zeros] == [line.tags for line in lines[-3:]]
    assert len(lines) == 9


def test_deltas_have_no_zeros() -> None:
    """What was added since the last report begins nowhere."""
    metric = Metric("x", "", "", "counter", (), ((),))
    snapshot = Snapshot(RESOURCE, START, NOW, (metric,), (7,), 1, (0,), ZERO, delta_since_unix_nano=ZERO)

    assert [line.fields for line in read(InfluxEncoder().encode(snapshot))] == [{"total": 7.0}]


def test_a_zero_is_before_its_value_to_the_millisecond() -> None:
    """Even if the first report follows at once: VictoriaMetrics drops the rest of the time."""
    registry = Registry((("service.name", "checkout"),), tick_nano=InfluxEncoder.tick_nano, clock_ns=lambda: NOW)
    registry.counter("orders").add(1)
    zero, line = read(InfluxEncoder().encode(registry.snapshot()))

    assert (zero.fields, line.fields) == ({"total": 0.0}, {"total": 1.0})
    assert zero.time // 1_000_000 < line.time // 1_000_000


# --- names and tags


@pytest.mark.parametrize(
    ("name", "measurement"),
    [
        (r"a\b", "a/b"),
        ("back\\", "back/"),
        ("#orders", "_orders"),
        ("or#ders", "or#ders"),
        ("a, b", "a, b"),
        ("a=b", "a=b"),
        ('"quoted"', '"quoted"'),
        ("größe ☃", "größe ☃"),
        ("100%r%s%%", "100%r%s%%"),
        ("_own", "_own"),
    ],
)
def test_a_name_is_kept_but_for_what_is_documented(name: str, measurement: str) -> None:
    """And `names` says what the receiver will read, so that the registry sees what collides."""
    (line,) = encoded("counter", 1, name=name)

    assert line.measurement == measurement
    assert InfluxEncoder().names(Metric(name, "", "", "counter", (), ())) == (measurement,)


@pytest.mark.parametrize("value", ["", True, False, 1, 1.5, -0.0, 1e16, "true", "a,b =c", '"q"', "a\\", "\\", "ü{}"])
def test_a_value_is_kept_as_text(value: AttributeValue) -> None:
    """An empty one is left out, and a backslash becomes a `/`."""
    expected = text(value).replace("\\", "/")

    assert tags_of(("key", value)) == ({"key": expected} if expected else {})


@pytest.mark.parametrize("key", [*RESERVED, "service.name", "service.instance.id"])
def test_a_reserved_key_gets_an_underscore(key: str) -> None:
    """And another one if need be; what already has that key shares the tag."""
    assert tags_of((key, "a")) == {f"{key}_": "a"}
    assert tags_of((key, "a"), (f"{key}_", "b")) == {f"{key}_": "a;b"}


def test_the_bound_of_a_bucket_keeps_its_key() -> None:
    """An attribute `le` of a histogram has to go elsewhere; anywhere else it may stay."""
    assert tags_of(("le", "a"), kind="histogram") == {"le_": "a"}
    assert tags_of(("le", "a")) == {"le": "a"}


@pytest.mark.parametrize("key", ["a,b", "a b", "a=b", " ", ",", "=", '"', "ключ", "%r", "_own", "#"])
def test_any_other_key_is_kept(key: str) -> None:
    """Escaped where need be."""
    assert tags_of((key, "x")) == {key: "x"}


def test_keys_that_become_equal_share_a_tag() -> None:
    """Their values in the order of the keys."""
    assert tags_of((r"a\b", 2), ("a/b", 1), ("c", 3)) == {"a/b": "1;2", "c": "3"}


def test_series_that_become_equal_are_one() -> None:
    """The sum of counters; two points of one series would overwrite each other."""
    every = (("k", True),), (("k", "true"),), (("k", ""),), ()

    assert [(line.tags, line.fields) for line in encoded("counter", 1, 2, 3, 4, series=every)] == [
        ({"k": "true"}, {"total": 3.0}),
        ({}, {"total": 7.0}),
    ]


def test_the_whole_resource_may_become_tags() -> None:
    """By default only what tells sandboxes apart; an attribute never takes the place of either."""
    metric = Metric("x", "", "", "counter", (), ((("cloud.region", "mine"),),))
    snapshot = Snapshot(RESOURCE, START, NOW, (metric,), (1,))
    (few,), (all_of_it,) = (read(InfluxEncoder(resource=which).encode(snapshot)) for which in ("service", "all"))

    assert few.tags == {"cloud.region": "mine", **dict(SERVICE)}
    assert all_of_it.tags == {
        "cloud.region": "eu-west-1",
        "cloud.region_": "mine",
        "faas.max_memory": "134217728",
        **dict(SERVICE),
    }


def test_an_attribute_gives_way_to_every_key_of_the_resource() -> None:
    """Also to one that it would have been given instead."""
    resource = (("k", "1"), ("k_", "2"), *SERVICE)
    metric = Metric("x", "", "", "counter", (), ((("k", "3"),),))
    (line,) = read(InfluxEncoder(resource="all").encode(Snapshot(resource, START, NOW, (metric,), (1,))))

    assert line.tags == {"k": "1", "k_": "2", "k__": "3", **dict(SERVICE)}


@pytest.mark.parametrize("resource", ["", "none", None, True, "ALL"])
def test_nothing_else_may_be_asked_of_the_resource(resource: str) -> None:
    """What was given, and what there is."""
    with pytest.raises(ConfigurationError, match=r"^resource is .*; expected 'service' or 'all'$"):
        InfluxEncoder(resource=resource)
